"""How rows come into lanes: batch by batch from the disk, chunk by chunk into tasks, one by one as handoffs. Pure.

Decides when a batch is asked for and when loaded rows become tasks. It must not know when a request starts, or what
becomes of rows.

Invariants: a lane loads one batch at a time; of a server's rows no more are tasks than a chunk, those that were put
last and what is in flight, but for packed batches, whose servers run side by side.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

from ddmpi.core.frontier.held_lane import HeldLane, RowCursor
from ddmpi.core.frontier.interface import FrontierConfig, LoadBatch
from ddmpi.core.frontier.settlement import OpenBatches
from ddmpi.core.frontier.slot import SharedLimits, Slot
from ddmpi.core.pace.rate_limiter import RateLimiter
from ddmpi.core.protocol import Handoff
from ddmpi.core.records import GIVEN_UP_BY_USER, NOTHING_LEARNED, BatchRef, Limits, Mirrors, Task, shared_name

MOST_PUT_LAST: Final = 2_000
"""About 1 MB of tasks."""
MIXED_AT_ONCE: Final = 32
"""So many rows of a batch are mixed: what an earlier run has left of it begins with those that were refused."""
MIXED_SHARE: Final = 5
"""So many times as many rows are here of a server whose rows are mixed."""
SERVERS_SIDE_BY_SIDE: Final = 8
"""So many servers of a group have rows in memory that can be asked for, if there are as many: one that is slow leaves
most of the group's connections to others."""


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
        self._lanes: dict[str, HeldLane] = {}  # by the server group, in packed lanes by the server

    # ---- slots

    def open(self, lane: HeldLane, now: float) -> None:
        """Have rows that are redirected to the lane's group find it, and its servers share its limits."""
        if not lane.is_packed:
            self._lanes[lane.group] = lane
            if any(batch.server_name != lane.group for batch in lane.batches):
                self._share(lane, now)
            self._expect(lane)

    def slot(self, lane: HeldLane, server: str, now: float) -> Slot:
        """Return the lane's slot for the server; make it if it is missing."""
        slot = lane.slots.get(server)
        if slot is None:
            planned = self._planned(lane, server)
            allowed = lane.allowed(server, planned)
            state = lane.paces.get(server, NOTHING_LEARNED if self._config.is_restart else None)
            limiter = RateLimiter(allowed or planned, self._config.pace, state, self._rng, now)
            limiter.pause(now, max(0.0, lane.pauses.get(server, now) - now))
            group = server if lane.is_packed else lane.group
            slot = Slot(server, group, lane.lane_id, limiter, planned, was_asked=state is not None)
            slot.is_held = allowed is None
            slot.given_up = GIVEN_UP_BY_USER if lane.overrides.gives_up(server, lane.group) else None
            lane.slots[server] = slot
            if lane.is_packed:
                self._lanes[server] = lane
            elif lane.shared is not None:
                lane.shared.join(slot, now)
            elif len(lane.slots) > 1 or server != lane.group:
                self._share(lane, now)
        return slot

    def _planned(self, lane: HeldLane, server: str) -> Limits:
        if not lane.is_packed:
            return lane.share
        return lane.limits.get(server) or self._config.limits_for(server)

    def _share(self, lane: HeldLane, now: float) -> None:
        """Have the servers of the lane use its limits together from now on."""
        if lane.shared is not None:
            return
        allowed = lane.allowed(lane.group, lane.share) or lane.share
        was_asked = self._config.is_restart or lane.paces or lane.slots
        state = lane.paces.get(shared_name(lane.group), NOTHING_LEARNED if was_asked else None)
        lane.shared = SharedLimits(RateLimiter(allowed, self._config.pace, state, self._rng, now))
        for slot in lane.slots.values():
            lane.shared.join(slot, now)

    def find(self, group: str, server: str) -> HeldLane | None:
        """Return the lane of the rank that fetches from the server; None if there is none."""
        return self._lanes.get(group) or self._lanes.get(server)

    def forget(self, lane: HeldLane) -> None:
        """Forget a lane that has left the rank."""
        for name in (lane.group, *lane.slots):
            if self._lanes.get(name) is lane:
                del self._lanes[name]

    # ---- rows

    def next_batch(self, lane: HeldLane, now: float) -> list[LoadBatch]:
        """Take the lane's next batch when few loaded rows are left; none while there are enough."""
        if lane.loading or not lane.batches or lane.is_held:
            return []
        rows, low_water = lane.loaded_rows, self._config.low_water_rows
        at: int | None
        if lane.shared is not None:
            at = self._of_next_server(lane, lane.shared, now, few=rows < low_water)
        elif (slot := lane.slots.get(lane.group)) is not None and slot.is_mixed:
            at = self._rng.randrange(len(lane.batches)) if rows < MIXED_SHARE * low_water else None
        else:
            at = 0 if rows < low_water else None
        return [] if at is None else self._load(lane, at)

    def next_of_pack(self, lane: HeldLane) -> list[LoadBatch]:
        """Take the next batch of a packed lane, whose rows that are here all wait for their servers: others' rows must
        not wait behind them."""
        return self._load(lane, 0) if lane.is_packed and lane.batches and not lane.loading else []

    def _load(self, lane: HeldLane, at: int) -> list[LoadBatch]:
        batch = lane.batches[at]
        del lane.batches[at]
        lane.loading += 1
        self._expect(lane)
        return [LoadBatch(lane.lane_id, batch)]

    def _of_next_server(self, lane: HeldLane, shared: SharedLimits, now: float, *, few: bool) -> int | None:
        """Where in the lane's batches the server is that has the fewest rows here: servers of a group are asked side by
        side, and one that is left alone has no more of its rows here than it had, unless it refuses some of them: then
        others of all its batches are to be tried."""
        if not few and shared.busy >= SERVERS_SIDE_BY_SIDE:
            return None
        left: Counter[str] = Counter()
        for batch, cursor in lane.cursors:
            left[batch.server_name] += cursor.left
        enough = self._config.low_water_rows if few else 1
        best, best_rows = None, math.inf
        for at, batch in enumerate(lane.batches):
            slot = lane.slots.get(batch.server_name)
            rows = left[batch.server_name] + (slot.waiting if slot is not None else 0)
            if slot is not None and slot.is_mixed:
                is_wanted = rows < MIXED_SHARE * self._config.low_water_rows
            else:
                is_wanted = rows < enough and not (rows and slot is not None and slot.limiter.wait_s(now))
            if is_wanted and rows < best_rows:
                best, best_rows = at, rows
        return best if best is None else self._any_alike(lane, best)

    def _any_alike(self, lane: HeldLane, at: int) -> int:
        """Any batch of the same server, where its rows are mixed; else this one."""
        server = lane.batches[at].server_name
        if (slot := lane.slots.get(server)) is None or not slot.is_mixed:
            return at
        return self._rng.choice([other for other, batch in enumerate(lane.batches) if batch.server_name == server])

    def _expect(self, lane: HeldLane) -> None:
        """Count the servers that have rows to come, and none here."""
        if lane.shared is not None:
            unseen = {batch.server_name for batch in lane.batches if batch.server_name not in lane.slots}
            lane.shared.to_come = len(unseen) + lane.loading

    def loaded(self, lane: HeldLane, batch: BatchRef, cursor: RowCursor) -> None:
        """Take in the rows of a batch that was asked for."""
        lane.loading -= 1
        self._expect(lane)
        lane.batch_ids.add(batch.batch_id)
        self._batches.add(batch, cursor.left)
        if cursor.left:
            lane.cursors.append((batch, cursor))

    def refill(self, lane: HeldLane, now: float) -> Iterator[Slot]:
        """Turn rows into tasks, all of a packed batch, else as many as each server needs. Yield the slots that got some
        after each chunk: a server that is given up has none left when the next is due."""
        for batch, cursor in list(lane.cursors):
            while cursor.left and self._has_few(lane, batch.server_name, now):
                fresh: dict[Slot, None] = {}
                for slot, task in self._take(lane, batch, cursor, self._config.chunk_rows, now):
                    slot.queue.append(task)
                    fresh[slot] = None
                yield from fresh
            if cursor.left and lane.shared is None:
                break
        lane.cursors = deque(entry for entry in lane.cursors if entry[1].left)

    def _take(
        self, lane: HeldLane, batch: BatchRef, cursor: RowCursor, rows: int, now: float
    ) -> Iterator[tuple[Slot, Task]]:
        for row, url, server, others, mirrors, headers, validators in cursor.take(rows):
            lane.servers.add(server)
            lane.rows += 1
            left = Mirrors(mirrors) if mirrors else None
            task = Task(
                batch.batch_id, row, url, server, others=others, mirrors=left, headers=headers, validators=validators
            )
            yield self.slot(lane, server, now), task

    def mix(self, lane: HeldLane, slot: Slot, now: float) -> None:
        """Have any of the rows that are here go next, queued or not, at a server that was doubted: a thousand neighbors
        in the table may be alike."""
        slot.is_mixed = True
        entries = [entry for entry in lane.cursors if entry[0].server_name == slot.server]
        left = sum(cursor.left for _, cursor in entries)
        place = self._rng.randrange(max(1, len(slot.queue) + left))
        if place >= left:
            slot.queue.rotate(left - place)
            return
        batch, cursor = chosen = self._rng.choice(entries)
        taken = [task for _, task in self._take(lane, batch, cursor, MIXED_AT_ONCE, now)]
        slot.queue.extendleft(taken)
        slot.queue.rotate(-self._rng.randrange(len(taken)))
        if not cursor.left:
            lane.cursors.remove(chosen)

    def _has_few(self, lane: HeldLane, server: str, now: float) -> bool:
        """Whether the server of a batch has fewer tasks than a chunk, or there is one batch for many servers. Rows that
        are refused for their URLs may wait long for another try: others need not wait for them."""
        slot = lane.slots.get(server)
        if lane.is_packed or slot is None:
            return True
        return now >= slot.moves_at and slot.waiting - min(slot.put_last, MOST_PUT_LAST) < self._config.chunk_rows

    def take_handoff(self, lane: HeldLane, handoff: Handoff, now: float) -> Slot:
        """Queue a row that another rank has sent; return its slot."""
        self._batches.add_handoff(handoff.batch)
        it = handoff
        task = Task(
            it.batch.batch_id, it.row, it.url, it.server, it.attempt, it.redirects,
            cookies=it.cookies, others=it.others, mirrors=it.mirrors, asked=it.asked, is_at_origin=not it.redirects,
            validators=it.validators,
        )  # fmt: skip
        return self.take_task(lane, task, now)

    def take_task(self, lane: HeldLane, task: Task, now: float) -> Slot:
        """Queue a task that came from elsewhere in this lane, before its own rows; return its slot."""
        if not task.robots_of:
            lane.batch_ids.add(task.batch_id)
        lane.servers.add(task.server)
        slot = self.slot(lane, task.server, now)
        lane.rows += 1
        slot.retry_at(task, now)
        return slot
