"""How rows leave a rank, and what ends with them: batches, lanes, visits for a robots.txt. Pure.

Decides what becomes of the rows that wait at a slot which is given up or put off, and when a batch or a lane has ended.
It must not know requests or answers.

Invariants:
- a task that leaves is counted once: in its lane's ``rows``, and as a row in its batch (a visit for a robots.txt is no
  row);
- a lane has ended only when it has no batch to load, no cursor, no row, and no row of it is lent to another lane:
  the ledger takes the batches of an ended lane for done.

The batches that a rank has rows of, and how many: so that a batch's parts close when the last one leaves. Pure.

Rows that were redirected into another lane of the same rank: borrowed there, accounted where they came from. Pure.

The ledger takes the batches of an ended lane for done, so a lane must not end while a row of it is on its way in
another one. ``task.home_lane`` is the lane that a task came from (0 while it is there), ``HeldLane.lent`` counts the
same the other way round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.interface import BatchEnded, Event, LaneEnded, RowsFailed
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.robots_gate import RobotsGate
from ddmpi.core.frontier.slot import Slot, WakeQueue
from ddmpi.core.records import BatchRef, Failure, Task


class Settlement:
    """The rows that leave one rank.

    Args:
        events: what is asked of the shell goes here.
        gate: None where no server's robots.txt counts.
    """

    def __init__(
        self,
        lanes: LaneTable,
        batches: OpenBatches,
        wake_queue: WakeQueue,
        gate: RobotsGate | None,
        events: deque[Event],
    ) -> None:
        self._lanes = lanes
        self._batches = batches
        self._wake_queue = wake_queue
        self._gate = gate
        self._events = events

    def look_after(self, held: HeldLane, slot: Slot, now: float) -> None:
        """What becomes of the rows that wait at the slot: they fail, are put off, or have their turn some time.

        Those of a server that is given up, also those that are loaded later, fail as the last probe did. Profiling does
        not wait for a server that asks for a pause or cannot be reached: its samples stay pending.
        """
        if slot.dead is not None:
            self.fail(held, slot.clear(), slot.dead, now)
        elif held.gave_up or (held.lane.sampling and slot.on_hold):
            for task in slot.clear():
                self.settle(held, task, now)
        else:
            self._wake_queue.enter(slot, now)

    def fail(self, held: HeldLane, tasks: Sequence[Task], failure: Failure, now: float) -> None:
        """Rows that wait fail without a request."""
        rows = [task for task in tasks if not task.robots_of]
        if rows:
            self._events.append(RowsFailed(rows, failure))
        for task in rows:
            self.note_decided(held, task)
        for task in tasks:
            self.settle(held, task, now)

    def note_decided(self, held: HeldLane, task: Task) -> None:
        """A sample has its outcome: whoever gets the rest of its batch has to know."""
        home = self._lanes.by_id[task.home_lane] if task.home_lane else held
        if home.lane.sampling:
            home.decided.append((task.batch_id, task.row))

    def settle(self, held: HeldLane, task: Task, now: float) -> None:
        """The row has left this rank: it is final, pending or somebody else's."""
        held.rows -= 1
        held.settled += 1
        if task.home_lane:
            give_back(self._lanes.by_id, task, held)
            self.check_ended(self._lanes.by_id[task.home_lane])
        if task.robots_of:
            self._end_visit(task.robots_of, now)
        else:
            self._batches.remove(task.batch_id)
            self.check_batch(task.batch_id)

    def _end_visit(self, origin: str, now: float) -> None:
        """The rows that waited for the file have their turn again; those that find it unknown will ask."""
        for slot in self._gate.hand_out(origin) if self._gate is not None else ():
            held = self._lanes.by_id[slot.lane_id]
            self.look_after(held, slot, now)
            self.check_ended(held)

    def check_batch(self, batch_id: int) -> None:
        """Tell the shell if the last row of the batch has left."""
        if self._batches.ended(batch_id):
            self._events.append(BatchEnded(batch_id))

    def check_ended(self, held: HeldLane) -> None:
        """End the lane, and tell the shell, if nothing of it is left."""
        if held.ended or not held.started or not held.is_used_up:
            return
        self._lanes.end(held)
        self._events.append(LaneEnded(held.lane_id, frozenset(held.batch_ids), tuple(held.servers), held.endings))
        held.batch_ids.clear()


class OpenBatches:
    """Counts of rows that are here, by batch. A batch stays known after its last row: its results may still come."""

    def __init__(self) -> None:
        self._refs: dict[int, BatchRef] = {}
        self._rows: dict[int, int] = {}

    def add(self, ref: BatchRef, rows: int) -> None:
        """So many rows of the batch have come."""
        self._refs[ref.batch_id] = ref
        self._rows[ref.batch_id] = self._rows.get(ref.batch_id, 0) + rows

    def add_handoff(self, ref: BatchRef) -> None:
        """One row has come on its own. Where the batch is known, what is known of its parts is newer."""
        self._refs.setdefault(ref.batch_id, ref)
        self._rows[ref.batch_id] = self._rows.get(ref.batch_id, 0) + 1

    def remove(self, batch_id: int) -> None:
        """One row has left: it is final, pending or somebody else's."""
        self._rows[batch_id] -= 1

    def ended(self, batch_id: int) -> bool:
        """Whether the last row of the batch has left; true once."""
        if self._rows.get(batch_id) != 0:
            return False
        del self._rows[batch_id]
        return True

    def __getitem__(self, batch_id: int) -> BatchRef:
        return self._refs[batch_id]


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
