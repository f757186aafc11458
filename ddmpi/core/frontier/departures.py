"""How rows leave a rank, and what ends with them: batches, lanes, visits for a robots.txt. Pure.

Decides what becomes of the rows that wait at a site which is given up or put off, and when a batch or a lane has ended.
It must not know requests or answers.

Invariants:
- a task that leaves is counted once: in its lane's ``rows``, and as a row in its batch (a visit for a robots.txt is no
  row);
- a lane has ended only when it has no batch to load, no cursor, no row, and no row of it is lent to another lane:
  the ledger takes the batches of an ended lane for done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ddmpi.core.frontier.agenda import Agenda
from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.interface import BatchEnded, Event, LaneEnded, RowsFailed
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.lending import give_back
from ddmpi.core.frontier.open_batches import OpenBatches
from ddmpi.core.frontier.robots_gate import RobotsGate
from ddmpi.core.frontier.slot import Site
from ddmpi.core.records import Failure, Task


class Departures:
    """The rows that leave one rank.

    Args:
        events: what is asked of the shell goes here.
        gate: None where no server's robots.txt counts.
    """

    def __init__(
        self, lanes: LaneTable, batches: OpenBatches, agenda: Agenda, gate: RobotsGate | None, events: deque[Event]
    ) -> None:
        self._lanes = lanes
        self._batches = batches
        self._agenda = agenda
        self._gate = gate
        self._events = events

    def look_after(self, held: HeldLane, site: Site, now: float) -> None:
        """What becomes of the rows that wait at the site: they fail, are put off, or have their turn some time.

        Those of a server that is given up, also those that are loaded later, fail as the last probe did. Profiling does
        not wait for a server that asks for a pause or cannot be reached: its samples stay pending.
        """
        if site.dead is not None:
            self.fail(held, site.clear(), site.dead, now)
        elif held.gave_up or (held.lane.sampling and site.on_hold):
            for task in site.clear():
                self.settle(held, task, now)
        else:
            self._agenda.enter(site, now)

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
        for site in self._gate.hand_out(origin) if self._gate is not None else ():
            held = self._lanes.by_id[site.lane_id]
            self.look_after(held, site, now)
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
