"""Who gives work to a rank that runs low: the transactions of work stealing. Pure.

A thief never takes: it asks rank 0, rank 0 asks a victim, who gives back only what it has not started (or cuts a
running lane in two, share and batches together), and rank 0 leases that anew. Every request of a thief is answered
once, by ``Assign`` or ``NoWork``; a victim is asked by one thief at a time, and what it gives back late goes to the
thief all the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from ddmpi.actions import Action, Send
from ddmpi.batch_accounts import BatchAccounts
from ddmpi.errors import TransitionError
from ddmpi.leases import Lease, Leases
from ddmpi.protocol import Assign, NoWork, Yield, Yielded
from ddmpi.records import INVALID_SERVER, Limits
from ddmpi.schedule import SPLIT_ABOVE_PER_S, Plan, is_packed

REFUSED_WAIT_S = 2.0
"""A rank whose steal was refused asks again after this, doubled per refusal in a row up to ``REFUSED_WAIT_MOST_S``."""
REFUSED_WAIT_MOST_S = 30.0
YIELD_TIMEOUT_S = 5.0
"""A victim that does not answer for so long is busy or stopped: the thief is told to ask again."""


@dataclass(slots=True)
class _Account:
    """The requests that concern one rank."""

    asking: int = 0
    """request_id of the steal request that waits for an answer, 0 if none."""
    asked_to_yield: bool = False
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class _Transfer:
    """A ``Yield`` that is under way."""

    thief: int
    victim: int
    thief_request_id: int
    deadline: float


class Stealing:
    """The steals of one run. See the module's docstring."""

    def __init__(self, plan: Plan, leases: Leases, batches: BatchAccounts) -> None:
        self.steals = 0
        self._plan = plan
        self._leases = leases
        self._batches = batches
        self._accounts = {rank: _Account() for rank in plan.workers}
        self._transfers: dict[int, _Transfer] = {}
        self._last_id = 0

    # ---- a thief asks

    def ask(self, thief: int, request_id: int) -> None:
        """The rank waits for an answer to this request."""
        self._accounts[thief].asking = request_id

    def is_asking(self, thief: int) -> bool:
        """Whether the rank waits for an answer."""
        return self._accounts[thief].asking != 0

    def answer(self, thief: int) -> int:
        """The request that a message with work for this rank answers, 0 if none; it then no longer waits."""
        account = self._accounts[thief]
        request_id, account.asking = account.asking, 0
        if request_id:
            account.refusals = 0
        return request_id

    def ask_victim(self, thief: int, now: float) -> Send:
        """Ask the rank with the most time left for lanes, or refuse."""
        ranks = self._leases.ranks
        victims = [rank for rank in ranks if rank != thief and not self._accounts[rank].asked_to_yield]
        queued = [rank for rank in victims if ranks[rank].unstarted]
        if queued:
            victim = max(queued, key=lambda rank: (ranks[rank].remaining_s, -rank))
            split = 0
        else:
            found = max(
                ((lease.time_s, lease.rank, lease.lane_id) for r in victims for lease in self._splittable(r, thief)),
                default=None,
            )
            if found is None:
                return self._refuse(thief)
            _, victim, split = found
        self._last_id += 1
        asking = self._accounts[thief].asking
        self._transfers[self._last_id] = _Transfer(thief, victim, asking, now + YIELD_TIMEOUT_S)
        self._accounts[victim].asked_to_yield = True
        ranks[victim].unstarted = 0
        return Send(victim, Yield(self._last_id, max(1.0, ranks[victim].remaining_s / 2), split))

    def _splittable(self, rank: int, thief: int) -> Iterable[Lease]:
        """Lanes of the rank whose group may have one lane more, and which have enough batches for two."""
        for lane_id in self._leases.ranks[rank].lease_ids:
            lease = self._leases.get(lane_id)
            if lease is None or self._is_indivisible(lease):
                continue
            holders = self._leases.ranks_with(lease.group)
            unfinished = (batch_id for batch_id in lease.batch_ids if not self._batches.is_complete(batch_id))
            two = list(itertools.islice(unfinished, 2))
            if thief not in holders and len(two) == 2 and len(holders) < self._most_lanes(two[0]):
                yield lease

    def _most_lanes(self, batch_id: int) -> int:
        """Ranks that may work at once on the group of this batch."""
        return self._plan.max_lanes(int(self._plan.group_batches[self._plan.batch_group[batch_id]]))

    def _is_indivisible(self, lease: Lease) -> bool:
        """Whether a second rank could not help: the rate or the one connection is the limit, or nothing is fetched."""
        if lease.share.connections < 2 or is_packed(lease.group) or lease.group == INVALID_SERVER:
            return True
        return 0 < self._leases.limits(lease.group).rate_per_s <= SPLIT_ABOVE_PER_S

    def _refuse(self, thief: int) -> Send:
        account = self._accounts[thief]
        wait_s = min(REFUSED_WAIT_MOST_S, REFUSED_WAIT_S * 2.0**account.refusals)
        refusals = account.refusals + 1 if wait_s < REFUSED_WAIT_MOST_S else account.refusals
        message = NoWork(self.answer(thief), wait_s)
        account.refusals = refusals
        return Send(thief, message)

    # ---- the victim answers

    def on_yielded(self, rank: int, message: Yielded, now: float) -> list[Action]:
        """Lanes that a victim gave back go to the thief, also when its request was answered otherwise meanwhile."""
        transfer = self._transfers.pop(message.request_id, None)
        if transfer is None or transfer.victim != rank:
            raise TransitionError(f"rank {rank} answers Yield {message.request_id}, which was not asked of it")
        self._accounts[rank].asked_to_yield = False
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

    def _split(self, victim: int, message: Yielded, share: Limits) -> Lease:
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
