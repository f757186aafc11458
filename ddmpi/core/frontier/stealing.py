"""What a rank gives back when another one runs low: queued lanes, or half of a started one. Pure.

Decides which, and when a split can be answered. It must not know who asks.

Invariant: the answer to a split goes out when the lane's requests in flight fit into the share that is kept, and before
the lane has ended: the rest of its share is somebody else's from then on.
"""

from __future__ import annotations

from collections import deque

from ddmpi.core.frontier.departures import Departures
from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.interface import Event, ReadyToYield
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.ledger.schedule import divide
from ddmpi.core.protocol import Yield, Yielded


class Yielding:
    """What one rank gives back.

    Args:
        events: the answers go here.
    """

    def __init__(self, lanes: LaneTable, departures: Departures, events: deque[Event]) -> None:
        self._lanes = lanes
        self._departures = departures
        self._events = events

    def asked(self, message: Yield, now: float) -> None:
        """Give back about half of the queued lanes, at most ``time_s``; else split a lane."""
        given = self._lanes.give_back(message.time_s)
        splittable = self._lanes.by_id.get(message.split_lane_id)
        if not given and splittable is not None and splittable.can_be_cut:
            self._cut(splittable, message, now)
        else:
            self._events.append(ReadyToYield(Yielded(message.request_id, lane_ids=given)))

    def _cut(self, held: HeldLane, message: Yield, now: float) -> None:
        """Halve the lane's share; the answer goes out when its requests in flight fit into what is kept."""
        kept, cut_off = divide(held.share, 2)
        given = tuple(held.batches.pop().batch_id for _ in range((len(held.batches) + 1) // 2))
        held.split = Yielded(message.request_id, (), held.lane_id, given, cut_off)
        held.set_share(kept, now)
        self.answer_split(held)

    def answer_split(self, held: HeldLane) -> None:
        """With less than its old share in flight a lane has ended at the latest when this answer is an event."""
        if held.split is None or held.in_flight > held.share.connections:
            return
        answer, held.split = held.split, None
        self._events.append(ReadyToYield(answer, tuple(held.servers), held.share.connections))
        self._departures.check_ended(held)
