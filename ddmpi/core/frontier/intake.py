"""How rows come into lanes: batch by batch from the disk, chunk by chunk into tasks, one by one as handoffs. Pure.

Decides when a batch is asked for and when loaded rows become tasks. It must not know when a request starts, or what
becomes of rows.

Invariants: a lane loads one batch at a time; of its rows no more are tasks than a chunk and what is in flight, but for
packed lanes, whose servers run side by side.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ddmpi.core.frontier.held_lane import HeldLane, RowCursor
from ddmpi.core.frontier.interface import FrontierConfig, LoadBatch
from ddmpi.core.frontier.settlement import OpenBatches
from ddmpi.core.frontier.slot import Slot
from ddmpi.core.pace.rate_limiter import RateLimiter
from ddmpi.core.protocol import Handoff
from ddmpi.core.records import NOTHING_LEARNED, BatchRef, Limits, Task


class Intake:
    """The rows of one rank on their way to its slots.

    Args:
        batches: counts the rows that come.
        rng: jitter of the rate limiters' back-off.
    """

    def __init__(self, config: FrontierConfig, batches: OpenBatches, rng: random.Random) -> None:
        self._config = config
        self._batches = batches
        self._rng = rng
        self._slots: dict[str, Slot] = {}

    # ---- slots

    def slot(self, lane: HeldLane, key: str, now: float) -> Slot:
        """Return the lane's slot of that name; make it if it is missing."""
        slot = lane.slots.get(key)
        if slot is None:
            planned = self._planned(lane, key)
            allowed = lane.allowed(key, planned)
            state = lane.paces.get(key, NOTHING_LEARNED if self._config.is_restart else None)
            limiter = RateLimiter(allowed or planned, self._config.pace, state, self._rng, now)
            limiter.pause(now, max(0.0, lane.paused_until - now))
            slot = Slot(key, lane.lane_id, limiter, planned, was_asked=state is not None, rng=self._rng)
            lane.slots[key] = self._slots[key] = slot
            slot.is_held = allowed is None
        return slot

    def _planned(self, lane: HeldLane, key: str) -> Limits:
        if not lane.is_packed:
            return lane.share
        return lane.limits.get(key) or self._config.limits_for(key)

    def find(self, group: str, server: str) -> Slot | None:
        """Return the slot that fetches from the server, in any lane of the rank; None if there is none."""
        return self._slots.get(group) or self._slots.get(server)

    def forget(self, lane: HeldLane) -> None:
        """Forget the slots of a lane that has left the rank."""
        for slot in lane.slots.values():
            if self._slots.get(slot.key) is slot:
                del self._slots[slot.key]

    # ---- rows

    def next_batch(self, lane: HeldLane) -> LoadBatch | None:
        """Take the lane's next batch when few loaded rows are left; None while there are enough."""
        if lane.loading or not lane.batches or lane.is_held or lane.loaded_rows >= self._config.low_water_rows:
            return None
        lane.loading += 1
        return LoadBatch(lane.lane_id, lane.batches.popleft())

    def loaded(self, lane: HeldLane, batch: BatchRef, cursor: RowCursor) -> None:
        """Take in the rows of a batch that was asked for."""
        lane.loading -= 1
        lane.batch_ids.add(batch.batch_id)
        self._batches.add(batch, cursor.left)
        if cursor.left:
            lane.cursors.append((batch, cursor))

    def refill(self, lane: HeldLane, now: float) -> Iterator[Slot]:
        """Turn rows into tasks, all of a packed batch, else as many as are needed. Yield the slots that got some after
        each chunk: a server that is given up has none left when the next is due."""
        while lane.cursors and (lane.is_packed or lane.rows < self._config.chunk_rows):
            batch, cursor = lane.cursors[0]
            fresh: dict[Slot, None] = {}
            for row, url, server in cursor.take(self._config.chunk_rows):
                slot = self.slot(lane, lane.slot_key(server), now)
                lane.servers.add(server)
                lane.rows += 1
                slot.queue.append(Task(batch.batch_id, row, url, server))
                fresh[slot] = None
            if not cursor.left:
                lane.cursors.popleft()
            yield from fresh

    def take_handoff(self, lane: HeldLane, handoff: Handoff, now: float) -> Slot:
        """Queue a row that another rank has sent; return its slot."""
        self._batches.add_handoff(handoff.batch)
        it = handoff
        task = Task(it.batch.batch_id, it.row, it.url, it.server, it.attempt, it.redirects)
        return self.take_task(lane, task, now)

    def take_task(self, lane: HeldLane, task: Task, now: float) -> Slot:
        """Queue a task that came from elsewhere in this lane, before its own rows; return its slot."""
        if not task.robots_of:
            lane.batch_ids.add(task.batch_id)
        lane.servers.add(task.server)
        slot = self.slot(lane, lane.slot_key(task.server), now)
        lane.rows += 1
        slot.retry_at(task, now)
        return slot
