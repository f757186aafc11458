"""How rows leave a lane: to their outcome, to another lane of the rank, or off the rank. Pure.

Decides nothing of what becomes of a row; it keeps the counts that say when a batch and a lane have ended, and notes
which lanes and slots have to be looked after because of it.

A row that was redirected into another lane of the rank, or whose mirror is there, is *handed off*: fetched there,
accounted where it came from. The ledger takes the batches of an ended lane for done, so a lane must not end while a row
of it is in another one.
``task.home_lane`` is the lane that a task came from (0 while it is there), ``HeldLane.handed_off`` counts the same
tasks from their lane's side.

Invariant: a task that leaves is counted once, however many rows it is for: in its lane's ``rows``, and as a row in its
batch (the request for a robots.txt is no row).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.interface import BatchEnded, Change
from ddmpi.core.frontier.robots_gate import RobotsGate
from ddmpi.core.frontier.slot import Slot
from ddmpi.core.records import BatchRef, Task


class OpenBatches:
    """The rows that are here, counted by batch. A batch stays known after its last row: its results may still come."""

    def __init__(self) -> None:
        self._refs: dict[int, BatchRef] = {}
        self._rows: dict[int, int] = {}
        self.ended: list[int] = []
        """Batches whose last row may have left since ``take_ended`` was called."""

    def add(self, ref: BatchRef, rows: int) -> None:
        """Count rows of the batch that have come."""
        self._refs[ref.batch_id] = ref
        self._rows[ref.batch_id] = self._rows.get(ref.batch_id, 0) + rows
        if not self._rows[ref.batch_id]:
            self.ended.append(ref.batch_id)

    def add_handoff(self, ref: BatchRef) -> None:
        """Count one row that has come on its own. Where the batch is known, what is known of its parts is newer."""
        self._refs.setdefault(ref.batch_id, ref)
        self._rows[ref.batch_id] = self._rows.get(ref.batch_id, 0) + 1

    def remove(self, batch_id: int) -> None:
        """Count one row that has left: it is final, pending or on another rank."""
        self._rows[batch_id] -= 1
        if not self._rows[batch_id]:
            self.ended.append(batch_id)

    def take_ended(self) -> list[BatchEnded]:
        """Return the batches whose last row has left since the last call."""
        ended = [batch_id for batch_id in dict.fromkeys(self.ended) if self._rows.get(batch_id) == 0]
        self.ended.clear()
        for batch_id in ended:
            del self._rows[batch_id]
        return [BatchEnded(batch_id) for batch_id in ended]

    def __getitem__(self, batch_id: int) -> BatchRef:
        return self._refs[batch_id]


class Changes:
    """What one call to the frontier changes: what the shell has to be told, and which lanes have to be looked after."""

    def __init__(self) -> None:
        self.told: list[Change] = []
        self.touched: dict[HeldLane, dict[Slot, None]] = {}

    def touch(self, lane: HeldLane, *slots: Slot) -> None:
        """Have the lane looked after, and these slots of it."""
        self.touched.setdefault(lane, {}).update(dict.fromkeys(slots))

    def next_touched(self) -> tuple[HeldLane, dict[Slot, None]]:
        """Take out a lane that has to be looked after, with its slots. Raises StopIteration: there is none."""
        lane = next(iter(self.touched))
        return lane, self.touched.pop(lane)

    def take(self) -> list[Change]:
        """Return what has to be told, in order; begin anew."""
        told, self.told = self.told, []
        return told


@dataclass(frozen=True, eq=False)
class Settlement:
    """The rows that leave the lanes of one rank."""

    lanes: Mapping[int, HeldLane]
    batches: OpenBatches
    gate: RobotsGate | None
    """None where no server's robots.txt counts."""
    changes: Changes

    def settle(self, lane: HeldLane, task: Task) -> None:
        """Count out a task that leaves this rank, or the request for a robots.txt that is over. The caller looks after
        the lane; others that this concerns are touched."""
        lane.rows -= 1
        lane.settled += 1 + len(task.others)
        if task.home_lane:
            self._come_back(task, lane)
            self.changes.touch(self.lanes[task.home_lane])
        if not task.robots_of:
            self.batches.remove(task.batch_id)
        elif self.gate is not None:
            # The rows that waited for the file have their turn again; those that find it unknown will ask.
            for slot in self.gate.hand_out(task.robots_of):
                self.changes.touch(self.lanes[slot.lane_id], slot)

    def note_decided(self, lane: HeldLane, task: Task) -> None:
        """Note that a sample has its outcome: whoever gets the rest of its batch has to know."""
        home = self.lanes[task.home_lane] if task.home_lane else lane
        if home.is_sampling:
            home.decided.setdefault(task.batch_id, []).extend(task.rows)

    def hand_off(self, task: Task, holder: HeldLane, taker: HeldLane) -> None:
        """Count a task out of the lane that holds it, which may not be its home, into another lane of the rank."""
        holder.rows -= 1
        self._come_back(task, holder)
        if task.home_lane == 0:
            task.home_lane = holder.lane_id
        home = self.lanes[task.home_lane]
        if home is taker:
            task.home_lane = 0
        else:
            home.handed_off[taker.lane_id] = home.handed_off.get(taker.lane_id, 0) + 1

    def _come_back(self, task: Task, holder: HeldLane) -> None:
        """Count the task as no longer handed off to the lane that holds it; nothing happens if it is at home."""
        if task.home_lane:
            home = self.lanes[task.home_lane]
            home.handed_off[holder.lane_id] -= 1
            if not home.handed_off[holder.lane_id]:
                del home.handed_off[holder.lane_id]
