"""Both ends of a steal on one rank: when it asks rank 0 for work, and how a lane of it is cut in two for others. Pure.

Decides from the answers until now when to ask; it must not know why the rank runs low. Queued lanes are given back by
``lane_table``; what is cut off a running one is decided here.

Invariants: at most one request is without an answer, and none is made before the time that a refusal named. A late
answer, to a request that was answered before, opens no new one. The answer to a split goes out when the lane's requests
in flight fit into the share that is kept, and before the lane has ended (see ``Frontier``): the rest of its share is
another rank's from then on.
"""

from __future__ import annotations

import math

from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.protocol import StealResponse, WorkRequest


def cut(lane: HeldLane, request_id: int, now: float) -> None:
    """Give up half of the lane's batches and of its share; ``lane.split`` is the answer, to be sent when it is true."""
    kept, cut_off = lane.share.divided(2)
    given = tuple(lane.batches.pop().batch_id for _ in range((len(lane.batches) + 1) // 2))
    lane.split = StealResponse(request_id, (), lane.lane_id, given, cut_off)
    lane.set_share(kept, now)


class WorkRequests:
    """The requests of one rank. All times are seconds, monotonic."""

    def __init__(self) -> None:
        self._may_ask_at = math.inf  # until the first lanes have come, work is on its way
        self._last_id = 0
        self._is_asking = False

    @property
    def due_at(self) -> float:
        """When a rank that runs low may ask; inf = not before another message."""
        return math.inf if self._is_asking else self._may_ask_at

    def answered(self, request_id: int) -> None:
        """Note an answer to this request; 0 is no request's."""
        if request_id == self._last_id:
            self._is_asking = False

    def allow(self, now: float) -> None:
        """Let the rank ask for more from now on: work has come."""
        self._may_ask_at = min(self._may_ask_at, now)

    def refuse_until(self, at: float) -> None:
        """Have the rank not ask before ``at``: there is nothing to be had."""
        self._may_ask_at = at

    def make(self) -> WorkRequest:
        self._last_id += 1
        self._is_asking = True
        return WorkRequest(self._last_id)
