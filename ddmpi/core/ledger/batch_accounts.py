"""Which batches wait to flow, which big batch each belongs to, and when one is complete or flows again. Pure.

Part of the ledger: it decides when a batch is complete, flows again or ends its big batch. It must not know lanes,
shares and ranks; a *hold* is a promise to work on a batch, whoever has made it.

Invariants: a batch waits, is withheld or is held, never two of these; it waits at most once. Batches are withheld whose
server is still being profiled: sampling lanes work on them, and their parts are reported like any others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping

import msgspec
import numpy as np

from ddmpi.core.ledger.actions import Action, BatchCompleted, BigBatchEnded
from ddmpi.core.ledger.batch_counts import BatchContent, BatchCounts
from ddmpi.core.ledger.schedule import Plan, flow_order
from ddmpi.core.protocol import PartReport
from ddmpi.core.records import BatchRef

MOST_FLOWS_PER_BATCH = 3
"""A batch that comes back incomplete so often without progress stays pending."""


class BatchAccounts:
    """The accounts of all batches of a plan.

    Args:
        counts: what is final of each batch, as in the output folder; changed in place.
    """

    def __init__(self, plan: Plan, counts: BatchCounts) -> None:
        self.counts = counts
        self._plan = plan
        self._order = deque(flow_order(plan, counts.incomplete_batches()).tolist())
        self._withheld: dict[int, list[int]] = {}
        self._sampled: dict[int, tuple[int, ...]] = {}
        self._returned: set[int] = set()  # batches that have to flow again, once their samples are durable
        self._holds: dict[int, int] = {}
        self._flows: dict[int, tuple[int, int]] = {}
        self._big_batches: dict[int, set[int]] = {}
        self._members: dict[int, tuple[int, ...]] = {}
        self._big_batch_of: dict[int, int] = {}

    # ---- big batches

    def begin_big_batch(self, number: int, size: int) -> list[int]:
        """The next batches that wait, at most ``size``; they are the members of big batch ``number``."""
        members = [self._order.popleft() for _ in range(min(size, len(self._order)))]
        if members:
            self._big_batches[number] = set(members)
            self._members[number] = tuple(members)
            self._big_batch_of.update(dict.fromkeys(members, number))
        return members

    @property
    def waiting(self) -> int:
        """Batches that belong to no big batch yet."""
        return len(self._order)

    @property
    def flowing(self) -> int:
        """Batches of big batches that have begun, which are neither complete nor given up."""
        return len(self._big_batch_of)

    def open_big_batches(self) -> list[tuple[int, tuple[int, ...]]]:
        """Big batches that have not ended: their number and batches."""
        return list(self._members.items())

    def _leave_big_batch(self, batch_id: int) -> list[Action]:
        number = self._big_batch_of.pop(batch_id, None)
        if number is None:
            return []
        self._big_batches[number].discard(batch_id)
        if self._big_batches[number]:
            return []
        del self._big_batches[number]
        members = self._members.pop(number)
        return [BigBatchEnded(number, members)] if members else []

    # ---- withheld batches

    def withhold(self, groups: Collection[int]) -> None:
        """Let no batch of these groups flow before ``admit``."""
        self._withheld = {group: [] for group in groups}
        kept: deque[int] = deque()
        for batch_id in self._order:
            self._withheld.get(int(self._plan.batch_group[batch_id]), kept).append(batch_id)
        self._order = kept

    def admit(self, groups: Iterable[int]) -> int:
        """Let the batches of these groups flow next; return how many there are.

        Those that have become complete meanwhile flow as well: they are to be verified.
        """
        admitted = [batch_id for group in groups for batch_id in self._withheld.pop(group)]
        self._order.extendleft(reversed(flow_order(self._plan, np.array(admitted, np.int64)).tolist()))
        return len(admitted)

    @property
    def withheld(self) -> Collection[int]:
        return self._withheld.keys()

    def complete_whole(self, batch_ids: Iterable[int]) -> list[Action]:
        """Complete those of these batches whose rows became final before they flowed."""
        counts = self.counts
        whole = [
            batch_id for batch_id in batch_ids if not counts.is_complete(batch_id) and not counts.is_open(batch_id)
        ]
        return [action for batch_id in whole for action in self._complete_batch(batch_id)]

    # ---- samples

    def note_sampled(self, decided: Mapping[int, tuple[int, ...]]) -> None:
        """Remember rows, by batch, that have outcomes which are in no part yet."""
        self._sampled.update(decided)

    def samples_durable(self, batch_ids: Iterable[int]) -> list[Action]:
        """Forget the samples of these batches: they are in parts now, which were reported before."""
        actions: list[Action] = []
        for batch_id in batch_ids:
            self._sampled.pop(batch_id, None)
            if batch_id in self._returned:
                self._returned.discard(batch_id)
                actions += self._flow_again(batch_id)
        return actions

    @property
    def has_samples(self) -> bool:
        """Whether there are samples that are not durable."""
        return bool(self._sampled)

    # ---- holds

    def hold(self, batch_ids: Iterable[int]) -> None:
        """Put one hold more on each of these."""
        for batch_id in batch_ids:
            self._holds[batch_id] = self._holds.get(batch_id, 0) + 1

    def pass_on(self, batch_ids: Iterable[int]) -> None:
        """Take one hold off each of these, for a new holder that calls ``hold`` next."""
        for batch_id in batch_ids:
            self._holds[batch_id] -= 1

    def let_go(self, batch_id: int) -> list[Action]:
        """Take one hold off the batch. One without holds that is incomplete has to flow again."""
        self._holds[batch_id] -= 1
        if self._holds[batch_id]:
            return []
        del self._holds[batch_id]
        if batch_id in self._sampled:
            self._returned.add(batch_id)
            return []
        return self._flow_again(batch_id)

    def _flow_again(self, batch_id: int) -> list[Action]:
        if self.counts.is_complete(batch_id):
            return []
        final = self.counts.final(batch_id)
        flows, before = self._flows.get(batch_id, (0, -1))
        flows = flows + 1 if final == before else 1
        self._flows[batch_id] = (flows, final)
        if flows >= MOST_FLOWS_PER_BATCH:
            return []
        self._order.append(batch_id)
        number = self._big_batch_of.get(batch_id)
        if number is not None:
            # It will be a member of another big batch, and is verified with that one.
            members = self._members[number]
            self._members[number] = tuple(other for other in members if other != batch_id)
        return self._leave_big_batch(batch_id)

    # ---- what is final

    def on_part(self, part: PartReport) -> list[Action]:
        """Count a published part. Raises TransitionError: the batch would have more outcomes than rows."""
        self.counts.add_part(part)
        batch_id = part.batch_id
        has_flowed = batch_id in self._big_batch_of  # others are completed when they flow, as members of a big batch
        return self._complete_batch(batch_id) if has_flowed and not self.counts.is_open(batch_id) else []

    def _complete_batch(self, batch_id: int) -> list[Action]:
        self.counts.complete(batch_id)
        return [BatchCompleted(batch_id, self._big_batch_of[batch_id]), *self._leave_big_batch(batch_id)]

    def reopen(self, found: BatchContent) -> None:
        """Verification found rows of a completed batch missing: it has only what its files really hold."""
        self.counts.set(found)
        if found.batch_id not in self._holds and found.batch_id not in self._order:
            self._order.append(found.batch_id)

    def open_refs(self, batch_ids: Iterable[int]) -> tuple[BatchRef, ...]:
        """Where the rows of those of these batches are that are not complete, and which parts they have."""
        return tuple(self._ref(batch_id) for batch_id in batch_ids if not self.counts.is_complete(batch_id))

    def _ref(self, batch_id: int) -> BatchRef:
        ref = self._plan.ref(batch_id)
        parts, decided = tuple(self.counts.parts.get(batch_id, ())), self._sampled.get(batch_id, ())
        return msgspec.structs.replace(ref, parts=parts, decided=decided) if parts or decided else ref

    # ---- for checks

    def validate(self, holds: Mapping[int, int]) -> None:
        """Compare the holds with those that the lanes have. Raises AssertionError: they differ, or the batches do not
        add up."""
        if holds != self._holds:
            raise AssertionError("a batch's holders do not add up")
        self.counts.validate()
