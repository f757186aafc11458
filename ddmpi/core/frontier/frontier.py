"""Which request may start now, or when: a downloader's state machine. Pure: no MPI, curl, files, clock.

The shell (``roles.downloader``) tells it what happened and does what it says: it takes tasks with ``next_task``,
returns their verdicts with ``finished``, and works off ``events`` in order. ``now`` is monotonic seconds.

A lane lives: queued -> started (its rows are loaded batch by batch) -> ended (nothing left) -> released by the ledger.
A queued lane can be given back; a started one can only be split. An ended lane is opened again by ``extend``.

Its parts: ``lane_table`` (which lanes run, and what the ledger is told), ``held_lane`` (what one lane holds),
``intake`` (how lanes start and rows come in), ``attempts`` (what becomes of a row after an attempt), ``settlement``
(how rows leave, and what ends with them), ``stealing`` (what is given to ranks that run low), ``slot`` (one server's
tasks, and when to look at which slot), ``robots_gate`` (which rows robots.txt lets through).

Invariants, checked by ``validate``:
- a slot's tasks are in its queue, in its retries, held back for a robots.txt or in flight, and ``lane.rows`` is their
  sum over the lane's slots (the request for a robots.txt is such a task, but no row);
- a task in flight has taken a token and a connection of its slot's pace, and nothing else starts;
- a lane that has ended has no rows left (see ``settlement``).
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterable

from ddmpi.core.frontier import lane_table
from ddmpi.core.frontier.attempts import AttemptHandler, Disposition, RobotsFetches
from ddmpi.core.frontier.held_lane import HeldLane, RowCursor
from ddmpi.core.frontier.intake import Arrivals, Feed
from ddmpi.core.frontier.interface import Event, LaneEnded, Rules
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.robots_gate import RobotsGate
from ddmpi.core.frontier.settlement import Settlement
from ddmpi.core.frontier.slot import Slot, WakeQueue
from ddmpi.core.frontier.stealing import StealResponder
from ddmpi.core.pace.outage import Outage
from ddmpi.core.pace.overrides import NO_OVERRIDES, Overrides
from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.protocol import Extend, Lane, LaneReport, StealRequest
from ddmpi.core.records import MANY_SERVERS, BatchRef, Failure, Task
from ddmpi.core.rules.robots_txt import RobotsVerdict
from ddmpi.core.rules.verdict import Verdict

_ANSWERS = frozenset({Signal.OK, Signal.THROTTLED, Signal.SERVER_ERROR, Signal.FORBIDDEN})
_ENDS_SAMPLING = (Signal.THROTTLED, Signal.CONNECT_FAILED, Signal.FAILED)


class Frontier:
    """The lanes of one rank. See the module's docstring for the life of a lane."""

    def __init__(self, rules: Rules, rng: random.Random) -> None:
        self._lanes = lanes = LaneTable(rules.connections)
        self._wake_queue = WakeQueue()
        self._outage = Outage()
        self._in_flight: dict[Task, Slot] = {}
        self._touched: dict[str, Slot] = {}
        self._stopped = False
        self._control = NO_OVERRIDES
        self.events: deque[Event] = deque()
        self._feed = feed = Feed(rules, rng, self.events)
        self._gate = gate = None if rules.obeys_robots is None else RobotsGate(rules.obeys_robots, rules.limits_for)
        self._settlement = settlement = Settlement(lanes, feed.batches, self._wake_queue, gate, self.events)
        self._arrivals = Arrivals(lanes, feed, settlement)
        self._yielding = StealResponder(lanes, settlement, self.events)
        self._attempts = AttemptHandler(
            rules, rng, lanes=lanes, feed=feed, outage=self._outage, settlement=settlement, events=self.events
        )
        self._robots: RobotsFetches | None = None
        if gate is not None:
            self._robots = RobotsFetches(rules, rng, lanes=lanes, feed=feed, gate=gate, settlement=settlement)

    # ---- lanes come and go

    def assign(self, lanes: Iterable[Lane], now: float) -> None:
        """Take new lanes; handoffs and samples start at once, the others wait for their turn, longest first."""
        waiting = []
        for lane in lanes:
            held = HeldLane.of(lane)
            held.set_control(self._control, now)
            if lane.handoffs or lane.sampling:
                self._lanes.add(held)
                self._lanes.start(held, now)
                self._arrivals.open(held, now)
                self._arrivals.add_handoffs(held, lane.handoffs, now)
                self._settlement.check_ended(held)
            else:
                waiting.append(held)
        self._lanes.queue(waiting)
        self._arrivals.start_lanes(now)

    def extend(self, message: Extend, now: float) -> None:
        """More batches or handoffs for a lane. One that was yielded meanwhile is unknown here, and its extension void:
        the ledger has moved the new batches along with the lane."""
        held = self._lanes.by_id.get(message.lane_id)
        if held is None:
            return
        if message.added is not None:
            held.set_share(held.share.plus(message.added), now)
            self._look_again(held, now)
        if message.wait_s > 0:
            held.rest(message.wait_s, now)
        held.batches.extend(message.batches)
        if held.ended and held.version != message.version:
            self._lanes.start(held, now)
        held.version = message.version
        if message.handoffs:
            if not held.started:
                self._lanes.start_early(held, now)
                self._arrivals.open(held, now)
            self._arrivals.add_handoffs(held, message.handoffs, now)
        if held.started:
            self._arrivals.load_more(held)
            self._settlement.check_ended(held)

    def set_control(self, control: Overrides, now: float) -> None:
        """Other rules hold from now on. What is in flight goes on; what is on hold stays with its lane."""
        self._control = control
        for held in list(self._lanes.by_id.values()):
            held.set_control(control, now)
            self._look_again(held, now)
            if held.started:
                self._arrivals.load_more(held)
                self._settlement.check_ended(held)

    def _look_again(self, held: HeldLane, now: float) -> None:
        """The limits of its slots have changed."""
        for slot in list(held.slots.values()):
            self._settlement.look_after(held, slot, now)

    def release(self, lane_ids: Iterable[int]) -> None:
        """Forget lanes that have ended.

        Raises:
            TransitionError: a lane that has not ended is never released.
        """
        for lane_id in lane_ids:
            self._feed.forget(self._lanes.release(lane_id))

    def yield_lanes(self, message: StealRequest, now: float) -> None:
        """Give back about half of the queued lanes, at most ``time_s``; else split a lane; answered by an event."""
        self._yielding.asked(message, now)

    def loaded(self, lane_id: int, batch: BatchRef, cursor: RowCursor, now: float) -> None:
        """The rows of a batch that was asked for."""
        self._arrivals.loaded(lane_id, batch, cursor, now)

    # ---- requests

    def next_task(self, now: float) -> Task | None:
        """A task that must start now, or None; ``wake_at`` then says when to ask again.

        The caller starts it: its token and its connection are taken.
        """
        if now < self._outage.probe_at:
            return None
        while not self._stopped and (slot := self._wake_queue.pop(now)) is not None:
            if not slot.on_hold and slot.next_due(now) <= now and slot.limiter.ready_at(now) <= now:
                task = slot.pop(now) if self._gate is None else self._let_through(self._gate, slot, now)
                if task is not None:
                    self._launch(slot, task, now)
                    return task
            self._wake_queue.enter(slot, now)
        return None

    def _let_through(self, gate: RobotsGate, slot: Slot, now: float) -> Task | None:
        """The slot's next task as far as robots.txt allows it; rows that it forbids fail."""
        held = self._lanes.by_id[slot.lane_id]
        passage = gate.next_task(slot, now)
        held.rows += passage.is_new
        for failure, tasks in passage.refused.items():
            self._settlement.fail(held, tasks, failure, now)
        if passage.task is not None and slot.limiter.ready_at(now) > now:  # Crawl-delay has just been heard of
            slot.queue.appendleft(passage.task)
            passage.task = None
        if passage.task is None:
            self._arrivals.bring_in(held, slot, now)
            self._settlement.check_ended(held)
        return passage.task

    def _launch(self, slot: Slot, task: Task, now: float) -> None:
        slot.limiter.start(now)
        slot.in_flight += 1
        task.started_at = now
        self._in_flight[task] = slot
        if self._outage.is_on:
            self._outage.started(now)
        self._arrivals.bring_in(self._lanes.by_id[slot.lane_id], slot, now)
        self._wake_queue.enter(slot, now)

    def wake_at(self) -> float:
        """When ``next_task`` may have something (s, monotonic); inf = only after another event."""
        return math.inf if self._stopped else max(self._wake_queue.next_at, self._outage.probe_at)

    def finished(
        self, task: Task, verdict: Verdict, now: float, body_bytes: int, ttfb_s: float = 0.0
    ) -> tuple[Disposition, Failure | None]:
        """What becomes of the row, after this verdict on one attempt at it.

        ``body_bytes`` and ``ttfb_s`` (time to the first byte) are for the server's pace.
        """
        slot = self._in_flight.pop(task)
        held = self._lanes.by_id[slot.lane_id]
        slot.in_flight -= 1
        signal, retry_after_s = self._witness(slot, verdict.signal, now), verdict.retry_after_s
        slot.limiter.finish(now, task.started_at, signal, retry_after_s, body_bytes=body_bytes, ttfb_s=ttfb_s)
        if verdict.signal is not Signal.OK or slot.limiter.has_byte_budget:
            self._touched[slot.key] = slot
        if self._robots is not None and isinstance(verdict, RobotsVerdict):
            disposition, failure = Disposition.OPEN, None
            self._robots.finished(held, slot, task, verdict, now)
        else:
            disposition, failure = self._attempts.decide(held, slot, task, verdict, now)
        if slot.limiter.dead:
            slot.dead = verdict.failure
        held.gave_up = held.gave_up or (held.lane.sampling and verdict.signal in _ENDS_SAMPLING)
        self._settlement.look_after(held, slot, now)
        if disposition is not Disposition.OPEN:
            self._settlement.note_decided(held, task)
            self._settlement.settle(held, task, now)
        self._arrivals.bring_in(held, slot, now)
        self._yielding.answer_split(held)
        self._settlement.check_ended(held)
        self._arrivals.start_lanes(now)
        return disposition, failure

    def _witness(self, slot: Slot, signal: Signal, now: float) -> Signal:
        """What the end of a request says about our own network, and then about its server."""
        if signal in _ANSWERS:
            self._outage.answered(slot.key)
        elif signal is Signal.CONNECT_FAILED:
            if self._outage.unreachable(slot.key, now):
                for held in self._lanes.started.values():
                    for other in held.slots.values():
                        other.limiter.reset_after_outage(now, self._outage.began_at)
                        self._wake_queue.enter(other, now)
            return Signal.LOCAL if self._outage.is_on else signal
        return signal

    # ---- reports

    def stop(self) -> None:
        """Admit nothing more. What is in flight still comes in through ``finished``."""
        self._stopped = True
        self._arrivals.stop()

    def abandon(self, tasks: Iterable[Task]) -> None:
        """These tasks were cut off by a stop: their rows stay with their lanes, and pending."""
        for task in tasks:
            slot = self._in_flight.pop(task)
            slot.in_flight -= 1
            slot.queue.appendleft(task)

    def report(self, now: float) -> list[LaneReport]:
        """The state of each started lane that is worth telling: parked ones, and the paces that were hurt."""
        for held in self._lanes.started.values():
            rests = held.rest_s(self._lanes.by_id.__getitem__, now) > 0
            self._lanes.count_demand(held, 0.0 if rests else None)
        self._arrivals.start_lanes(now)
        touched, self._touched = self._touched, {}
        return lane_table.running(self._lanes, touched.values(), now)

    def sampled(self, lane_id: int, now: float) -> LaneReport | None:
        """What is known of a sampling lane that has ended, before its parts are committed; None of any other lane."""
        return lane_table.sampled(self._lanes.by_id[lane_id], now)

    def drained(self, ended: LaneEnded, now: float) -> LaneReport | None:
        """The last report of a lane, once what it has fetched is committed; None if it has been extended meanwhile."""
        return lane_table.drained(self._lanes, ended, now)

    def slot_key(self, task: Task) -> str:
        """The pace group of a task in flight."""
        return self._in_flight[task].key

    def pause_s(self, key: str, now: float) -> float:
        """For how long a pace group is left alone by this rank, in seconds; 0 if it is not."""
        slot = self._feed.find(key, key)
        return 0.0 if slot is None else slot.limiter.wait_s(now)

    def lane_of(self, task: Task) -> int:
        """The lane under whose share a task is in flight."""
        return self._in_flight[task].lane_id

    def group_of_task(self, task: Task) -> str:
        """The pace group under whose limits a task is in flight; all packed servers together are one."""
        lane = self._lanes.by_id[self._in_flight[task].lane_id].lane
        return MANY_SERVERS if lane.packed else lane.group

    def is_sampling(self, task: Task) -> bool:
        """Whether a task in flight belongs to a profiling lane."""
        return self._lanes.by_id[self._in_flight[task].lane_id].lane.sampling

    def batch(self, batch_id: int) -> BatchRef:
        """The batch of a task that this rank has or had."""
        return self._feed.batches[batch_id]

    def connection_limit(self, task: Task) -> int:
        """Connections that the task's slot may have open, for closing those that a smaller share no longer allows."""
        return self._in_flight[task].limiter.limits.connections

    def spare_connections(self, task: Task) -> int:
        """How many connections of the task's slot nothing in flight needs: so many may be kept open idle."""
        slot = self._in_flight[task]
        return max(0, slot.limiter.limits.connections - slot.in_flight)

    @property
    def in_outage(self) -> bool:
        """Whether this rank's own network has failed: everything waits for a probe to be answered."""
        return self._outage.is_on

    @property
    def in_flight(self) -> int:
        """Requests that were started and are not finished."""
        return len(self._in_flight)

    @property
    def unstarted(self) -> int:
        """Lanes that could be given back."""
        return len(self._lanes.queued)

    @property
    def wants_work(self) -> bool:
        """Whether more lanes would start soon."""
        return not self._stopped and self._lanes.wants_work

    def slots_active(self) -> int:
        """Servers with a request in flight (one entry for all servers of a group)."""
        return len(set(self._in_flight.values()))

    def remaining_s(self, now: float) -> float:
        """Predicted time until this rank's lanes are empty."""
        return self._lanes.remaining_s(now)

    def validate(self) -> None:
        """Check the invariants (tests call this after every step).

        Raises:
            AssertionError: with the lane that breaks one.
        """
        for held in self._lanes.by_id.values():
            rows = sum(slot.waiting + slot.in_flight for slot in held.slots.values())
            if rows != held.rows:
                raise AssertionError(f"lane {held.lane_id} counts {held.rows} rows, its slots {rows}")
            if held.ended and held.rows_left:
                raise AssertionError(f"lane {held.lane_id} ended with {held.rows_left} rows left")

    def __repr__(self) -> str:
        lanes = self._lanes
        return f"<Frontier: {len(lanes.started)} started, {len(lanes.queued)} queued, {len(self._in_flight)} in flight>"
