"""Who gives work to a rank that runs low: the transactions of work stealing. Pure.

A thief never takes: it asks rank 0, rank 0 asks a victim, who gives back only what it has not started (or cuts a
running lane in two, share and batches together), and rank 0 leases that anew. Every request of a thief is answered
once, by ``Assign`` or ``NoWork``; a victim is asked by one thief at a time, and what it gives back late goes to the
thief all the same. A thief that was refused is remembered: as soon as a rank reports lanes to give, it gets some.
"""

from __future__ import annotations

from dataclasses import dataclass

from ddmpi.core.ledger.actions import Action, Send
from ddmpi.core.ledger.batch_accounts import BatchAccounts
from ddmpi.core.ledger.leases import Lease, Leases
from ddmpi.core.ledger.schedule import Plan
from ddmpi.core.ledger.victims import Victims
from ddmpi.core.protocol import Assign, NoWork, Yield, Yielded
from ddmpi.core.records import Limits
from ddmpi.errors import TransitionError

REFUSED_WAIT_S = 2.0
"""A rank whose steal was refused asks again after this, doubled per refusal in a row up to ``REFUSED_WAIT_MOST_S``."""
REFUSED_WAIT_MOST_S = 30.0
REFUSED_WAIT_PER_RANK_S = 0.01
"""With very many ranks that have nothing to do, they together ask at most a hundred times a second."""
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
        """Whether the rank waits for an answer."""
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
        return self._accounts[rank].asked_to_yield

    def _ask(self, victim: int, thief: int, split_lane_id: int, now: float) -> Send:
        self._idle.pop(thief, None)
        self._last_id += 1
        request_id = self._accounts[thief].asking
        self._transfers[self._last_id] = _Transfer(thief, victim, request_id, now + YIELD_TIMEOUT_S)
        self._accounts[victim].asked_to_yield = True
        account = self._leases.ranks[victim]
        account.unstarted = 0
        return Send(victim, Yield(self._last_id, max(1.0, (account.ends_at - now) / 2), split_lane_id))

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

    def on_yielded(self, rank: int, message: Yielded, now: float) -> list[Action]:
        """Lanes that a victim gave back go to the thief, also when its request was answered otherwise meanwhile."""
        transfer = self._transfers.pop(message.request_id, None)
        if transfer is None or transfer.victim != rank:
            raise TransitionError(f"rank {rank} answers Yield {message.request_id}, which was not asked of it")
        self._accounts[rank].asked_to_yield = False
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
