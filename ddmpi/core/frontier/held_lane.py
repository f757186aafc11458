"""A lane as its holder sees it: its life, its share, its batches, its loaded rows, its slots. Pure.

Decides how much of a rank a lane keeps busy, and for how long nothing of it can start. It must not know other lanes,
or what becomes of an answer: that is ``frontier``.

Invariant: ``rows`` is the number of tasks that the lane's slots hold, waiting or in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from ddmpi.core.frontier.slot import SharedLimits, Slot
from ddmpi.core.pace.overrides import HOLD_S, NO_OVERRIDES, Overrides
from ddmpi.core.protocol import Lane, LaneState, StealResponse
from ddmpi.core.records import BatchRef, Limits, PaceState, Taken
from ddmpi.errors import TransitionError

TYPICAL_LATENCY_S = 0.25
"""Used only to guess how many connections a rate-limited lane keeps busy."""
LONG_PAUSE_S = 5.0
"""A server that is paused for longer keeps no connection busy: other lanes take its place meanwhile."""
MOST_PACKED_DEMAND = 64.0
"""Connections that a packed lane is expected to keep busy at most: a few of them must not keep all others waiting."""
ROWS_TO_MEASURE = 20
"""A started lane's own speed counts from here on."""


class LaneStage(Enum):
    """Where a lane is in its life on a rank."""

    QUEUED = "queued"
    """It waits for its turn, and can be given back."""
    RUNNING = "running"
    """Its rows are loaded batch by batch; it can only be split."""
    ENDED = "ended"
    """Nothing of it is left; the ledger has not released it yet."""
    GONE = "gone"
    """The rank does not hold it any more."""


class LaneEvent(Enum):
    """What happens to a lane on a rank."""

    START = "start"
    EXTEND = "extend"
    """More work or a larger share comes, which the ledger has counted as another version of the lane."""
    END = "end"
    GIVE_BACK = "give back"
    RELEASE = "release"


TRANSITIONS = {
    (LaneStage.QUEUED, LaneEvent.START): LaneStage.RUNNING,
    (LaneStage.QUEUED, LaneEvent.EXTEND): LaneStage.QUEUED,
    (LaneStage.QUEUED, LaneEvent.GIVE_BACK): LaneStage.GONE,
    (LaneStage.RUNNING, LaneEvent.EXTEND): LaneStage.RUNNING,
    (LaneStage.RUNNING, LaneEvent.END): LaneStage.ENDED,
    (LaneStage.ENDED, LaneEvent.EXTEND): LaneStage.RUNNING,
    (LaneStage.ENDED, LaneEvent.RELEASE): LaneStage.GONE,
}
"""The life of a lane on a rank; what is not here is a bug of the ledger or of the frontier."""


class RowCursor(Protocol):
    """The rows of a batch that have no outcome yet, those with the same URL, mirrors and headers together."""

    @property
    def left(self) -> int:
        """URLs not taken yet."""

    def take(self, n: int) -> Sequence[Taken]:
        """Up to ``n`` URLs."""


@dataclass(slots=True, eq=False, repr=False)
class HeldLane:
    """One lane, with what is needed of the message that brought it. The frontier and its parts alone change it."""

    lane_id: int
    group: str
    is_packed: bool
    is_sampling: bool
    version: int
    share: Limits
    whole: Limits | None
    """The limits that ``share`` is a share of; None: all of it."""
    limits: dict[str, Limits]
    """Limits of servers of a packed lane that differ from the config's."""
    paces: dict[str, PaceState]
    batches: deque[BatchRef]
    time_s: float
    row_time_s: float
    stage: LaneStage = LaneStage.QUEUED
    started_at: float = 0.0
    settled: int = 0
    """Rows that have left the lane since then."""
    endings: int = 0
    """How often it has ended: a lane that is extended ends again."""
    loading: int = 0
    """Batches that were asked for and have not come."""
    cursors: deque[tuple[BatchRef, RowCursor]] = field(default_factory=deque)
    slots: dict[str, Slot] = field(default_factory=dict)
    rows: int = 0
    batch_ids: set[int] = field(default_factory=set)
    servers: set[str] = field(default_factory=set)
    packed_demand: float = MOST_PACKED_DEMAND
    """Demand of a packed lane, as its servers' limits tell once they are known."""
    counted: float = 0.0
    """The demand that is in the rank's sum (see ``lane_table``)."""
    handed_off: dict[int, int] = field(default_factory=dict)
    """Rows of this lane that went on to other lanes of the rank, by lane: redirected, or to their mirrors."""
    split: StealResponse | None = None
    """The answer to a ``StealRequest`` that waits for requests in flight."""
    shared: SharedLimits | None = None
    """What several servers of a group use together; None where there is one, and in a packed lane."""
    pauses: dict[str, float] = field(default_factory=dict)
    """When the pauses end that other lanes of the group were asked for, by server."""
    gave_up: bool = False
    """Sampling only: the server asked for a pause or cannot be reached."""
    decided: dict[int, list[int]] = field(default_factory=dict)
    """Sampling only: by batch, the rows that have an outcome."""
    reported: tuple[LaneState, int] = (LaneState.RUNNING, 0)
    reported_until: float = 0.0
    """The end of the wait that rank 0 knows of."""
    overrides: Overrides = NO_OVERRIDES
    is_held: bool = False
    """Whether the operator leaves the lane nothing. In a packed lane each slot may be held by itself."""

    @classmethod
    def of(cls, lane: Lane) -> HeldLane:
        row_time_s = lane.time_s / max(1, sum(batch.rows for batch in lane.batches))
        return cls(
            lane.lane_id, lane.group, lane.packed, lane.sampling, lane.version, lane.share, lane.whole, lane.limits,
            lane.paces, deque(lane.batches), lane.time_s, row_time_s,
        )  # fmt: skip

    def move(self, event: LaneEvent) -> None:
        """Enter the stage that follows from the event. Raises TransitionError: it cannot happen in the lane's stage."""
        stage = TRANSITIONS.get((self.stage, event))
        if stage is None:
            where = f"lane {self.lane_id} is {self.stage.value} with {self.rows_left} rows left"
            raise TransitionError(f"{where}, and cannot {event.value}")
        self.stage = stage

    @property
    def is_running(self) -> bool:
        return self.stage is LaneStage.RUNNING

    # ---- what it holds

    @property
    def loaded_rows(self) -> int:
        """Rows that need no batch to be read."""
        return self.rows + sum(cursor.left for _, cursor in self.cursors)

    @property
    def rows_left(self) -> int:
        return self.loaded_rows + sum(batch.rows for batch in self.batches)

    @property
    def is_used_up(self) -> bool:
        """Nothing to load, no cursor, no row, and none of its rows is in another lane."""
        return not (self.rows or self.handed_off or self.cursors or self.batches or self.loading)

    @property
    def can_be_cut(self) -> bool:
        """Whether another rank can get a part of it: whole batches, and at least one connection. What it has spent of a
        byte budget cannot be divided."""
        limits = None if self.is_packed else self.allowed(self.group, self.share)
        if limits is None or limits.has_byte_budget or min(self.share.connections, limits.connections) < 2:
            return False
        return self.is_running and bool(self.batches) and self.split is None

    @property
    def in_flight(self) -> int:
        return sum(slot.in_flight for slot in self.slots.values())

    @property
    def part(self) -> float:
        """Return which part of the limits of its servers the lane has: in a packed lane all."""
        return 1.0 if self.is_packed or self.whole is None else self.share.part_of(self.whole)

    # ---- how busy it keeps the rank

    def pace_s(self, now: float) -> float:
        """Return seconds per row: as predicted, or as measured where the rank or the server turns out to be slower."""
        if self.settled < ROWS_TO_MEASURE:
            return self.row_time_s
        return max(self.row_time_s, (now - self.started_at) / self.settled)

    @property
    def demand(self) -> float:
        """Connections that this lane is expected to keep busy."""
        if self.is_packed:
            return min(self.packed_demand, max(1.0, float(self.rows_left)))
        return busy_connections(self.share)

    def expect(self) -> None:
        """Judge a packed lane by the servers of the rows that were taken until now."""
        if self.is_packed and self.rows:
            busy = sum(busy_connections(slot.planned) for slot in self.slots.values())
            self.packed_demand = min(MOST_PACKED_DEMAND, busy * self.rows_left / self.rows)

    # ---- limits

    def set_share(self, share: Limits, now: float) -> None:
        """Use this share from now on."""
        self.share = share
        for slot in self.slots.values():
            slot.planned = share
        self._limit_slots(now)

    def set_overrides(self, overrides: Overrides, now: float) -> None:
        """Apply the operator's overrides from now on, instead of those before."""
        self.overrides = overrides
        self._limit_slots(now)

    def _limit_slots(self, now: float) -> None:
        # Samples are not waited for: those that are held are put off, see Frontier.
        by_slot = self.is_packed or self.is_sampling
        self.is_held = not by_slot and self.allowed(self.group, self.share) is None
        for slot in self.slots.values():
            slot.set_limits(self.allowed(slot.server, slot.planned), now)
        if self.shared is not None and (limits := self.allowed(self.group, self.share)) is not None:
            self.shared.limiter.set_limits(limits, now)

    def allowed(self, server: str, planned: Limits) -> Limits | None:
        """Return what the server may use of what was planned for it or for its group; None: nothing."""
        if self.is_packed:
            return self.overrides.limits(server, planned)
        return self.overrides.share(self.group, self.whole or planned, planned)

    # ---- when nothing of it can start

    def pause(self, pauses: Mapping[str, float], now: float) -> None:
        """Keep pauses that other lanes of the group were asked for: by server, in seconds."""
        for server, wait_s in pauses.items():
            self.pauses[server] = max(self.pauses.get(server, now), now + wait_s)
            if (slot := self.slots.get(server)) is not None:
                slot.limiter.pause(now, wait_s)

    def wait_s(self, lane_of: Callable[[int], HeldLane], now: float) -> float:
        """Return for how long nothing of the lane can start because its servers are paused, parked or held, in seconds.

        0 while it runs. A lane whose rows are all in other lanes waits as long as those: ``lane_of`` finds them by id.
        """
        if self.loading or not self.is_running:
            return 0.0
        if self.is_held:
            return 0.0 if self.in_flight else HOLD_S
        waits = []
        for slot in self._busy_slots():
            waits.append(_slot_wait_s(slot, now))
            if not waits[-1]:
                return 0.0  # of the thousands of servers that a lane may have, one of the first ones tells
        if not waits:
            waits = [lane_of(lane_id).wait_s(lane_of, now) for lane_id in self.handed_off]
        return min(waits, default=0.0)

    def will_end(self, now: float) -> bool:
        """Return whether one of its servers waits for a time that was asked for, for bytes to be paid, or for one of
        its probes: none of them goes on for ever, as throttling may."""
        return any(
            not slot.is_held and not slot.limiter.throttles_on and _slot_wait_s(slot, now) > 0
            for slot in self._busy_slots()
        )

    def is_probing(self, now: float) -> bool:
        """Return whether nothing can start, and all that is in flight asks if a parked server answers again."""
        if self.loading or self.is_held or not self.is_running:
            return False
        probed = False
        for slot in self._busy_slots():
            if slot.limiter.is_probing:
                probed = True
            elif not _slot_wait_s(slot, now):
                return False
        return probed

    def _busy_slots(self) -> Iterator[Slot]:
        """Yield the slots with rows."""
        return (slot for slot in self.slots.values() if slot.in_flight or slot.waiting)


def busy_connections(limits: Limits) -> float:
    """Return how many connections requests with these limits are expected to keep busy."""
    if limits.rate_per_s <= 0:
        return float(limits.connections)
    return min(float(limits.connections), max(0.1, limits.rate_per_s * TYPICAL_LATENCY_S))


def _slot_wait_s(slot: Slot, now: float) -> float:
    if slot.is_held:
        return 0.0 if slot.in_flight else HOLD_S
    wait_s = slot.wait_s(now)
    return wait_s if not slot.in_flight and (wait_s > LONG_PAUSE_S or slot.is_parked(now)) else 0.0
