"""Whom to ask for work: the rank with the most time left, or the lane that is worth cutting in two. Pure.

Heaps with entries that are checked when they come up, so that neither a report nor a steal looks at all ranks or lanes.
Times are when a rank or lane is predicted to end, as last heard: that can be compared however old the news is.

Invariant: every rank with lanes to give, and every lane that may be cut, has an entry at least as late as its end.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import numpy as np

from ddmpi.core.ledger.batch_accounts import BatchAccounts
from ddmpi.core.ledger.leases import Lease, Leases
from ddmpi.core.ledger.schedule import Plan, is_held_by_one, is_packed
from ddmpi.core.records import INVALID_SERVER

MOST_LANES_LOOKED_AT = 32
"""Lanes that one steal looks at: those that end last. A thief that finds none among them asks again."""


class Victims:
    """Ranks with queued lanes, and lanes that may be cut, by when they end."""

    def __init__(self, plan: Plan, leases: Leases, batches: BatchAccounts) -> None:
        self._plan = plan
        self._leases = leases
        self._batches = batches
        self._ranks: list[tuple[float, int]] = []
        self._lanes: list[tuple[float, int]] = []
        sizes = np.unique(plan.group_batches)
        self._may_split = any(plan.max_lanes(batches) > 1 for batches in sizes[sizes > 0].tolist())
        leases.on_more = self.note_lane

    # ---- news

    def note_rank(self, rank: int) -> None:
        """The rank's account has changed."""
        account = self._leases.ranks[rank]
        if account.unstarted:
            heapq.heappush(self._ranks, (-account.ends_at, rank))
            if len(self._ranks) > 4 * len(self._leases.ranks) + 64:
                self._ranks = [(-it.ends_at, rank) for rank, it in self._leases.ranks.items() if it.unstarted]
                heapq.heapify(self._ranks)

    def note_lane(self, lease: Lease) -> None:
        """The lane was leased to a rank, or got more to do."""
        if self._may_split and not self._is_indivisible(lease):
            heapq.heappush(self._lanes, (-lease.ends_at, lease.lane_id))

    def _is_indivisible(self, lease: Lease) -> bool:
        """Whether a second rank could not help or must not: ``is_held_by_one``, one connection, or nothing to fetch."""
        if lease.share.connections < 2 or is_packed(lease.group) or lease.group == INVALID_SERVER:
            return True
        return is_held_by_one(self._leases.limits(lease.group))

    # ---- choices

    def rank(self, thief: int, is_busy: Callable[[int], bool]) -> int | None:
        """The rank with the most time left among those that have lanes to give and are not busy with another thief."""
        passed_over = []
        found = None
        while self._ranks and found is None:
            entry = heapq.heappop(self._ranks)
            ends_at, rank = -entry[0], entry[1]
            account = self._leases.ranks[rank]
            if not account.unstarted or account.ends_at != ends_at:
                continue
            passed_over.append(entry)
            if rank != thief and not is_busy(rank):
                found = rank
        for entry in passed_over:
            heapq.heappush(self._ranks, entry)
        return found

    def lane(self, thief: int, is_busy: Callable[[int], bool]) -> Lease | None:
        """The lane that ends last among those of which a part may go to the thief."""
        passed_over: list[tuple[float, int]] = []
        found: Lease | None = None
        while self._lanes and len(passed_over) < MOST_LANES_LOOKED_AT:
            entry = heapq.heappop(self._lanes)
            lease = self._leases.get(entry[1])
            if lease is None or lease.ends_at != -entry[0] or not self._may_be_cut(lease):
                continue
            passed_over.append(entry)
            if not is_busy(lease.rank) and thief not in self._leases.ranks_with(lease.group):
                found = max(found or lease, lease, key=self._ends_at)
        for entry in passed_over:
            heapq.heappush(self._lanes, entry)
        return found

    def _may_be_cut(self, lease: Lease) -> bool:
        """Whether its group may have one lane more, and it has enough batches for two. Where that becomes true later,
        the lease comes by again: it got a share back, or batches."""
        if self._is_indivisible(lease):
            return False
        unfinished = (batch_id for batch_id in lease.batch_ids if not self._batches.is_complete(batch_id))
        two = list(itertools.islice(unfinished, 2))
        return len(two) == 2 and len(self._leases.ranks_with(lease.group)) < self._most_lanes(two[0])

    def _most_lanes(self, batch_id: int) -> int:
        """Ranks that may work at once on the group of this batch."""
        return self._plan.max_lanes(int(self._plan.group_batches[self._plan.batch_group[batch_id]]))

    def _ends_at(self, lease: Lease) -> float:
        """When the lane ends: as predicted, or as its rank has last said, which may be slower than predicted."""
        return max(lease.ends_at, self._leases.ranks[lease.rank].ends_at)
