"""Forecasts by the batch: they agree with runs by the row, over real frontiers, and stay quick for large plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from ddmpi.core.forecast.coarse_rank import CoarseModel, CoarseRank
from ddmpi.core.forecast.forecast import Forecast, ForecastError, ForecastReport
from ddmpi.core.forecast.prediction import MOST_BATCHES, START_AND_END_S, predict
from ddmpi.core.ledger.schedule import Plan, row_time_s
from ddmpi.core.protocol import Assign, Extend, Lane, Progress, StealRequest, StealResponse, ToCoordinator
from ddmpi.core.records import BatchRef, Limits
from tests.laws.worlds import table
from tests.simulation.rank import RankModel, Witness
from tests.simulation.simulation import Cluster, Simulation
from tests.simulation.world import Disk, ServerModel, World

LATENCY_S = 0.13
"""Simulated answers take half as long again, on average: the 0.2 s that a plan assumes of an unknown server."""


def world(sizes: Mapping[str, int], limits: Mapping[str, Limits]) -> World:
    servers = {name: ServerModel(latency_s=LATENCY_S) for name in sizes}
    return World(table(dict(sizes), {}, batch_size=50, small_rows=0), servers, limits, Limits(10.0, 8))


def forecast(world: World, ranks: int, model: CoarseModel | None = None, most_lanes: int = 1) -> ForecastReport:
    plan = world.plan(range(ranks), {1: most_lanes})
    return Forecast(plan, np.zeros_like(plan.batch_rows), model).run()


def by_the_row(world: World, cluster: Cluster) -> float:
    return Simulation(world, cluster, Disk(), Witness(), seed=1).run().ended_at_s


def test_rates_decide_as_in_a_run_by_the_row() -> None:
    sizes = {f"s{number}": 20 + 23 * number for number in range(24)}
    limits = {f"s{number}": Limits(4.0 + number, 8) for number in range(0, 24, 3)}
    it = world(sizes, limits)
    assert forecast(it, 3).makespan_s == pytest.approx(by_the_row(it, Cluster(3)), rel=0.03)


def test_a_ranks_own_speed_decides_as_in_a_run_by_the_row() -> None:
    sizes = {f"s{number}": 200 for number in range(16)}
    it = world(sizes, dict.fromkeys(sizes, Limits(0.0, 8)))
    slow = Cluster(2, model=RankModel(cpu_per_answer_s=0.02), low_water_rows=10)
    expected_s = by_the_row(it, slow)
    assert expected_s >= 3200 / 2 * 0.02
    assert forecast(it, 2, CoarseModel(cpu_per_row_s=0.02)).makespan_s == pytest.approx(expected_s, rel=0.05)


def test_work_flows_away_from_a_slow_rank() -> None:
    it = world({f"s{number}": 100 for number in range(60)}, {})
    plan, none_final = it.plan(range(3), {1: 1}), np.zeros(120, np.int64)
    few = CoarseModel(connections=12)
    slow = {1: replace(few, cpu_per_row_s=0.2)}
    waiting = {rank: replace(slow.get(rank, few), steals=False) for rank in range(3)}
    alone = Forecast(plan, none_final, few, waiting).run()
    shared = Forecast(plan, none_final, few, slow).run()
    assert alone.steals == 0
    assert alone.makespan_s == pytest.approx(20 * 100 * 0.2, rel=0.01)
    assert shared.steals > 0
    assert shared.makespan_s < 0.4 * alone.makespan_s


def coarse_rank(batches: int) -> CoarseRank:
    """A rank that runs one lane of batches of 10 rows, each of which takes a second."""
    refs = tuple(BatchRef(number, "s", number, "", 0, 0, 10) for number in range(batches))
    rank = CoarseRank(1, CoarseModel())
    assert rank.handle(Assign((Lane(1, "s", False, Limits(0.0, 8), refs, time_s=float(batches)),)), 0.0) == []
    return rank


def parts_of(rank: CoarseRank, until: float) -> dict[int, float]:
    """When each batch's part is reported."""
    found = {}
    while (at := rank.next_at()) <= until:
        for message in rank.step(at):
            if isinstance(message, Progress):
                found.update(dict.fromkeys((part.batch_id for part in message.parts), round(at, 2)))
    return found


def test_a_lane_is_cut_with_its_share_and_goes_on_at_half_its_speed() -> None:
    rank = coarse_rank(5)
    rank.step(0.5)
    (answer,) = rank.handle(StealRequest(7, 10.0, 1), 0.5)
    assert answer == StealResponse(7, (), 1, (4, 3), Limits(0.0, 4))
    assert parts_of(rank, 20.0) == {0: 1.55, 1: 3.55, 2: 5.55}


def test_a_larger_share_makes_a_lane_faster_and_more_batches_keep_it_running() -> None:
    rank = coarse_rank(1)
    rank.step(0.5)
    more = (BatchRef(9, "s", 9, "", 0, 0, 10),)
    assert rank.handle(Extend(1, 1, Limits(0.0, 8), more), 0.5) == []
    assert parts_of(rank, 20.0) == {0: 0.8, 9: 1.3}


def test_parts_are_closed_at_intervals() -> None:
    refs = (BatchRef(0, "s", 0, "", 0, 0, 100),)
    rank = CoarseRank(1, CoarseModel(close_interval_s=3.0, commit_s=0.0))
    rank.handle(Assign((Lane(1, "s", False, Limits(0.0, 8), refs, time_s=10.0),)), 0.0)
    rows = []
    while (at := rank.next_at()) <= 12.0:
        rows += [part.rows for message in rank.step(at) if isinstance(message, Progress) for part in message.parts]
    assert rows == [30, 30, 30, 10]


def test_the_same_plan_gives_the_same_forecast() -> None:
    it = world({f"s{number}": 30 * number for number in range(1, 20)}, {})
    assert forecast(it, 4) == forecast(it, 4)


def test_a_forecast_whose_ranks_say_nothing_ends_with_an_error() -> None:
    plan = world({"s": 10}, {}).plan(range(2), {1: 1})

    class Deaf(Forecast):
        def decide(self, rank: int, message: ToCoordinator) -> list[object]:  # type: ignore[override]  # drops all
            del rank, message
            return []

    with pytest.raises(ForecastError, match="no end after"):
        Deaf(plan, np.zeros_like(plan.batch_rows)).run()


# ---- predictions


def large_plan(servers: int, batches_each: int, limits: Limits, most_lanes: int = 1) -> Plan:
    """Servers with batches of 10,000 rows."""
    names = [f"s{number}" for number in range(servers)]
    batch_group = np.repeat(np.arange(servers), batches_each)
    return Plan(
        batch_rows=np.full(len(batch_group), 10_000, np.int64),
        batch_group=batch_group,
        group_names=names,
        limits=lambda _: limits,
        row_times=np.full(servers, row_time_s(limits, 0.2)),
        ref=lambda batch_id: BatchRef(batch_id, names[int(batch_group[batch_id])], batch_id, "", 0, 0, 10_000),
        group_of_server=lambda _server, _group: None,
        max_lanes=lambda _: most_lanes,
        workers=[0],
    )


def test_a_prediction_adds_the_start_and_the_slowest_servers_samples() -> None:
    plan = large_plan(3, 2, Limits(10.0, 8))
    bare = predict(plan, plan.batch_rows, 2)
    assert bare.is_whole
    assert bare.makespan_s == pytest.approx(2000 + START_AND_END_S, abs=0.1)
    profiled = predict(plan, plan.batch_rows, 2, samples_per_server=3)
    assert profiled.makespan_s - bare.makespan_s == pytest.approx(2 / 10 + 0.2)


def test_rows_that_are_final_take_no_time() -> None:
    plan = large_plan(2, 2, Limits(10.0, 8))
    left = plan.batch_rows * np.array([1, 0, 0, 0])
    assert predict(plan, left, 1).makespan_s == pytest.approx(1000 + START_AND_END_S, abs=0.1)
    nothing = predict(plan, left * 0, None)
    assert (nothing.makespan_s, nothing.bound_s, nothing.bound_group) == (0.0, 0.0, 0)


def test_as_many_ranks_are_advised_as_shorten_the_run() -> None:
    plan = replace(large_plan(40, 5, Limits(0.0, 200)), connections_per_rank=4000)
    prediction = predict(plan, plan.batch_rows, None)
    alone = predict(plan, plan.batch_rows, 1)
    assert alone.makespan_s > 10 * prediction.makespan_s
    assert prediction.advised_workers == prediction.workers
    assert 10 <= prediction.workers <= 40
    limited = large_plan(40, 5, Limits(1.0, 8))
    assert predict(limited, limited.batch_rows, None).advised_workers == 1


def test_a_large_plan_is_simulated_in_pieces_with_the_same_end() -> None:
    plan = large_plan(100, 300, Limits(10.0, 8))
    assert len(plan.batch_rows) > MOST_BATCHES
    prediction = predict(plan, plan.batch_rows, 3)
    assert not prediction.is_whole
    assert prediction.makespan_s == pytest.approx(prediction.bound_s, rel=0.01)
