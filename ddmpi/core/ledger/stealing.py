"""Who gives work to a rank that runs low, and how it changes hands: work stealing. Pure.

A thief never takes: it asks rank 0, rank 0 asks a victim, who gives back only what it has not started (or cuts a
running lane in two, share and batches together), and rank 0 leases that anew. Every request of a thief is answered
once, by ``Assign`` or ``NoWork``; a victim is asked by one thief at a time, and what it gives back late goes to the
thief all the same. A thief that was refused is remembered: as soon as a rank reports lanes to give, it gets some.

The victim is the rank with the most time left that has lanes to give, else the holder of the lane that ends last and
is worth cutting in two. ``Victims`` finds it with heaps whose entries are checked when they come up, so that neither
a report nor a steal looks at all ranks or lanes. Times are when a rank or lane is predicted to end, as last heard:
that can be compared however old the news is.

Invariant: every rank with lanes to give, and every lane that may be cut, has an entry at least as late as its end.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ddmpi.core.ledger.actions import Action, Send
from ddmpi.core.ledger.batch_accounts import BatchAccounts
from ddmpi.core.ledger.leases import Lease, Leases
from ddmpi.core.ledger.schedule import Plan, is_held_by_one
from ddmpi.core.protocol import Assign, NoWork, StealRequest, StealResponse
from ddmpi.core.records import INVALID_SERVER, Limits, is_packed
from ddmpi.errors import TransitionError

REFUSED_WAIT_S = 2.0
"""A rank whose steal was refused asks again after this, doubled per refusal in a row up to ``REFUSED_WAIT_MOST_S``."""
REFUSED_WAIT_MOST_S = 30.0
REFUSED_WAIT_PER_RANK_S = 0.01
"""With very many ranks that have nothing to do, they together ask at most a hundred times a second."""
STEAL_TIMEOUT_S = 5.0
"""A victim that has not answered by then is busy or stopped: the thief is told to ask again."""


@dataclass(slots=True)
class _Account:
    """The requests that concern one rank."""

    asking: int = 0
    """request_id of the steal request that waits for an answer, 0 if none."""
    asked_for_lanes: bool = False
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class _Transfer:
    """A ``StealRequest`` that is under way."""

    thief: int
    victim: int
    thief_request_id: int
    deadline: float


class Stealing:
    """The steals of one run. See the module's docstring."""

    def __init__(self, plan: Plan, leases: Leases, batches: BatchAccounts) -> None:
        self.steals = 0
        self._leases = leases
        self._victims = Victims(plan, leases, batches)
        self._refused_wait_most_s = max(REFUSED_WAIT_MOST_S, len(plan.workers) * REFUSED_WAIT_PER_RANK_S)
        self._idle: dict[int, None] = {}
        self._accounts = {rank: _Account() for rank in plan.workers}
        self._transfers: dict[int, _Transfer] = {}
        self._last_id = 0

    # ---- a thief asks

    def ask(self, thief: int, request_id: int) -> None:
        """The rank waits for an answer to this request."""
        self._accounts[thief].asking = request_id

    def is_asking(self, thief: int) -> bool:
        return self._accounts[thief].asking != 0

    def answer(self, thief: int) -> int:
        """The request that a message with work for this rank answers, 0 if none; it then no longer waits."""
        account = self._accounts[thief]
        request_id, account.asking = account.asking, 0
        self._idle.pop(thief, None)
        if request_id:
            account.refusals = 0
        return request_id

    def ask_victim(self, thief: int, now: float) -> Send:
        """Ask the rank with the most time left for lanes, or refuse."""
        victim = self._victims.rank(thief, self._is_busy)
        if victim is not None:
            return self._ask(victim, thief, 0, now)
        lane = self._victims.lane(thief, self._is_busy)
        if lane is not None:
            return self._ask(lane.rank, thief, lane.lane_id, now)
        return self._refuse(thief)

    def _is_busy(self, rank: int) -> bool:
        return self._accounts[rank].asked_for_lanes

    def _ask(self, victim: int, thief: int, split_lane_id: int, now: float) -> Send:
        self._idle.pop(thief, None)
        self._last_id += 1
        request_id = self._accounts[thief].asking
        self._transfers[self._last_id] = _Transfer(thief, victim, request_id, now + STEAL_TIMEOUT_S)
        self._accounts[victim].asked_for_lanes = True
        account = self._leases.ranks[victim]
        account.unstarted = 0
        return Send(victim, StealRequest(self._last_id, max(1.0, (account.ends_at - now) / 2), split_lane_id))

    def on_news(self, rank: int, now: float) -> list[Action]:
        """A rank has reported: if it has lanes to give, those who asked in vain need not ask again."""
        self._victims.note_rank(rank)
        if not self._idle or not self._leases.ranks[rank].unstarted or self._is_busy(rank):
            return []
        thief = next((thief for thief in self._idle if thief != rank), None)
        return [] if thief is None else [self._ask(rank, thief, 0, now)]

    def _refuse(self, thief: int) -> Send:
        account = self._accounts[thief]
        wait_s = min(self._refused_wait_most_s, REFUSED_WAIT_S * 2.0**account.refusals)
        refusals = account.refusals + 1 if wait_s < self._refused_wait_most_s else account.refusals
        message = NoWork(self.answer(thief), wait_s)
        account.refusals = refusals
        self._idle[thief] = None
        return Send(thief, message)

    # ---- the victim answers

    def on_steal_response(self, rank: int, message: StealResponse, now: float) -> list[Action]:
        """Lanes that a victim gave back go to the thief, also when its request was answered otherwise meanwhile."""
        transfer = self._transfers.pop(message.request_id, None)
        if transfer is None or transfer.victim != rank:
            raise TransitionError(f"rank {rank} answers StealRequest {message.request_id}, which was not asked of it")
        self._accounts[rank].asked_for_lanes = False
        self._victims.note_rank(rank)
        stolen = [self._take_from(rank, lane_id) for lane_id in message.lane_ids]
        if message.split_share is not None:
            stolen.append(self._split(rank, message, message.split_share))
        waiting = self._accounts[transfer.thief].asking == transfer.thief_request_id != 0
        if not stolen:
            return [self._refuse(transfer.thief)] if waiting else []
        self.steals += 1
        request_id = self.answer(transfer.thief) if waiting else 0
        return self._give(stolen, transfer.thief, request_id, now)

    def _take_from(self, victim: int, lane_id: int) -> Lease:
        """A lane that was not started: it leaves the victim as a whole."""
        lease = self._leases.get(lane_id)
        if lease is None or lease.rank != victim:
            raise TransitionError(f"rank {victim} yields lane {lane_id}, which it does not hold")
        self._leases.take_back(lease)
        return lease

    def _split(self, victim: int, message: StealResponse, share: Limits) -> Lease:
        """The part that was cut off, as a lease of its own."""
        old = self._leases.get(message.split_lane_id)
        given = list(message.split_batch_ids)
        if old is None or old.rank != victim or not given or not old.batch_ids.issuperset(given):
            raise TransitionError(f"rank {victim} splits a lane in a way that it cannot: {message}")
        return self._leases.cut(old, given, share)

    def _give(self, stolen: list[Lease], thief: int, request_id: int, now: float) -> list[Action]:
        """Lease these to the thief. What belongs to a group of which it has a lane by now is joined to that one."""
        actions: list[Action] = []
        lanes = []
        for lease in stolen:
            own = next((other for other in self._leases.of_group(lease.group) if other.rank == thief), None)
            if own is None:
                lanes.append(self._leases.grant(lease, thief, now))
            else:
                actions.append(self._leases.join(own, lease))
        if lanes or request_id:
            actions.append(Send(thief, Assign(tuple(lanes), request_id)))
        return actions

    # ---- time passes

    @property
    def is_idle(self) -> bool:
        """No victim has yet to answer."""
        return not self._transfers

    def tick(self, now: float) -> list[Action]:
        """Answer thieves whose victim does not answer; its lanes, when they come, are theirs all the same."""
        actions: list[Action] = []
        for transfer in self._transfers.values():
            # They are in the order of their deadlines.
            if transfer.deadline > now:
                break
            if self._accounts[transfer.thief].asking == transfer.thief_request_id != 0:
                actions.append(self._refuse(transfer.thief))
        return actions


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
        unfinished = (batch_id for batch_id in lease.batch_ids if not self._batches.counts.is_complete(batch_id))
        two = list(itertools.islice(unfinished, 2))
        return len(two) == 2 and len(self._leases.ranks_with(lease.group)) < self._most_lanes(two[0])

    def _most_lanes(self, batch_id: int) -> int:
        """Ranks that may work at once on the group of this batch."""
        return self._plan.max_lanes(int(self._plan.group_batches[self._plan.batch_group[batch_id]]))

    def _ends_at(self, lease: Lease) -> float:
        """When the lane ends: as predicted, or as its rank has last said, which may be slower than predicted."""
        return max(lease.ends_at, self._leases.ranks[lease.rank].ends_at)
