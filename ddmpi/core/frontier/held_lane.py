"""A lane as its holder sees it: its share, its batches, its loaded rows, its slots. Pure.

Decides how much of a rank a lane keeps busy, and for how long it rests. It must not know other lanes, or what becomes
of an answer: that is ``frontier``.

Invariant: ``rows`` is the number of tasks that the lane's slots hold, waiting or in flight.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ddmpi.core.frontier.slot import Slot
from ddmpi.core.pace.overrides import HOLD_S, NO_OVERRIDES, Overrides
from ddmpi.core.protocol import Lane, LaneState, StealResponse
from ddmpi.core.records import BatchRef, Limits

TYPICAL_LATENCY_S = 0.25
"""Used only to guess how many connections a rate-limited lane keeps busy."""
LONG_PAUSE_S = 5.0
"""A server that is left alone for longer counts as parked: other lanes take its place meanwhile."""
MOST_PACKED_DEMAND = 64.0
"""Connections that a packed lane is expected to keep busy at most: a few of them must not keep all others waiting."""
ROWS_TO_MEASURE = 20
"""A started lane's own speed counts from here on."""


class RowCursor(Protocol):
    """The rows of a batch that have no outcome yet, in order."""

    @property
    def left(self) -> int:
        """Rows not taken yet."""

    def take(self, n: int) -> Sequence[tuple[int, str, str]]:
        """Up to ``n`` rows as (index in the batch, URL to fetch, server)."""


@dataclass(slots=True, eq=False)
class HeldLane:
    """One lane. The frontier and its parts are the only ones that change it."""

    lane: Lane
    version: int
    share: Limits
    batches: deque[BatchRef]
    row_time_s: float
    started: bool = False
    started_at: float = 0.0
    settled: int = 0
    """Rows that have left the lane since then."""
    ended: bool = False
    endings: int = 0
    loading: int = 0
    cursors: deque[tuple[BatchRef, RowCursor]] = field(default_factory=deque)
    slots: dict[str, Slot] = field(default_factory=dict)
    rows: int = 0
    batch_ids: set[int] = field(default_factory=set)
    servers: set[str] = field(default_factory=set)
    packed_demand: float = MOST_PACKED_DEMAND
    """The same for a packed lane, as its servers' limits tell once they are known."""
    counted: float = 0.0
    """The demand that is in the rank's sum (see ``lane_table``)."""
    lent: dict[int, int] = field(default_factory=dict)
    """Rows of this lane that were redirected into other lanes of the rank, by lane."""
    split: StealResponse | None = None
    """The answer to a ``StealRequest`` that waits for requests in flight."""
    rest_until: float = -math.inf
    """Another lane of the group was asked for a pause until then, when this one had perhaps not started."""
    gave_up: bool = False
    """Sampling only: the server asked for a pause or cannot be reached."""
    decided: list[tuple[int, int]] = field(default_factory=list)
    """Sampling only: batch and row of what has an outcome."""
    reported: tuple[LaneState, int] = (LaneState.RUNNING, 0)
    control: Overrides = NO_OVERRIDES
    on_hold: bool = False
    """Whether control rules leave the lane nothing. In a packed lane each slot may be on hold by itself."""

    @classmethod
    def of(cls, lane: Lane) -> HeldLane:
        """The lane as it was just assigned."""
        rows = sum(batch.rows for batch in lane.batches)
        return cls(lane, lane.version, lane.share, deque(lane.batches), lane.time_s / max(1, rows))

    @property
    def lane_id(self) -> int:
        return self.lane.lane_id

    @property
    def loaded_rows(self) -> int:
        """Rows that need no batch to be read."""
        return self.rows + sum(cursor.left for _, cursor in self.cursors)

    @property
    def rows_left(self) -> int:
        return self.loaded_rows + sum(batch.rows for batch in self.batches)

    @property
    def is_used_up(self) -> bool:
        """Nothing to load, no cursor, no row, and none of its rows is lent to another lane."""
        return not (self.rows or self.lent or self.cursors or self.batches or self.loading)

    @property
    def can_be_cut(self) -> bool:
        """Whether another rank can get a part of it: whole batches, and at least one connection."""
        divisible = not self.lane.packed and self.share.connections >= 2
        return divisible and self.started and bool(self.batches) and self.split is None

    @property
    def in_flight(self) -> int:
        return sum(slot.in_flight for slot in self.slots.values())

    def pace_s(self, now: float) -> float:
        """Seconds per row: as predicted, or as measured where the rank or the server turns out to be slower."""
        if self.settled < ROWS_TO_MEASURE:
            return self.row_time_s
        return max(self.row_time_s, (now - self.started_at) / self.settled)

    @property
    def demand(self) -> float:
        """Connections that this lane is expected to keep busy."""
        if self.lane.packed:
            return min(self.packed_demand, max(1.0, float(self.rows_left)))
        return busy_connections(self.share)

    def expect(self) -> None:
        """Judge a packed lane by the servers of the rows that were taken so far."""
        if self.lane.packed and self.rows:
            busy = sum(busy_connections(slot.planned) for slot in self.slots.values())
            self.packed_demand = min(MOST_PACKED_DEMAND, busy * self.rows_left / self.rows)

    def slot_key(self, server: str) -> str:
        """The name of the slot that holds the rows of a server: its own in a packed lane, else the group's."""
        return server if self.lane.packed else self.lane.group

    def set_share(self, share: Limits, now: float) -> None:
        """What the lane may use from now on."""
        self.share = share
        for slot in self.slots.values():
            slot.planned = share
        self._limit_slots(now)

    def set_control(self, control: Overrides, now: float) -> None:
        """These rules hold from now on."""
        self.control = control
        self._limit_slots(now)

    def _limit_slots(self, now: float) -> None:
        # Samples are not waited for: those on hold are put off, see Settlement.look_after.
        by_slot = self.lane.packed or self.lane.sampling
        self.on_hold = not by_slot and self.allowed(self.lane.group, self.share) is None
        for slot in self.slots.values():
            allowed = self.allowed(slot.key, slot.planned)
            slot.on_hold = allowed is None
            if allowed is not None:
                slot.set_limits(allowed, now)

    def allowed(self, key: str, planned: Limits) -> Limits | None:
        """What the slot of that name may use of what was planned for it; None: nothing."""
        if self.lane.packed:
            return self.control.limits(key, planned)
        return self.control.share(key, self.lane.whole or planned, planned)

    def rest(self, wait_s: float, now: float) -> None:
        """Another lane of the group was asked for a pause of so many seconds: this one keeps it too."""
        self.rest_until = max(self.rest_until, now + wait_s)
        for slot in self.slots.values():
            slot.limiter.rest(now, wait_s)

    def rest_s(self, lane_of: Callable[[int], HeldLane], now: float) -> float:
        """For how long nothing of the lane can start because its servers are left alone, in seconds; 0 while it runs.

        A lane whose rows are all lent rests as long as those that borrowed them: ``lane_of`` finds them by id.
        """
        if self.loading or self.ended or not self.started:
            return 0.0
        if self.on_hold:
            return 0.0 if self.in_flight else HOLD_S
        busy = [slot for slot in self.slots.values() if slot.waiting or slot.in_flight]
        waits = [_slot_rest_s(slot, now) for slot in busy]
        if not busy:
            waits = [lane_of(lane_id).rest_s(lane_of, now) for lane_id in self.lent]
        return min(waits, default=0.0)

    def is_probing(self, now: float) -> bool:
        """Whether nothing can start, and all that is in flight asks if a parked server answers again."""
        if self.loading or self.ended or not self.started or self.on_hold:
            return False
        busy = [slot for slot in self.slots.values() if slot.waiting or slot.in_flight]
        probed = sum(slot.limiter.is_probing for slot in busy)
        return probed > 0 and all(slot.limiter.is_probing or _slot_rest_s(slot, now) for slot in busy)


def busy_connections(limits: Limits) -> float:
    """How many connections requests with these limits are expected to keep busy."""
    if limits.rate_per_s <= 0:
        return float(limits.connections)
    return min(float(limits.connections), max(0.1, limits.rate_per_s * TYPICAL_LATENCY_S))


def _slot_rest_s(slot: Slot, now: float) -> float:
    if slot.on_hold:
        return 0.0 if slot.in_flight else HOLD_S
    wait_s = slot.limiter.wait_s(now)
    return wait_s if not slot.in_flight and (slot.limiter.parked(now) or wait_s > LONG_PAUSE_S) else 0.0
