"""Which request may start now, or when: the lanes of one rank as a state machine. Pure: no MPI, curl, files, clock.

``rank_core`` tells it what happened; each call returns what has to be done about it, in order. ``now`` is monotonic
seconds. The life of a lane is the table ``held_lane.TRANSITIONS``: a queued lane can be given back, a running one can
only be split, an ended one runs again when it is extended.

Its parts: ``lane_table`` (which lanes run) and ``held_lane`` (what one lane holds), ``intake`` (how rows come in),
``attempts`` (what becomes of a row after an attempt), ``settlement`` (how rows leave), ``stealing`` (what is given to
ranks that run low), ``slot`` (the rows of one server group, and when to look at them), ``robots_gate`` (which rows
robots.txt lets through). They change lanes and note which; ``_after_change`` alone restores the invariants.

Invariants, checked by ``validate``:
- a slot's tasks are in its queue, in its retries, held back for a robots.txt or in flight, and ``lane.rows`` is their
  sum over the lane's slots (the request for a robots.txt is such a task, but no row);
- a task in flight has taken a token and a connection of its slot's rate limiter, and nothing else starts;
- a lane that has ended has no rows left.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from ddmpi.core.frontier.attempts import AttemptHandler
from ddmpi.core.frontier.held_lane import HeldLane, LaneStage, RowCursor
from ddmpi.core.frontier.intake import Intake
from ddmpi.core.frontier.interface import (
    Change,
    CloseConnections,
    Disposition,
    Finished,
    FrontierConfig,
    LaneEnded,
    LanesGiven,
    RowsFailed,
    Start,
)
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.robots_gate import RobotsGate
from ddmpi.core.frontier.settlement import Changes, OpenBatches, Settlement
from ddmpi.core.frontier.slot import Slot, WakeQueue
from ddmpi.core.frontier.stealing import cut
from ddmpi.core.pace.outage import Outage
from ddmpi.core.pace.overrides import NO_OVERRIDES, Overrides
from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.protocol import Extend, Lane, LaneReport, StealRequest, StealResponse
from ddmpi.core.records import GIVEN_UP_BY_USER, MANY_SERVERS, BatchRef, Failure, Quota, Task
from ddmpi.core.rules.robots_txt import RobotsVerdict
from ddmpi.core.rules.verdict import Verdict, failure_of_given_up

_ANSWERS = frozenset({Signal.OK, Signal.THROTTLED, Signal.SERVER_ERROR, Signal.FORBIDDEN})
_ENDS_SAMPLING = (Signal.THROTTLED, Signal.CONNECT_FAILED, Signal.FAILED)


class Frontier:
    """The lanes of one rank. See the module's docstring."""

    def __init__(self, config: FrontierConfig, rng: random.Random) -> None:
        self.lanes = lanes = LaneTable(config.connections)
        self._wake_queue = WakeQueue(config.servers_at_once)
        self._outage = Outage()
        self._in_flight: dict[Task, Slot] = {}
        self._asked: set[Slot] = set()  # since take_slots_asked was called
        self._touched: dict[Slot, None] = {}
        self._stopped = False
        self._overrides = NO_OVERRIDES
        self._changes = changes = Changes()
        self._batches = batches = OpenBatches()
        self._gate = None if config.respect is None else RobotsGate(config.respect, config.limits_for)
        self._intake = intake = Intake(config, batches, rng)
        self._settlement = settlement = Settlement(lanes.by_id, batches, self._gate, changes)
        self._attempts = AttemptHandler(
            config, rng, lanes, intake, batches, self._outage, self._gate, settlement, changes
        )

    # ---- lanes come and go

    def assign(self, lanes: Iterable[Lane], now: float) -> list[Change]:
        """Take new lanes; those with handoffs or samples start at once, the others wait for their turn."""
        waiting = []
        for assigned in lanes:
            lane = HeldLane.of(assigned)
            lane.set_overrides(self._overrides, now)
            if assigned.handoffs or assigned.sampling:
                self.lanes.start(lane, now)
                self._open(lane, now)
                for handoff in assigned.handoffs:
                    self._changes.touch(lane, self._intake.take_handoff(lane, handoff, now))
            else:
                waiting.append(lane)
        self.lanes.queue(waiting)
        return self._after_changes(now)

    def extend(self, message: Extend, now: float) -> list[Change]:
        """Take more batches or handoffs, a larger share or a pause for a lane. A lane that was given back meanwhile is
        unknown here, and its extension void: the ledger has moved the new batches along with the lane."""
        lane = self.lanes.by_id.get(message.lane_id)
        if lane is None:
            return []
        if message.added is not None:
            lane.set_share(lane.share.plus(message.added), now)
        lane.pause(message.pauses, now)
        lane.batches.extend(message.batches)
        if lane.version != message.version:
            self.lanes.extend(lane, now)
        lane.version = message.version
        if lane.is_running:
            self._intake.open(lane, now)
        if message.handoffs and lane.stage is LaneStage.QUEUED:
            self.lanes.start(lane, now)
            self._open(lane, now)
        for handoff in message.handoffs:
            self._intake.take_handoff(lane, handoff, now)
        self._changes.touch(lane, *lane.slots.values())
        return self._after_changes(now)

    def set_overrides(self, overrides: Overrides, now: float) -> list[Change]:
        """Apply the operator's overrides. What is in flight goes on; rows of what is held stay with their lane.
        Connections of before may be more than are allowed now: they are closed once nothing is in flight on them."""
        self._overrides = overrides
        for lane in self.lanes.by_id.values():
            lane.set_overrides(overrides, now)
            for slot in lane.slots.values():
                if overrides.gives_up(slot.server, lane.group):
                    slot.given_up = slot.given_up or GIVEN_UP_BY_USER
                elif slot.given_up is GIVEN_UP_BY_USER:
                    slot.given_up = None
                slot.closes_when_idle = slot.in_flight > 0
            self._changes.touch(lane, *lane.slots.values())
            idle = tuple(slot.server for slot in lane.slots.values() if not slot.in_flight)
            self._changes.told.append(CloseConnections(idle))
        return self._after_changes(now)

    def release(self, lane_ids: Iterable[int]) -> None:
        """Forget lanes that have ended. Raises TransitionError: one of them has not."""
        for lane_id in lane_ids:
            self._intake.forget(self.lanes.release(lane_id))

    def give(self, message: StealRequest, now: float) -> list[Change]:
        """Give back about half of the queued lanes, at most ``message.time_s``; else split a lane; else nothing."""
        given = self.lanes.give_back(message.time_s)
        lane = self.lanes.by_id.get(message.split_lane_id)
        if not given and lane is not None and lane.can_be_cut:
            cut(lane, message.request_id, now)
            self._changes.touch(lane, *lane.slots.values())
        else:
            self._changes.told.append(LanesGiven(StealResponse(message.request_id, lane_ids=given)))
        return self._after_changes(now)

    def loaded(self, lane_id: int, batch: BatchRef, cursor: RowCursor, now: float) -> list[Change]:
        """Take the rows of a batch that was asked for."""
        lane = self.lanes.by_id[lane_id]
        self._intake.loaded(lane, batch, cursor)
        self._refill(lane, now)
        lane.expect()
        if lane.is_running:
            self.lanes.count_demand(lane)
        self._changes.touch(lane)
        return self._after_changes(now)

    # ---- requests

    def admit(self, now: float) -> list[Change]:
        """Start the next request that may start now: ``Start``, with what follows from it; empty where there is none.
        The caller performs it: its token and its connection are taken. ``wake_at`` says when to ask again."""
        if now < self._outage.probe_at:
            return []
        while not self._stopped and (slot := self._wake_queue.pop(now)) is not None:
            lane = self.lanes.by_id.get(slot.lane_id)
            if lane is None:
                continue  # it was released, with an entry left that had become too early
            task = None
            if slot.may_start(now):
                task = slot.pop(now) if self._gate is None else self._let_through(self._gate, slot, now)
                if task is not None:
                    self._start(lane, slot, task, now)
            changes = self._after_changes(now, lane, slot)
            if task is not None or changes:
                return changes
        return []

    def _let_through(self, gate: RobotsGate, slot: Slot, now: float) -> Task | None:
        """Take the slot's next task as far as robots.txt allows it; rows that it forbids fail."""
        lane = self.lanes.by_id[slot.lane_id]
        passage = gate.next_task(slot, now)
        lane.rows += passage.is_new
        for failure, tasks in passage.refused.items():
            self._fail(lane, slot, tasks, failure, now)
        if passage.task is not None and slot.limiter.ready_at(now) > now:  # Crawl-delay has just been heard of
            slot.queue.appendleft(passage.task)
            return None
        return passage.task

    def _start(self, lane: HeldLane, slot: Slot, task: Task, now: float) -> None:
        slot.start(now)
        if not slot.is_begun:
            self._wake_queue.begin(slot)
        task.started_at = now
        self._in_flight[task] = slot
        self._asked.add(slot)
        if self._outage.is_on:
            self._outage.started(now)
        counter = slot.counter
        connections = counter.limits.connections
        spare = max(0, connections - counter.in_flight)
        self._changes.told.append(Start(task, slot.group, slot.lane_id, connections, spare, lane.is_sampling))

    def wake_at(self) -> float:
        """Return when ``admit`` may have something (s, monotonic); inf = only after another event."""
        return math.inf if self._stopped else max(self._wake_queue.next_at, self._outage.probe_at)

    def finished(
        self,
        task: Task,
        verdict: Verdict,
        now: float,
        body_bytes: int,
        ttfb_s: float = 0.0,
        *,
        quota: Quota | None = None,
    ) -> list[Change]:
        """Decide what becomes of the row after this verdict on one attempt at it: ``Finished``, and what follows.
        ``body_bytes``, ``ttfb_s`` (time to the first byte) and ``quota`` are for the server's rate limiter."""
        slot = self._in_flight.pop(task)
        lane = self.lanes.by_id[slot.lane_id]
        limiter = slot.limiter
        url, attempt = task.url, task.attempt
        slot.end(now, task.started_at, body_bytes)
        signal = self._judge_network(slot, verdict.signal, now)
        is_of_url = limiter.finish(
            now, task.started_at, signal, verdict.retry_after_s,
            body_bytes=body_bytes, ttfb_s=ttfb_s, refused_at=task.refused_at, said=verdict.said,
        )  # fmt: skip
        if signal is Signal.THROTTLED and not task.robots_of:  # on a robots.txt all rows of its server depend
            task.refused_at = now
        if quota is not None:
            limiter.heed(quota, lane.part, now)
        if verdict.signal is not Signal.OK or quota is not None or slot.counter.limits.has_byte_budget:
            self._touched[slot] = None
        disposition, failure = Disposition.OPEN, None
        if isinstance(verdict, RobotsVerdict):
            self._attempts.robots(lane, slot, task, verdict, now, is_of_url=is_of_url)
        else:
            disposition, failure = self._attempts.row(lane, slot, task, verdict, now, is_of_url=is_of_url)
        if verdict.failure is not None:  # else the server is as it was, or better
            if limiter.tripped:
                slot.given_up = failure_of_given_up(verdict)
            elif self._attempts.has_no_address(slot, task, verdict, now):
                slot.given_up = verdict.failure
        pause_s = 0.0 if verdict.signal is Signal.OK and quota is None else slot.wait_s(now)
        lane.gave_up = lane.gave_up or (lane.is_sampling and (verdict.signal in _ENDS_SAMPLING or pause_s > 0))
        done = Finished(
            task, url, attempt, slot.server, slot.group, MANY_SERVERS if lane.is_packed else lane.group, lane.lane_id,
            verdict, disposition, failure, None if task.robots_of else self._batches[task.batch_id],
            pause_s, limiter.rate_per_s,
            lane.is_sampling and not task.robots_of,
        )  # fmt: skip
        self._changes.told.insert(0, done)
        if not slot.in_flight and (slot.is_held or slot.closes_when_idle or self._makes_room(lane, slot)):
            slot.closes_when_idle = False  # another lane, or another server, may open what this one leaves
            self._changes.told.append(CloseConnections((slot.server,)))
        return self._after_changes(now, lane, slot)

    def _makes_room(self, lane: HeldLane, slot: Slot) -> bool:
        """Return whether the server has no rows left while others of the pack were not asked yet."""
        return lane.is_packed and self._wake_queue.has_new and not slot.queue and not slot.waiting

    def _judge_network(self, slot: Slot, signal: Signal, now: float) -> Signal:
        """Return what the end of a request says about its server, after what it says about our own network."""
        if signal in _ANSWERS:
            self._outage.answered(slot.server, now)
            slot.unresolved_since = math.inf
        elif signal is Signal.CONNECT_FAILED:
            if self._outage.unreachable(slot.server, now):
                for lane in self.lanes.running.values():
                    for other in lane.slots.values():
                        other.limiter.reset_after_outage(now, self._outage.began_at)
                        self._wake_queue.enter(other, now)
            return Signal.LOCAL if self._outage.is_on else signal
        return signal

    # ---- the invariants

    def _after_changes(self, now: float, lane: HeldLane | None = None, slot: Slot | None = None) -> list[Change]:
        """Restore the invariants of each lane that this call has touched, and of those that this touches in turn.

        ``lane`` and ``slot`` are what the call was about: with one of them in each request, they are not noted first.
        """
        changes = self._changes
        if lane is not None and slot is not None:
            self._after_change(lane, (slot,), now)
        while changes.touched or self.lanes.queued:
            while changes.touched:
                self._after_change(*changes.next_touched(), now)
            started = None if self._stopped else self.lanes.start_next(now)
            if started is None:
                break
            self._open(started, now)
        return changes.take()

    def _after_change(self, lane: HeldLane, slots: Collection[Slot], now: float) -> None:
        """Restore the lane's invariants. Rows that wait have their turn, fail or are put off; the lane has rows before
        it runs out of them; its split is answered, and it ends, as soon as that is possible."""
        has_enough = lane.shared is not None and bool(slots)
        for slot in slots:
            if slot.given_up is None and (slot.is_mixed or slot.limiter.is_doubted):
                self._intake.mix(lane, slot, now)
            self._look_after(lane, slot, now)
            if lane.cursors and not slot.queue:
                self._refill(lane, now)
            has_enough = has_enough and bool(slot.queue) and not slot.limiter.is_failing
        if self._batches.ended:
            self._changes.told += self._batches.take_ended()
        if lane.stage is not LaneStage.RUNNING:
            return
        if lane.batches and not has_enough and not self._stopped:
            self._changes.told += self._intake.next_batch(lane, now)
        if lane.split is not None:
            self._answer_split(lane, lane.split)
        if not lane.rows and lane.is_used_up:
            self.lanes.end(lane)
            ended = LaneEnded(lane.lane_id, frozenset(lane.batch_ids), tuple(lane.servers), lane.endings)
            self._changes.told.append(ended)
            lane.batch_ids.clear()

    def _answer_split(self, lane: HeldLane, answer: StealResponse) -> None:
        """Answer as soon as what is in flight fits into what is kept: the rest of the share is another rank's from
        then on."""
        most = (lane.allowed(lane.group, lane.share) or lane.share).connections
        if lane.in_flight <= most:
            self._changes.told.append(LanesGiven(answer, tuple(lane.servers), most))
            lane.split = None

    def _open(self, lane: HeldLane, now: float) -> None:
        """Have a lane that has just started looked after."""
        self._intake.open(lane, now)
        self._changes.touch(lane)

    def _refill(self, lane: HeldLane, now: float) -> None:
        for slot in self._intake.refill(lane, now):
            self._look_after(lane, slot, now)

    def _look_after(self, lane: HeldLane, slot: Slot, now: float) -> None:
        """Have the rows that wait at the slot fail, put them off, or see to it that they have their turn.

        Those of a server that is given up, also those that are loaded later, fail for what it was given up for.
        Profiling does not wait for a server that asks for a pause or cannot be reached: its samples stay pending.
        """
        if slot.given_up is not None:
            tasks = slot.clear()
            unasked = [task for task in tasks if task.attempt == 1]
            self._fail(lane, slot, [task for task in tasks if task.attempt > 1], slot.given_up, now)
            self._fail(lane, slot, unasked, replace(slot.given_up, message=f"not asked: {slot.given_up.message}"), now)
        elif lane.gave_up or (lane.is_sampling and slot.is_held):
            for task in slot.clear():
                self._settlement.settle(lane, task)
        self._wake_queue.enter(slot, now)

    def _fail(self, lane: HeldLane, slot: Slot, tasks: Sequence[Task], failure: Failure, now: float) -> None:
        """Have rows that wait fail without a request, or move on to their mirrors."""
        failed: dict[tuple[int, Failure], list[Task]] = {}
        moved: Counter[str] = Counter()
        over = []
        for task in tasks:
            if not task.robots_of:
                final = self._attempts.move_on(lane, task, failure, task.attempt - 1, now)
                if final is None:
                    moved[task.server] += 1
                    continue
                failed.setdefault((task.batch_id, final), []).append(task)
                self._settlement.note_decided(lane, task)
            over.append(task)
        for (batch_id, final), rows in failed.items():
            self._changes.told.append(RowsFailed(self._batches[batch_id], rows, final))
        for task in over:
            self._settlement.settle(lane, task)
        if moved and not lane.is_packed and (lane.loading or lane.rows_left > lane.rows):
            # No answer of the server that they leave paces them: all of a table would wait at its mirrors, in memory.
            taken_s = max(self._attempts.least_time_s(server, rows) for server, rows in moved.items())
            slot.moves_at = max(slot.moves_at, now + taken_s)

    # ---- the end, and reports

    def stop(self) -> None:
        """Admit nothing more. What is in flight still comes in through ``finished``."""
        self._stopped = True

    def abandon(self) -> None:
        """Keep the rows of what is in flight, which is cut off by a stop, with their lanes: they are pending."""
        for task, slot in self._in_flight.items():
            slot.in_flight -= 1
            slot.queue.appendleft(task)
        self._in_flight.clear()

    def recount(self, now: float) -> list[Change]:
        """Judge anew how busy the rank is, start lanes in place of those whose servers are paused or parked, and load
        what a pack has for other servers."""
        for lane in self.lanes.recount(now):
            if not self._stopped:
                self._changes.told += self._intake.next_of_pack(lane)
        return self._after_changes(now)

    def updates(self, now: float) -> list[LaneReport]:
        """Return what the ledger has to hear of running lanes: which wait, and the paces that changed. Those of a lane
        that has ended are in its last report, or in the first one after it is extended."""
        touched = self._touched
        self._touched = {slot: None for slot in touched if self.lanes.has_ended(slot.lane_id)}
        return self.lanes.updates(touched, now)

    def batch_of(self, task: Task) -> BatchRef:
        """Return the batch of a row that is here."""
        return self._batches[task.batch_id]

    @property
    def in_flight(self) -> int:
        """Requests that were started and are not finished."""
        return len(self._in_flight)

    @property
    def wants_work(self) -> bool:
        """Whether more lanes would start soon."""
        return not self._stopped and self.lanes.wants_work

    def next_requests(self, now: float, most: int) -> list[tuple[float, str, int]]:
        """Return the servers that are asked next: when (s, monotonic), the name, and how many of its rows are loaded,
        soonest first; none while requests are in flight."""
        if self._in_flight:
            return []
        due = (
            (max(slot.next_due(now), slot.counter.ready_at(now), slot.limiter.ready_at(now)), slot.server, slot.waiting)
            for lane in self.lanes.running.values()
            for slot in lane.slots.values()
            if slot.waiting and not slot.is_held
        )
        return heapq.nsmallest(most, due)

    def take_slots_asked(self) -> int:
        """Return the number of servers that had a request in flight since the last call."""
        asked, self._asked = self._asked, set(self._in_flight.values())
        return len(asked)

    def validate(self) -> None:
        """Check the invariants (tests call this after every step). Raises AssertionError: with the lane that breaks
        one."""
        for lane in self.lanes.by_id.values():
            rows = sum(slot.waiting + slot.in_flight for slot in lane.slots.values())
            if rows != lane.rows:
                raise AssertionError(f"lane {lane.lane_id} counts {lane.rows} rows, its slots {rows}")
            if lane.stage is LaneStage.ENDED and lane.rows_left:
                raise AssertionError(f"lane {lane.lane_id} ended with {lane.rows_left} rows left")

    def __repr__(self) -> str:
        lanes = self.lanes
        return f"<Frontier: {len(lanes.running)} running, {len(lanes.queued)} queued, {len(self._in_flight)} in flight>"
