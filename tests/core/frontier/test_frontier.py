"""A rank's state machine on its own: which request may start, what becomes of rows, what lanes report."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ddmpi.core.frontier.frontier import Frontier
from ddmpi.core.frontier.held_lane import RowCursor
from ddmpi.core.frontier.interface import (
    BatchEnded,
    Change,
    CloseConnections,
    Disposition,
    Finished,
    FrontierConfig,
    LaneEnded,
    LanesGiven,
    LoadBatch,
    RowHandedOff,
    RowsFailed,
    Start,
)
from ddmpi.core.pace.overrides import Overrides
from ddmpi.core.pace.policy import PacePolicy
from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.protocol import (
    ControlOverride,
    Extend,
    Handoff,
    Lane,
    LaneReport,
    LaneState,
    StealRequest,
    StealResponse,
)
from ddmpi.core.records import BatchRef, ErrorKind, Failure, Limits, Mirrors, PaceState, Quota, Taken, Task, Validators
from ddmpi.core.rules.retry import DNS_WAIT_S, RetryPolicy
from ddmpi.core.rules.verdict import SUCCESS, Outcome, Verdict
from ddmpi.errors import TransitionError

ANY_RATE = Limits(0.0, 4)
MISSING = Verdict(Outcome.FAILURE, Signal.OK, Failure(ErrorKind.HTTP_STATUS, 404, "HTTP status 404"))
BROKEN = Verdict(
    Outcome.FAILURE, Signal.SERVER_ERROR, Failure(ErrorKind.HTTP_STATUS, 500, "HTTP status 500"), transient=True
)
REFUSED = Verdict(Outcome.FAILURE, Signal.CONNECT_FAILED, Failure(ErrorKind.CONNECT, -1, "refused"), transient=True)

UNRESOLVED = Verdict(Outcome.FAILURE, Signal.CONNECT_FAILED, Failure(ErrorKind.DNS, -1, "no address"), transient=True)


def throttled(retry_after_s: float | None = None) -> Verdict:
    failure = Failure(ErrorKind.HTTP_STATUS, 429, "HTTP status 429")
    return Verdict(Outcome.FAILURE, Signal.THROTTLED, failure, transient=True, retry_after_s=retry_after_s)


def redirect(location: str) -> Verdict:
    return Verdict(Outcome.REDIRECT, Signal.OK, location=location)


class Rows:
    """A cursor over rows (index, URL, server), each with a URL of its own, or one that ``others`` have as well. All
    have the ``mirrors``, with their own paths."""

    def __init__(
        self, rows: Sequence[tuple[int, str, str]], others: tuple[int, ...] = (), mirrors: tuple[str, ...] = ()
    ) -> None:
        self._rows = [(*row, others, tuple(f"{mirror}/{row[0]}" for mirror in mirrors), "", None) for row in rows]

    @property
    def left(self) -> int:
        return len(self._rows)

    def take(self, n: int) -> Sequence[Taken]:
        taken, self._rows = self._rows[:n], self._rows[n:]
        return taken


def rows(count: int, server: str = "s", mirrors: tuple[str, ...] = ()) -> Rows:
    return Rows([(row, f"http://{server}/{row}", server) for row in range(count)], mirrors=mirrors)


def batch(batch_id: int, count: int = 10, sample_rows: int = 0) -> BatchRef:
    return BatchRef(batch_id, "s", batch_id, "file", 0, 0, count, sample_rows=sample_rows)


def lane(lane_id: int = 1, batches: Sequence[BatchRef] = (), group: str = "s", share: Limits = ANY_RATE) -> Lane:
    return Lane(lane_id, group, group.startswith("__many__/"), share, tuple(batches), time_s=float(lane_id))


def locate(location: str) -> tuple[str, str] | str:
    server = location.removeprefix("http://").removeprefix("https://").partition("/")[0]
    return "no host" if server == "" else (location, server)


def config(
    connections: int = 256, chunk_rows: int = 256, low_water_rows: int = 2000, servers_at_once: int = 4096
) -> FrontierConfig:
    return FrontierConfig(
        lambda _: Limits(1.0, 1),
        lambda server: "joint" if server.startswith("joint") else server,
        locate,
        PacePolicy(backoff_base_s=10.0, jitter=0.0, breaker_failures=2, breaker_probes=1),
        RetryPolicy(2),
        connections,
        chunk_rows,
        low_water_rows,
        servers_at_once=servers_at_once,
    )


class Driven:
    """A frontier whose changes are kept until a test takes them, but for ``Start`` and ``Finished``."""

    def __init__(self, config: FrontierConfig) -> None:
        self.bare = Frontier(config, random.Random(1))
        self.changes: list[Change] = []

    def assign(self, lanes: Sequence[Lane], now: float) -> None:
        self.changes += self.bare.assign(lanes, now)

    def extend(self, message: Extend, now: float) -> None:
        self.changes += self.bare.extend(message, now)

    def set_overrides(self, overrides: Overrides, now: float) -> None:
        self.changes += self.bare.set_overrides(overrides, now)

    def give(self, message: StealRequest, now: float) -> None:
        self.changes += self.bare.give(message, now)

    def loaded(self, lane_id: int, batch: BatchRef, cursor: RowCursor, now: float) -> None:
        self.changes += self.bare.loaded(lane_id, batch, cursor, now)

    def admit(self, now: float) -> Start | None:
        """The next request that starts, None when none does."""
        while changes := self.bare.admit(now):
            starts = [change for change in changes if isinstance(change, Start)]
            self.changes += [change for change in changes if not isinstance(change, Start)]
            if starts:
                (start,) = starts
                return start
        return None

    def next_task(self, now: float) -> Task | None:
        start = self.admit(now)
        return None if start is None else start.task

    def finish(
        self, task: Task, verdict: Verdict, now: float, body_bytes: int = 0, quota: Quota | None = None
    ) -> Finished:
        done, *changes = self.bare.finished(task, verdict, now, body_bytes, quota=quota)
        assert isinstance(done, Finished)
        self.changes += changes
        return done

    def finished(
        self, task: Task, verdict: Verdict, now: float, body_bytes: int = 0
    ) -> tuple[Disposition, Failure | None]:
        done = self.finish(task, verdict, now, body_bytes)
        return done.disposition, done.failure

    def report(self, now: float) -> list[LaneReport]:
        self.changes += self.bare.recount(now)
        return self.bare.updates(now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)


Make = Callable[..., Driven]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes frontiers, and validates them after the test."""
    made: list[Driven] = []

    def make(**options: int) -> Driven:
        made.append(Driven(config(**options)))
        return made[-1]

    yield make
    for frontier in made:
        frontier.validate()


@pytest.fixture
def frontier(make: Make) -> Driven:
    return make()


def taken(frontier: Driven) -> list[Change]:
    """What the frontier has asked for since the last call."""
    changes, frontier.changes = frontier.changes, []
    return changes


def start(frontier: Driven, lane: Lane, now: float = 0.0, cursor: Rows | None = None) -> None:
    """Assign a lane and load its first batch."""
    frontier.assign([lane], now)
    (load,) = taken(frontier)
    assert isinstance(load, LoadBatch)
    frontier.loaded(lane.lane_id, load.batch, cursor or rows(load.batch.rows), now)


def tasks(frontier: Driven, now: float) -> list[Task]:
    """Everything that may start now."""
    started = []
    while (task := frontier.next_task(now)) is not None:
        started.append(task)
    return started


def succeed(frontier: Driven, now: float) -> int:
    """Answer 200 to everything that starts until nothing does; the number of rows."""
    count = 0
    while started := tasks(frontier, now):
        for task in started:
            assert frontier.finished(task, SUCCESS, now, 100) == (Disposition.SUCCESS, None)
        count += len(started)
    return count


# ---- admission


def test_no_more_requests_start_than_the_share_has_connections(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0)]))
    started = tasks(frontier, 0.0)
    assert len(started) == 4
    assert frontier.wake_at() == math.inf, "only an answer helps"
    frontier.finished(started[0], SUCCESS, 0.1, 100)
    assert len(tasks(frontier, 0.1)) == 1


def test_a_rate_says_when_to_come_again(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0)], share=Limits(2.0, 4)))
    assert len(tasks(frontier, 0.0)) == 1
    assert frontier.wake_at() == pytest.approx(0.5)
    assert tasks(frontier, 0.4) == []
    assert frontier.wake_at() == pytest.approx(0.5), "asking too early changes nothing"
    assert len(tasks(frontier, 0.5)) == 1


def test_an_idle_frontier_sleeps_for_ever(frontier: Driven) -> None:
    assert frontier.next_task(0.0) is None
    assert frontier.wake_at() == math.inf


def test_a_state_from_before_keeps_the_server_waiting(frontier: Driven) -> None:
    known = Lane(1, "s", False, Limits(2.0, 4), (batch(0),), {"s": PaceState(2.0, wait_s=30.0)})
    start(frontier, known)
    assert tasks(frontier, 0.0) == []
    assert frontier.wake_at() == pytest.approx(30.5)


def test_more_rows_in_flight_than_a_chunk_do_not_stop_the_lane(make: Make) -> None:
    frontier = make(chunk_rows=4)
    start(frontier, lane(batches=[batch(0, 30)], share=Limits(0.0, 100)))
    assert succeed(frontier, 0.0) == 30


def test_servers_of_a_pack_run_side_by_side_each_at_its_own_limits(frontier: Driven) -> None:
    packed = Rows([(0, "http://a/0", "a"), (1, "http://a/1", "a"), (2, "http://b/2", "b")])
    start(frontier, lane(batches=[batch(0, 3)], group="__many__/0", share=Limits(0.0, 1)), cursor=packed)
    assert [task.url for task in tasks(frontier, 0.0)] == ["http://a/0", "http://b/2"]


def test_a_server_of_a_pack_leaves_its_connection_to_those_that_wait(make: Make) -> None:
    """Else more would stay open than are kept, and the servers that come next have one for each row."""
    frontier = make(servers_at_once=1)
    packed = Rows([(row, f"http://{server}/{row}", server) for row, server in enumerate("aabbc")])
    start(frontier, lane(batches=[batch(0, 5)], group="__many__/0", share=Limits(0.0, 1)), cursor=packed)
    closed = []
    for now, rows_asked in ((0.0, 2), (1.0, 3)):
        for _ in range(rows_asked):
            task = frontier.next_task(now)
            assert task is not None
            frontier.finish(task, SUCCESS, now)
            closed.append([it.servers for it in taken(frontier) if isinstance(it, CloseConnections)])
    assert closed == [[], [], [("a",)], [("b",)], []]


def test_rows_of_a_pack_do_not_wait_behind_batches_whose_servers_all_wait(make: Make) -> None:
    frontier = make(low_water_rows=1)
    start(frontier, lane(batches=[batch(0, 9), batch(1, 1)], group="__many__/0"), cursor=rows(9, "a"))
    (asked,) = tasks(frontier, 0.0)
    frontier.report(0.0)
    assert taken(frontier) == [], "a may still answer"
    frontier.finished(asked, throttled(600.0), 0.1)
    frontier.report(0.5)
    assert taken(frontier) == [LoadBatch(1, batch(1, 1))]
    frontier.report(1.0)
    assert taken(frontier) == [], "it is on its way"
    frontier.loaded(1, batch(1, 1), rows(1, "b"), 1.1)
    assert [task.server for task in tasks(frontier, 1.1)] == ["b"]


# ---- what becomes of rows


@pytest.mark.parametrize(
    ("verdict", "disposition", "code"),
    [
        pytest.param(SUCCESS, Disposition.SUCCESS, None, id="a success is final"),
        pytest.param(MISSING, Disposition.FAILURE, 404, id="a permanent failure is final"),
        pytest.param(BROKEN, Disposition.OPEN, None, id="a transient failure is tried again"),
        pytest.param(throttled(), Disposition.OPEN, None, id="a throttled row is tried again"),
        pytest.param(redirect("http://s/new"), Disposition.OPEN, None, id="a redirect within the server is followed"),
        pytest.param(redirect("http:///"), Disposition.FAILURE, -2, id="a redirect to nowhere is an error"),
    ],
)
def test_fates(frontier: Driven, verdict: Verdict, disposition: Disposition, code: int | None) -> None:
    start(frontier, lane(batches=[batch(0, 1)]))
    (task,) = tasks(frontier, 0.0)
    found, failure = frontier.finished(task, verdict, 0.1, 0)
    assert found is disposition
    assert (failure.code if failure else None) == code
    ended = [event for event in taken(frontier) if isinstance(event, LaneEnded)]
    assert len(ended) == (0 if disposition is Disposition.OPEN else 1)


def test_a_row_is_given_up_after_its_last_attempt(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 1)]))
    (task,) = tasks(frontier, 0.0)
    frontier.finished(task, BROKEN, 0.0, 0)
    again = frontier.wake_at()
    assert 1.0 <= again <= 1.1
    assert tasks(frontier, again) == [task]
    assert task.attempt == 2
    disposition, failure = frontier.finished(task, BROKEN, again, 0)
    assert (disposition, failure) == (Disposition.FAILURE, BROKEN.failure)


def test_a_retry_goes_before_fresh_rows(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 10)], share=Limits(0.0, 1)))
    (task,) = tasks(frontier, 0.0)
    frontier.finished(task, BROKEN, 0.0, 0)
    (other,) = tasks(frontier, 0.0)
    assert other is not task
    frontier.finished(other, SUCCESS, 5.0, 0)
    assert tasks(frontier, 5.0) == [task]


def test_retry_after_stops_the_whole_server(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 10)]))
    first, *others = tasks(frontier, 0.0)
    frontier.finished(first, throttled(30.0), 1.0, 0)
    for task in others:
        frontier.finished(task, SUCCESS, 1.0, 0)
    assert tasks(frontier, 30.9) == []
    assert frontier.wake_at() >= 31.0


def test_a_redirect_may_ask_for_a_pause_of_the_server_too(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 10)], share=Limits(0.0, 1)))
    (first,) = tasks(frontier, 0.0)
    moved = Verdict(Outcome.REDIRECT, Signal.SERVER_ERROR, location="http://s/moved", retry_after_s=30.0)
    frontier.finished(first, moved, 1.0, 0)
    assert tasks(frontier, 30.9) == []
    assert [task.url for task in tasks(frontier, 31.0)] == ["http://s/moved"]


@pytest.mark.parametrize(
    ("whole", "rate_per_s"),
    [
        pytest.param(None, 20.0, id="all of the group"),
        pytest.param(Limits(0.0, 16), 5.0, id="a part by connections"),
        pytest.param(Limits(60.0, 4), 10.0, id="a part by rate"),
    ],
)
def test_a_lane_uses_its_part_of_what_a_server_states(make: Make, whole: Limits | None, rate_per_s: float) -> None:
    frontier = make()
    share = Limits(30.0 if whole and whole.rate_per_s else 0.0, 4)
    start(frontier, msgspec.structs.replace(lane(batches=[batch(0, 10)], share=share), whole=whole))
    (task, *_) = tasks(frontier, 0.0)
    frontier.finish(task, SUCCESS, 0.1, quota=Quota(20.0))
    (report,) = frontier.updates(0.1)
    assert report.paces["s"].rate_per_s == rate_per_s


def test_a_server_that_has_nothing_left_pauses_its_other_lanes_too(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 10)]))
    (task, *_) = tasks(frontier, 0.0)
    done = frontier.finish(task, SUCCESS, 0.1, quota=Quota(left=0, left_s=30))
    assert (done.disposition, done.pause_s) == (Disposition.SUCCESS, 30.0)
    assert tasks(frontier, 29.0) == []
    (report,) = frontier.updates(0.1)
    assert report.paces["s"].wait_s == 30.0


def test_all_rows_of_a_dead_server_are_errors_also_those_loaded_later(make: Make) -> None:
    frontier = make(low_water_rows=1, chunk_rows=2)
    start(frontier, lane(batches=[batch(0, 10), batch(1, 10)], share=Limits(0.0, 1)))
    now = 0.0
    asked: set[int] = set()
    failed: list[RowsFailed] = []
    while not failed:
        now = max(now, frontier.wake_at())
        for task in tasks(frontier, now):
            asked.add(task.row)
            frontier.finished(task, REFUSED, now, 0)
        events = taken(frontier)
        failed = [event for event in events if isinstance(event, RowsFailed)]
    (load,) = [event for event in events if isinstance(event, LoadBatch)]
    assert sum(len(event.tasks) for event in failed) == 10
    assert {event.failure.kind for event in failed} == {ErrorKind.UNREACHABLE}
    told = "the server has not answered any probe, at last: connect, refused"
    for event in failed:
        is_asked = {task.row in asked for task in event.tasks}
        assert event.failure.message == (told if is_asked == {True} else f"not asked: {told}")
    frontier.loaded(1, load.batch, rows(10), now)
    events = taken(frontier)
    assert sum(len(event.tasks) for event in events if isinstance(event, RowsFailed)) == 10
    assert isinstance(events[-1], LaneEnded)


def handed_off(changes: Sequence[Change]) -> list[Handoff]:
    return [change.handoff for change in changes if isinstance(change, RowHandedOff)]


@pytest.mark.parametrize("rate_per_s", [1.0, 0.0])
def test_rows_of_a_dead_server_move_on_to_their_mirrors_as_fast_as_those_may_be_asked(rate_per_s: float) -> None:
    settings = config(low_water_rows=1, chunk_rows=2)
    frontier = Driven(replace(settings, limits_for=lambda _: Limits(rate_per_s, 1)))
    start(frontier, lane(batches=[batch(0, 10)], share=Limits(0.0, 1)), cursor=rows(10, mirrors=("http://u/m",)))
    moved: list[Handoff] = []
    times: list[float] = []
    now = 0.0
    has_ended = False
    while not has_ended:
        now = max(now, frontier.wake_at())
        for task in tasks(frontier, now):
            frontier.finish(task, REFUSED, now)
        events = taken(frontier)
        moved += handed_off(events)
        times += [now] * len(handed_off(events))
        assert not [event for event in events if isinstance(event, RowsFailed)]
        has_ended = any(isinstance(event, LaneEnded) for event in events)
        frontier.validate()
    assert sorted(handoff.url for handoff in moved) == [f"http://u/m/{row}" for row in range(10)]
    row_s = 1 / (rate_per_s or 1_000)
    assert 7 * row_s - 1e-6 <= times[-1] - times[0] <= 10 * row_s, "after the two or three that were here"
    told = "the server has not answered any probe, at last: connect, refused"
    for handoff in moved:
        mirrors = handoff.mirrors
        assert mirrors is not None
        assert (mirrors.left, handoff.attempt) == ((), 1)
        unasked = "" if mirrors.attempts else "not asked: "
        assert mirrors.told == f"{unasked}{told}; then {handoff.url}"


def test_a_row_that_comes_to_a_server_that_is_given_up_fails_with_all_that_was_told(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 1)], share=Limits(0.0, 1)))
    now = 0.0
    while not [event for event in frontier.changes if isinstance(event, RowsFailed)]:
        now = max(now, frontier.wake_at())
        for task in tasks(frontier, now):
            frontier.finish(task, REFUSED, now)
    taken(frontier)
    mirrors = Mirrors(("http://s/other",), "HTTP status 404; then http://s/m", attempts=2)
    handoff = Handoff(batch(9, 5), 3, "http://s/m", "s", "s", 1, 0, others=(4,), mirrors=mirrors)
    frontier.extend(Extend(1, 1, handoffs=(handoff,)), now)
    (failed,) = [event for event in taken(frontier) if isinstance(event, RowsFailed)]
    (task,) = failed.tasks
    assert (failed.batch.batch_id, task.rows, task.attempts - 1) == (9, (3, 4), 2)
    gone = "not asked: the server has not answered any probe, at last: connect, refused"
    assert failed.failure.message == f"HTTP status 404; then http://s/m: {gone}; then http://s/other: {gone}"


def test_rows_of_a_name_that_does_not_exist_do_not_wait_for_the_breaker() -> None:
    frontier = Driven(replace(config(), pace=PacePolicy(jitter=0.0)))
    start(frontier, lane(1, [batch(0, 10)], share=Limits(1.0, 1)))
    start(frontier, lane(2, [batch(1, 90)], group="t", share=Limits(1.0, 1)), cursor=rows(90, "t"))
    failed: list[RowsFailed] = []
    now = 0.0
    while not failed:
        now = max(now, frontier.wake_at())
        for task in tasks(frontier, now):
            frontier.finished(task, UNRESOLVED if task.server == "s" else SUCCESS, now, 0)
        failed = [event for event in taken(frontier) if isinstance(event, RowsFailed)]
    assert now < 2 * DNS_WAIT_S
    assert {(event.failure.kind, event.failure.code) for event in failed} == {(ErrorKind.DNS, -1)}


# ---- redirects


def test_a_redirect_to_an_unknown_server_leaves_the_rank_as_an_errand(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 1)]))
    (task,) = tasks(frontier, 0.0)
    first = task.url
    assert frontier.finished(task, redirect("http://joint-a/x"), 0.0, 0) == (Disposition.OPEN, None)
    moved, batch_ended, ended = taken(frontier)
    assert moved == RowHandedOff(Handoff(batch(0, 1), 0, "http://joint-a/x", "joint-a", "joint", 1, 1, asked=first))
    assert batch_ended == BatchEnded(0)
    assert isinstance(ended, LaneEnded)


def test_cookies_stay_with_the_row_that_was_redirected(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 2)], share=Limits(0.0, 1)))
    (task,) = tasks(frontier, 0.0)
    frontier.finished(task, replace(redirect("http://s/again"), cookies=(b"a",)), 0.0, 0)
    (again,) = tasks(frontier, 0.0)
    assert (again.url, again.cookies) == ("http://s/again", (b"a",))
    frontier.finished(again, BROKEN, 0.0, 0)
    (other,) = tasks(frontier, 0.0)
    assert other.cookies == ()
    frontier.finished(other, SUCCESS, 5.0, 0)
    (again,) = tasks(frontier, 5.0)
    frontier.finished(again, replace(redirect("http://joint-a/x"), cookies=(b"a", b"b")), 5.0, 0)
    (handoff,) = [event.handoff for event in taken(frontier) if isinstance(event, RowHandedOff)]
    assert handoff.cookies == (b"a", b"b")
    frontier.assign([Lane(2, "joint", False, Limits(1.0, 1), (), handoffs=(handoff,))], 5.0)
    assert [task.cookies for task in tasks(frontier, 6.0)] == [(b"a", b"b")]


def test_an_errand_is_fetched_under_the_lane_that_it_came_with(frontier: Driven) -> None:
    handoff = Handoff(batch(7), 3, "http://t/x", "t", "t", 2, 1)
    frontier.assign([Lane(1, "t", False, Limits(1.0, 1), (), handoffs=(handoff,))], 0.0)
    start = frontier.admit(0.0)
    assert start is not None
    task = start.task
    assert (task.batch_id, task.row, task.url, task.attempt, task.redirects) == (7, 3, "http://t/x", 2, 1)
    assert (start.lane_id, start.key, start.connection_limit, start.spare_connections) == (1, "t", 1, 0)
    frontier.finished(task, SUCCESS, 0.0, 0)
    assert taken(frontier) == [BatchEnded(7), LaneEnded(1, frozenset({7}), ("t",))]


def test_the_other_rows_of_a_url_go_along_with_it(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 3)]), cursor=Rows([(0, "http://s/0", "s")], others=(1, 2)))
    (task,) = tasks(frontier, 0.0)
    assert task.rows == (0, 1, 2)
    frontier.finished(task, redirect("http://t/x"), 0.0, 0)
    (moved,) = [event.handoff for event in taken(frontier) if isinstance(event, RowHandedOff)]
    assert (moved.row, moved.others) == (0, (1, 2))
    frontier.assign([Lane(2, "t", False, Limits(1.0, 1), (), handoffs=(moved,))], 0.0)
    (task,) = tasks(frontier, 0.0)
    assert (task.url, task.rows) == ("http://t/x", (0, 1, 2))


def test_an_errand_starts_a_queued_lane(make: Make) -> None:
    frontier = make(connections=1)
    start(frontier, lane(9, batches=[batch(0)]))
    frontier.assign([lane(1, batches=[batch(1)], group="t")], 0.0)
    assert len(frontier.lanes.queued) == 1
    frontier.extend(Extend(1, 1, handoffs=(Handoff(batch(7), 3, "http://t/x", "t", "t", 1, 1),)), 0.0)
    assert len(frontier.lanes.queued) == 0
    assert "http://t/x" in [task.url for task in tasks(frontier, 0.0)]


def test_a_row_lent_to_another_lane_of_the_rank_keeps_its_own_lane_open(frontier: Driven) -> None:
    start(frontier, lane(1, batches=[batch(0, 1)]))
    start(frontier, lane(2, batches=[batch(1, 1)], group="t", share=Limits(1.0, 1)), cursor=rows(1, "t"))
    task, other = tasks(frontier, 0.0)
    frontier.finished(task, redirect("http://t/x"), 0.0, 0)
    frontier.finished(other, SUCCESS, 0.0, 0)
    assert taken(frontier) == [BatchEnded(1)], "neither lane has ended"
    (task,) = tasks(frontier, 1.0)
    frontier.finished(task, SUCCESS, 1.0, 0)
    ended = {event.lane_id for event in taken(frontier) if isinstance(event, LaneEnded)}
    assert ended == {1, 2}


def test_a_lane_whose_only_row_is_lent_is_parked_as_long_as_the_borrower(frontier: Driven) -> None:
    start(frontier, lane(1, batches=[batch(0, 1)]))
    start(frontier, lane(2, batches=[batch(1, 1)], group="t"), cursor=rows(1, "t"))
    task, other = tasks(frontier, 0.0)
    frontier.finished(task, redirect("http://t/x"), 0.0, 0)
    frontier.finished(other, throttled(1000.0), 0.0, 0)
    assert tasks(frontier, 0.0) == []
    reports = {report.lane_id: (report.state, report.wait_s) for report in frontier.report(1.0)}
    assert reports == {1: (LaneState.PARKED, 999.0), 2: (LaneState.PARKED, 999.0)}


# ---- lanes end


def test_a_lane_is_drained_with_what_the_next_holder_must_know(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 1)], share=Limits(2.0, 1)))
    succeed(frontier, 0.0)
    *_, ended = taken(frontier)
    assert isinstance(ended, LaneEnded)
    report = frontier.lanes.drained(ended.lane_id, ended.ending, 0.1)
    assert report is not None
    assert report.state is LaneState.DRAINED
    assert report.paces == {"s": PaceState()}, "the next request may not start at once"
    assert frontier.lanes.drained(ended.lane_id, ended.ending, 10.0) is not None
    frontier.release([1])
    assert frontier.lanes.drained(ended.lane_id, ended.ending, 10.0) is None


def test_a_quiet_pace_need_not_be_told(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 1)], share=Limits(2.0, 1)))
    succeed(frontier, 0.0)
    *_, ended = taken(frontier)
    assert isinstance(ended, LaneEnded)
    report = frontier.lanes.drained(ended.lane_id, ended.ending, 0.6)
    assert report is not None
    assert report.paces == {}


def test_an_extension_makes_the_first_ending_void_and_the_lane_ends_again(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 1)]))
    succeed(frontier, 0.0)
    *_, first = taken(frontier)
    frontier.extend(Extend(1, 1, batches=(batch(1, 1),)), 0.0)
    (load,) = taken(frontier)
    assert isinstance(load, LoadBatch)
    assert isinstance(first, LaneEnded)
    assert frontier.lanes.drained(first.lane_id, first.ending, 0.0) is None, "it runs again"
    frontier.loaded(1, load.batch, rows(1), 0.0)
    succeed(frontier, 0.0)
    *_, second = taken(frontier)
    assert isinstance(second, LaneEnded)
    assert frontier.lanes.drained(first.lane_id, first.ending, 0.0) is None, "what came later may not be committed yet"
    report = frontier.lanes.drained(second.lane_id, second.ending, 0.0)
    assert report is not None
    assert report.version == 1


def test_a_larger_share_alone_makes_an_ended_lane_end_again(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 1)]))
    succeed(frontier, 0.0)
    taken(frontier)
    frontier.extend(Extend(1, 1, added=Limits(0.0, 2)), 0.0)
    (ended,) = taken(frontier)
    assert isinstance(ended, LaneEnded)
    report = frontier.lanes.drained(ended.lane_id, ended.ending, 0.0)
    assert report is not None
    assert report.version == 1


def test_a_lane_without_rows_ends_at_once(frontier: Driven) -> None:
    frontier.assign([lane()], 0.0)
    assert taken(frontier) == [LaneEnded(1, frozenset(), ())]


def test_releasing_a_lane_that_has_rows_is_a_bug() -> None:
    broken = Driven(config())
    start(broken, lane(batches=[batch(0, 1)]))
    with pytest.raises(TransitionError, match="lane 1 is running with 1 rows left, and cannot release"):
        broken.release([1])


def test_a_pause_of_another_lane_stops_this_one(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0)]))
    frontier.extend(Extend(1, 1, pauses={"s": 20.0}), 0.0)
    assert tasks(frontier, 19.0) == []
    assert frontier.wake_at() == pytest.approx(20.0)
    assert len(tasks(frontier, 20.0)) > 0


def test_news_of_a_pause_does_not_open_an_ended_lane_again(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 1)]))
    succeed(frontier, 0.0)
    *_, ended = taken(frontier)
    frontier.extend(Extend(1, 0, pauses={"s": 20.0}), 0.0)
    assert taken(frontier) == []
    assert isinstance(ended, LaneEnded)
    report = frontier.lanes.drained(ended.lane_id, ended.ending, 0.0)
    assert report is not None
    assert report.paces["s"].wait_s == 20.0


def test_a_pause_that_comes_before_the_lane_starts_is_kept(make: Make) -> None:
    frontier = make(connections=4)
    start(frontier, lane(9, batches=[batch(0, 1)]))
    frontier.assign([lane(1, batches=[batch(1)], group="t")], 0.0)
    frontier.extend(Extend(1, 1, pauses={"t": 20.0}), 0.0)
    succeed(frontier, 5.0)
    (load,) = [event for event in taken(frontier) if isinstance(event, LoadBatch)]
    frontier.loaded(1, load.batch, rows(3, "t"), 5.0)
    assert tasks(frontier, 19.0) == []
    assert len(tasks(frontier, 20.0)) == 3


def test_what_a_lane_has_spent_before_it_ended_is_told_when_it_is_extended(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 1)], share=Limits(0.0, 1, bytes_per_hour=1e6)))
    (task,) = tasks(frontier, 0.0)
    frontier.report(0.0)
    frontier.finished(task, SUCCESS, 0.1, 700)
    assert frontier.report(0.5) == [], "its last report is still to come"
    frontier.extend(Extend(1, 1, batches=(batch(1, 1),)), 0.6)
    (report,) = frontier.report(1.0)
    assert [size_bytes for _, size_bytes in report.paces["s"].spent_hour] == [700]
    frontier.loaded(1, batch(1, 1), rows(1), 1.1)
    assert frontier.report(1.5) == [], "it is told once"


# ---- lanes are given away


def queued(make: Make, *lanes: Lane) -> Driven:
    """A frontier whose one connection is taken, with these lanes in its queue."""
    frontier = make(connections=1, low_water_rows=1)
    start(frontier, lane(100, batches=[batch(0), batch(1), batch(2), batch(3)]))
    frontier.assign(lanes, 0.0)
    return frontier


def yielded(frontier: Driven) -> StealResponse:
    (ready,) = taken(frontier)
    assert isinstance(ready, LanesGiven)
    return ready.answer


@pytest.mark.parametrize(
    ("times", "time_s", "given"),
    [
        pytest.param([4], 10.0, {4}, id="the only queued lane goes"),
        pytest.param([1, 2, 3, 4], 100.0, {3, 1}, id="every second lane goes, the longest one stays"),
        pytest.param([1, 2, 3, 4], 2.0, {3}, id="one lane goes even if it is longer than was asked for"),
        pytest.param([2, 3, 4, 5, 6], 7.0, {5}, id="no more goes than was asked for"),
    ],
)
def test_queued_lanes_are_given_back(make: Make, times: list[int], time_s: float, given: set[int]) -> None:
    frontier = queued(make, *[lane(t, batches=[batch(10 + t)], group=f"g{t}") for t in times])
    frontier.give(StealRequest(5, time_s), 0.0)
    answer = yielded(frontier)
    assert answer.request_id == 5
    assert set(answer.lane_ids) == given
    assert len(frontier.lanes.queued) == len(times) - len(given)


def test_an_extension_of_a_lane_that_was_given_back_is_void(make: Make) -> None:
    frontier = queued(make, lane(1, batches=[batch(10)], group="g"))
    frontier.give(StealRequest(5, 1.0), 0.0)
    frontier.extend(
        Extend(1, 1, Limits(1.0, 1), (batch(11),), (Handoff(batch(12), 0, "http://g/", "g", "g", 1, 1),)), 0.0
    )
    assert taken(frontier) == [LanesGiven(StealResponse(5, (1,)))]
    assert "http://g/" not in [task.url for task in tasks(frontier, 0.0)]


def test_a_split_waits_for_requests_in_flight_and_gives_half_of_the_rest(make: Make) -> None:
    frontier = make(low_water_rows=1)
    share = Limits(1000.0, 5, 100.0)
    split = lane(batches=[batch(number) for number in range(4)], share=share)
    start(frontier, msgspec.structs.replace(split, paces={"s": PaceState(body_bytes=0.1)}))
    started: list[Task] = []
    while len(started) < 5:
        started += tasks(frontier, frontier.wake_at())
    frontier.give(StealRequest(5, 1.0, split_lane_id=1), 1.0)
    assert taken(frontier) == []
    frontier.finished(started[0], SUCCESS, 1.0, 0)
    assert taken(frontier) == []
    frontier.finished(started[1], SUCCESS, 1.0, 0)
    (ready,) = taken(frontier)
    assert isinstance(ready, LanesGiven)
    assert ready.answer == StealResponse(5, (), 1, (3, 2), share.divided(2)[1])
    assert (ready.servers, ready.connections) == (("s",), 3)
    assert tasks(frontier, 1.0) == [], "three are in flight, three are allowed"


def test_a_share_that_grows_while_a_split_is_under_way_does_not_undo_it(make: Make) -> None:
    frontier = make(low_water_rows=1)
    share, added = Limits(0.0, 7).divided(2)
    start(frontier, lane(batches=[batch(0), batch(1), batch(2)], share=share))
    frontier.give(StealRequest(5, 1.0, split_lane_id=1), 0.0)
    frontier.extend(Extend(1, 1, added=added), 0.0)
    assert len(tasks(frontier, 0.0)) == 5, "four less two given away plus three"


@pytest.mark.parametrize(
    ("batches", "share", "group"),
    [
        pytest.param(1, Limits(0.0, 4), "s", id="its last batch is loaded already"),
        pytest.param(4, Limits(0.0, 1), "s", id="it has one connection"),
        pytest.param(4, Limits(0.0, 4), "__many__/0", id="it is a pack"),
    ],
)
def test_a_lane_that_cannot_be_split_is_kept(make: Make, batches: int, share: Limits, group: str) -> None:
    frontier = make(low_water_rows=1)
    start(frontier, lane(batches=[batch(number) for number in range(batches)], share=share, group=group))
    frontier.give(StealRequest(5, 1.0, split_lane_id=1), 0.0)
    assert yielded(frontier) == StealResponse(5)


def test_a_lane_with_a_byte_budget_is_not_split(make: Make) -> None:
    """What it has spent cannot be divided; control.yaml may give it one while it runs."""
    frontier = make(low_water_rows=1)
    start(frontier, lane(batches=[batch(number) for number in range(4)], share=Limits(0.0, 4)))
    frontier.set_overrides(Overrides([ControlOverride("s", bytes_per_day=1e6)]), 0.0)
    taken(frontier)
    frontier.give(StealRequest(5, 1.0, split_lane_id=1), 0.0)
    assert yielded(frontier) == StealResponse(5)


@pytest.mark.parametrize("group", ["s", "__many__/0"])
def test_what_is_spent_of_a_byte_budget_is_told_while_it_is_spent(make: Make, group: str) -> None:
    """Of a budget that control.yaml has given, to a server or to one of a pack: a kill must not forget it."""
    frontier = make()
    start(frontier, lane(batches=[batch(0)], share=Limits(0.0, 4), group=group))
    (task, *_) = tasks(frontier, 0.0)
    frontier.set_overrides(Overrides([ControlOverride("s", bytes_per_day=1e6)]), 0.0)
    frontier.finish(task, SUCCESS, 1.0, body_bytes=500)
    (report,) = frontier.updates(1.0)
    assert sum(size_bytes for _, size_bytes in report.paces["s"].spent_day) == 500


def test_connections_of_before_are_closed_once_they_are_idle(make: Make) -> None:
    """Where the operator allows fewer, those on which requests were under way would be kept, and others open theirs."""
    frontier = make()
    start(frontier, lane(batches=[batch(0, 2)], share=Limits(0.0, 2)), cursor=rows(2))
    one, other = tasks(frontier, 0.0)
    taken(frontier)
    frontier.set_overrides(Overrides([ControlOverride("s", connections=1)]), 0.0)
    assert CloseConnections(("s",)) not in taken(frontier)
    frontier.finish(one, SUCCESS, 1.0)
    assert CloseConnections(("s",)) not in taken(frontier)
    frontier.finish(other, SUCCESS, 1.0)
    assert CloseConnections(("s",)) in taken(frontier)


def test_what_comes_next_is_known_while_nothing_is_in_flight(make: Make) -> None:
    frontier = make()
    start(frontier, lane(batches=[batch(0, 1)], share=Limits(0.0, 1)))
    (task,) = tasks(frontier, 0.0)
    assert frontier.bare.next_requests(0.0, 3) == []
    frontier.finish(task, REFUSED, 1.0)
    ((at, server, left),) = frontier.bare.next_requests(1.0, 3)
    assert (server, left) == ("s", 1)
    assert 2.0 <= at <= 2.1, "the row is tried again"


# ---- the rank as a whole


def test_lanes_wait_in_the_queue_while_the_connections_are_spoken_for(make: Make) -> None:
    frontier = make(connections=8)
    frontier.assign([lane(number, batches=[batch(number)], group=f"g{number}") for number in (1, 2, 3)], 0.0)
    assert len(frontier.lanes.queued) == 1
    assert [event.lane_id for event in taken(frontier) if isinstance(event, LoadBatch)] == [3, 2], "longest first"
    assert not frontier.wants_work


def test_the_next_lane_starts_when_one_has_ended(make: Make) -> None:
    frontier = make(connections=4)
    start(frontier, lane(5, batches=[batch(0, 1)]))
    frontier.assign([lane(1, batches=[batch(1)], group="t")], 0.0)
    assert len(frontier.lanes.queued) == 1
    succeed(frontier, 0.0)
    assert len(frontier.lanes.queued) == 0


def test_a_parked_lane_gives_its_place_to_the_next_one(make: Make) -> None:
    frontier = make(connections=4)
    start(frontier, lane(5, batches=[batch(0)]))
    frontier.assign([lane(1, batches=[batch(1)], group="t")], 0.0)
    for task in tasks(frontier, 0.0):
        frontier.finished(task, throttled(600.0), 0.0, 0)
    (report,) = frontier.report(1.0)
    assert report.state is LaneState.PARKED
    assert report.wait_s == pytest.approx(599.0)
    assert report.paces["s"].incidents == 1
    assert len(frontier.lanes.queued) == 0


def test_running_lanes_are_reported_only_when_something_changed(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0)]))
    assert frontier.report(0.0) == []
    frontier.extend(Extend(1, 1), 0.0)
    (report,) = frontier.report(0.0)
    assert (report.state, report.version) == (LaneState.RUNNING, 1)
    assert frontier.report(0.0) == []


def test_a_stop_admits_nothing_and_what_is_cut_off_stays_with_its_lane(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0)]))
    started = tasks(frontier, 0.0)
    frontier.stop()
    frontier.finished(started.pop(), SUCCESS, 0.0, 0)
    assert tasks(frontier, 100.0) == []
    assert frontier.wake_at() == math.inf
    assert not frontier.wants_work
    frontier.abandon()
    assert frontier.in_flight == 0
    frontier.validate()
    assert taken(frontier) == []


def test_counts_for_people(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0)]))
    tasks(frontier, 0.0)
    assert repr(frontier.bare) == "<Frontier: 1 running, 0 queued, 4 in flight>"
    assert (frontier.take_slots_asked(), frontier.take_slots_asked()) == (1, 1), "it is being asked"
    assert frontier.lanes.remaining_s(0.0) == pytest.approx(1.0)


def test_a_server_that_has_answered_at_once_counts_once_as_asked(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0)]))
    for task in tasks(frontier, 0.0):
        frontier.finished(task, SUCCESS, 0.1, 100)
    assert (frontier.take_slots_asked(), frontier.take_slots_asked()) == (1, 0)


def test_what_is_left_is_predicted_by_the_lanes_own_speed_where_that_is_slower(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 100)]))
    for _ in range(10):
        for task in tasks(frontier, 0.0):
            frontier.finished(task, SUCCESS, 0.0, 0)
    assert frontier.lanes.remaining_s(1.0) == pytest.approx(60 / 40), "in the 1 s for all 100 rows it has done 40"


# ---- sampling


def sampling(batches: Sequence[BatchRef]) -> Lane:
    return Lane(-1, "s", False, ANY_RATE, tuple(batches), sampling=True)


def test_a_sample_that_fails_for_a_passing_reason_stays_pending(frontier: Driven) -> None:
    start(frontier, sampling([batch(0, 1, sample_rows=1)]))
    start_of_sample = frontier.admit(0.0)
    assert start_of_sample is not None
    assert start_of_sample.is_sampling
    task = start_of_sample.task
    assert frontier.finished(task, BROKEN, 0.0, 0) == (Disposition.OPEN, None)
    assert isinstance(taken(frontier)[-1], LaneEnded)


@pytest.mark.parametrize("is_spent", [False, True])
def test_profiling_does_not_wait_for_a_server_that_asks_for_a_pause(make: Make, *, is_spent: bool) -> None:
    frontier = make(low_water_rows=1)
    start(frontier, sampling([batch(0, 6), batch(1, 6)]))
    first, *others = tasks(frontier, 0.0)
    if is_spent:
        frontier.finish(first, SUCCESS, 0.0, quota=Quota(left=0, left_s=60))
    else:
        assert frontier.finished(first, throttled(60.0), 0.0, 0) == (Disposition.OPEN, None)
    for task in others:
        frontier.finished(task, SUCCESS, 0.0, 0)
    (load,) = [event for event in taken(frontier) if isinstance(event, LoadBatch)]
    frontier.loaded(-1, load.batch, rows(6), 0.0)
    ended = taken(frontier)[-1]
    assert isinstance(ended, LaneEnded)
    report = frontier.lanes.drained(ended.lane_id, ended.ending, 0.0)
    assert report is not None
    assert report.paces["s"].wait_s == pytest.approx(60.0)


FORBIDDEN = Verdict(Outcome.FAILURE, Signal.FORBIDDEN, Failure(ErrorKind.HTTP_STATUS, 403, "HTTP status 403"))


def play_refusals(frontier: Driven, is_refused: Callable[[Task], bool]) -> tuple[list[tuple[int, int]], list[int]]:
    """Ask until nothing is left to be asked: (row, code) of the rows that were asked, in order, and the others."""
    asked, now = [], 0.0
    while (at := frontier.wake_at()) < math.inf:
        now = max(now, at)
        for task in tasks(frontier, now):
            refused = is_refused(task)
            frontier.finished(task, FORBIDDEN if refused else SUCCESS, now + 0.01, 0)
            asked.append((task.row, 403 if refused else 200))
    failed = [change for change in taken(frontier) if isinstance(change, RowsFailed)]
    assert {change.failure.kind for change in failed} <= {ErrorKind.SERVER_REFUSED}
    return asked, [task.row for change in failed for task in change.tasks]


def test_rows_that_are_forbidden_condemn_no_others(frontier: Driven) -> None:
    """Where they come among others, as ``BatchRows`` hands them out, good ones speak for them."""
    order = random.Random(1).sample(range(200), 200)
    cursor = Rows([(row, f"http://s/{row}", "s") for row in order])
    start(frontier, lane(batches=[batch(0, 200)], share=Limits(0.0, 1)), cursor=cursor)
    asked, unasked = play_refusals(frontier, lambda task: task.row < 60)
    assert sorted(asked) == [(row, 403 if row < 60 else 200) for row in range(200)]
    assert unasked == []


@pytest.mark.parametrize("verdict", [FORBIDDEN, throttled(), throttled(0.5)])
@pytest.mark.parametrize("chunk_rows", [256, 64])
def test_neighbors_in_the_table_that_are_refused_do_not_stand_before_all_others(
    make: Make, verdict: Verdict, chunk_rows: int, bad: int = 4
) -> None:
    """Twenty batches of 100 rows, of which the first are refused."""
    frontier = make(chunk_rows=chunk_rows, low_water_rows=400)
    frontier.assign([lane(batches=[batch(number, 100) for number in range(20)], share=Limits(20.0, 1))], 0.0)
    served, now = 0, 0.0
    while served < 100 * (20 - bad) and now < 400:
        for load in [change for change in taken(frontier) if isinstance(change, LoadBatch)]:
            frontier.loaded(1, load.batch, rows(100), now)
        for task in tasks(frontier, now):
            served += task.batch_id >= bad
            frontier.finish(task, SUCCESS if task.batch_id >= bad else verdict, now)
        now += 0.05
    assert served == 100 * (20 - bad), "2,000 requests at 20/s, and some pauses"


def test_a_server_that_forbids_everything_is_given_up_and_its_other_rows_have_no_status(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 200)], share=Limits(0.0, 1)))
    asked, unasked = play_refusals(frontier, lambda _: True)
    assert len(asked) < 50
    assert sorted([row for row, _ in asked] + unasked) == list(range(200))


@pytest.mark.parametrize(
    ("verdict", "will_end"),
    [
        pytest.param(throttled(50.0), True, id="a server that answers has said when"),
        pytest.param(REFUSED, True, id="a server out of reach is given up after its probes"),
    ],
)
def test_which_waits_will_end_by_themselves(frontier: Driven, verdict: Verdict, will_end: bool) -> None:
    start(frontier, lane(batches=[batch(0, 10)], share=Limits(0.0, 1)))
    now = 0.0
    for _ in range(2):  # the breaker opens after two
        for task in tasks(frontier, now):
            frontier.finished(task, verdict, now, 0)
        (report,) = frontier.report(now)
        if report.state is LaneState.PARKED:
            break
        now = frontier.wake_at()
    assert frontier.report(now + 0.5) == [], "rank 0 knows it"
    assert (report.state, report.will_end) == (LaneState.PARKED, will_end)


# ---- servers of one group


def joint(make: Make, **servers: int) -> Driven:
    """A lane of the group "joint" with so many rows of each of these servers, one request per second in all."""
    names = [name for name, count in servers.items() for _ in range(count)]
    cursor = Rows([(row, f"http://{name}/{row}", name) for row, name in enumerate(names)])
    frontier = make()
    share = Limits(1.0, 4)
    start(frontier, lane(1, [batch(1, len(names))], group="joint", share=share), cursor=cursor)
    return frontier


def test_a_dead_server_of_a_group_costs_the_others_nothing(make: Make) -> None:
    frontier = joint(make, jointdead=10, jointalive=10)
    asked = []
    for second in range(24):
        for task in tasks(frontier, float(second)):
            asked.append(task.server)
            frontier.finish(task, REFUSED if task.server == "jointdead" else SUCCESS, float(second))
    assert asked.count("jointalive") == 10
    assert 2 <= asked.count("jointdead") <= 4, "two open its breaker"
    failed = [event for event in taken(frontier) if isinstance(event, RowsFailed)]
    assert {task.server for event in failed for task in event.tasks} == {"jointdead"}


def test_a_pause_is_for_the_server_that_asked_for_it(make: Make) -> None:
    frontier = joint(make, jointbusy=3, jointfree=6)
    asked = []
    for second in range(9):
        for task in tasks(frontier, float(second)):
            asked.append(task.server)
            is_refused = task.server == "jointbusy" and second < 5
            frontier.finish(task, throttled(30.0) if is_refused else SUCCESS, float(second))
    assert asked.count("jointbusy") == 1
    assert asked.count("jointfree") == 6
    (report,) = frontier.updates(9.0)
    assert set(report.paces) == {"jointbusy", "*joint"}
    assert report.paces["*joint"].wait_s == 0.0
    assert report.paces["jointbusy"].wait_s > 20


# ---- files that are there already

KNOWN = Validators("http://s/m", '"abc"')


class Known(Rows):
    """The same with what is known of a file under http://s/m."""

    def take(self, n: int) -> Sequence[Taken]:
        return [(*row[:-1], KNOWN) for row in super().take(n)]


def test_what_is_known_of_a_file_goes_with_its_row(frontier: Driven) -> None:
    """Over a redirect, to a mirror, and from another rank: it is for one URL, wherever that is asked for."""
    cursor = Known([(row, f"http://s/{row}", "s") for row in range(2)], mirrors=("http://u/m",))
    start(frontier, lane(batches=[batch(0, 2)], share=Limits(0.0, 2)), cursor=cursor)
    first, second = tasks(frontier, 0.0)
    assert (first.validators, first.is_conditional) == (KNOWN, False)
    frontier.finish(first, redirect("http://u/m"), 0.0)
    frontier.finish(second, MISSING, 0.0)
    assert [handoff.validators for handoff in handed_off(taken(frontier))] == [KNOWN, KNOWN]


def test_a_row_of_another_rank_is_asked_for_on_condition(frontier: Driven) -> None:
    start(frontier, lane(batches=[batch(0, 1)], share=Limits(0.0, 2)))
    tasks(frontier, 0.0)
    handoff = Handoff(batch(9, 5), 3, KNOWN.url, "s", "s", 1, 1, validators=KNOWN)
    frontier.extend(Extend(1, 1, handoffs=(handoff,)), 0.0)
    (task,) = tasks(frontier, 0.0)
    assert (task.validators, task.is_conditional) == (KNOWN, True)
