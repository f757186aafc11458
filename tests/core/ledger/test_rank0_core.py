"""Rank 0's state machine: from the first lane to the exit code, message by message."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import pytest

from ddmpi.core.ledger.actions import (
    Action,
    BatchCompleted,
    BigBatchEnded,
    DownloadBegan,
    GroupPaused,
    ProfilingEnded,
    RunEnded,
    SaveCheckpoint,
    Scatter,
    Send,
    StopBegan,
    VerifyRest,
)
from ddmpi.core.ledger.batch_counts import BatchContent, BatchCounts
from ddmpi.core.ledger.rank0_core import GRACE_S, LONG_PAUSE_S, Rank0Config, Rank0Core, Stage
from ddmpi.core.ledger.sampling import HEAD_START_S
from ddmpi.core.protocol import (
    FINISH_TIMEOUT_S,
    ControlOverride,
    Counters,
    Exit,
    Failed,
    Finished,
    HandedOff,
    Handoff,
    Lane,
    LaneReport,
    LaneState,
    PartReport,
    Progress,
    Release,
    Sample,
    Samples,
    ServersUsed,
    SetControl,
    StealRequest,
    StealResponse,
    Stop,
    StopReason,
    StopRequested,
    ToCoordinator,
    WorkRequest,
)
from ddmpi.core.records import Limits, PaceState
from ddmpi.errors import EXIT_DONE, EXIT_PENDING
from tests.worlds.at_random import table
from tests.worlds.model import ServerModel, World

T = TypeVar("T", bound=Action)


def make(
    sizes: Mapping[str, int],
    ranks: Sequence[int] = (1, 2),
    sampled: Sequence[str] = (),
    successes: Sequence[int] = (),
    parts: Mapping[int, list[str]] | None = None,
    paces: Mapping[str, PaceState] | None = None,
    deadline: float = math.inf,
    final_wait_s: float = 0.0,
) -> Rank0Core:
    """Batches of 10 rows; 10 requests per second and 4 connections per server."""
    world = World(table(dict(sizes), {}, batch_size=10, small_rows=0), dict.fromkeys(sizes, ServerModel()), {},
                  Limits(10.0, 4))  # fmt: skip
    plan = world.plan(ranks, {1: 1})
    first = {batch.group: number for number, batch in reversed(list(enumerate(world.batches)))}
    final = np.zeros_like(plan.batch_rows)
    final[: len(successes)] = successes
    counts = BatchCounts(plan.batch_rows)
    for batch_id, rows in enumerate(final.tolist()):
        counts.set(BatchContent(batch_id, rows, 0, parts=tuple((parts or {}).get(batch_id, ()))))
    return Rank0Core(
        Rank0Config(
            ranks,
            world.limits_for,
            lambda group: 2 * world.rate_of(group),
            world.group_of,
            50.0,
            final_wait_s,
            deadline,
            samples_per_server=3,
        ),
        counts,
        make_plan=lambda _: plan,
        targets=[(name, world.ref(first[name]), 1) for name in sampled],
        profiles={},
        paces=paces or {},
        next_number=4,
        now=0.0,
    )


def started(core: Rank0Core) -> dict[str, tuple[int, Lane]]:
    """Start: the rank and lane of each group."""
    return lanes_of(core.start(0.0))


def lanes_of(actions: Sequence[Action]) -> dict[str, tuple[int, Lane]]:
    assigns = [(rank, assign) for scatter in of(Scatter, actions) for rank, assign in scatter.assigns.items()]
    return {lane.group: (rank, lane) for rank, assign in assigns for lane in assign.lanes}


def of(kind: type[T], actions: Sequence[Action]) -> list[T]:
    return [action for action in actions if isinstance(action, kind)]


def sent(actions: Sequence[Action]) -> list[tuple[int, object]]:
    return [(action.rank, action.message) for action in of(Send, actions)]


def progress(*reports: LaneReport, parts: tuple[PartReport, ...] = ()) -> Progress:
    return Progress(parts, reports, 0.0, 0, Counters())


def drained(lane: Lane, rows: int = 10) -> Progress:
    """The lane is empty, and its batches have this many successes each."""
    parts = tuple(PartReport(batch.batch_id, "p", rows, is_errors=False) for batch in lane.batches)
    return progress(LaneReport(lane.lane_id, 0, LaneState.DRAINED), parts=parts)


# ---- stages


def test_without_servers_to_profile_the_download_begins_at_once() -> None:
    core = make({"a": 30, "b": 10})
    began, *actions = core.start(0.0)
    assert began == DownloadBegan()
    assert core.bound is not None
    assert core.bound.seconds == pytest.approx(3.0)
    assert core.bound.group == "a"
    assert set(lanes_of(actions)) == {"a", "b"}
    assert core.stage is Stage.DOWNLOADING


def test_all_ranks_take_part_in_a_scatter_although_there_is_nothing_to_do() -> None:
    core = make({"a": 10}, successes=[10])
    assert Scatter({}) in core.start(0.0)
    assert of(StopBegan, core.turn(0.0, verifying=False)) == [StopBegan(StopReason.DONE)]


def test_servers_are_profiled_before_their_batches_flow_and_the_slow_ones_join_later() -> None:
    core = make({"a": 10, "b": 20}, sampled=["a", "b"])
    lanes = started(core)
    assert core.stage is Stage.PROFILING
    core.handle(1, Samples((Sample("a", success=True, status=200, total_s=0.8),)), 0.1)
    rank, lane = lanes["a"]
    core.handle(rank, progress(LaneReport(lane.lane_id, 0, LaneState.SAMPLED, decided={0: (0, 1)})), 0.1)
    assert core.turn(HEAD_START_S / 2, verifying=False) == []
    actions = core.turn(HEAD_START_S, verifying=False)
    assert set(lanes_of(actions)) == {"a"}, "the limits of b are with its sampling lane"
    assert lanes_of(actions)["a"][1].batches[0].decided == (0, 1)
    assert (core.profiles["a"].total_s, core.profiles["a"].rate_limit) == (0.8, 20.0)
    rank, lane = lanes["b"]
    core.handle(rank, progress(LaneReport(lane.lane_id, 0, LaneState.SAMPLED)), 2.0)
    before = core.bound
    actions = core.turn(2.0, verifying=False)
    assert set(lanes_of(actions)) == {"b"}
    assert core.bound is not before, "as known by now"
    assert of(ProfilingEnded, actions) == [], "the samples are not durable yet"
    for name in ("a", "b"):
        rank, lane = lanes[name]
        released = core.handle(rank, progress(LaneReport(lane.lane_id, 0, LaneState.DRAINED)), 3.0)
        assert sent(released) == [(rank, Release((lane.lane_id,)))]
    actions = core.turn(3.0, verifying=False)
    assert (of(ProfilingEnded, actions), of(SaveCheckpoint, actions)) == ([ProfilingEnded()], [SaveCheckpoint()])
    assert core.sampling is None


def test_parts_that_come_while_profiling_are_counted_once() -> None:
    core = make({"a": 10}, sampled=["a"])
    rank, lane = started(core)["a"]
    part = PartReport(0, "p", 3, is_errors=False)
    core.handle(rank, progress(LaneReport(lane.lane_id, 0, LaneState.SAMPLED), parts=(part,)), 0.1)
    assert core.counts.rows_final == 3
    (_, lane) = lanes_of(core.turn(1.0, verifying=False))["a"]
    assert lane.batches[0].parts == ("p",)
    assert core.counts.rows_final == 3


def test_batches_that_sampling_has_made_whole_are_a_big_batch_of_their_own() -> None:
    core = make({"a": 10, "b": 10}, sampled=["a"], successes=[7], parts={0: ["old"]})
    rank, lane = started(core)["a"]
    part = PartReport(0, "new", 3, is_errors=True)
    core.handle(rank, progress(LaneReport(lane.lane_id, 0, LaneState.SAMPLED), parts=(part,)), 0.1)
    actions = core.turn(0.1, verifying=False)
    assert actions[:2] == [BatchCompleted(0, 4), BigBatchEnded(4, (0,))]
    assert set(lanes_of(actions)) == {"b"}


def test_what_ranks_ask_for_while_nothing_flows_is_dropped() -> None:
    core = make({"a": 10}, sampled=["a"])
    core.start(0.0)
    assert core.handle(2, WorkRequest(1), 0.1) == []


def test_what_is_known_of_servers_runs_down_and_what_profiling_finds_is_added() -> None:
    core = make({"a": 10, "b": 10}, sampled=["a"], paces={"a": PaceState(3.0), "b": PaceState(2.0, wait_s=10.0)})
    rank, lane = started(core)["a"]
    assert core.paces(4.0) == {"a": PaceState(3.0), "b": PaceState(2.0, wait_s=6.0)}
    hurt = {"a": PaceState(1.0, incidents=1)}
    core.handle(rank, progress(LaneReport(lane.lane_id, 0, LaneState.RUNNING, paces=hurt)), 4.0)
    assert core.paces(4.0)["a"] == hurt["a"]
    core.handle(rank, progress(LaneReport(lane.lane_id, 0, LaneState.SAMPLED)), 4.0)
    lanes = lanes_of(core.turn(4.0, verifying=False))
    assert (lanes["a"][1].paces, lanes["b"][1].paces) == (hurt, {"b": PaceState(2.0, wait_s=6.0)})


# ---- messages


def test_a_long_pause_is_counted_and_saved_soon() -> None:
    core = make({"a": 10})
    rank, lane = started(core)["a"]
    for wait_s, saves in ((LONG_PAUSE_S, []), (LONG_PAUSE_S + 1, [SaveCheckpoint(soon=True)])):
        report = LaneReport(lane.lane_id, 0, LaneState.RUNNING, paces={"a": PaceState(wait_s=wait_s)})
        actions = core.handle(rank, progress(report), 0.0)
        assert of(SaveCheckpoint, actions) == saves
        assert of(GroupPaused, actions) == [GroupPaused("a", wait_s)]


def test_overrides_go_to_all_ranks() -> None:
    rules = [ControlOverride("a", pause=True)]
    assert sent(make({"a": 10}).set_overrides(rules)) == [(1, SetControl(tuple(rules))), (2, SetControl(tuple(rules)))]


def test_what_servers_were_asked_is_for_people_alone() -> None:
    assert make({"a": 10}).handle(1, ServersUsed(()), 0.0) == []


def test_a_message_of_the_wrong_direction_is_a_bug() -> None:
    with pytest.raises(TypeError, match="unknown message"):
        make({"a": 10}).handle(1, Release(()), 0.0)  # type: ignore[arg-type]


# ---- the run stops


def stopped(core: Rank0Core, now: float = 5.0) -> Rank0Core:
    core.start(0.0)
    core.stop(StopReason.SIGNAL, now)
    return core


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(StopRequested(StopReason.SIGNAL), StopReason.SIGNAL, id="a rank got a signal"),
        pytest.param(Failed("no space"), StopReason.FAILURE, id="a rank cannot write"),
    ],
)
def test_a_rank_stops_them_all(message: ToCoordinator, reason: StopReason) -> None:
    core = make({"a": 10})
    core.start(0.0)
    actions = core.handle(2, message, 1.0)
    assert actions == [StopBegan(reason), Send(1, Stop(reason, GRACE_S)), Send(2, Stop(reason, GRACE_S))]
    assert (core.stage, core.soft_stop.reason) == (Stage.STOPPING, reason)
    assert core.stop(StopReason.WALLTIME, 2.0) == [], "the first reason counts"


def test_the_first_failure_is_told() -> None:
    """Others follow from it: a store that is gone, and then ranks whose files have no time left."""
    core = make({"a": 10})
    core.start(0.0)
    core.handle(2, Failed("cannot upload"), 1.0)
    core.handle(1, Failed("results were not written within 17 s"), 18.0)
    for rank in (1, 2):
        core.handle(rank, Finished(), 18.0)
    assert RunEnded(Exit(EXIT_PENDING, "rank 2: cannot upload")) in last_actions(core, 18.0)


def test_all_rows_final_stop_the_run_once_all_is_verified() -> None:
    core = make({"a": 10})
    rank, lane = started(core)["a"]
    assert of(BatchCompleted, core.handle(rank, drained(lane), 1.0)) == [BatchCompleted(0, 4)]
    assert core.turn(1.0, verifying=True) == []
    assert core.turn(1.0, verifying=False)[:2] == [StopBegan(StopReason.DONE), Send(1, Stop(StopReason.DONE, 0.0))]


def test_batches_that_become_complete_in_a_turn_are_verified_before_the_run_stops() -> None:
    core = make({"a": 10, "b": 10}, sampled=["a"])
    rank, lane = started(core)["a"]
    other, lane_of_b = lanes_of(core.turn(HEAD_START_S, verifying=False))["b"]
    core.handle(other, drained(lane_of_b), 0.5)
    whole = progress(
        LaneReport(lane.lane_id, 0, LaneState.SAMPLED), LaneReport(lane.lane_id, 0, LaneState.DRAINED),
        parts=(PartReport(0, "p", 10, is_errors=False),),
    )  # fmt: skip
    core.handle(rank, whole, 1.0)
    actions = core.turn(1.0, verifying=False)
    assert BatchCompleted(0, 5) in actions
    assert of(StopBegan, actions) == []
    assert of(StopBegan, core.turn(1.0, verifying=False)) == [StopBegan(StopReason.DONE)]


def test_the_run_stops_before_the_allocation_ends() -> None:
    core = make({"a": 10}, deadline=60.0)
    core.start(0.0)
    assert core.turn(59.9, verifying=False) == []
    assert of(StopBegan, core.turn(60.0, verifying=False)) == [StopBegan(StopReason.WALLTIME)]


def test_the_run_stops_when_only_parked_servers_are_left() -> None:
    core = make({"a": 10})
    rank, lane = started(core)["a"]
    core.handle(rank, progress(LaneReport(lane.lane_id, 0, LaneState.PARKED, 49.0)), 0.0)
    assert core.turn(0.0, verifying=False) == []
    core.handle(rank, progress(LaneReport(lane.lane_id, 0, LaneState.PARKED, 51.0)), 0.0)
    assert of(StopBegan, core.turn(0.0, verifying=False)) == [StopBegan(StopReason.DONE, is_stuck=True)]


def test_while_the_run_stops_no_rank_gets_new_work() -> None:
    core = make({"a": 1200}, ranks=(1,))
    rank, lane = started(core)["a"]
    core.stop(StopReason.SIGNAL, 1.0)
    parts = tuple(PartReport(batch.batch_id, "p", 10, is_errors=False) for batch in lane.batches)
    actions = core.handle(rank, progress(parts=parts), 2.0)
    assert len(of(BatchCompleted, actions)) == len(lane.batches)
    assert sent(actions) == [], "half of the table waits, and flows no more"
    handoff = Handoff(lane.batches[0], 1, "http://new/x", "new", "new", 1, 1)
    assert core.handle(rank, HandedOff((handoff,)), 2.0) == []


def test_a_lane_that_was_stolen_while_the_run_stops_goes_nowhere() -> None:
    core = make({"a": 10, "b": 10, "c": 10}, ranks=(1, 2))
    lanes = started(core)
    victim = lanes["a"][0]
    (lane,) = [lane for rank, lane in lanes.values() if rank == victim and lane.group != "a"]
    core.handle(victim, Progress((), (), 9.0, 1, Counters()), 0.0)
    ((asked, request),) = sent(core.handle(3 - victim, WorkRequest(1), 0.0))
    assert isinstance(request, StealRequest)
    core.stop(StopReason.SIGNAL, 1.0)
    assert sent(core.handle(asked, StealResponse(request.request_id, (lane.lane_id,)), 2.0)) == []


# ---- the run ends


def last_actions(core: Rank0Core, now: float) -> list[Action]:
    """Turns until the run has ended."""
    actions: list[Action] = []
    while core.stage is not Stage.ENDED:
        more = core.turn(now, verifying=False)
        assert more, "it waits"
        actions += more
    return actions


def test_the_end_is_there_when_every_rank_has_finished() -> None:
    core = stopped(make({"a": 10}))
    core.handle(2, Finished(), 5.0)
    assert core.turn(5.0, verifying=False) == []
    core.handle(1, Finished(), 5.0)
    code = Exit(EXIT_PENDING)
    assert last_actions(core, 5.0) == [
        VerifyRest(((4, (0,)),)), SaveCheckpoint(), RunEnded(code), Send(1, code), Send(2, code),
    ]  # fmt: skip
    assert core.exit == code
    assert core.turn(6.0, verifying=False) == []


def test_a_rank_that_does_not_finish_is_left_behind() -> None:
    core = stopped(make({"a": 10}), 5.0)
    core.handle(2, Finished(), 5.0)
    assert core.turn(4.9 + FINISH_TIMEOUT_S, verifying=False) == []
    assert of(RunEnded, last_actions(core, 5.0 + FINISH_TIMEOUT_S)) == [RunEnded(Exit(EXIT_PENDING), (1,))]


def test_the_rest_is_verified_before_the_last_checkpoint_and_what_it_finds_counts() -> None:
    core = make({"a": 10})
    rank, lane = started(core)["a"]
    core.handle(rank, drained(lane), 1.0)
    core.stop(StopReason.SIGNAL, 2.0)
    for rank in (1, 2):
        core.handle(rank, Finished(), 2.0)
    assert of(VerifyRest, core.turn(2.0, verifying=False)) == [VerifyRest(())]
    assert (core.turn(2.0, verifying=True), core.is_ending) == ([], True)
    assert core.reopen(BatchContent(0, 4, 1, parts=("p",)), 2.0) == []
    assert of(RunEnded, last_actions(core, 2.0)) == [RunEnded(Exit(EXIT_PENDING))]


@pytest.mark.parametrize(
    ("final", "failure", "code"),
    [
        pytest.param(10, "", EXIT_DONE, id="every row is final"),
        pytest.param(7, "", EXIT_PENDING, id="rows are pending"),
        pytest.param(10, "no space left", EXIT_PENDING, id="a rank could not write"),
    ],
)
def test_the_exit_code_tells_whether_to_run_the_same_command_again(final: int, failure: str, code: int) -> None:
    core = stopped(make({"a": 10}, successes=[final]))
    if failure:
        core.handle(1, Failed(failure), 5.0)
    for rank in (1, 2):
        core.handle(rank, Finished(), 5.0)
    last_actions(core, 5.0)
    assert core.exit == Exit(code, f"rank 1: {failure}" if failure else "")


def test_a_disk_that_fails_stops_softly_and_nothing_more_is_written() -> None:
    core = make({"a": 10})
    core.start(0.0)
    assert of(StopBegan, core.fail("no space left", 1.0)) == [StopBegan(StopReason.FAILURE)]
    assert core.soft_stop.is_readonly
    for rank in (1, 2):
        core.handle(rank, Finished(), 5.0)
    assert last_actions(core, 5.0)[0] == RunEnded(Exit(EXIT_PENDING, "no space left"))


def test_a_disk_that_fails_while_the_run_stops_ends_it() -> None:
    core = stopped(make({"a": 10}))
    for rank in (1, 2):
        core.handle(rank, Finished(), 5.0)
    assert of(VerifyRest, core.turn(5.0, verifying=False))
    code = Exit(EXIT_PENDING, "no space left")
    assert core.fail("no space left", 5.0) == [RunEnded(code), Send(1, code), Send(2, code)]
    assert core.fail("again", 5.0) == []


def test_a_batch_that_verification_found_damaged_flows_again() -> None:
    core = make({"a": 10, "b": 10})
    lanes = started(core)
    rank, lane = lanes["a"]
    core.handle(rank, drained(lane), 1.0)
    lanes = lanes_of(core.reopen(BatchContent(0, 4, 1, {"dns": 1}, ("p",)), 2.0))
    assert lanes["a"][1].batches[0].parts == ("p",)
    assert (core.counts.pending, core.counts.error_kinds) == (15, {"dns": 1})
    core.validate()


def test_damage_that_cannot_be_mended_is_no_good_end() -> None:
    core = make({"a": 10})
    lanes = started(core)
    rank, lane = lanes["a"]
    core.handle(rank, drained(lane), 1.0)
    core.damaged("batch 0 is damaged")
    core.damaged("batch 1 is damaged")
    core.stop(StopReason.DONE, 2.0)
    for worker in (1, 2):
        core.handle(worker, Finished(), 3.0)
    assert RunEnded(Exit(EXIT_PENDING, "batch 0 is damaged")) in last_actions(core, 3.0)
