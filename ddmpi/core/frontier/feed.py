"""How rows come into lanes: batch by batch from the disk, chunk by chunk into tasks, and one by one as errands. Pure.

Decides when a batch is asked for and when loaded rows become tasks. It must not know when a request starts.

Invariants: a lane loads one batch at a time; of its rows no more are tasks than a chunk and what is in flight, but for
packed lanes, whose servers run side by side.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

from ddmpi.core.frontier.frontier_rules import Rules
from ddmpi.core.frontier.held_lane import HeldLane, RowCursor
from ddmpi.core.frontier.interface import Event, LoadBatch
from ddmpi.core.frontier.open_batches import OpenBatches
from ddmpi.core.frontier.slot import Site
from ddmpi.core.pace.pace import Pace
from ddmpi.core.protocol import Errand
from ddmpi.core.records import BatchRef, Task


class Feed:
    """The rows of one rank on their way to its sites.

    Args:
        events: what is asked of the shell goes here.
    """

    def __init__(self, rules: Rules, rng: random.Random, events: deque[Event]) -> None:
        self.batches = OpenBatches()
        self._rules = rules
        self._rng = rng
        self._events = events
        self._sites: dict[str, Site] = {}

    # ---- sites

    def site(self, held: HeldLane, key: str, now: float) -> Site:
        """The lane's site of that name, made if it is missing."""
        site = held.sites.get(key)
        if site is None:
            planned = self._rules.limits_for(key) if held.lane.packed else held.share
            allowed = held.allowed(key, planned)
            pace = Pace(allowed or planned, self._rules.pace, held.lane.paces.get(key), self._rng, now)
            pace.rest(now, max(0.0, held.rest_until - now))
            site = held.sites[key] = Site(key, held.lane_id, pace)
            site.planned, site.on_hold = planned, allowed is None
            self._sites[key] = site
        return site

    def find(self, group: str, server: str) -> Site | None:
        """The site that fetches from the server, in any lane of the rank."""
        return self._sites.get(group) or self._sites.get(server)

    def forget(self, held: HeldLane) -> None:
        """The lane has left the rank."""
        for site in held.sites.values():
            if self._sites.get(site.key) is site:
                del self._sites[site.key]

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

    def refill(self, held: HeldLane, now: float) -> Iterator[Site]:
        """Turn rows into tasks, all of a packed batch, else as many as are needed.

        Yields the sites that got some after each chunk: a site that is given up has none left when the next one is due.
        """
        while held.cursors and (held.lane.packed or held.rows < self._rules.chunk_rows):
            batch, cursor = held.cursors[0]
            fresh: dict[Site, None] = {}
            for row, url, server in cursor.take(self._rules.chunk_rows):
                site = self.site(held, held.site_key(server), now)
                held.servers.add(server)
                held.rows += 1
                site.queue.append(Task(batch.batch_id, row, url, server))
                fresh[site] = None
            if not cursor.left:
                held.cursors.popleft()
            yield from fresh

    def add_errand(self, held: HeldLane, errand: Errand, now: float) -> Site:
        """Queue a row that another rank has sent; its site."""
        self.batches.add_errand(errand.batch)
        task = Task(errand.batch.batch_id, errand.row, errand.url, errand.server, errand.attempt, errand.redirects)
        return self.hand_over(task, held, now)

    def hand_over(self, task: Task, held: HeldLane, now: float) -> Site:
        """Queue a task that came from elsewhere in this lane, before its own rows; its site."""
        if not task.robots_of:
            held.batch_ids.add(task.batch_id)
        held.servers.add(task.server)
        site = self.site(held, held.site_key(task.server), now)
        held.rows += 1
        site.retry_at(task, now)
        return site
