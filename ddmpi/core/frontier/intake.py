"""How lanes start on a rank and rows come to their slots, until the rank stops. Pure.

Decides when a queued lane starts, and sees to it that a lane has rows before it runs out of them: ``lane_table`` knows
which lane is next, ``feed`` brings the rows. It must not know requests or answers.

Invariant: each slot that gets rows is looked after: they wait for their turn, or leave at once if there will be none.

How rows come into lanes: batch by batch from the disk, chunk by chunk into tasks, and one by one as handoffs. Pure.

Decides when a batch is asked for and when loaded rows become tasks. It must not know when a request starts.

Invariants: a lane loads one batch at a time; of its rows no more are tasks than a chunk and what is in flight, but for
packed lanes, whose servers run side by side.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence

from ddmpi.core.frontier.held_lane import HeldLane, RowCursor
from ddmpi.core.frontier.interface import Event, LoadBatch, Rules
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.settlement import OpenBatches, Settlement
from ddmpi.core.frontier.slot import Slot
from ddmpi.core.pace.rate_limiter import RateLimiter
from ddmpi.core.protocol import Handoff
from ddmpi.core.records import BatchRef, Task


class Arrivals:
    """The lanes and rows that come into one rank."""

    def __init__(self, lanes: LaneTable, feed: Feed, settlement: Settlement) -> None:
        self._lanes = lanes
        self._feed = feed
        self._settlement = settlement
        self._stopped = False

    def stop(self) -> None:
        """Start and load nothing more."""
        self._stopped = True

    def start_lanes(self, now: float) -> None:
        """Start queued lanes while the connections of the rank are not all spoken for."""
        while not self._stopped and (held := self._lanes.start_next(now)) is not None:
            self.open(held, now)
            self._settlement.check_ended(held)

    def open(self, held: HeldLane, now: float) -> None:
        """The lane has just been started."""
        if not held.lane.packed:
            self._feed.slot(held, held.lane.group, now)
        self.load_more(held)

    def load_more(self, held: HeldLane) -> None:
        """Ask for the lane's next batch if few rows are left."""
        if not self._stopped:
            self._feed.load_more(held)

    def loaded(self, lane_id: int, batch: BatchRef, cursor: RowCursor, now: float) -> None:
        """The rows of a batch that was asked for."""
        held = self._lanes.by_id[lane_id]
        self._feed.loaded(held, batch, cursor)
        self._refill(held, now)
        held.expect()
        if held.started:
            self._lanes.count_demand(held)
        self._settlement.check_batch(batch.batch_id)
        self.load_more(held)
        self._settlement.check_ended(held)
        self.start_lanes(now)

    def _refill(self, held: HeldLane, now: float) -> None:
        for slot in self._feed.refill(held, now):
            self._settlement.look_after(held, slot, now)

    def add_handoffs(self, held: HeldLane, handoffs: Sequence[Handoff], now: float) -> None:
        """Rows that other ranks have sent."""
        for handoff in handoffs:
            self._settlement.look_after(held, self._feed.add_handoff(held, handoff, now), now)

    def bring_in(self, held: HeldLane, slot: Slot, now: float) -> None:
        """Keep rows at the slot, and batches in the lane, before they run out."""
        if held.cursors and not slot.queue:
            self._refill(held, now)
        self.load_more(held)


class Feed:
    """The rows of one rank on their way to its slots.

    Args:
        events: what is asked of the shell goes here.
    """

    def __init__(self, rules: Rules, rng: random.Random, events: deque[Event]) -> None:
        self.batches = OpenBatches()
        self._rules = rules
        self._rng = rng
        self._events = events
        self._slots: dict[str, Slot] = {}

    # ---- slots

    def slot(self, held: HeldLane, key: str, now: float) -> Slot:
        """The lane's slot of that name, made if it is missing."""
        slot = held.slots.get(key)
        if slot is None:
            planned = (held.lane.limits.get(key) or self._rules.limits_for(key)) if held.lane.packed else held.share
            allowed = held.allowed(key, planned)
            limiter = RateLimiter(allowed or planned, self._rules.pace, held.lane.paces.get(key), self._rng, now)
            limiter.rest(now, max(0.0, held.rest_until - now))
            slot = held.slots[key] = Slot(key, held.lane_id, limiter)
            slot.planned, slot.on_hold = planned, allowed is None
            self._slots[key] = slot
        return slot

    def find(self, group: str, server: str) -> Slot | None:
        """The slot that fetches from the server, in any lane of the rank."""
        return self._slots.get(group) or self._slots.get(server)

    def forget(self, held: HeldLane) -> None:
        """The lane has left the rank."""
        for slot in held.slots.values():
            if self._slots.get(slot.key) is slot:
                del self._slots[slot.key]

    # ---- rows

    def load_more(self, held: HeldLane) -> None:
        """Ask for the next batch when few loaded rows are left. Rows of a batch leave with the cursor."""
        if held.batches and not held.loading and not held.on_hold and held.loaded_rows < self._rules.low_water_rows:
            held.loading += 1
            self._events.append(LoadBatch(held.lane_id, held.batches.popleft()))

    def loaded(self, held: HeldLane, batch: BatchRef, cursor: RowCursor) -> None:
        """The rows of a batch that was asked for."""
        held.loading -= 1
        held.batch_ids.add(batch.batch_id)
        self.batches.add(batch, cursor.left)
        if cursor.left:
            held.cursors.append((batch, cursor))

    def refill(self, held: HeldLane, now: float) -> Iterator[Slot]:
        """Turn rows into tasks, all of a packed batch, else as many as are needed.

        Yields the slots that got some after each chunk: a slot that is given up has none left when the next one is due.
        """
        while held.cursors and (held.lane.packed or held.rows < self._rules.chunk_rows):
            batch, cursor = held.cursors[0]
            fresh: dict[Slot, None] = {}
            for row, url, server in cursor.take(self._rules.chunk_rows):
                slot = self.slot(held, held.slot_key(server), now)
                held.servers.add(server)
                held.rows += 1
                slot.queue.append(Task(batch.batch_id, row, url, server))
                fresh[slot] = None
            if not cursor.left:
                held.cursors.popleft()
            yield from fresh

    def add_handoff(self, held: HeldLane, handoff: Handoff, now: float) -> Slot:
        """Queue a row that another rank has sent; its slot."""
        self.batches.add_handoff(handoff.batch)
        task = Task(
            handoff.batch.batch_id, handoff.row, handoff.url, handoff.server, handoff.attempt, handoff.redirects
        )
        return self.hand_over(task, held, now)

    def hand_over(self, task: Task, held: HeldLane, now: float) -> Slot:
        """Queue a task that came from elsewhere in this lane, before its own rows; its slot."""
        if not task.robots_of:
            held.batch_ids.add(task.batch_id)
        held.servers.add(task.server)
        slot = self.slot(held, held.slot_key(task.server), now)
        held.rows += 1
        slot.retry_at(task, now)
        return slot
