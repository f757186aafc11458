"""Profiling: which lanes go out, what is made of their reports, and when their servers join the download."""

from __future__ import annotations

from ddmpi.core.ledger.known_paces import KnownPaces
from ddmpi.core.ledger.profile import Profile
from ddmpi.core.ledger.sampling import HEAD_START_S, Sampling, Target, is_sampling
from ddmpi.core.protocol import Counters, Lane, LaneReport, LaneState, Progress, Sample
from ddmpi.core.records import Limits, PaceState
from tests.worlds.at_random import table
from tests.worlds.model import ServerModel, World

WORLD = World(
    table({"a": 30, "b": 30}, {}, batch_size=20, small_rows=0), {"a": ServerModel(), "b": ServerModel()}, {},
    Limits(10.0, 8),
)  # fmt: skip


def make(now: float = 100.0, known: dict[str, PaceState] | None = None) -> tuple[Sampling, list[Lane]]:
    """Both servers are sampled, by one rank: their lanes."""
    targets: list[Target] = [("a", WORLD.ref(0), 2), ("b", WORLD.ref(2), 2)]
    paces = KnownPaces(WORLD.group_of)
    paces.learn(known or {}, now)
    sampling = Sampling(targets, WORLD.limits_for, WORLD.group_of, 3, paces=paces, now=now)
    (assign,) = sampling.lanes([1], now).values()
    return sampling, list(assign.lanes)


def progress(*reports: LaneReport) -> Progress:
    return Progress((), reports, 0.0, 0, Counters())


def say(sampling: Sampling, lane: Lane, state: LaneState, **values: object) -> None:
    report = LaneReport(lane.lane_id, 0, state, **values)  # type: ignore[arg-type]
    sampling.sort_out(progress(report), 100.0)


def test_each_server_gets_one_lane_with_all_of_its_limits_and_a_few_rows() -> None:
    sampling, (first, second) = make(known={"a": PaceState(2.0)})
    assert [is_sampling(lane.lane_id) and lane.sampling for lane in (first, second)] == [True, True]
    assert (first.group, first.share, first.paces) == ("a", Limits(10.0, 8), {"a": PaceState(2.0)})
    assert [(batch.batch_id, batch.sample_rows) for batch in second.batches] == [(2, 3)]
    assert (sampling.holder(first.lane_id), sampling.lane_group(first.lane_id)) == (1, "a")
    assert sampling.progress == (0, 2)


def test_lanes_are_dealt_out_in_turn() -> None:
    targets: list[Target] = [(f"s{number}", WORLD.ref(0), 1) for number in range(5)]
    sampling = Sampling(targets, WORLD.limits_for, WORLD.group_of, 3, paces=KnownPaces(WORLD.group_of), now=0.0)
    dealt = sampling.lanes([1, 2, 3], 0.0)
    assert {rank: len(assign.lanes) for rank, assign in dealt.items()} == {1: 1, 2: 2, 3: 2}


def test_a_server_is_done_with_its_samples_and_its_lane_with_their_parts() -> None:
    sampling, (first, second) = make()
    decided = {0: (0, 19)}
    say(sampling, first, LaneState.RUNNING)
    say(sampling, first, LaneState.SAMPLED, decided=decided)
    assert (sampling.take(100.0), sampling.groups_out) == ({"a"}, {"b"})
    assert sampling.decided() == decided
    say(sampling, first, LaneState.DRAINED)
    assert (sampling.decided(), sampling.is_drained) == ({}, False)
    say(sampling, second, LaneState.SAMPLED)
    assert (sampling.groups_out, sampling.is_drained) == (set(), False)
    say(sampling, second, LaneState.DRAINED)
    assert sampling.is_drained


def test_reports_on_sampling_lanes_do_not_reach_the_ledger() -> None:
    sampling, (first, second) = make()
    say(sampling, first, LaneState.SAMPLED, decided={0: (0,)})
    of_ledger = LaneReport(7, 0, LaneState.DRAINED)
    drained = LaneReport(first.lane_id, 0, LaneState.DRAINED)
    running = LaneReport(second.lane_id, 0, LaneState.RUNNING)
    sorted_out = sampling.sort_out(progress(drained, of_ledger, running), 100.0)
    assert sorted_out.rest.lanes == (of_ledger,)
    assert (sorted_out.released, list(sorted_out.durable)) == ((first.lane_id,), [0])


def test_servers_join_when_the_head_start_is_over_or_all_are_sampled() -> None:
    sampling, (first, second) = make(now=100.0)
    assert not sampling.is_due(100.0 + HEAD_START_S / 2)
    say(sampling, first, LaneState.SAMPLED)
    sampling.on_samples([Sample("a", success=True, status=200, total_s=0.8)])
    assert sampling.is_due(100.0 + HEAD_START_S)
    assert sampling.take(100.5) == {"a"}
    plan = WORLD.plan([1], {1: 1})
    assert sampling.withhold(plan) == {1}
    say(sampling, second, LaneState.SAMPLED, decided={2: (1,)})
    assert sampling.is_due(100.5), "all are sampled: nobody waits for the rest of the interval"
    row_times = sampling.admit(plan, sampling.take(100.6), {"b": Profile("b", 2, 3, 0, 10.0, total_s=1.6)})
    assert row_times == {1: 0.2}
    assert sampling.decided() == {2: (1,)}


def test_profiles_hold_what_was_measured_and_the_rate_from_now_on() -> None:
    sampling, _ = make()
    sampling.on_samples([Sample("a", success=True, status=200, total_s=0.8)])
    found = sampling.profiles({"a", "b"}, {"a": 20.0, "b": 5.0}.__getitem__)
    assert {name: (profile.total_s, profile.rate_limit) for name, profile in found.items()} == {
        "a": (0.8, 20.0), "b": (0.0, 5.0),
    }  # fmt: skip


def test_what_samples_have_hurt_is_learned_and_a_server_stands_apart_until_it_joins() -> None:
    """A run that stops before that saves it: the next one has to keep it."""
    paces = KnownPaces(WORLD.group_of)
    sampling = Sampling([("a", WORLD.ref(0), 2)], WORLD.limits_for, WORLD.group_of, 3, paces=paces, now=100.0)
    (assign,) = sampling.lanes([1], 100.0).values()
    say(sampling, assign.lanes[0], LaneState.SAMPLED, paces={"a": PaceState(wait_s=30.0)})
    assert paces.all(110.0) == {"a": PaceState(wait_s=20.0)}
    assert sampling.groups_apart == {"a"}
    sampling.take(100.0)
    assert sampling.groups_apart == set()
