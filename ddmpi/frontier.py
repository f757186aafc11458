"""Which request may start now, or when: a downloader's state machine. Pure: no MPI, curl, files, clock.

The shell (``roles.downloader``) tells it what happened and does what it says: it takes tasks with ``next_task``,
returns their verdicts with ``finished``, and works off ``events`` in order. ``now`` is monotonic seconds.

A lane lives: queued -> started (its rows are loaded batch by batch) -> ended (nothing left) -> released by the ledger.
A queued lane can be given back; a started one can only be split. An ended lane is opened again by ``extend``.

Invariants, checked by ``validate``:
- a site's tasks are in its queue, in its retries or in flight, and ``lane.rows`` is their sum over the lane's sites;
- a task in flight has taken a token and a connection of its site's pace, and nothing else starts;
- a lane has ended only when it has no batch to load, no cursor, no row, and no row of it is lent to another lane:
  the ledger takes the batches of an ended lane for done.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from ddmpi.errors import TransitionError
from ddmpi.events import BatchEnded, Event, LaneEnded, LoadBatch, ReadyToYield, RowRedirected, RowsFailed
from ddmpi.outcome import Outcome, Verdict
from ddmpi.pace import Pace, PacePolicy, Signal
from ddmpi.protocol import Errand, Extend, Lane, LaneReport, LaneState, Yield, Yielded
from ddmpi.records import BatchRef, ErrorKind, Failure, Limits, PaceState, Task, error_code
from ddmpi.retry import RetryPolicy
from ddmpi.schedule import divide, joined
from ddmpi.site import Site

CHUNK_ROWS = 256
"""Rows that become Python objects at a time: a loaded batch stays in its columns until its turn comes."""
LOW_WATER_ROWS = 2000
"""A lane with fewer loaded rows asks for its next batch: about a second of the fastest server."""
TYPICAL_LATENCY_S = 0.25
"""Used only to guess how many connections a rate-limited lane keeps busy."""
LONG_PAUSE_S = 5.0
"""A server that is left alone for longer counts as parked: other lanes take its place meanwhile."""
ROWS_TO_MEASURE = 20
"""A started lane's own speed counts from here on."""
MOST_STARTED_LANES = 512
"""Bounds the loaded batches of a rank (about 1 MB each)."""


class RowCursor(Protocol):
    """The rows of a batch that have no outcome yet, in order."""

    @property
    def left(self) -> int:
        """Rows not taken yet."""

    def take(self, n: int) -> Sequence[tuple[int, str, str]]:
        """Up to ``n`` rows as (index in the batch, URL to fetch, server)."""


class Fate(Enum):
    """What becomes of a row after an attempt."""

    SUCCESS = "success"
    FAILURE = "failure"
    """Final: the shell records the failure that comes with it."""
    OPEN = "open"
    """Not final: it is tried again, was handed to another lane, or stays pending (sampling)."""


_ENDS_SAMPLING = (Signal.THROTTLED, Signal.CONNECT_FAILED)


@dataclass(frozen=True)
class Rules:
    """What the frontier has to ask of the config and the URL rules."""

    limits_for: Callable[[str], Limits]
    group_of: Callable[[str], str]
    locate: Callable[[str], tuple[str, str] | str]
    """A redirect's target -> (URL to fetch, server), or the reason why it is refused."""
    pace: PacePolicy
    retry: RetryPolicy
    connections: int = 256
    """What the rank as a whole may have in flight."""
    chunk_rows: int = CHUNK_ROWS
    low_water_rows: int = LOW_WATER_ROWS


@dataclass(slots=True, eq=False)
class _Lane:
    lane: Lane
    version: int
    share: Limits
    batches: deque[BatchRef]
    started: bool = False
    ended: bool = False
    endings: int = 0
    loading: int = 0
    cursors: deque[tuple[BatchRef, RowCursor]] = field(default_factory=deque)
    sites: dict[str, Site] = field(default_factory=dict)
    rows: int = 0
    batch_ids: set[int] = field(default_factory=set)
    servers: set[str] = field(default_factory=set)
    row_time_s: float = 0.0
    started_at: float = 0.0
    settled: int = 0
    """Rows that have left the lane since then."""
    counted: float = 0.0
    lent: dict[int, int] = field(default_factory=dict)
    """Rows of this lane that were redirected into other lanes of the rank, by lane."""
    split: Yielded | None = None
    """The answer to a ``Yield`` that waits for requests in flight."""
    rest_until: float = -math.inf
    """Another lane of the group was asked for a pause until then, when this one had perhaps not started."""
    gave_up: bool = False
    """Sampling only: the server asked for a pause or cannot be reached."""
    reported: tuple[LaneState, int] = (LaneState.RUNNING, 0)

    @property
    def rows_left(self) -> int:
        loaded = self.rows + sum(cursor.left for _, cursor in self.cursors)
        return loaded + sum(batch.rows for batch in self.batches)

    def pace_s(self, now: float) -> float:
        """Seconds per row: as predicted, or as measured where the rank or the server turns out to be slower."""
        if self.settled < ROWS_TO_MEASURE:
            return self.row_time_s
        return max(self.row_time_s, (now - self.started_at) / self.settled)

    @property
    def demand(self) -> float:
        """Connections that this lane is expected to keep busy."""
        if self.lane.packed:
            return float(min(64, max(1, self.rows_left)))
        if self.share.rate_per_s <= 0:
            return float(self.share.connections)
        return min(float(self.share.connections), max(0.1, self.share.rate_per_s * TYPICAL_LATENCY_S))


class Frontier:
    """The lanes of one rank. See the module's docstring for the life of a lane."""

    def __init__(self, rules: Rules, rng: random.Random) -> None:
        self._rules = rules
        self._rng = rng
        self._lanes: dict[int, _Lane] = {}
        self._queued: deque[_Lane] = deque()
        self._started: dict[int, _Lane] = {}
        self._demand = 0.0
        self._ready: list[tuple[float, int, Site]] = []
        self._sequence = itertools.count()
        self._in_flight: dict[Task, Site] = {}
        self._batches: dict[int, BatchRef] = {}
        self._batch_rows: dict[int, int] = {}
        self._sites_by_key: dict[str, Site] = {}
        self._touched: dict[str, Site] = {}
        self._stopped = False
        self.events: deque[Event] = deque()

    # ---- lanes come and go

    def assign(self, lanes: Iterable[Lane], now: float) -> None:
        """Take new lanes; errands start at once, the others wait for their turn, longest first."""
        for lane in lanes:
            rows = sum(batch.rows for batch in lane.batches)
            held = _Lane(lane, lane.version, lane.share, deque(lane.batches), row_time_s=lane.time_s / max(1, rows))
            self._lanes[lane.lane_id] = held
            if lane.errands or lane.sampling:
                self._start(held, now)
                self._add_errands(held, lane.errands, now)
                self._check_ended(held)
            else:
                self._queued.append(held)
        self._queued = deque(sorted(self._queued, key=lambda held: -held.lane.time_s))
        self.start_lanes(now)

    def extend(self, message: Extend, now: float) -> None:
        """More batches or errands for a lane. One that was yielded meanwhile is unknown here, and its extension void:
        the ledger has moved the new batches along with the lane."""
        held = self._lanes.get(message.lane_id)
        if held is None:
            return
        if message.added is not None:
            self._set_share(held, joined(held.share, message.added), now)
        if message.wait_s > 0:
            held.rest_until = max(held.rest_until, now + message.wait_s)
            for site in held.sites.values():
                site.pace.rest(now, message.wait_s)
        held.batches.extend(message.batches)
        if held.ended and held.version != message.version:
            held.ended = False
            self._started[message.lane_id] = held
            self._count_demand(held)
        held.version = message.version
        if message.errands:
            if not held.started:
                self._queued.remove(held)
                self._start(held, now)
            self._add_errands(held, message.errands, now)
        if held.started:
            self._load_more(held)
            self._check_ended(held)

    @staticmethod
    def _set_share(held: _Lane, share: Limits, now: float) -> None:
        held.share = share
        for site in held.sites.values():
            site.pace.set_limits(share, now)

    def release(self, lane_ids: Iterable[int]) -> None:
        """Forget lanes that have ended.

        Raises:
            TransitionError: a lane that has not ended is never released.
        """
        for lane_id in lane_ids:
            held = self._lanes.pop(lane_id)
            if not held.ended:
                raise TransitionError(f"lane {lane_id} was released while {held.rows_left} rows are left")
            for site in held.sites.values():
                if self._sites_by_key.get(site.key) is site:
                    del self._sites_by_key[site.key]

    def yield_lanes(self, message: Yield, now: float) -> None:
        """Give back about half of the queued lanes, at most ``time_s``; else split a lane; answered by an event."""
        given: list[_Lane] = []
        budget_s = min(message.time_s, sum(held.lane.time_s for held in self._queued) / 2)
        for held in list(self._queued)[1::2] or list(self._queued):
            if given and budget_s < held.lane.time_s:
                continue
            given.append(held)
            budget_s -= held.lane.time_s
        for held in given:
            self._queued.remove(held)
            del self._lanes[held.lane.lane_id]
        splittable = self._lanes.get(message.split_lane_id)
        if not given and splittable is not None and self._cut(splittable, message, now):
            return
        ids = tuple(held.lane.lane_id for held in given)
        self.events.append(ReadyToYield(Yielded(message.request_id, lane_ids=ids)))

    def _cut(self, held: _Lane, message: Yield, now: float) -> bool:
        """Halve the lane's share; the answer goes out when its requests in flight fit into what is kept."""
        if held.lane.packed or held.split or not held.started or not held.batches or held.share.connections < 2:
            return False
        kept, cut_off = divide(held.share, 2)
        given = tuple(held.batches.pop().batch_id for _ in range((len(held.batches) + 1) // 2))
        held.split = Yielded(message.request_id, (), held.lane.lane_id, given, cut_off)
        self._set_share(held, kept, now)
        self._answer_split(held)
        return True

    def _answer_split(self, held: _Lane) -> None:
        """With less than its old share in flight a lane has ended at the latest when this answer is an event."""
        if held.split is None or sum(site.in_flight for site in held.sites.values()) > held.share.connections:
            return
        answer, held.split = held.split, None
        self.events.append(ReadyToYield(answer, tuple(held.servers), held.share.connections))
        self._check_ended(held)

    # ---- lanes start and their rows come in

    def start_lanes(self, now: float) -> None:
        """Start queued lanes while the connections of the rank are not all spoken for."""
        if self._stopped:
            return
        while self._queued and self._demand < self._rules.connections and len(self._started) < MOST_STARTED_LANES:
            held = self._queued.popleft()
            self._start(held, now)
            self._check_ended(held)

    def _start(self, held: _Lane, now: float) -> None:
        held.started = True
        held.started_at = now
        self._started[held.lane.lane_id] = held
        self._count_demand(held)
        if not held.lane.packed:
            self._site(held, held.lane.group, now)
        self._load_more(held)

    def _site(self, held: _Lane, key: str, now: float) -> Site:
        site = held.sites.get(key)
        if site is None:
            limits = self._rules.limits_for(key) if held.lane.packed else held.share
            pace = Pace(limits, self._rules.pace, held.lane.paces.get(key), self._rng, now)
            pace.rest(now, max(0.0, held.rest_until - now))
            site = held.sites[key] = Site(key, held.lane.lane_id, pace)
            self._sites_by_key[key] = site
        return site

    def _load_more(self, held: _Lane) -> None:
        """Ask for the next batch when few loaded rows are left. Rows of a batch leave with the cursor."""
        if self._stopped or not held.batches or held.loading:
            return
        if held.rows + sum(cursor.left for _, cursor in held.cursors) < self._rules.low_water_rows:
            held.loading += 1
            self.events.append(LoadBatch(held.lane.lane_id, held.batches.popleft()))

    def loaded(self, lane_id: int, batch: BatchRef, cursor: RowCursor, now: float) -> None:
        """The rows of a batch that was asked for."""
        held = self._lanes[lane_id]
        held.loading -= 1
        held.batch_ids.add(batch.batch_id)
        self._batches[batch.batch_id] = batch
        self._batch_rows[batch.batch_id] = self._batch_rows.get(batch.batch_id, 0) + cursor.left
        if cursor.left:
            held.cursors.append((batch, cursor))
            self._refill(held, now)
        else:
            self._check_batch(batch.batch_id)
        self._load_more(held)
        self._check_ended(held)
        if self._queued:
            self.start_lanes(now)

    def _refill(self, held: _Lane, now: float) -> None:
        """Turn rows into tasks: all of a packed batch (its servers run side by side), else as many as are needed."""
        while held.cursors and (held.lane.packed or held.rows < self._rules.chunk_rows):
            batch, cursor = held.cursors[0]
            fresh: dict[Site, None] = {}
            for row, url, server in cursor.take(self._rules.chunk_rows):
                site = self._site(held, server if held.lane.packed else held.lane.group, now)
                held.servers.add(server)
                held.rows += 1
                site.queue.append(Task(batch.batch_id, row, url, server))
                fresh[site] = None
            if not cursor.left:
                held.cursors.popleft()
            for site in fresh:
                self._look_after(held, site, now)

    def _add_errands(self, held: _Lane, errands: Sequence[Errand], now: float) -> None:
        for errand in errands:
            batch_id = errand.batch.batch_id
            self._batches.setdefault(batch_id, errand.batch)
            self._batch_rows[batch_id] = self._batch_rows.get(batch_id, 0) + 1
            task = Task(batch_id, errand.row, errand.url, errand.server, errand.attempt, errand.redirects)
            self._hand_over(task, held, errand.server, now)

    def _hand_over(self, task: Task, held: _Lane, server: str, now: float) -> None:
        """Queue a task that came from elsewhere in this lane, before its own rows."""
        held.batch_ids.add(task.batch_id)
        held.servers.add(server)
        site = self._site(held, server if held.lane.packed else held.lane.group, now)
        held.rows += 1
        site.retry_at(task, now)
        self._look_after(held, site, now)

    def _look_after(self, held: _Lane, site: Site, now: float) -> None:
        """What becomes of the rows that wait at the site."""
        if site.dead is not None:
            self._bury(held, site, site.dead)
        elif held.gave_up:
            self._postpone(held, site)
        else:
            self._schedule(site, now)

    # ---- requests

    def next_task(self, now: float) -> Task | None:
        """A task that must start now, or None; ``wake_at`` then says when to ask again.

        The caller starts it: its token and its connection are taken.
        """
        ready = self._ready
        while ready and ready[0][0] <= now and not self._stopped:
            at, _, site = heapq.heappop(ready)
            if at != site.scheduled_at:
                continue
            site.scheduled_at = math.inf
            if site.next_due(now) <= now and site.pace.ready_at(now) <= now:
                task = site.pop(now)
                if task is not None:
                    self._launch(site, task, now)
                    return task
            self._schedule(site, now)
        return None

    def _launch(self, site: Site, task: Task, now: float) -> None:
        site.pace.start(now)
        site.in_flight += 1
        task.started_at = now
        self._in_flight[task] = site
        held = self._lanes[site.lane_id]
        self._bring_in(held, site, now)
        self._schedule(site, now)

    def _bring_in(self, held: _Lane, site: Site, now: float) -> None:
        """Keep rows at the site, and batches in the lane, before they run out."""
        if held.cursors and not site.queue:
            self._refill(held, now)
        self._load_more(held)

    def _schedule(self, site: Site, now: float) -> None:
        """Look at the site again when both a row and its pace are ready."""
        if site.dead is not None:
            return
        at = max(site.next_due(now), site.pace.ready_at(now))
        # An entry that has become too early costs one look and schedules the site anew; one that is too late is stale.
        if at < site.scheduled_at:
            site.scheduled_at = at
            heapq.heappush(self._ready, (at, next(self._sequence), site))

    def wake_at(self) -> float:
        """When ``next_task`` may have something (s, monotonic); inf = only after another event."""
        return self._ready[0][0] if self._ready and not self._stopped else math.inf

    def finished(self, task: Task, verdict: Verdict, now: float, body_bytes: int) -> tuple[Fate, Failure | None]:
        """What becomes of the row, after this verdict on one attempt at it."""
        site = self._in_flight.pop(task)
        held = self._lanes[site.lane_id]
        site.in_flight -= 1
        site.pace.finish(now, task.started_at, verdict.signal, verdict.retry_after_s, body_bytes)
        if verdict.signal is not Signal.OK:
            self._touched[site.key] = site
        fate, failure = self._judge(held, site, task, verdict, now)
        if site.pace.dead:
            site.dead = verdict.failure
        held.gave_up = held.gave_up or (held.lane.sampling and verdict.signal in _ENDS_SAMPLING)
        self._look_after(held, site, now)
        if fate is not Fate.OPEN:
            self._settle(held, task)
        self._bring_in(held, site, now)
        self._answer_split(held)
        self._check_ended(held)
        if self._queued:
            self.start_lanes(now)
        return fate, failure

    def _judge(self, held: _Lane, site: Site, task: Task, verdict: Verdict, now: float) -> tuple[Fate, Failure | None]:
        if verdict.outcome is Outcome.SUCCESS:
            return Fate.SUCCESS, None
        if verdict.outcome is Outcome.REDIRECT:
            return self._follow(held, task, verdict.location, now)
        if held.lane.sampling and verdict.transient:
            self._settle(held, task)
            return Fate.OPEN, None
        delay_s = self._rules.retry.decide(verdict, task.attempt, self._rng)
        if delay_s is None:
            return Fate.FAILURE, verdict.failure
        task.attempt += 1
        site.retry_at(task, now + delay_s)
        return Fate.OPEN, None

    def _follow(self, held: _Lane, task: Task, location: str, now: float) -> tuple[Fate, Failure | None]:
        """Queue the row in the lane of its new server; without one here, it has to go to where that lane is."""
        target = self._rules.locate(location)
        if isinstance(target, str):
            kind = ErrorKind.REDIRECT
            return Fate.FAILURE, Failure(kind, error_code(kind, 0), f"redirect target refused: {target}")
        task.url, task.server = target
        task.redirects += 1
        group = self._rules.group_of(task.server)
        site = self._sites_by_key.get(group) or self._sites_by_key.get(task.server)
        new = self._lanes[site.lane_id] if site is not None else None
        if new is None or new.ended:
            batch = self._batches[task.batch_id]
            errand = Errand(batch, task.row, task.url, task.server, group, task.attempt, task.redirects)
            self.events.append(RowRedirected(errand))
            self._settle(held, task)
        else:
            self._lend(held, task, new)
            self._hand_over(task, new, task.server, now)
        return Fate.OPEN, None

    def _lend(self, held: _Lane, task: Task, new: _Lane) -> None:
        """The task leaves its lane for another one of this rank, its batch stays accounted where it came from."""
        held.rows -= 1
        self._give_back(held.lane.lane_id, task)
        if task.home_lane == 0:
            task.home_lane = held.lane.lane_id
        home = self._lanes[task.home_lane]
        if home is new:
            task.home_lane = 0
        else:
            home.lent[new.lane.lane_id] = home.lent.get(new.lane.lane_id, 0) + 1

    def _give_back(self, lane_id: int, task: Task) -> None:
        """The task leaves the lane that borrowed it."""
        if task.home_lane:
            home = self._lanes[task.home_lane]
            home.lent[lane_id] -= 1
            if not home.lent[lane_id]:
                del home.lent[lane_id]

    def _settle(self, held: _Lane, task: Task) -> None:
        """The row has left this rank: it is final, pending or somebody else's."""
        held.rows -= 1
        held.settled += 1
        if task.home_lane:
            self._give_back(held.lane.lane_id, task)
            self._check_ended(self._lanes[task.home_lane])
        self._batch_rows[task.batch_id] -= 1
        self._check_batch(task.batch_id)

    def _check_batch(self, batch_id: int) -> None:
        if self._batch_rows.get(batch_id) == 0:
            del self._batch_rows[batch_id]
            self.events.append(BatchEnded(batch_id))

    def _bury(self, held: _Lane, site: Site, failure: Failure) -> None:
        """The server is given up: all its rows, also those that are loaded later, fail as the last probe did."""
        tasks = site.clear()
        if tasks:
            self.events.append(RowsFailed(tasks, failure))
            for task in tasks:
                self._settle(held, task)

    def _postpone(self, held: _Lane, site: Site) -> None:
        """Profiling does not wait for a server that asks for a pause or cannot be reached: its samples stay pending."""
        for task in site.clear():
            self._settle(held, task)

    def _check_ended(self, held: _Lane) -> None:
        if held.rows or held.lent or held.cursors or held.batches or held.loading or held.ended or not held.started:
            return
        held.ended = True
        held.endings += 1
        del self._started[held.lane.lane_id]
        self._count_demand(held, 0.0)
        ended = LaneEnded(held.lane.lane_id, frozenset(held.batch_ids), tuple(held.servers), held.endings)
        self.events.append(ended)
        held.batch_ids.clear()

    def _count_demand(self, held: _Lane, demand: float | None = None) -> None:
        """Enter the lane's demand into the rank's sum, by default what it expects now."""
        demand = held.demand if demand is None else demand
        self._demand = max(0.0, self._demand - held.counted) + demand
        held.counted = demand

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

    def _rest_s(self, held: _Lane, now: float) -> float:
        """For how long nothing of the lane can start because its servers are left alone; 0 while it runs."""
        if held.loading or held.ended or not held.started:
            return 0.0
        busy = [site for site in held.sites.values() if site.waiting or site.in_flight]
        waits = [self._site_rest_s(site, now) for site in busy]
        if not busy:
            waits = [self._rest_s(self._lanes[lane_id], now) for lane_id in held.lent]
        return min(waits, default=0.0)

    @staticmethod
    def _site_rest_s(site: Site, now: float) -> float:
        wait_s = site.pace.wait_s(now)
        return wait_s if not site.in_flight and (site.pace.parked(now) or wait_s > LONG_PAUSE_S) else 0.0

    def report(self, now: float) -> list[LaneReport]:
        """The state of each started lane that is worth telling: parked ones, and the paces that were hurt."""
        for held in self._started.values():
            self._count_demand(held, 0.0 if self._rest_s(held, now) else None)
        self.start_lanes(now)
        touched, self._touched = self._touched, {}
        paces: dict[int, dict[str, PaceState]] = {}
        for site in touched.values():
            paces.setdefault(site.lane_id, {})[site.key] = site.pace.snapshot(now)
        reports = []
        for lane_id, held in self._started.items():
            wait_s = self._rest_s(held, now)
            state = LaneState.PARKED if wait_s else LaneState.RUNNING
            if not wait_s and held.reported == (state, held.version) and lane_id not in paces:
                continue
            held.reported = (state, held.version)
            reports.append(LaneReport(lane_id, held.version, state, wait_s, paces.get(lane_id, {})))
        return reports

    def drained(self, ended: LaneEnded, now: float) -> LaneReport | None:
        """The last report of a lane, once what it has fetched is committed.

        None when it was extended meanwhile: then it has ended again since, with results that may not be committed yet,
        or will end.
        """
        held = self._lanes.get(ended.lane_id)
        if held is None or not held.ended or held.endings != ended.ending:
            return None
        paces = {key: site.pace.snapshot(now) for key, site in held.sites.items() if self._matters(site, now)}
        return LaneReport(ended.lane_id, held.version, LaneState.DRAINED, 0.0, paces)

    @staticmethod
    def _matters(site: Site, now: float) -> bool:
        """Whether the next holder has to know: a pace without a state would let its first request start at once."""
        state = site.pace.snapshot(now)
        return bool(state.incidents or state.parkings or state.bytes_today or site.pace.ready_at(now) > now)

    def lane_of(self, task: Task) -> int:
        """The lane under whose share a task is in flight."""
        return self._in_flight[task].lane_id

    def is_sampling(self, task: Task) -> bool:
        """Whether a task in flight belongs to a profiling lane."""
        return self._lanes[self._in_flight[task].lane_id].lane.sampling

    def batch(self, batch_id: int) -> BatchRef:
        """The batch of a task that this rank has or had."""
        return self._batches[batch_id]

    def connection_limit(self, task: Task) -> int:
        """Connections that the task's site may have open, for closing those that a smaller share no longer allows."""
        return self._in_flight[task].pace.limits.connections

    @property
    def in_flight(self) -> int:
        """Requests that were started and are not finished."""
        return len(self._in_flight)

    @property
    def unstarted(self) -> int:
        """Lanes that could be given back."""
        return len(self._queued)

    @property
    def is_hungry(self) -> bool:
        """Whether more lanes would start soon: nothing is queued and half of the connections are free."""
        return not self._queued and not self._stopped and self._demand < self._rules.connections / 2

    def sites_active(self) -> int:
        """Servers with a request in flight (one entry for all servers of a group)."""
        return len(set(self._in_flight.values()))

    def remaining_s(self, now: float) -> float:
        """Predicted time until this rank's lanes are empty: the longest lane, since lanes run side by side."""
        lanes = itertools.chain(self._started.values(), self._queued)
        return max((held.rows_left * held.pace_s(now) for held in lanes), default=0.0)

    def validate(self) -> None:
        """Check the invariants (tests call this after every step).

        Raises:
            AssertionError: with the lane that breaks one.
        """
        for held in self._lanes.values():
            rows = sum(site.waiting + site.in_flight for site in held.sites.values())
            if rows != held.rows:
                raise AssertionError(f"lane {held.lane.lane_id} counts {held.rows} rows, its sites {rows}")
            if held.ended and held.rows_left:
                raise AssertionError(f"lane {held.lane.lane_id} ended with {held.rows_left} rows left")

    def __repr__(self) -> str:
        return f"<Frontier: {len(self._started)} started, {len(self._queued)} queued, {len(self._in_flight)} in flight>"
