"""The ledger's records: leases of lanes, the accounts of ranks, steals under way. Data only.

``Ledger`` is the only one that changes them, and its docstring says what holds between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from ddmpi.protocol import Errand
from ddmpi.records import Limits


@dataclass(slots=True, eq=False)
class Lease:
    """A lane as the ledger sees it: who holds it, and what it holds. ``rank`` is -1 until it is granted."""

    lane_id: int
    rank: int
    group: str
    time_s: float
    cost_s: float
    share: Limits
    batch_ids: set[int]
    errands: list[Errand] = field(default_factory=list)
    version: int = 0
    parked_until: float | None = None
    errand_rows: dict[int, int] = field(default_factory=dict)

    def held(self) -> Iterator[int]:
        """The batch of each hold that this lease has: one per own batch, one per errand."""
        yield from self.batch_ids
        for batch_id, rows in self.errand_rows.items():
            yield from itertools.repeat(batch_id, rows)
        yield from (errand.batch.batch_id for errand in self.errands)


@dataclass(slots=True)
class RankAccount:
    """What one rank holds, and what it last said of itself."""

    lease_ids: set[int] = field(default_factory=set)
    load_s: float = 0.0
    remaining_s: float = 0.0
    unstarted: int = 0
    asking: int = 0
    """request_id of the steal request that waits for an answer, 0 if none."""
    asked_to_yield: bool = False
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class Transfer:
    """A ``Yield`` that is under way."""

    thief: int
    victim: int
    thief_request_id: int
    deadline: float
