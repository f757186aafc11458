"""Named worlds, and what must come of them under the eyes of the laws."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest

from ddmpi.core.pace.policy import PROBING_LEAST_S, PacePolicy
from ddmpi.core.records import Answer, Limits
from tests.laws.laws import Laws, run
from tests.simulation.disk import Disk
from tests.simulation.simulation import Simulation
from tests.worlds.at_random import table
from tests.worlds.model import BatchModel, Cluster, RankModel, RunReport, ServerModel, World

RESTART_S = 5.0


def simulate(world: World, cluster: Cluster, disk: Disk, seed: int, before: RunReport | None = None) -> RunReport:
    """One run under the eyes of the laws, as a restart if there was one before."""
    laws = Laws(world, disk)
    start_at_s = before.ended_at_s + RESTART_S if before is not None else 0.0
    return run(Simulation(world, cluster, disk, laws, seed=seed, before=before, start_at_s=start_at_s), laws)


def final_rows(disk: Disk) -> int:
    return sum(len(part.rows) for part in disk.parts.values())


# ---- named scenarios


def one_server(
    rows: int, batch_size: int = 10, limits: Limits | None = None, server: ServerModel | None = None
) -> World:
    return World(
        table({"s": rows}, {}, batch_size=batch_size, small_rows=0),
        {"s": server or ServerModel(), "outside": ServerModel()},
        {"s": limits or Limits(0.0, 8), "outside": Limits(2.0, 1)},
    )


def test_a_rate_limit_decides_how_long_a_run_takes() -> None:
    world = one_server(50, limits=Limits(10.0, 4))
    report = simulate(world, Cluster(4), Disk(), 1)
    assert 4.9 <= report.ended_at_s < 7.0


def test_many_servers_run_side_by_side() -> None:
    sizes = {f"s{number}": 20 for number in range(40)}
    world = World(table(sizes, {}, batch_size=10, small_rows=0), {name: ServerModel() for name in sizes})
    report = simulate(world, Cluster(2), Disk(), 1)
    assert report.ended_at_s < 2 * 20 / 10 + 2.0


def test_small_slow_servers_of_many_packs_run_side_by_side() -> None:
    sizes = {f"s{number}": 30 for number in range(330)}
    batches = table(sizes, {}, batch_size=1000, small_rows=50)
    assert len(batches) == 10
    world = World(batches, {name: ServerModel() for name in sizes}, default_limits=Limits(1.0, 8))
    report = simulate(world, Cluster(1), Disk(), 1)
    assert report.ended_at_s < 30 + 5


def test_a_fast_rank_takes_half_of_a_slow_ones_lane_with_half_of_its_share() -> None:
    world = one_server(400, limits=Limits(0.0, 8), server=ServerModel(latency_s=0.01))
    slow = {0: RankModel(cpu_per_answer_s=0.1)}
    cluster = Cluster(2, models=slow, schedule_rules={1: 2}, low_water_rows=1, chunk_rows=4)
    report = simulate(world, cluster, Disk(), 1)
    assert report.steals >= 2
    assert report.ended_at_s < 0.6 * 200 * 0.1, "half of the rows on the slow rank would take 20 s"


def test_a_dead_server_costs_its_probes_and_all_its_rows_become_errors() -> None:
    world = one_server(300, server=ServerModel(up_from_s=math.inf))
    disk = Disk()
    report = simulate(world, Cluster(2, parked_wait_s=1e6), disk, 1)
    assert not report.was_stuck
    assert all(part.is_errors for part in disk.parts.values())
    assert final_rows(disk) == 300
    assert report.requests <= 8 + 5 + 5


def test_a_run_ends_when_only_parked_rows_are_left_and_the_next_one_gets_them() -> None:
    batches = [*table({"s": 30, "t": 30}, {}, batch_size=10, small_rows=0)]
    world = World(batches, {"s": ServerModel(up_from_s=3000.0), "t": ServerModel()})
    disk = Disk()
    first = simulate(world, Cluster(2, pace=PacePolicy(breaker_probes=1), parked_wait_s=30.0), disk, 1)
    assert first.was_stuck
    assert first.ended_at_s < 10.0
    assert final_rows(disk) == 30
    again = simulate(world, Cluster(3, parked_wait_s=1e6), disk, 2, replace(first, ended_at_s=4000.0))
    assert not again.was_stuck
    assert final_rows(disk) == 60


def test_a_long_retry_after_parks_a_server_at_the_first_answer() -> None:
    world = one_server(50, server=ServerModel(rate_per_s=1.0, burst=2.0, retry_after_s=80_000))
    report = simulate(world, Cluster(2, parked_wait_s=600.0), Disk(), 1)
    assert report.was_stuck
    assert report.ended_at_s < 10.0


def test_a_server_that_rests_now_and_then_is_asked_at_its_limit_in_between() -> None:
    world = one_server(3_000, limits=Limits(2.0, 4), server=ServerModel(rests_every_s=600.0, rests_s=20.0))
    report = simulate(world, Cluster(2, rarely=10.0), Disk(), 1)
    assert 1_500.0 + 2 * 20.0 <= report.ended_at_s < 1.05 * (1_500.0 + 3 * 20.0)


def test_a_server_that_dies_is_given_up_in_bounded_time_over_walltimes() -> None:
    world = one_server(2_000, limits=Limits(2.0, 4), server=ServerModel(down_from_s=90.0))
    disk = Disk()
    reports: list[RunReport] = []
    while final_rows(disk) < 2_000 and len(reports) < 20:
        start_at_s = reports[-1].ended_at_s + RESTART_S if reports else 0.0
        cluster = Cluster(2, walltime_at_s=start_at_s + 60.0, final_wait_s=1e6)
        reports.append(simulate(world, cluster, disk, 1, reports[-1] if reports else None))
    assert final_rows(disk) == 2_000
    assert len(reports) > 3
    assert reports[-1].ended_at_s < 90.0 + 1.1 * PROBING_LEAST_S + 2 * RESTART_S
    assert 160 <= sum(len(part.rows) for part in disk.parts.values() if not part.is_errors) <= 180


def test_a_byte_budget_holds_over_all_ranks_and_over_a_restart() -> None:
    budget = Limits(0.0, 4, bytes_per_hour=50_000)
    world = one_server(100, limits=budget, server=ServerModel(body_bytes=1000))
    disk = Disk()
    first = simulate(world, Cluster(3, schedule_rules={1: 3}), disk, 1)
    assert first.was_stuck
    again = simulate(world, Cluster(2, schedule_rules={1: 3}), disk, 2, first)
    assert again.requests == 0
    assert 50 <= final_rows(disk) <= 50 + budget.connections
    simulate(world, Cluster(2), disk, 3, replace(again, ended_at_s=3700.0, paces={}))
    assert final_rows(disk) == 100


def moved(world: World, target: str) -> World:
    """The same world with every row of "s" redirected."""
    redirects = {
        url: f"http://{target}/new/{url[9:]}" for batch in world.batches for url, server in batch.rows if server == "s"
    }
    return replace(world, redirects=redirects)


def test_redirects_to_a_server_outside_the_table_keep_its_limits() -> None:
    world = moved(one_server(20), "outside")
    disk = Disk()
    report = simulate(world, Cluster(3), disk, 1)
    assert final_rows(disk) == 20
    assert report.ended_at_s >= 9.5, "20 rows at 2 requests/s, whoever fetches them"
    assert report.requests == 40


def test_redirects_to_a_server_that_another_rank_holds_go_to_that_rank() -> None:
    batches = table({"s": 40, "t": 200}, {}, batch_size=10, small_rows=0)
    world = moved(World(batches, {"s": ServerModel(), "t": ServerModel()}, {"s": Limits(0.0, 8)}), "t")
    disk = Disk()
    report = simulate(world, Cluster(2), disk, 1)
    assert final_rows(disk) == 240
    assert report.ended_at_s >= 23.5, "240 rows at 10 requests/s"


@pytest.mark.parametrize("seed", range(10))
def test_a_stalled_victim_that_answers_late_loses_nothing(seed: int) -> None:
    sizes = {f"s{number}": 30 for number in range(30)}
    world = World(table(sizes, {}, batch_size=10, small_rows=0), {name: ServerModel() for name in sizes})
    cluster = Cluster(3, connections_per_rank=8, models=stalled(0, at_s=0.6 + seed / 10))
    disk = Disk()
    report = simulate(world, cluster, disk, seed)
    assert final_rows(disk) == 900
    assert report.steals > 0


def stalled(rank: int, at_s: float) -> dict[int, RankModel]:
    return {rank: RankModel(stall_at_s=at_s, stall_s=9.0)}


class Timed(Laws):
    """Knows when each rank's answers came."""

    def __init__(self, world: World, disk: Disk) -> None:
        super().__init__(world, disk)
        self.answers: list[tuple[float, int]] = []
        self.files: Counter[str] = Counter()
        """Files that came, by server."""
        self.last_file_at = 0.0

    def answered(self, now: float, rank: int, answer: Answer) -> None:
        super().answered(now, rank, answer)
        self.answers.append((now, rank))
        if answer.status == 200:
            self.files[answer.task.server] += 1
            self.last_file_at = now


def test_a_rank_that_is_stopped_for_30_s_holds_up_nobody_and_gives_its_work_away_after_that() -> None:
    sizes = {f"s{number}": 40 for number in range(60)}
    world = World(table(sizes, {}, batch_size=40, small_rows=0), {name: ServerModel() for name in sizes})
    cluster = Cluster(3, connections_per_rank=8, models={0: RankModel(stall_at_s=2.0, stall_s=30.0)})
    laws = Timed(world, Disk())
    report = run(Simulation(world, cluster, laws.disk, laws, seed=3), laws)
    meanwhile = [at for at, rank in laws.answers if rank != 0 and at < 32.0]
    assert len(meanwhile) >= 40 * 40, "a third of the servers were the stopped rank's"
    assert max(meanwhile) < 26.0, "the others have ended their own"
    assert sum(rank != 0 for at, rank in laws.answers if at >= 32.0) >= 6 * 40, "and take some of its servers then"
    assert report.ended_at_s < 32.0 + 0.6 * 18.0, "alone it would take 18 s more"


def test_servers_move_away_from_a_rank_that_is_busy_with_large_images() -> None:
    sizes = {f"s{number}": 20 for number in range(60)}
    world = World(table(sizes, {}, batch_size=20, small_rows=0), {name: ServerModel() for name in sizes})
    cluster = Cluster(3, connections_per_rank=8, models={0: RankModel(cpu_per_answer_s=0.3)})
    report = simulate(world, cluster, Disk(), 1)
    assert report.steals > 0
    assert report.ended_at_s < 0.5 * 20 * 20 * 0.3, "with a third of the servers it would take 120 s"


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(ServerModel(up_from_s=math.inf), id="is dead"),
        pytest.param(ServerModel(forbidden_share=1.0), id="forbids everything"),
        pytest.param(ServerModel(refused_share=1.0), id="refuses everything"),
        pytest.param(ServerModel(refused_share=1.0, retry_after_s=30), id="asks for pauses"),
    ],
)
def test_a_server_costs_the_others_of_its_group_nothing_if_it(bad: ServerModel) -> None:
    sizes = {"bad": 60, "s": 60, "t": 60, "u": 60}
    groups = dict.fromkeys(sizes, "joint")
    batches = table(sizes, groups, batch_size=20, small_rows=0)
    world = World(
        batches, {**dict.fromkeys("stu", ServerModel()), "bad": bad}, {"joint": Limits(10.0, 8)}, groups=groups
    )
    laws = Timed(world, Disk())
    run(Simulation(world, Cluster(2, stop_at_s=200.0), laws.disk, laws, seed=1), laws)
    assert laws.files == dict.fromkeys("stu", 60)
    assert laws.last_file_at < 1.1 * 180 / 10 + 60 / 10, "180 rows at 10 requests/s, and a request for each bad one"


@pytest.mark.parametrize("retry_after_s", [None, 2])
def test_urls_that_are_always_refused_cost_the_others_of_their_server_nothing(retry_after_s: int | None) -> None:
    server = ServerModel(refused_share=0.05, retry_after_s=retry_after_s)
    world = one_server(400, batch_size=400, limits=Limits(20.0, 8), server=server)
    refused = sum(server.refuses(url) for url, _ in world.batches[0].rows)
    assert 10 <= refused <= 30
    laws = Timed(world, Disk())
    run(Simulation(world, Cluster(2, stop_at_s=600.0), laws.disk, laws, seed=1), laws)
    assert laws.files["s"] == 400 - refused
    assert laws.last_file_at < 1.1 * 400 / 20 + 5.0, (
        "400 rows at 20 requests/s, and what it takes to see whose fault it is"
    )


@pytest.mark.parametrize("rate_per_s", [pytest.param(25.0, id="a minute"), pytest.param(8.0, id="some minutes")])
def test_however_many_urls_are_refused_the_others_of_their_server_are_fetched_in_time(rate_per_s: float) -> None:
    rows, server = 1_500, ServerModel(refused_share=0.2)
    world = one_server(rows, batch_size=500, limits=Limits(rate_per_s, 16), server=server)
    laws = Timed(world, Disk())
    run(Simulation(world, Cluster(2), laws.disk, laws, seed=1), laws)
    assert (
        laws.files["s"] == rows - sum(server.refuses(url) for batch in world.batches for url, _ in batch.rows) < 1_300
    )
    assert laws.last_file_at < 1.1 * rows / rate_per_s, "each row once, and a tenth for the other tries of the bad ones"


def test_a_stop_with_no_grace_leaves_what_is_in_flight_pending() -> None:
    world = one_server(100, server=ServerModel(latency_s=30.0), limits=Limits(0.0, 8))
    disk = Disk()
    report = simulate(world, Cluster(2, stop_at_s=10.0, grace_s=1.0), disk, 1)
    assert final_rows(disk) == 0
    assert report.requests == 8
    assert report.ended_at_s < 13.0


def test_refused_urls_become_errors_without_a_request() -> None:
    world = World(table({}, {}, batch_size=10, small_rows=0, invalid=25), {})
    disk = Disk()
    report = simulate(world, Cluster(2), disk, 1)
    assert report.requests == 0
    assert final_rows(disk) == 25


def test_an_empty_table_ends_at_once() -> None:
    report = simulate(World([], {}), Cluster(3), Disk(), 1)
    assert report.requests == 0
    assert report.ended_at_s < 1.0


def test_a_batch_model_of_a_pack_holds_many_servers() -> None:
    packed = table({"a": 2, "b": 3, "c": 4}, {}, batch_size=6, small_rows=5)
    assert [batch.group for batch in packed] == ["__many__/0", "__many__/1"]
    assert isinstance(packed[0], BatchModel)
    disk = Disk()
    world = World(packed, {name: ServerModel() for name in "abc"}, default_limits=Limits(1.0, 1))
    report = simulate(world, Cluster(2), disk, 1)
    assert final_rows(disk) == 9
    assert 2.9 <= report.ended_at_s < 6.0, "4 rows of c at 1 request/s; a and b run beside it"
