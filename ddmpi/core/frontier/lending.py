"""Rows that were redirected into another lane of the same rank: borrowed there, accounted where they came from. Pure.

The ledger takes the batches of an ended lane for done, so a lane must not end while a row of it is on its way in
another one. ``task.home_lane`` is the lane that a task came from (0 while it is there), ``HeldLane.lent`` counts the
same the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping

from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.records import Task


def lend(lanes: Mapping[int, HeldLane], task: Task, holder: HeldLane, borrower: HeldLane) -> None:
    """The task goes from the lane that holds it to another one. The holder may have borrowed it itself."""
    holder.rows -= 1
    give_back(lanes, task, holder)
    if task.home_lane == 0:
        task.home_lane = holder.lane_id
    home = lanes[task.home_lane]
    if home is borrower:
        task.home_lane = 0
    else:
        home.lent[borrower.lane_id] = home.lent.get(borrower.lane_id, 0) + 1


def give_back(lanes: Mapping[int, HeldLane], task: Task, borrower: HeldLane) -> None:
    """The task leaves the lane that borrowed it; nothing happens if it was at home."""
    if task.home_lane:
        home = lanes[task.home_lane]
        home.lent[borrower.lane_id] -= 1
        if not home.lent[borrower.lane_id]:
            del home.lent[borrower.lane_id]
