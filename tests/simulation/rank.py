"""A downloading rank without network, disk and clock: what ``roles.downloader`` does around a frontier. Pure.

Decides nothing that the real rank does not; it keeps its order of steps, so that what is found here is true there. It
must not know how messages travel or when it gets its turn: that is ``simulation``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ddmpi.core.frontier.attempts import Disposition
from ddmpi.core.frontier.frontier import Frontier
from ddmpi.core.frontier.interface import (
    BatchEnded,
    LaneEnded,
    LoadBatch,
    ReadyToYield,
    RowHandedOff,
    RowsFailed,
    Rules,
)
from ddmpi.core.frontier.stealing import WorkRequests
from ddmpi.core.pace.overrides import Overrides
from ddmpi.core.protocol import (
    Assign,
    Counters,
    Extend,
    Finished,
    HandedOff,
    Handoff,
    LaneReport,
    Message,
    NoWork,
    PartReport,
    Progress,
    Release,
    SetControl,
    StealRequest,
    Stop,
    ToCoordinator,
)
from ddmpi.core.records import INVALID_SERVER, Answer, BatchRef, Task
from ddmpi.core.rules.robots_txt import judge_robots
from ddmpi.core.rules.verdict import classify
from tests.simulation.world import Disk, Network, Part, World

MAX_REDIRECTS = 5
CRAWLER = "ddmpi"
COORDINATOR = -1
"""In place of a rank."""


@dataclass(frozen=True, slots=True)
class RankModel:
    """How fast a rank and its disk are, in seconds."""

    cpu_per_answer_s: float = 0.0003
    load_s: float = 0.02
    commit_s: float = 0.05
    checkpoint_interval_s: float = 10.0
    stall_at_s: float = math.inf
    stall_s: float = 0.0
    """From ``stall_at_s`` on the rank gets no turn for so long."""


class Witness:
    """Whoever watches a simulation: the tests check the laws in a subclass. This one looks away."""

    def stepped(self, rank: int) -> None:
        """A rank (or ``COORDINATOR``) has had its turn: its state machine may have changed, and no other one."""

    def loaded(self, rank: int, batch_id: int, rows: Sequence[int]) -> None:
        """The open rows of a batch have come to a rank."""

    def started(self, now: float, rank: int, task: Task, lane_id: int) -> None:
        """A request starts under the share of this lane."""

    def answered(self, now: float, rank: int, answer: Answer) -> None:
        """A request has ended."""

    def withdrawn(self, batch_id: int) -> None:
        """Nobody works on the batch any more: samples of it that have no outcome are fetched again with the others."""

    def decided(self, rank: int, batch_id: int, row: int) -> None:
        """A row has its outcome, which is not durable yet."""

    def redirected(self, rank: int, handoff: Handoff) -> None:
        """A row leaves the rank."""


@dataclass(frozen=True)
class Surroundings:
    """What a rank needs of the simulation."""

    world: World
    network: Network
    disk: Disk
    rules: Rules
    rng: random.Random
    witness: Witness
    send: Callable[[ToCoordinator], None]
    at: Callable[[float, Callable[[float], None]], None]
    """Call back at this time (s), after what was asked for the same time before, and give the rank a turn then."""


class _Cursor:
    def __init__(self, rows: Sequence[tuple[int, str, str]]) -> None:
        self._rows = rows
        self._next = 0

    @property
    def left(self) -> int:
        return len(self._rows) - self._next

    def take(self, n: int) -> Sequence[tuple[int, str, str]]:
        taken = self._rows[self._next : self._next + n]
        self._next += len(taken)
        return taken


class SimulatedRank:
    """One rank. ``receive`` takes a message, ``turn`` does what is due, ``next_turn_at`` says when to come again."""

    def __init__(
        self, rank: int, model: RankModel, surroundings: Surroundings, now: float, report_interval_s: float
    ) -> None:
        self.rank = rank
        self.frontier = Frontier(surroundings.rules, surroundings.rng)
        self.free_at = now
        """When the rank's thread has done what it was given."""
        self.requests = 0
        self.idle_wakes = 0
        """Turns that the frontier asked for and in which it had nothing to start."""
        self.model = model
        self._report_interval_s = report_interval_s
        self._inbox: list[Message] = []
        self._in = surroundings
        self._answers: list[Answer] = []
        self._loaded: list[tuple[int, BatchRef, set[int]]] = []
        self._parts: list[PartReport] = []
        self._drained: list[LaneReport] = []
        self._handoffs: list[Handoff] = []
        self._yields: list[ReadyToYield] = []
        self._open_rows: dict[tuple[int, bool], list[int]] = {}
        self._ended: list[LaneEnded] = []
        self._in_flight: set[Task] = set()
        self._writer_free_at = now
        self._report_at = now
        self._close_at = now + model.checkpoint_interval_s
        self._work_requests = WorkRequests()
        self._stop_at: float | None = None
        self._commits = 0
        self._finished = False

    # ---- messages

    def receive(self, message: Message) -> None:
        """A message has arrived; it is read at the next turn."""
        self._inbox.append(message)

    def _handle(self, message: Message, now: float) -> None:
        match message:
            case Assign(lanes, request_id):
                self._work_requests.answered(request_id)
                self.frontier.assign(lanes, now)
                self._work_requests.allow(now)
            case NoWork(request_id, wait_s):
                self._work_requests.answered(request_id)
                self._work_requests.refuse_until(now + wait_s)
            case SetControl(rules):
                self.frontier.set_control(Overrides(rules), now)
            case Extend():
                self.frontier.extend(message, now)
            case Release(lane_ids):
                self.frontier.release(lane_ids)
            case StealRequest():
                self.frontier.yield_lanes(message, now)
            case Stop(_, grace_s):
                self.frontier.stop()
                self._stop_at = now + grace_s
            case _:
                raise TypeError(f"unknown message {message!r}")

    # ---- one turn

    def turn(self, now: float, woken_by_frontier: bool) -> None:
        """What the loop of a rank does once."""
        if self._finished:
            return
        self.free_at = now + self.model.cpu_per_answer_s * len(self._answers)
        answers, self._answers = self._answers, []
        for answer in answers:
            self._take_answer(answer, now)
        inbox, self._inbox = self._inbox, []
        for message in inbox:
            self._handle(message, now)
        loaded, self._loaded = self._loaded, []
        for lane_id, batch, final in loaded:
            self._take_loaded(lane_id, batch, final, now)
        ended, self._ended = self._ended, []
        for lane in ended:
            report = self.frontier.drained(lane, now)
            if report is not None:
                self._drained.append(report)
        self._perform_events(now)
        started = self._admit(now)
        if woken_by_frontier and not started and not answers:
            self.idle_wakes += 1
        self._answer_yields()
        self._report(now)
        if self._stop_at is not None:
            self._try_to_finish(now)

    def next_turn_at(self) -> float:
        """When the rank wants its next turn if nothing arrives before."""
        if self._finished:
            return math.inf
        if self.frontier.events or self._answers:
            return self.free_at
        times = [self._report_at, self._close_at]
        if self._stop_at is not None and self._in_flight:
            times.append(self._stop_at)
        if self.frontier.wants_work:
            times.append(self._work_requests.due_at)
        return max(self.free_at, min(times))

    def wake_at(self) -> float:
        """When the frontier wants the next turn."""
        if self._finished or self._free_slots() <= 0:
            return math.inf
        return max(self.free_at, self.frontier.wake_at())

    def _free_slots(self) -> int:
        return self._in.rules.connections - len(self._in_flight)

    def _admit(self, now: float) -> int:
        started = 0
        while self._free_slots() > 0 and (task := self.frontier.next_task(now)) is not None:
            self._in.witness.started(now, self.rank, task, self.frontier.lane_of(task))
            delay_s, answer = self._in.network.request(task, now)
            self._in_flight.add(task)
            self._in.at(now + delay_s, lambda at, answer=answer: self._arrive(answer, at))  # type: ignore[misc]
            self.requests += 1
            started += 1
        if self._free_slots() > 0 and self.frontier.wake_at() <= now:
            raise AssertionError(f"rank {self.rank} would spin at {now}: {self.frontier!r}")
        return started

    def _arrive(self, answer: Answer, now: float) -> None:
        if answer.task in self._in_flight:
            self._in_flight.discard(answer.task)
            self._in.witness.answered(now, self.rank, answer)
            self._answers.append(answer)

    def _take_answer(self, answer: Answer, now: float) -> None:
        task = answer.task
        if task.robots_of:
            self.frontier.finished(task, judge_robots(answer, CRAWLER), now, len(answer.body))
            return
        verdict = classify(answer, "any", MAX_REDIRECTS)
        disposition, failure = self.frontier.finished(task, verdict, now, len(answer.body))
        if disposition is Disposition.SUCCESS or failure is not None:
            self._decide(task.batch_id, task.row, is_error=failure is not None)

    def _decide(self, batch_id: int, row: int, *, is_error: bool) -> None:
        self._in.witness.decided(self.rank, batch_id, row)
        self._open_rows.setdefault((batch_id, is_error), []).append(row)

    # ---- batches come in, parts go out

    def _load(self, lane_id: int, batch: BatchRef, now: float) -> None:
        def done(_: float) -> None:
            self._loaded.append((lane_id, batch, self._in.disk.final_rows(batch.parts)))

        self._in.at(now + self.model.load_s * (0.5 + self._in.rng.random()), done)

    def _take_loaded(self, lane_id: int, batch: BatchRef, final: set[int], now: float) -> None:
        rows = self._in.world.batches[batch.batch_id].rows
        open_rows = [(row, url, server) for row, (url, server) in enumerate(rows) if row not in final]
        open_rows = [row for row in open_rows if row[0] not in batch.decided]
        if batch.sample_rows:
            open_rows = open_rows[: batch.sample_rows]
        self._in.witness.loaded(self.rank, batch.batch_id, [row for row, _, _ in open_rows])
        if batch.server_name == INVALID_SERVER:
            for row, _, _ in open_rows:
                self._decide(batch.batch_id, row, is_error=True)
            open_rows = []
        self.frontier.loaded(lane_id, batch, _Cursor(open_rows), now)

    def _close_parts(self, batch_ids: Iterable[int] | None, now: float, ended: LaneEnded | None = None) -> None:
        """Commit the open rows of these batches (None: of all). One commit after the other, as one thread does it."""
        chosen = None if batch_ids is None else frozenset(batch_ids)
        keys = [key for key in self._open_rows if chosen is None or key[0] in chosen]
        parts = [
            Part(batch_id, is_error, tuple(self._open_rows.pop((batch_id, is_error)))) for batch_id, is_error in keys
        ]
        delay_s = self.model.commit_s * (0.5 + self._in.rng.random()) if parts else 0.0
        self._writer_free_at = max(now, self._writer_free_at) + delay_s
        self._commits += 1

        def done(_: float) -> None:
            self._commits -= 1
            for part in parts:
                path = self._in.disk.publish(part)
                self._parts.append(PartReport(part.batch_id, path, len(part.rows), part.is_errors))
            if ended is not None:
                self._ended.append(ended)

        self._in.at(self._writer_free_at, done)

    def _perform_events(self, now: float) -> None:
        events = self.frontier.events
        while events:
            match events.popleft():
                case LoadBatch(lane_id, batch):
                    self._load(lane_id, batch, now)
                case BatchEnded(batch_id):
                    self._close_parts((batch_id,), now)
                case LaneEnded() as ended:
                    self._end_lane(ended, now)
                case RowsFailed(tasks):
                    for task in tasks:
                        self._decide(task.batch_id, task.row, is_error=True)
                case RowHandedOff(handoff):
                    self._in.witness.redirected(self.rank, handoff)
                    self._handoffs.append(handoff)
                case ReadyToYield() as ready:
                    self._yields.append(ready)
                case event:
                    raise TypeError(f"unknown event {event!r}")
        if now >= self._close_at:
            self._close_at = now + self.model.checkpoint_interval_s
            self._close_parts(None, now)

    def _end_lane(self, ended: LaneEnded, now: float) -> None:
        sampled = self.frontier.sampled(ended.lane_id, now)
        if sampled is not None:
            self._drained.append(sampled)
        self._close_parts(ended.batch_ids, now, ended)

    def _answer_yields(self) -> None:
        for ready in self._yields:
            self._in.send(ready.answer)
        self._yields.clear()

    # ---- reports

    def _report(self, now: float) -> None:
        if self._handoffs:
            self._in.send(HandedOff(tuple(self._handoffs)))
            self._handoffs.clear()
        if self._parts or self._drained or now >= self._report_at:
            self._send_progress(now)
        if self.frontier.wants_work and now >= self._work_requests.due_at:
            self._in.send(self._work_requests.make())

    def _send_progress(self, now: float) -> None:
        self._report_at = now + self._report_interval_s
        lanes = self.frontier.report(now) + self._drained
        frontier = self.frontier
        counters = Counters(requests=self.requests, in_flight=frontier.in_flight)
        message = Progress(tuple(self._parts), tuple(lanes), frontier.remaining_s(now), frontier.unstarted, counters)
        self._in.send(message)
        self._parts.clear()
        self._drained.clear()

    def _try_to_finish(self, now: float) -> None:
        """After ``Stop``: wait for what is in flight while there is time, then commit and say so."""
        if self._in_flight and now < (self._stop_at or now):
            return
        if self._answers:
            return
        aborted, self._in_flight = self._in_flight, set()
        self.frontier.abandon(sorted(aborted, key=lambda task: (task.batch_id, task.row)))
        if self._open_rows:
            self._close_parts(None, now)
        if self._commits:
            return
        self._send_progress(now)
        self._in.send(Finished())
        self._finished = True
