"""The lanes of one rank: which wait, which run, how busy they keep the rank, and what the ledger hears of them. Pure.

Decides which lane starts next and which are given back to a rank that runs low. It must not know tasks or answers.

Invariants: a lane is queued, running or ended, and ``demand`` is the sum of what the running ones were last counted
with. An ended lane stays here until the ledger releases it; one that is extended runs again. Only news is told: a
report per lane and half second would be a thousand messages a second on a large job.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from ddmpi.core.frontier.held_lane import HeldLane, LaneEvent, LaneStage
from ddmpi.core.frontier.slot import Slot
from ddmpi.core.pace.rate_limiter import RateLimiter
from ddmpi.core.protocol import LaneReport, LaneState
from ddmpi.core.records import PaceState, shared_name

MOST_RUNNING_LANES = 512
"""Bounds the loaded batches of a rank (about 1 MB each)."""
SAME_END_S = 1.0
"""An end of a wait that differs by less than that from the one that was told is no news."""


class LaneTable:
    """See the module's docstring. ``connections`` is what the rank as a whole may have in flight."""

    def __init__(self, connections: int) -> None:
        self.by_id: dict[int, HeldLane] = {}
        self.running: dict[int, HeldLane] = {}
        self.queued: deque[HeldLane] = deque()
        self._connections = connections
        self._demand = 0.0

    # ---- lanes come and go

    def queue(self, lanes: Sequence[HeldLane]) -> None:
        """Take in lanes that wait for their turn, longest first."""
        self.by_id.update((lane.lane_id, lane) for lane in lanes)
        self.queued = deque(sorted([*self.queued, *lanes], key=lambda lane: -lane.time_s))

    def start(self, lane: HeldLane, now: float) -> None:
        """Start a lane that has just come or waits for its turn."""
        self.by_id[lane.lane_id] = lane
        if lane in self.queued:
            self.queued.remove(lane)
        self._run(lane, LaneEvent.START, now)

    def start_next(self, now: float) -> HeldLane | None:
        """Start the next queued lane, unless the connections of the rank are all spoken for."""
        if not self.queued or self._demand >= self._connections or self._is_full:
            return None
        lane = self.queued.popleft()
        self._run(lane, LaneEvent.START, now)
        return lane

    def extend(self, lane: HeldLane, now: float) -> None:
        """Note another version of the lane; one that had ended runs again."""
        if lane.stage is LaneStage.ENDED:
            self._run(lane, LaneEvent.EXTEND, now)
        else:
            lane.move(LaneEvent.EXTEND)

    def _run(self, lane: HeldLane, event: LaneEvent, now: float) -> None:
        lane.move(event)
        lane.started_at, lane.settled = now, 0
        self.running[lane.lane_id] = lane
        self.count_demand(lane)

    @property
    def _is_full(self) -> bool:
        """Lanes that the operator holds load nothing, and must not keep others from starting."""
        if len(self.running) < MOST_RUNNING_LANES:
            return False
        return sum(not lane.is_held for lane in self.running.values()) >= MOST_RUNNING_LANES

    def end(self, lane: HeldLane) -> None:
        """End a lane of which nothing is left."""
        lane.move(LaneEvent.END)
        lane.endings += 1
        del self.running[lane.lane_id]
        self.count_demand(lane, 0.0)

    def release(self, lane_id: int) -> HeldLane:
        """Forget a lane that has ended. Raises TransitionError: it has not ended."""
        lane = self.by_id[lane_id]
        lane.move(LaneEvent.RELEASE)
        return self.by_id.pop(lane_id)

    def give_back(self, time_s: float) -> tuple[int, ...]:
        """Take out the queued lanes that ``lanes_to_give`` chooses; return their ids."""
        given = lanes_to_give(self.queued, time_s)
        for lane in given:
            lane.move(LaneEvent.GIVE_BACK)
            self.queued.remove(lane)
            del self.by_id[lane.lane_id]
        return tuple(lane.lane_id for lane in given)

    # ---- how busy the rank is

    def count_demand(self, lane: HeldLane, demand: float | None = None) -> None:
        """Enter the lane's demand into the rank's sum, by default what it expects now."""
        demand = lane.demand if demand is None else demand
        self._demand = max(0.0, self._demand - lane.counted) + demand
        lane.counted = demand

    def recount(self, now: float) -> list[HeldLane]:
        """Count every running lane anew, and return those that keep no connection busy: their servers are paused or
        parked."""
        waiting = []
        for lane in self.running.values():
            waits = lane.wait_s(self.by_id.__getitem__, now) > 0
            self.count_demand(lane, 0.0 if waits else None)
            if waits:
                waiting.append(lane)
        return waiting

    @property
    def wants_work(self) -> bool:
        """Whether more lanes would start soon: nothing is queued and half of the connections are free."""
        return wants_work(len(self.queued), self._demand, self._connections)

    def remaining_s(self, now: float) -> float:
        """Return the predicted time until all lanes are empty: the longest lane's, since lanes run side by side."""
        lanes: Iterator[HeldLane] = itertools.chain(self.running.values(), self.queued)
        return max((lane.rows_left * lane.pace_s(now) for lane in lanes), default=0.0)

    # ---- what the ledger hears

    def has_ended(self, lane_id: int) -> bool:
        """Whether the lane is held, and nothing of it is left."""
        lane = self.by_id.get(lane_id)
        return lane is not None and lane.stage is LaneStage.ENDED

    def updates(self, touched: Iterable[Slot], now: float) -> list[LaneReport]:
        """Return the state of each running lane that is worth telling: it waits, or has ``touched`` slots."""
        paces: dict[int, dict[str, PaceState]] = {}
        for slot in touched:
            paces.setdefault(slot.lane_id, {})[slot.server] = slot.limiter.snapshot(now)
        reports = []
        for lane_id, lane in self.running.items():
            wait_s = lane.wait_s(self.by_id.__getitem__, now)
            state = LaneState.PARKED if wait_s else LaneState.PROBING if lane.is_probing(now) else LaneState.RUNNING
            until = now + wait_s if wait_s else 0.0
            is_known = lane.reported == (state, lane.version) and abs(until - lane.reported_until) < SAME_END_S
            if is_known and lane_id not in paces:
                continue
            lane.reported, lane.reported_until = (state, lane.version), until
            if lane.shared is not None and lane_id in paces:
                paces[lane_id][shared_name(lane.group)] = lane.shared.limiter.snapshot(now)
            will_end = wait_s > 0 and lane.will_end(now)
            reports.append(LaneReport(lane_id, lane.version, state, wait_s, paces.get(lane_id, {}), will_end=will_end))
        return reports

    def sampled(self, lane_id: int, now: float) -> LaneReport | None:
        """Return the report with which a sampling lane gives its limits back; None for any other lane."""
        lane = self.by_id[lane_id]
        if not lane.is_sampling:
            return None
        decided = {batch_id: tuple(rows) for batch_id, rows in lane.decided.items()}
        return LaneReport(lane_id, lane.version, LaneState.SAMPLED, 0.0, _last_paces(lane, now), decided)

    def drained(self, lane_id: int, ending: int, now: float) -> LaneReport | None:
        """Return the last report of a lane, once what it has fetched until its ``ending``-th end is committed.

        None when it was extended meanwhile: then it has ended again since, with results that may not be committed yet,
        or will end.
        """
        lane = self.by_id.get(lane_id)
        if lane is None or lane.stage is not LaneStage.ENDED or lane.endings != ending:
            return None
        return LaneReport(lane_id, lane.version, LaneState.DRAINED, 0.0, _last_paces(lane, now))

    def __repr__(self) -> str:
        return f"<LaneTable: {len(self.running)} running, {len(self.queued)} queued, {len(self.by_id)} held>"


class Timed(Protocol):
    """A lane, in whatever detail."""

    @property
    def time_s(self) -> float: ...


TimedLane = TypeVar("TimedLane", bound=Timed)


def lanes_to_give(queued: Sequence[TimedLane], time_s: float) -> list[TimedLane]:
    """Choose about half of the queued lanes, worth at most ``time_s`` seconds, but one in any case."""
    given: list[TimedLane] = []
    budget_s = min(time_s, sum(lane.time_s for lane in queued) / 2)
    for lane in list(queued)[1::2] or list(queued):
        if given and budget_s < lane.time_s:
            continue
        given.append(lane)
        budget_s -= lane.time_s
    return given


def wants_work(queued: int, demand: float, connections: int) -> bool:
    """Return whether a rank with ``queued`` lanes and this demand of its connections runs low."""
    return not queued and demand < connections / 2


def _last_paces(lane: HeldLane, now: float) -> dict[str, PaceState]:
    limiters = {server: slot.limiter for server, slot in lane.slots.items()}
    if lane.shared is not None:
        limiters[shared_name(lane.group)] = lane.shared.limiter
    return {name: limiter.snapshot(now) for name, limiter in limiters.items() if _matters(limiter, now)}


def _matters(limiter: RateLimiter, now: float) -> bool:
    """Whether the next holder has to know: a pace without a state would let its first request start at once."""
    state = limiter.snapshot(now)
    return bool(
        state.incidents
        or state.rate_per_s
        or state.open_count
        or limiter.limits.has_byte_budget
        or limiter.ready_at(now) > now
    )
