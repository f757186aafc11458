"""The lanes of one rank: which wait, which are started, how busy they keep the rank. Pure.

Decides which lane starts next and which are given back to a thief. It must not know tasks, slots or answers.

Invariants: a lane is queued, started or ended, and ``demand`` is the sum of what the started ones were last counted
with. An ended lane stays here until the ledger releases it; one that is extended is started again.

What a rank tells the ledger about its lanes: which are parked, and what their paces went through. Pure.

Only news is told: a report per lane and half second would be a thousand messages a second on a large job.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator

from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.interface import LaneEnded
from ddmpi.core.frontier.slot import Slot
from ddmpi.core.protocol import LaneReport, LaneState
from ddmpi.core.records import PaceState
from ddmpi.errors import TransitionError

MOST_STARTED_LANES = 512
"""Bounds the loaded batches of a rank (about 1 MB each)."""


class LaneTable:
    """See the module's docstring. ``connections`` is what the rank as a whole may have in flight."""

    def __init__(self, connections: int) -> None:
        self.by_id: dict[int, HeldLane] = {}
        self.started: dict[int, HeldLane] = {}
        self.queued: deque[HeldLane] = deque()
        self._connections = connections
        self._demand = 0.0

    def add(self, held: HeldLane) -> None:
        """Take in a lane that is about to start."""
        self.by_id[held.lane_id] = held

    def queue(self, lanes: list[HeldLane]) -> None:
        """Take in lanes that wait for their turn, longest first."""
        self.by_id.update((held.lane_id, held) for held in lanes)
        self.queued = deque(sorted([*self.queued, *lanes], key=lambda held: -held.lane.time_s))

    def start(self, held: HeldLane, now: float) -> None:
        """The lane runs, or runs again after it had ended."""
        held.started, held.ended = True, False
        held.started_at, held.settled = now, 0
        self.started[held.lane_id] = held
        self.count_demand(held)

    def start_early(self, held: HeldLane, now: float) -> None:
        """A queued lane starts before its turn."""
        self.queued.remove(held)
        self.start(held, now)

    def start_next(self, now: float) -> HeldLane | None:
        """Start the next queued lane, unless the connections of the rank are all spoken for."""
        if not self.queued or self._demand >= self._connections or self._is_full:
            return None
        held = self.queued.popleft()
        self.start(held, now)
        return held

    @property
    def _is_full(self) -> bool:
        """Lanes on hold load nothing, and must not keep others from starting."""
        if len(self.started) < MOST_STARTED_LANES:
            return False
        return sum(not held.on_hold for held in self.started.values()) >= MOST_STARTED_LANES

    def end(self, held: HeldLane) -> None:
        """Nothing of the lane is left."""
        held.ended = True
        held.endings += 1
        del self.started[held.lane_id]
        self.count_demand(held, 0.0)

    def release(self, lane_id: int) -> HeldLane:
        """Forget a lane that has ended.

        Raises:
            TransitionError: a lane that has not ended is never released.
        """
        held = self.by_id.pop(lane_id)
        if not held.ended:
            raise TransitionError(f"lane {lane_id} was released while {held.rows_left} rows are left")
        return held

    def give_back(self, time_s: float) -> tuple[int, ...]:
        """Take out about half of the queued lanes, worth at most ``time_s``, but one in any case; their ids."""
        given: list[HeldLane] = []
        budget_s = min(time_s, sum(held.lane.time_s for held in self.queued) / 2)
        for held in list(self.queued)[1::2] or list(self.queued):
            if given and budget_s < held.lane.time_s:
                continue
            given.append(held)
            budget_s -= held.lane.time_s
        for held in given:
            self.queued.remove(held)
            del self.by_id[held.lane_id]
        return tuple(held.lane_id for held in given)

    def count_demand(self, held: HeldLane, demand: float | None = None) -> None:
        """Enter the lane's demand into the rank's sum, by default what it expects now."""
        demand = held.demand if demand is None else demand
        self._demand = max(0.0, self._demand - held.counted) + demand
        held.counted = demand

    @property
    def wants_work(self) -> bool:
        """Nothing is queued and half of the connections are free."""
        return not self.queued and self._demand < self._connections / 2

    def remaining_s(self, now: float) -> float:
        """Predicted time until all lanes are empty: the longest lane, since lanes run side by side."""
        lanes: Iterator[HeldLane] = itertools.chain(self.started.values(), self.queued)
        return max((held.rows_left * held.pace_s(now) for held in lanes), default=0.0)

    def __repr__(self) -> str:
        return f"<LaneTable: {len(self.started)} started, {len(self.queued)} queued, {len(self.by_id)} held>"


def running(lanes: LaneTable, touched: Iterable[Slot], now: float) -> list[LaneReport]:
    """The state of each started lane that is worth telling: parked ones, and those with ``touched`` slots."""
    paces: dict[int, dict[str, PaceState]] = {}
    for slot in touched:
        paces.setdefault(slot.lane_id, {})[slot.key] = slot.limiter.snapshot(now)
    reports = []
    for lane_id, held in lanes.started.items():
        wait_s = held.rest_s(lanes.by_id.__getitem__, now)
        state = LaneState.PARKED if wait_s else LaneState.PROBING if held.is_probing(now) else LaneState.RUNNING
        if not wait_s and held.reported == (state, held.version) and lane_id not in paces:
            continue
        held.reported = (state, held.version)
        reports.append(LaneReport(lane_id, held.version, state, wait_s, paces.get(lane_id, {})))
    return reports


def drained(lanes: LaneTable, ended: LaneEnded, now: float) -> LaneReport | None:
    """The last report of a lane, once what it has fetched is committed.

    None when it was extended meanwhile: then it has ended again since, with results that may not be committed yet, or
    will end.
    """
    held = lanes.by_id.get(ended.lane_id)
    if held is None or not held.ended or held.endings != ended.ending:
        return None
    return LaneReport(ended.lane_id, held.version, LaneState.DRAINED, 0.0, _last_paces(held, now))


def sampled(held: HeldLane, now: float) -> LaneReport | None:
    """The report with which a sampling lane gives its limits back; None of any other lane."""
    if not held.lane.sampling:
        return None
    decided: dict[int, tuple[int, ...]] = {}
    for batch_id, row in held.decided:
        decided[batch_id] = (*decided.get(batch_id, ()), row)
    return LaneReport(held.lane_id, held.version, LaneState.SAMPLED, 0.0, _last_paces(held, now), decided)


def _last_paces(held: HeldLane, now: float) -> dict[str, PaceState]:
    return {key: slot.limiter.snapshot(now) for key, slot in held.slots.items() if _matters(slot, now)}


def _matters(slot: Slot, now: float) -> bool:
    """Whether the next holder has to know: a pace without a state would let its first request start at once."""
    state = slot.limiter.snapshot(now)
    return bool(
        state.incidents
        or state.rate_per_s
        or state.open_count
        or slot.limiter.has_byte_budget
        or slot.limiter.ready_at(now) > now
    )
