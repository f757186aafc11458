"""A downloading rank that works by the batch, not by the row: for predictions about millions of rows. Pure.

It keeps the frontier's rules for lanes (which start, which may be given back or cut, when more are asked for) and
replaces what happens within a lane by its predicted speed: a batch takes its rows times the lane's seconds per row.
When the lanes together want more rows per second than the rank can do, all of them slow down alike.

The rank's lanes run on a clock of its own, which stands behind ``now`` while it is overloaded: so one heap holds the
ends of all batches, whatever the speed.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ddmpi.core import protocol as msg
from ddmpi.core.frontier.held_lane import MOST_PACKED_DEMAND, busy_connections
from ddmpi.core.frontier.lane_table import MOST_RUNNING_LANES, lanes_to_give, wants_work
from ddmpi.core.frontier.stealing import WorkRequests
from ddmpi.core.ledger.schedule import CPU_PER_ROW_S
from ddmpi.core.records import CONNECTIONS_PER_RANK, BatchRef, Limits
from ddmpi.errors import TransitionError


@dataclass(frozen=True, slots=True)
class CoarseModel:
    """How fast a rank is. All times in seconds."""

    cpu_per_row_s: float = CPU_PER_ROW_S
    commit_s: float = 0.05
    close_interval_s: float = 30.0
    """Half of ``checkpoint_interval_s``: how often open parts are closed."""
    report_interval_s: float = msg.REPORT_INTERVAL_S
    connections: int = CONNECTIONS_PER_RANK
    least_refused_wait_s: float = 0.0
    """A refused rank waits at least so long: long forecasts are not to be spent on asking in vain."""
    steals: bool = True
    """Without: the rank never asks for work, for comparison."""


@dataclass(slots=True, eq=False)
class _Lane:
    lane_id: int
    version: int
    packed: bool
    share: Limits
    time_s: float
    row_time_s: float
    batches: deque[BatchRef]
    rows_left: int
    current: BatchRef | None = None
    reported: int = 0
    """Rows of the current batch that are in parts."""
    ends_at: float = 0.0
    """When the current batch ends, by the rank's own clock."""
    rate_per_s: float = 0.0
    counted: float = 0.0
    endings: int = 0
    """How often it has ended: a lane that is extended ends again."""

    @property
    def demand(self) -> float:
        """Connections that the lane is expected to keep busy, as in ``frontier``."""
        if self.packed:
            return min(MOST_PACKED_DEMAND, max(1.0, float(self.rows_left)))
        return busy_connections(self.share)


@dataclass(frozen=True, slots=True)
class _Commit:
    """Parts that the writer is busy with until ``at``, and the lane that then ends for the ``ending``-th time."""

    at: float
    parts: list[msg.PartReport]
    ended: _Lane | None
    ending: int


class CoarseRank:
    """One rank: ``handle`` takes a message, ``step`` does what is due; both return what is to be sent."""

    def __init__(self, rank: int, model: CoarseModel) -> None:
        self.rows = 0
        """Rows that were fetched."""
        self._rank = rank
        self._model = model
        self._lanes: dict[int, _Lane] = {}
        self._queued: deque[_Lane] = deque()
        self._running: dict[int, _Lane] = {}
        self._demand = 0.0
        self._wanted_per_s = 0.0
        self._clock = 0.0
        self._now = 0.0
        self._ends: list[tuple[float, int, _Lane]] = []
        self._sequence = itertools.count()
        self._commits: deque[_Commit] = deque()
        self._report_at = math.inf
        self._close_at = math.inf
        self._work_requests = WorkRequests()
        self._parts = 0

    # ---- the rank's own clock

    @property
    def _speed(self) -> float:
        return 1.0 / max(1.0, self._wanted_per_s * self._model.cpu_per_row_s)

    def _advance(self, now: float) -> None:
        self._clock += (now - self._now) * self._speed
        self._now = now

    def next_at(self) -> float:
        """When ``step`` has something to do; inf = not before a message."""
        at = min(self._report_at, self._close_at)
        if self._ends:
            at = min(at, self._now + max(0.0, self._ends[0][0] - self._clock) / self._speed)
        if self._commits:
            at = min(at, self._commits[0].at)
        if self._wants_work:
            at = min(at, self._work_requests.due_at)
        return max(at, self._now)

    # ---- messages

    def handle(self, message: msg.ToDownloader, now: float) -> list[msg.ToCoordinator]:
        self._advance(now)
        match message:
            case msg.Assign(lanes, request_id):
                self._work_requests.answered(request_id)
                self._assign(lanes)
                self._work_requests.allow(now)
            case msg.NoWork(request_id, wait_s):
                self._work_requests.answered(request_id)
                self._work_requests.refuse_until(now + max(wait_s, self._model.least_refused_wait_s))
            case msg.Extend():
                self._extend(message)
            case msg.Release(lane_ids):
                for lane_id in lane_ids:
                    del self._lanes[lane_id]
            case msg.StealRequest():
                return [self._give(message)]
            case _:
                raise TypeError(f"unknown message {message!r}")
        return []

    def _assign(self, lanes: Iterable[msg.Lane]) -> None:
        for lane in lanes:
            rows = sum(batch.rows for batch in lane.batches)
            row_time_s = lane.time_s / max(1, rows)
            held = _Lane(
                lane.lane_id, lane.version, lane.packed, lane.share, lane.time_s, row_time_s, deque(lane.batches), rows
            )
            self._lanes[lane.lane_id] = held
            self._queued.append(held)
        self._queued = deque(sorted(self._queued, key=lambda held: -held.time_s))
        self._start_lanes()

    def _extend(self, message: msg.Extend) -> None:
        held = self._lanes.get(message.lane_id)
        if held is None:
            return
        held.version = message.version
        held.batches.extend(message.batches)
        held.rows_left += sum(batch.rows for batch in message.batches)
        if message.added is not None:
            self._set_share(held, held.share.plus(message.added))
        if held.lane_id not in self._running and held not in self._queued:
            self._start(held)

    def _set_share(self, held: _Lane, share: Limits) -> None:
        """The lane's speed goes with its connections, as in ``Leases``."""
        factor = held.share.connections / share.connections
        held.share = share
        held.row_time_s *= factor
        if held.lane_id in self._running:
            self._count(held)
        if held.current is not None:
            held.ends_at = self._clock + (held.ends_at - self._clock) * factor
            heapq.heappush(self._ends, (held.ends_at, next(self._sequence), held))

    def _give(self, message: msg.StealRequest) -> msg.StealResponse:
        given = lanes_to_give(self._queued, message.time_s)
        for held in given:
            self._queued.remove(held)
            del self._lanes[held.lane_id]
        cut = self._lanes.get(message.split_lane_id)
        if given or cut is None or cut.packed or not cut.batches or cut.share.connections < 2:
            return msg.StealResponse(message.request_id, tuple(held.lane_id for held in given))
        kept, cut_off = cut.share.divided(2)
        taken = [cut.batches.pop() for _ in range((len(cut.batches) + 1) // 2)]
        cut.rows_left -= sum(batch.rows for batch in taken)
        self._set_share(cut, kept)
        batch_ids = tuple(batch.batch_id for batch in taken)
        return msg.StealResponse(message.request_id, (), cut.lane_id, batch_ids, cut_off)

    # ---- lanes run

    def _start_lanes(self) -> None:
        while self._queued and self._demand < self._model.connections and len(self._running) < MOST_RUNNING_LANES:
            self._start(self._queued.popleft())

    def _start(self, held: _Lane) -> None:
        if not self._running:
            self._report_at = self._now + self._model.report_interval_s
            self._close_at = self._now + self._model.close_interval_s
        self._running[held.lane_id] = held
        self._count(held)
        self._begin_batch(held)

    def _count(self, held: _Lane) -> None:
        """Enter what the lane wants into the rank's sums."""
        running = held.lane_id in self._running
        demand = held.demand if running else 0.0
        rate_per_s = 1 / held.row_time_s if running and held.row_time_s > 0 else 0.0
        self._demand = max(0.0, self._demand + demand - held.counted)
        self._wanted_per_s = max(0.0, self._wanted_per_s + rate_per_s - held.rate_per_s)
        held.counted, held.rate_per_s = demand, rate_per_s

    def _begin_batch(self, held: _Lane) -> None:
        held.current = held.batches.popleft() if held.batches else None
        held.reported = 0
        if held.current is None:
            del self._running[held.lane_id]
            self._count(held)
            held.endings += 1
            self._commit([], held)
            return
        held.ends_at = self._clock + held.current.rows * held.row_time_s
        heapq.heappush(self._ends, (held.ends_at, next(self._sequence), held))

    def _commit(self, parts: list[msg.PartReport], ended: _Lane | None = None) -> None:
        """The writer takes its time."""
        ending = 0 if ended is None else ended.endings
        self._commits.append(_Commit(self._now + self._model.commit_s, parts, ended, ending))

    def _part(self, held: _Lane, rows_done: int) -> list[msg.PartReport]:
        """A part with the rows of the current batch that are not in one yet."""
        batch = held.current
        if batch is None or rows_done <= held.reported:
            return []
        rows = rows_done - held.reported
        held.reported = rows_done
        held.rows_left -= rows
        self.rows += rows
        self._parts += 1
        # The ledger only keeps the name: no other part has it.
        return [msg.PartReport(batch.batch_id, f"r{self._rank:05d}-{self._parts:04d}", rows, False, rows)]

    # ---- what is due

    def step(self, now: float) -> list[msg.ToCoordinator]:
        self._advance(now)
        self._end_batches()
        if now >= self._close_at:
            self._close_parts(now)
        sent: list[msg.ToCoordinator] = []
        parts: list[msg.PartReport] = []
        drained: list[msg.LaneReport] = []
        while self._commits and self._commits[0].at <= now:
            commit = self._commits.popleft()
            parts += commit.parts
            held = commit.ended
            if held is not None and held.lane_id not in self._running and held.endings == commit.ending:
                drained.append(msg.LaneReport(held.lane_id, held.version, msg.LaneState.DRAINED))
        if parts or drained or now >= self._report_at:
            self._report_at = now + self._model.report_interval_s if self._running else math.inf
            sent.append(
                msg.Progress(tuple(parts), tuple(drained), self._remaining_s(), len(self._queued), msg.Counters())
            )
        if self._wants_work and now >= self._work_requests.due_at:
            sent.append(self._work_requests.make())
        return sent

    def _end_batches(self) -> None:
        while self._ends and self._ends[0][0] <= self._clock + 1e-9 * max(1.0, self._clock):
            at, _, held = heapq.heappop(self._ends)
            if held.current is None or held.ends_at != at:
                continue
            self._commit(self._part(held, held.current.rows))
            self._begin_batch(held)
        self._start_lanes()

    def _close_parts(self, now: float) -> None:
        self._close_at = now + self._model.close_interval_s if self._running else math.inf
        parts = []
        for held in self._running.values():
            if held.current is not None and held.row_time_s > 0:
                left = math.ceil((held.ends_at - self._clock) / held.row_time_s)
                parts += self._part(held, held.current.rows - left)
        if parts:
            self._commit(parts)

    @property
    def _wants_work(self) -> bool:
        return self._model.steals and wants_work(len(self._queued), self._demand, self._model.connections)

    def _remaining_s(self) -> float:
        lanes = itertools.chain(self._running.values(), self._queued)
        return max((held.rows_left * held.row_time_s for held in lanes), default=0.0) / self._speed

    def validate(self) -> None:
        """Check what must hold when nothing is left. Raises TransitionError: a lane is left over."""
        if self._running or self._queued:
            raise TransitionError(f"rank {self._rank} has lanes left")
