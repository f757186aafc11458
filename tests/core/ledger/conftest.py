"""The fixture of the ledger's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ddmpi.core.ledger.batch_counts import BatchCounts
from ddmpi.core.ledger.ledger import Ledger
from tests.core.ledger.ledgers import Make
from tests.worlds.model import World


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes ledgers that have not started, and validates them after the test."""
    made: list[Ledger] = []

    def make(world: World, ranks: int = 2, most_lanes: int = 1) -> Ledger:
        plan = world.plan(range(ranks), {1: most_lanes})
        made.append(Ledger(plan, BatchCounts(plan.batch_rows)))
        return made[-1]

    yield make
    for ledger in made:
        ledger.validate()
