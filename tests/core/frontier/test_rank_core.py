"""The turn of a rank: what it does with messages, answers and commits, and when."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ddmpi.core.frontier.interface import (
    CloseConnections,
    CloseParts,
    Disposition,
    Finish,
    Finished,
    Instruction,
    LoadBatch,
    RowsFailed,
    Send,
    Start,
)
from ddmpi.core.frontier.memory_budget import MemoryBudget
from ddmpi.core.frontier.rank_core import PartClosing, RankCore
from ddmpi.core.protocol import (
    Assign,
    Failed,
    HandedOff,
    Lane,
    LaneReport,
    LaneState,
    NoWork,
    PartReport,
    Progress,
    Release,
    Samples,
    StealRequest,
    StealResponse,
    Stop,
    StopReason,
    StopRequested,
    ToCoordinator,
    WorkRequest,
)
from ddmpi.core.protocol import Finished as RankFinished
from ddmpi.core.records import Answer, BatchRef, ErrorKind, Failure, Limits, Mirrors, Task
from tests.core.frontier.test_frontier import Rows, batch, config, lane, rows

INTERVAL_S = 60.0


class Rank:
    """A rank whose instructions are kept; ``open`` is how many connections there are to each server."""

    def __init__(self, budget_bytes: int = 1 << 30, **options: int) -> None:
        self.open: Counter[str] = Counter()
        settings = replace(config(**options), accept="any", checkpoint_interval_s=INTERVAL_S)
        self.core = RankCore(settings, MemoryBudget(budget_bytes), self.open.__getitem__, rng=random.Random(1), now=0.0)

    def start(self, assigned: Lane, now: float = 0.0) -> None:
        """Assign a lane and load its first batch."""
        (load,) = self.core.handle(Assign((assigned,)), now)
        assert isinstance(load, LoadBatch)
        assert self.core.loaded(load.lane_id, load.batch, rows(load.batch.rows), 0, now) == []

    def turn(self, now: float, buffered_bytes: int = 0) -> list[Instruction]:
        return self.core.turn(now, buffered_bytes, 5)

    def starts(self, now: float) -> list[Task]:
        found: list[Instruction] = []
        while instructions := self.core.admit(now):
            found += instructions
        return [it.task for it in found if isinstance(it, Start)]

    def answer(self, task: Task, now: float, **changes: object) -> list[Instruction]:
        answer = Answer(task, status=200, body=b"body", content_length=4)
        return self.core.answered(replace(answer, **changes), now)  # type: ignore[arg-type]  # fields of an Answer


def sent(instructions: Sequence[Instruction]) -> list[ToCoordinator]:
    return [it.message for it in instructions if isinstance(it, Send)]


def of_type(messages: Sequence[ToCoordinator], kind: type[ToCoordinator]) -> list[ToCoordinator]:
    return [message for message in messages if isinstance(message, kind)]


# ---- requests


def test_no_request_starts_before_the_first_turn_or_beyond_the_connections_of_the_rank() -> None:
    rank = Rank(connections=2)
    rank.start(lane(batches=[batch(0)]))
    assert rank.starts(0.0) == []
    rank.turn(0.0)
    first, second = rank.starts(0.0)
    assert rank.core.reports.requests == 2
    done, *others = rank.answer(first, 0.1)
    assert isinstance(done, Finished)
    assert others == []
    rank.turn(0.1)
    assert len(rank.starts(0.1)) == 1
    assert second.batch_id == 0


def test_no_request_starts_without_memory_for_its_body() -> None:
    rank = Rank(budget_bytes=1000)
    rank.start(lane(batches=[batch(0)]))
    rank.turn(0.0, buffered_bytes=1000)
    assert rank.starts(0.0) == []
    rank.turn(0.0, buffered_bytes=990)
    assert len(rank.starts(0.0)) == 1, "one may always start"


def test_an_answer_is_judged_and_counted() -> None:
    rank = Rank()
    rank.start(lane(batches=[batch(0, 2)]))
    rank.turn(0.0)
    first, second = rank.starts(0.0)
    done, *_ = rank.answer(first, 0.1)
    assert isinstance(done, Finished)
    assert (done.failure, done.batch, done.lane_id, done.key) == (None, batch(0, 2), 1, "s")
    done, close, leave, close_lane = rank.answer(second, 0.2, status=404)
    assert isinstance(done, Finished)
    assert done.failure is not None
    assert done.failure.kind is ErrorKind.HTTP_STATUS
    assert close == CloseParts(1, frozenset({0}))
    assert leave == CloseConnections(("s",))
    assert close_lane == CloseParts(2, frozenset({0}))
    reports = rank.core.reports
    assert (reports.successes, reports.errors, reports.requests, reports.bytes) == (1, 1, 2, 8)


def test_refused_rows_and_rows_of_a_server_that_is_given_up_count_as_errors() -> None:
    rank = Rank()
    (load,) = rank.core.handle(Assign((lane(batches=[batch(0)]),)), 0.0)
    assert isinstance(load, LoadBatch)
    rank.core.loaded(1, load.batch, rows(10), 3, 0.0)
    failed: list[RowsFailed] = []
    now = 0.0
    while not failed:
        rank.turn(now)
        for task in rank.starts(now):
            instructions = rank.answer(task, now, curl_code=7, status=0, body=b"", error="refused")
            failed += [it for it in instructions if isinstance(it, RowsFailed)]
        now = max(now, min(rank.core.wake_at(), now + 10.0))
    assert rank.core.reports.errors == 3 + 10


def test_rows_that_only_leave_for_other_ranks_do_not_hold_up_what_may_start() -> None:
    settings = replace(config(chunk_rows=2), accept="any")
    core = RankCore(settings, MemoryBudget(1 << 30), lambda _: 0, rng=random.Random(1), now=0.0)
    now = 0.0
    for group, mirrors in (("s", ("http://u/m",)), ("t", ())):
        (load,) = core.handle(Assign((lane(ord(group), [batch(ord(group))], group, Limits(1.0, 1)),)), now)
        assert isinstance(load, LoadBatch)
        core.loaded(load.lane_id, load.batch, rows(10, group, mirrors), 0, now)
    moved: list[str] = []
    while len(moved) < 10:
        messages = sent(core.turn(now))
        moved += [it.url for message in messages if isinstance(message, HandedOff) for it in message.handoffs]
        while instructions := core.admit(now):
            for it in instructions:
                if isinstance(it, Start):
                    code = 7 * (it.task.server == "s")
                    body = b"" if code else b"body"
                    core.answered(Answer(it.task, code, 0 if code else 200, body, end_announced=True), now)
        assert core.free_slots <= 0 or core.frontier.wake_at() > now, "it would spin"
        now = max(now, min(core.frontier.wake_at(), now + 10.0))
    assert sorted(moved) == [f"http://u/m/{row}" for row in range(10)]
    assert core.reports.errors == 0


@pytest.mark.parametrize(
    ("mirrors", "changes", "is_needed"),
    [
        pytest.param(("http://u/m",), {}, True, id="what would be a success"),
        pytest.param(("http://u/m",), {"status": 404}, False, id="an error moves on anyway"),
        pytest.param((), {}, False, id="no other URL is left"),
    ],
)
def test_when_a_body_is_to_be_looked_into_first(
    mirrors: tuple[str, ...], changes: dict[str, int], *, is_needed: bool
) -> None:
    rank = Rank()
    task = Task(0, 0, "http://s/0", "s", mirrors=Mirrors(mirrors))
    answer = replace(Answer(task, status=200, body=b"body", content_length=4), **changes)  # type: ignore[arg-type]
    assert rank.core.needs_look(answer) is is_needed


def test_what_a_look_has_found_moves_the_row_on() -> None:
    rank = Rank()
    (load,) = rank.core.handle(Assign((lane(batches=[batch(0, 1)]),)), 0.0)
    assert isinstance(load, LoadBatch)
    rank.core.loaded(1, load.batch, rows(1, mirrors=("http://u/m",)), 0, 0.0)
    rank.turn(0.0)
    (task,) = rank.starts(0.0)
    assert rank.core.batch_of(task) == batch(0, 1)
    done, *_ = rank.answer(task, 0.1, objection=Failure(ErrorKind.HASH_MISMATCH, -2, "another file"))
    assert isinstance(done, Finished)
    assert (done.disposition, done.failure) == (Disposition.OPEN, None)
    (handoff,) = rank.core.reports.handoffs
    assert handoff.mirrors == Mirrors((), "another file; then http://u/m/0", attempts=1)


# ---- parts


@pytest.mark.parametrize(
    ("now", "closed_at", "is_due", "is_behind"),
    [
        pytest.param(29.9, None, False, False, id="before half of the interval"),
        pytest.param(30.0, None, True, False, id="at half of it"),
        pytest.param(59.9, math.inf, False, False, id="the disk has another half"),
        pytest.param(60.0, math.inf, False, True, id="not durable after that: the disk is behind"),
        pytest.param(60.0, 59.0, True, False, id="durable in time: they close again"),
        pytest.param(70.0, 65.0, True, False, id="durable late: they close at once"),
    ],
)
def test_when_all_parts_close(now: float, closed_at: float | None, is_due: bool, is_behind: bool) -> None:
    closing = PartClosing(INTERVAL_S, 0.0)
    if closed_at is not None:
        (close,) = closing.close_all_if_due(30.0)
        assert isinstance(close, CloseParts)
        assert close.batch_ids is None
        if closed_at < now:
            assert closing.closed(close.ticket) is None
    assert closing.is_behind(now) is is_behind
    assert bool(closing.close_all_if_due(now)) is is_due


def test_requests_wait_while_the_disk_is_behind_and_start_when_it_has_caught_up() -> None:
    rank = Rank()
    rank.start(lane(batches=[batch(0)]))
    (close,) = [it for it in rank.turn(30.0) if isinstance(it, CloseParts)]
    assert rank.starts(30.0) != []
    rank.turn(60.0)
    assert rank.core.free_slots == 0
    assert rank.core.wake_at() > 60.0, "only the writer can help"
    rank.core.closed(close.ticket, 61.0)
    rank.turn(61.0)
    assert rank.core.free_slots > 0


def test_a_lane_is_reported_drained_only_after_its_parts_are_committed() -> None:
    rank = Rank()
    rank.start(lane(batches=[batch(0, 1)]))
    rank.turn(0.0)
    (task,) = rank.starts(0.0)
    tickets = [it.ticket for it in rank.answer(task, 0.1) if isinstance(it, CloseParts)]
    assert lanes_in(rank.turn(1.0)) == []
    rank.core.committed(PartReport(0, "p", 1, is_errors=False))
    for ticket in tickets:
        rank.core.closed(ticket, 2.0)
    (progress,) = of_type(sent(rank.turn(2.0)), Progress)
    assert isinstance(progress, Progress)
    assert [part.path for part in progress.parts] == ["p"]
    assert [report.state for report in progress.lanes] == [LaneState.DRAINED]
    assert progress.counters.memory_bytes == 5
    assert rank.core.handle(Release((1,)), 2.0) == []


def lanes_in(instructions: Sequence[Instruction]) -> list[LaneReport]:
    return [lane for message in sent(instructions) if isinstance(message, Progress) for lane in message.lanes]


# ---- work


def test_a_rank_that_runs_low_asks_once_and_again_when_it_may() -> None:
    rank = Rank()
    assert of_type(sent(rank.turn(0.0)), WorkRequest) == [], "the first lanes are on their way"
    assert rank.core.handle(Assign(()), 0.0) == []
    (request,) = of_type(sent(rank.turn(0.0)), WorkRequest)
    assert isinstance(request, WorkRequest)
    assert of_type(sent(rank.turn(100.0)), WorkRequest) == []
    rank.core.handle(NoWork(request.request_id, 2.0), 100.0)
    assert of_type(sent(rank.turn(101.9)), WorkRequest) == []
    assert of_type(sent(rank.turn(102.0)), WorkRequest) == [WorkRequest(2)]


def test_a_sampling_lane_is_no_leave_to_ask_for_work() -> None:
    rank = Rank()
    sampling = Lane(-1, "s", False, Limits(1.0, 1), (batch(0, 10, sample_rows=1),), sampling=True)
    rank.core.handle(Assign((sampling,)), 0.0)
    assert of_type(sent(rank.turn(0.0)), WorkRequest) == []


def test_a_split_is_answered_when_the_surplus_connections_are_closed() -> None:
    rank = Rank(low_water_rows=1)
    rank.start(lane(batches=[batch(0), batch(1), batch(2)]))
    rank.turn(0.0)
    started = rank.starts(0.0)
    rank.open["s"] = len(started)
    assert rank.core.handle(StealRequest(7, 1.0, 1), 0.0) == []
    for number, task in enumerate(started):
        rank.answer(task, 0.1)
        if number < 2:
            assert of_type(sent(rank.turn(0.1)), StealResponse) == [], "requests in flight need the old share"
    assert of_type(sent(rank.turn(0.2)), StealResponse) == [], "four connections are open, two of them idle"
    rank.open["s"] = 2
    (response,) = of_type(sent(rank.turn(0.3)), StealResponse)
    assert response == StealResponse(7, (), 1, (2,), Limits(0.0, 4).divided(2)[1])
    assert of_type(sent(rank.turn(0.4)), StealResponse) == []


def test_a_request_for_lanes_that_there_are_not_is_answered_at_the_next_turn() -> None:
    rank = Rank()
    rank.core.handle(StealRequest(7, 1.0), 0.0)
    assert of_type(sent(rank.turn(0.0)), StealResponse) == [StealResponse(7)]


# ---- the end


def test_a_stop_waits_for_what_is_in_flight_as_long_as_it_may() -> None:
    rank = Rank()
    rank.start(lane(batches=[batch(0)]))
    rank.turn(0.0)
    started = rank.starts(0.0)
    rank.core.handle(Stop(StopReason.SIGNAL, 8.0), 1.0)
    assert Finish() not in rank.turn(8.9)
    assert rank.core.wake_at() <= 9.0
    rank.answer(started[0], 8.9)
    assert rank.starts(8.9) == [], "nothing new starts"
    assert Finish() in rank.turn(9.0)
    assert rank.core.frontier.in_flight == 0, "what is left is cut off, and pending"
    assert rank.turn(10.0) == []
    assert rank.core.wake_at() == math.inf
    *_, last = sent(rank.core.finish(10.0))
    assert last == RankFinished()


def test_a_stop_with_nothing_in_flight_ends_at_once() -> None:
    rank = Rank()
    rank.core.handle(Stop(StopReason.DONE, 8.0), 0.0)
    assert Finish() in rank.turn(0.0)


def test_a_rank_that_cannot_write_says_so_and_does_not_wait_at_the_stop() -> None:
    rank = Rank()
    rank.start(lane(batches=[batch(0)]))
    rank.turn(0.0)
    assert rank.starts(0.0)
    assert sent(rank.core.fail("no space left")) == [Failed("no space left")]
    rank.turn(0.1)
    assert rank.starts(0.1) == []
    rank.core.handle(Stop(StopReason.FAILURE, 8.0), 0.2)
    assert Finish() in rank.turn(0.2)


def test_a_signal_asks_rank_0_and_starts_nothing_more() -> None:
    rank = Rank()
    rank.start(lane(batches=[batch(0)]))
    assert rank.core.ask_to_stop(StopReason.SIGNAL) == [Send(StopRequested(StopReason.SIGNAL))]
    rank.turn(0.0)
    assert rank.starts(0.0) == []


def test_samples_are_reported_before_their_lane() -> None:
    rank = Rank()
    ref = BatchRef(0, "s", 0, "f", 0, 0, 10, sample_rows=1)
    (load,) = rank.core.handle(Assign((Lane(-1, "s", False, Limits(1.0, 1), (ref,), sampling=True),)), 0.0)
    assert isinstance(load, LoadBatch)
    rank.core.loaded(-1, load.batch, rows(1), 0, 0.0)
    rank.turn(0.0)
    (task,) = rank.starts(0.0)
    rank.answer(task, 0.1)
    messages = sent(rank.turn(0.1))
    assert [type(message) for message in messages] == [Samples, Progress]
    ((report,),) = [message.lanes for message in messages if isinstance(message, Progress)]
    assert (report.state, report.decided) == (LaneState.SAMPLED, {0: (0,)})


def test_rows_are_counted_and_reported_however_few_urls_they_have() -> None:
    rank = Rank()
    ref = BatchRef(0, "s", 0, "f", 0, 0, 10, sample_rows=1)
    (load,) = rank.core.handle(Assign((Lane(-1, "s", False, Limits(1.0, 1), (ref,), sampling=True),)), 0.0)
    assert isinstance(load, LoadBatch)
    rank.core.loaded(-1, load.batch, Rows([(0, "http://s/0", "s")], others=(4, 9)), 0, 0.0)
    rank.turn(0.0)
    (task,) = rank.starts(0.0)
    rank.answer(task, 0.1)
    ((report,),) = [message.lanes for message in sent(rank.turn(0.1)) if isinstance(message, Progress)]
    assert report.decided == {0: (0, 4, 9)}
    assert (rank.core.reports.successes, rank.core.reports.requests) == (3, 1)


def test_an_unknown_message_is_a_bug() -> None:
    with pytest.raises(TypeError, match="unknown message"):
        Rank().core.handle(RankFinished(), 0.0)  # type: ignore[arg-type]  # goes the other way
