"""When to look at which site: the frontier's alarm clock. Pure.

An entry that has become too early costs one look, after which the site is entered anew; one that is too late is stale,
because the site was entered again for an earlier time. So nothing is ever taken out of the middle of the heap.

Invariant: a site's next look is at ``site.scheduled_at``, and the heap holds an entry for that time.
"""

from __future__ import annotations

import heapq
import itertools
import math

from ddmpi.core.frontier.slot import Site


class Agenda:
    """Sites by the time at which one of their rows may start."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Site]] = []
        self._sequence = itertools.count()

    def enter(self, site: Site, now: float) -> None:
        """Look at the site again when both a row and its pace are ready."""
        if site.dead is not None or site.on_hold:
            return
        at = max(site.next_due(now), site.pace.ready_at(now))
        if at < site.scheduled_at:
            site.scheduled_at = at
            heapq.heappush(self._heap, (at, next(self._sequence), site))

    def pop(self, now: float) -> Site | None:
        """The next site whose time has come; it has no entry then."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, site = heapq.heappop(heap)
            if at == site.scheduled_at:
                site.scheduled_at = math.inf
                return site
        return None

    @property
    def next_at(self) -> float:
        """When ``pop`` may have something (s, monotonic); inf = only after another ``enter``."""
        return self._heap[0][0] if self._heap else math.inf
