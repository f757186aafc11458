"""Which request may start now, or when: a downloader's state machine. Pure: no MPI, curl, files, clock.

The shell (``roles.downloader``) tells it what happened and does what it says: it takes tasks with ``next_task``,
returns their verdicts with ``finished``, and works off ``events`` in order. ``now`` is monotonic seconds.

A lane lives: queued -> started (its rows are loaded batch by batch) -> ended (nothing left) -> released by the ledger.
A queued lane can be given back; a started one can only be split. An ended lane is opened again by ``extend``.

Its parts: ``lane_table`` (which lanes run), ``held_lane`` (what one lane holds), ``feed`` (how rows come in),
``agenda`` (when to look at which site), ``open_batches`` (which batches have rows here), ``lending`` (rows that were
redirected within the rank), ``lane_reports`` (what the ledger is told),
``robots_gate`` (which rows robots.txt lets through).

Invariants, checked by ``validate``:
- a site's tasks are in its queue, in its retries, held back for a robots.txt or in flight, and ``lane.rows`` is their
  sum over the lane's sites (the request for a robots.txt is such a task, but no row);
- a task in flight has taken a token and a connection of its site's pace, and nothing else starts;
- a lane has ended only when it has no batch to load, no cursor, no row, and no row of it is lent to another lane:
  the ledger takes the batches of an ended lane for done.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum

from ddmpi import lane_reports
from ddmpi.agenda import Agenda
from ddmpi.control import NO_CONTROL, Control
from ddmpi.events import BatchEnded, Event, LaneEnded, ReadyToYield, RowRedirected, RowsFailed
from ddmpi.feed import Feed
from ddmpi.frontier_rules import Rules
from ddmpi.held_lane import HeldLane, RowCursor
from ddmpi.lane_table import LaneTable
from ddmpi.lending import give_back, lend
from ddmpi.outage import PROBE_S, Outage
from ddmpi.outcome import Outcome, Verdict
from ddmpi.pace import Signal
from ddmpi.protocol import Errand, Extend, Lane, LaneReport, Yield, Yielded
from ddmpi.records import MANY_SERVERS, BatchRef, ErrorKind, Failure, Task, error_code
from ddmpi.robots import EVERYTHING, RobotsFile, RobotsVerdict
from ddmpi.robots_gate import RobotsGate
from ddmpi.schedule import divide, joined
from ddmpi.site import Site


class Fate(Enum):
    """What becomes of a row after an attempt."""

    SUCCESS = "success"
    FAILURE = "failure"
    """Final: the shell records the failure that comes with it."""
    OPEN = "open"
    """Not final: it is tried again, was handed to another lane, or stays pending (sampling)."""


_ANSWERS = frozenset({Signal.OK, Signal.THROTTLED, Signal.SERVER_ERROR, Signal.FORBIDDEN})
_ENDS_SAMPLING = (Signal.THROTTLED, Signal.CONNECT_FAILED, Signal.FAILED)


class Frontier:
    """The lanes of one rank. See the module's docstring for the life of a lane."""

    def __init__(self, rules: Rules, rng: random.Random) -> None:
        self._rules = rules
        self._rng = rng
        self._lanes = LaneTable(rules.connections)
        self._agenda = Agenda()
        self._outage = Outage()
        self._in_flight: dict[Task, Site] = {}
        self._touched: dict[str, Site] = {}
        self._stopped = False
        self._control = NO_CONTROL
        self.events: deque[Event] = deque()
        self._feed = Feed(rules, rng, self.events)
        self._gate = None if rules.obeys_robots is None else RobotsGate(rules.obeys_robots, rules.limits_for)

    # ---- lanes come and go

    def assign(self, lanes: Iterable[Lane], now: float) -> None:
        """Take new lanes; errands and samples start at once, the others wait for their turn, longest first."""
        waiting = []
        for lane in lanes:
            held = HeldLane.of(lane)
            held.set_control(self._control, now)
            if lane.errands or lane.sampling:
                self._lanes.add(held)
                self._lanes.start(held, now)
                self._open(held, now)
                self._add_errands(held, lane.errands, now)
                self._check_ended(held)
            else:
                waiting.append(held)
        self._lanes.queue(waiting)
        self.start_lanes(now)

    def extend(self, message: Extend, now: float) -> None:
        """More batches or errands for a lane. One that was yielded meanwhile is unknown here, and its extension void:
        the ledger has moved the new batches along with the lane."""
        held = self._lanes.by_id.get(message.lane_id)
        if held is None:
            return
        if message.added is not None:
            held.set_share(joined(held.share, message.added), now)
            self._look_again(held, now)
        if message.wait_s > 0:
            held.rest(message.wait_s, now)
        held.batches.extend(message.batches)
        if held.ended and held.version != message.version:
            self._lanes.start(held, now)
        held.version = message.version
        if message.errands:
            if not held.started:
                self._lanes.start_early(held, now)
                self._open(held, now)
            self._add_errands(held, message.errands, now)
        if held.started:
            self._load_more(held)
            self._check_ended(held)

    def set_control(self, control: Control, now: float) -> None:
        """Other rules hold from now on. What is in flight goes on; what is on hold stays with its lane."""
        self._control = control
        for held in list(self._lanes.by_id.values()):
            held.set_control(control, now)
            self._look_again(held, now)
            if held.started:
                self._load_more(held)
                self._check_ended(held)

    def _look_again(self, held: HeldLane, now: float) -> None:
        """The limits of its sites have changed."""
        for site in list(held.sites.values()):
            self._look_after(held, site, now)

    def release(self, lane_ids: Iterable[int]) -> None:
        """Forget lanes that have ended.

        Raises:
            TransitionError: a lane that has not ended is never released.
        """
        for lane_id in lane_ids:
            self._feed.forget(self._lanes.release(lane_id))

    def yield_lanes(self, message: Yield, now: float) -> None:
        """Give back about half of the queued lanes, at most ``time_s``; else split a lane; answered by an event."""
        given = self._lanes.give_back(message.time_s)
        splittable = self._lanes.by_id.get(message.split_lane_id)
        if not given and splittable is not None and splittable.can_be_cut:
            self._cut(splittable, message, now)
        else:
            self.events.append(ReadyToYield(Yielded(message.request_id, lane_ids=given)))

    def _cut(self, held: HeldLane, message: Yield, now: float) -> None:
        """Halve the lane's share; the answer goes out when its requests in flight fit into what is kept."""
        kept, cut_off = divide(held.share, 2)
        given = tuple(held.batches.pop().batch_id for _ in range((len(held.batches) + 1) // 2))
        held.split = Yielded(message.request_id, (), held.lane_id, given, cut_off)
        held.set_share(kept, now)
        self._answer_split(held)

    def _answer_split(self, held: HeldLane) -> None:
        """With less than its old share in flight a lane has ended at the latest when this answer is an event."""
        if held.split is None or held.in_flight > held.share.connections:
            return
        answer, held.split = held.split, None
        self.events.append(ReadyToYield(answer, tuple(held.servers), held.share.connections))
        self._check_ended(held)

    # ---- lanes start and their rows come in

    def start_lanes(self, now: float) -> None:
        """Start queued lanes while the connections of the rank are not all spoken for."""
        while not self._stopped and (held := self._lanes.start_next(now)) is not None:
            self._open(held, now)
            self._check_ended(held)

    def _open(self, held: HeldLane, now: float) -> None:
        if not held.lane.packed:
            self._feed.site(held, held.lane.group, now)
        self._load_more(held)

    def _load_more(self, held: HeldLane) -> None:
        if not self._stopped:
            self._feed.load_more(held)

    def loaded(self, lane_id: int, batch: BatchRef, cursor: RowCursor, now: float) -> None:
        """The rows of a batch that was asked for."""
        held = self._lanes.by_id[lane_id]
        self._feed.loaded(held, batch, cursor)
        self._refill(held, now)
        held.expect()
        if held.started:
            self._lanes.count_demand(held)
        self._check_batch(batch.batch_id)
        self._load_more(held)
        self._check_ended(held)
        self.start_lanes(now)

    def _refill(self, held: HeldLane, now: float) -> None:
        for site in self._feed.refill(held, now):
            self._look_after(held, site, now)

    def _add_errands(self, held: HeldLane, errands: Sequence[Errand], now: float) -> None:
        for errand in errands:
            self._look_after(held, self._feed.add_errand(held, errand, now), now)

    def _look_after(self, held: HeldLane, site: Site, now: float) -> None:
        """What becomes of the rows that wait at the site."""
        if site.dead is not None:
            self._bury(held, site, site.dead, now)
        elif held.gave_up or (held.lane.sampling and site.on_hold):
            self._postpone(held, site, now)
        else:
            self._agenda.enter(site, now)

    # ---- requests

    def next_task(self, now: float) -> Task | None:
        """A task that must start now, or None; ``wake_at`` then says when to ask again.

        The caller starts it: its token and its connection are taken.
        """
        if now < self._outage.probe_at:
            return None
        while not self._stopped and (site := self._agenda.pop(now)) is not None:
            if not site.on_hold and site.next_due(now) <= now and site.pace.ready_at(now) <= now:
                task = site.pop(now) if self._gate is None else self._let_through(self._gate, site, now)
                if task is not None:
                    self._launch(site, task, now)
                    return task
            self._agenda.enter(site, now)
        return None

    def _let_through(self, gate: RobotsGate, site: Site, now: float) -> Task | None:
        """The site's next task as far as robots.txt allows it; rows that it forbids fail."""
        held = self._lanes.by_id[site.lane_id]
        passage = gate.next_task(site, now)
        held.rows += passage.is_new
        for failure, tasks in passage.refused.items():
            self._fail(held, tasks, failure, now)
        if passage.task is not None and site.pace.ready_at(now) > now:  # Crawl-delay has just been heard of
            site.queue.appendleft(passage.task)
            passage.task = None
        if passage.task is None:
            self._bring_in(held, site, now)
            self._check_ended(held)
        return passage.task

    def _launch(self, site: Site, task: Task, now: float) -> None:
        site.pace.start(now)
        site.in_flight += 1
        task.started_at = now
        self._in_flight[task] = site
        if self._outage.is_on:
            self._outage.started(now)
        self._bring_in(self._lanes.by_id[site.lane_id], site, now)
        self._agenda.enter(site, now)

    def _bring_in(self, held: HeldLane, site: Site, now: float) -> None:
        """Keep rows at the site, and batches in the lane, before they run out."""
        if held.cursors and not site.queue:
            self._refill(held, now)
        self._load_more(held)

    def wake_at(self) -> float:
        """When ``next_task`` may have something (s, monotonic); inf = only after another event."""
        return math.inf if self._stopped else max(self._agenda.next_at, self._outage.probe_at)

    def finished(
        self, task: Task, verdict: Verdict, now: float, body_bytes: int, ttfb_s: float = 0.0
    ) -> tuple[Fate, Failure | None]:
        """What becomes of the row, after this verdict on one attempt at it.

        ``body_bytes`` and ``ttfb_s`` (time to the first byte) are for the server's pace.
        """
        site = self._in_flight.pop(task)
        held = self._lanes.by_id[site.lane_id]
        site.in_flight -= 1
        signal, retry_after_s = self._witness(site, verdict.signal, now), verdict.retry_after_s
        site.pace.finish(now, task.started_at, signal, retry_after_s, body_bytes=body_bytes, ttfb_s=ttfb_s)
        if verdict.signal is not Signal.OK or site.pace.has_byte_budget:
            self._touched[site.key] = site
        fate, failure = self._judge(held, site, task, verdict, now)
        if site.pace.dead:
            site.dead = verdict.failure
        held.gave_up = held.gave_up or (held.lane.sampling and verdict.signal in _ENDS_SAMPLING)
        self._look_after(held, site, now)
        if fate is not Fate.OPEN:
            self._note_decided(held, task)
            self._settle(held, task, now)
        self._bring_in(held, site, now)
        self._answer_split(held)
        self._check_ended(held)
        self.start_lanes(now)
        return fate, failure

    def _witness(self, site: Site, signal: Signal, now: float) -> Signal:
        """What the end of a request says about our own network, and then about its server."""
        if signal in _ANSWERS:
            self._outage.answered(site.key)
        elif signal is Signal.CONNECT_FAILED:
            if self._outage.unreachable(site.key, now):
                for held in self._lanes.started.values():
                    for other in held.sites.values():
                        other.pace.absolve(now, self._outage.began_at)
                        self._agenda.enter(other, now)
            return Signal.LOCAL if self._outage.is_on else signal
        return signal

    def _judge(
        self, held: HeldLane, site: Site, task: Task, verdict: Verdict, now: float
    ) -> tuple[Fate, Failure | None]:
        if isinstance(verdict, RobotsVerdict):
            self._take_robots(held, site, task, verdict, now)
            return Fate.OPEN, None
        if verdict.outcome is Outcome.SUCCESS:
            return Fate.SUCCESS, None
        if verdict.outcome is Outcome.REDIRECT:
            return self._follow(held, task, verdict.location, now)
        if held.lane.sampling and verdict.transient:
            self._settle(held, task, now)
            return Fate.OPEN, None
        return self._try_again(site, task, verdict, now)

    def _try_again(self, site: Site, task: Task, verdict: Verdict, now: float) -> tuple[Fate, Failure | None]:
        """Whether the row waits for another try; one that our own network may have cost does not count."""
        delay_s = self._rules.retry.decide(verdict, task.attempt, self._rng)
        if verdict.signal is Signal.CONNECT_FAILED and verdict.transient and self._outage.is_suspected(now):
            site.retry_at(task, now + (delay_s or PROBE_S))
            return Fate.OPEN, None
        if delay_s is None:
            return Fate.FAILURE, verdict.failure
        task.attempt += 1
        site.retry_at(task, now + delay_s)
        return Fate.OPEN, None

    def _follow(self, held: HeldLane, task: Task, location: str, now: float) -> tuple[Fate, Failure | None]:
        """Queue the row in the lane of its new server; without one here, it has to go to where that lane is."""
        target = self._rules.locate(location)
        if isinstance(target, str):
            kind = ErrorKind.REDIRECT
            return Fate.FAILURE, Failure(kind, error_code(kind, 0), f"redirect target refused: {target}")
        task.url, task.server = target
        task.redirects += 1
        group = self._rules.group_of(task.server)
        site = self._feed.find(group, task.server)
        new = self._lanes.by_id[site.lane_id] if site is not None else None
        if new is None or new.ended or new.lane.sampling is not held.lane.sampling:
            if not held.lane.sampling:  # a sample stays pending, and is fetched later
                batch = self._feed.batches[task.batch_id]
                errand = Errand(batch, task.row, task.url, task.server, group, task.attempt, task.redirects)
                self.events.append(RowRedirected(errand))
            self._settle(held, task, now)
        else:
            lend(self._lanes.by_id, task, held, new)
            self._look_after(new, self._feed.hand_over(task, new, now), now)
        return Fate.OPEN, None

    # ---- robots.txt

    def _take_robots(self, held: HeldLane, site: Site, task: Task, verdict: RobotsVerdict, now: float) -> None:
        """A request for a robots.txt has ended: what it says is known, or it is asked for again."""
        file = verdict.robots
        if verdict.outcome is Outcome.REDIRECT:
            file = self._follow_robots(held, task, verdict.location, now)
            if file is None:
                return
        elif verdict.failure is not None:
            delay_s = self._rules.retry.decide_for_server(verdict, task.attempt, self._rng)
            if held.lane.sampling and verdict.transient:
                held.gave_up = True
            elif delay_s is not None:
                task.attempt += 1
                site.retry_at(task, now + delay_s)
                return
            else:
                file = RobotsFile.refusing(verdict.failure)
        if file is not None and self._gate is not None:
            self._gate.learn(task.robots_of, file, now)
        self._settle(held, task, now)

    def _follow_robots(self, held: HeldLane, task: Task, location: str, now: float) -> RobotsFile | None:
        """Ask the server to which a robots.txt was redirected, if a lane here has a share of its limits: None.

        Of others the file counts as missing; rows that are redirected there are checked against that server's own.
        """
        target = self._rules.locate(location)
        if isinstance(target, str):
            return EVERYTHING
        task.url, task.server = target
        task.redirects += 1
        site = self._feed.find(self._rules.group_of(task.server), task.server)
        new = self._lanes.by_id[site.lane_id] if site is not None else None
        if site is None or new is None or new.ended or new.gave_up:
            return EVERYTHING
        if site.dead is not None:
            return RobotsFile.refusing(site.dead)
        lend(self._lanes.by_id, task, held, new)
        self._look_after(new, self._feed.hand_over(task, new, now), now)
        return None

    def _end_robots(self, origin: str, now: float) -> None:
        """The rows that waited for the file have their turn again; those that find it unknown will ask."""
        for site in self._gate.hand_out(origin) if self._gate is not None else ():
            held = self._lanes.by_id[site.lane_id]
            self._look_after(held, site, now)
            self._check_ended(held)

    # ---- rows leave

    def _note_decided(self, held: HeldLane, task: Task) -> None:
        """A sample has its outcome: whoever gets the rest of its batch has to know."""
        home = self._lanes.by_id[task.home_lane] if task.home_lane else held
        if home.lane.sampling:
            home.decided.append((task.batch_id, task.row))

    def _settle(self, held: HeldLane, task: Task, now: float) -> None:
        """The row has left this rank: it is final, pending or somebody else's."""
        held.rows -= 1
        held.settled += 1
        if task.home_lane:
            give_back(self._lanes.by_id, task, held)
            self._check_ended(self._lanes.by_id[task.home_lane])
        if task.robots_of:
            self._end_robots(task.robots_of, now)
        else:
            self._feed.batches.remove(task.batch_id)
            self._check_batch(task.batch_id)

    def _check_batch(self, batch_id: int) -> None:
        if self._feed.batches.ended(batch_id):
            self.events.append(BatchEnded(batch_id))

    def _bury(self, held: HeldLane, site: Site, failure: Failure, now: float) -> None:
        """The server is given up: all its rows, also those that are loaded later, fail as the last probe did."""
        self._fail(held, site.clear(), failure, now)

    def _fail(self, held: HeldLane, tasks: Sequence[Task], failure: Failure, now: float) -> None:
        rows = [task for task in tasks if not task.robots_of]
        if rows:
            self.events.append(RowsFailed(rows, failure))
        for task in rows:
            self._note_decided(held, task)
        for task in tasks:
            self._settle(held, task, now)

    def _postpone(self, held: HeldLane, site: Site, now: float) -> None:
        """Profiling does not wait for a server that asks for a pause or cannot be reached: its samples stay pending."""
        for task in site.clear():
            self._settle(held, task, now)

    def _check_ended(self, held: HeldLane) -> None:
        if held.ended or not held.started or not held.is_used_up:
            return
        self._lanes.end(held)
        self.events.append(LaneEnded(held.lane_id, frozenset(held.batch_ids), tuple(held.servers), held.endings))
        held.batch_ids.clear()

    # ---- reports

    def stop(self) -> None:
        """Admit nothing more. What is in flight still comes in through ``finished``."""
        self._stopped = True

    def abandon(self, tasks: Iterable[Task]) -> None:
        """These tasks were cut off by a stop: their rows stay with their lanes, and pending."""
        for task in tasks:
            site = self._in_flight.pop(task)
            site.in_flight -= 1
            site.queue.appendleft(task)

    def report(self, now: float) -> list[LaneReport]:
        """The state of each started lane that is worth telling: parked ones, and the paces that were hurt."""
        for held in self._lanes.started.values():
            rests = held.rest_s(self._lanes.by_id.__getitem__, now) > 0
            self._lanes.count_demand(held, 0.0 if rests else None)
        self.start_lanes(now)
        touched, self._touched = self._touched, {}
        return lane_reports.running(self._lanes, touched.values(), now)

    def sampled(self, lane_id: int, now: float) -> LaneReport | None:
        """What is known of a sampling lane that has ended, before its parts are committed; None of any other lane."""
        return lane_reports.sampled(self._lanes.by_id[lane_id], now)

    def drained(self, ended: LaneEnded, now: float) -> LaneReport | None:
        """The last report of a lane, once what it has fetched is committed; None if it has been extended meanwhile."""
        return lane_reports.drained(self._lanes, ended, now)

    def site_key(self, task: Task) -> str:
        """The pace group of a task in flight."""
        return self._in_flight[task].key

    def pause_s(self, key: str, now: float) -> float:
        """For how long a pace group is left alone by this rank, in seconds; 0 if it is not."""
        site = self._feed.find(key, key)
        return 0.0 if site is None else site.pace.wait_s(now)

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
        """Connections that the task's site may have open, for closing those that a smaller share no longer allows."""
        return self._in_flight[task].pace.limits.connections

    def spare_connections(self, task: Task) -> int:
        """How many connections of the task's site nothing in flight needs: so many may be kept open idle."""
        site = self._in_flight[task]
        return max(0, site.pace.limits.connections - site.in_flight)

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
    def is_hungry(self) -> bool:
        """Whether more lanes would start soon."""
        return not self._stopped and self._lanes.is_hungry

    def sites_active(self) -> int:
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
            rows = sum(site.waiting + site.in_flight for site in held.sites.values())
            if rows != held.rows:
                raise AssertionError(f"lane {held.lane_id} counts {held.rows} rows, its sites {rows}")
            if held.ended and held.rows_left:
                raise AssertionError(f"lane {held.lane_id} ended with {held.rows_left} rows left")

    def __repr__(self) -> str:
        lanes = self._lanes
        return f"<Frontier: {len(lanes.started)} started, {len(lanes.queued)} queued, {len(self._in_flight)} in flight>"
