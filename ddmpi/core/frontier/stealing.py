"""What a rank gives back when another one runs low: queued lanes, or half of a started one. Pure.

Decides which, and when a split can be answered. It must not know who asks.

Invariant: the answer to a split goes out when the lane's requests in flight fit into the share that is kept, and before
the lane has ended: the rest of its share is somebody else's from then on.

When a rank that runs low asks rank 0 for work. Pure.

Decides from the answers so far. It must not know why the rank is hungry, or what work is.

Invariants: at most one request is without an answer, and none is made before the time that a refusal named. A late
answer, to a request that was answered before, opens no new one.
"""

from __future__ import annotations

import math
from collections import deque

from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.interface import Event, ReadyToYield
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.settlement import Settlement
from ddmpi.core.protocol import StealRequest, StealResponse, WorkRequest


class StealResponder:
    """What one rank gives back.

    Args:
        events: the answers go here.
    """

    def __init__(self, lanes: LaneTable, settlement: Settlement, events: deque[Event]) -> None:
        self._lanes = lanes
        self._settlement = settlement
        self._events = events

    def asked(self, message: StealRequest, now: float) -> None:
        """Give back about half of the queued lanes, at most ``time_s``; else split a lane."""
        given = self._lanes.give_back(message.time_s)
        splittable = self._lanes.by_id.get(message.split_lane_id)
        if not given and splittable is not None and splittable.can_be_cut:
            self._cut(splittable, message, now)
        else:
            self._events.append(ReadyToYield(StealResponse(message.request_id, lane_ids=given)))

    def _cut(self, held: HeldLane, message: StealRequest, now: float) -> None:
        """Halve the lane's share; the answer goes out when its requests in flight fit into what is kept."""
        kept, cut_off = held.share.divided(2)
        given = tuple(held.batches.pop().batch_id for _ in range((len(held.batches) + 1) // 2))
        held.split = StealResponse(message.request_id, (), held.lane_id, given, cut_off)
        held.set_share(kept, now)
        self.answer_split(held)

    def answer_split(self, held: HeldLane) -> None:
        """With less than its old share in flight a lane has ended at the latest when this answer is an event."""
        if held.split is None or held.in_flight > held.share.connections:
            return
        answer, held.split = held.split, None
        self._events.append(ReadyToYield(answer, tuple(held.servers), held.share.connections))
        self._settlement.check_ended(held)


class WorkRequests:
    """The requests of one rank. All times are seconds, monotonic."""

    def __init__(self) -> None:
        self._may_ask_at = math.inf  # until the first lanes have come, work is on its way
        self._last_id = 0
        self._is_asking = False

    @property
    def due_at(self) -> float:
        """When a hungry rank may ask; inf = not before another message."""
        return math.inf if self._is_asking else self._may_ask_at

    def answered(self, request_id: int) -> None:
        """An answer to this request has come; 0 is that of none."""
        if request_id == self._last_id:
            self._is_asking = False

    def allow(self, now: float) -> None:
        """Work has come: the rank may ask for more from now on."""
        self._may_ask_at = min(self._may_ask_at, now)

    def refuse_until(self, at: float) -> None:
        """There is nothing to be had: the rank may not ask before ``at``."""
        self._may_ask_at = at

    def make(self) -> WorkRequest:
        """Ask."""
        self._last_id += 1
        self._is_asking = True
        return WorkRequest(self._last_id)
