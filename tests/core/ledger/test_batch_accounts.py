"""In which order batches flow, which big batch they belong to, and when they flow again."""

from __future__ import annotations

import numpy as np

from ddmpi.core.ledger.actions import BatchCompleted, BigBatchEnded
from ddmpi.core.ledger.batch_accounts import MOST_FLOWS_PER_BATCH, BatchAccounts
from ddmpi.core.ledger.batch_counts import BatchContent, BatchCounts
from tests.core.ledger.ledgers import part, world


def make(*successes: int) -> BatchAccounts:
    """Batches 0 and 1 of server a, batch 2 of server b; 10 rows each, of which some are final."""
    plan = world({"a": 20, "b": 10}).plan([0], {})
    return BatchAccounts(plan, BatchCounts(plan.batch_rows, np.array(successes or (0, 0, 0))))


def test_batches_that_are_not_complete_flow_in_the_order_of_the_plan() -> None:
    accounts = make(10, 0, 0)
    assert (accounts.waiting, accounts.begin_big_batch(1, 5)) == (2, [1, 2])
    assert (accounts.waiting, accounts.flowing, accounts.open_big_batches()) == (0, 2, [(1, (1, 2))])
    assert accounts.begin_big_batch(2, 5) == []


def test_a_big_batch_ends_with_its_last_batch() -> None:
    accounts = make()
    members = accounts.begin_big_batch(7, 2)
    first, second = (accounts.on_part(part(batch_id)) for batch_id in members)
    assert first == [BatchCompleted(members[0], 7)]
    assert second == [BatchCompleted(members[1], 7), BigBatchEnded(7, tuple(members))]


def test_batches_of_withheld_groups_flow_when_they_are_admitted_and_are_completed_then() -> None:
    accounts = make()
    accounts.withhold({0})
    assert accounts.begin_big_batch(1, 5) == [2]
    assert accounts.on_part(part(0)) == [], "its samples were all that it had"
    assert accounts.admit([0]) == 2
    members = accounts.begin_big_batch(2, 5)
    assert members == [0, 1]
    assert accounts.complete_whole(members) == [BatchCompleted(0, 2)]
    assert [ref.batch_id for ref in accounts.open_refs(members)] == [1]


def test_a_batch_that_comes_back_without_progress_flows_a_few_times() -> None:
    accounts = make()
    flows = 0
    while 2 in accounts.begin_big_batch(flows + 1, 3):
        flows += 1
        accounts.hold([2])
        assert accounts.let_go(2) == ([BigBatchEnded(1, (0, 1))] if accounts.flowing == 0 else [])
    assert flows == MOST_FLOWS_PER_BATCH


def test_a_batch_flows_again_only_when_the_last_hold_is_gone_and_its_samples_are_durable() -> None:
    accounts = make()
    accounts.begin_big_batch(1, 3)
    accounts.note_sampled({0: (4,)})
    accounts.hold([0, 0])
    assert (accounts.let_go(0), accounts.waiting) == ([], 0)
    assert (accounts.let_go(0), accounts.waiting) == ([], 0), "a sample of it is not durable"
    assert accounts.open_refs([0])[0].decided == (4,)
    accounts.samples_durable([0])
    assert (accounts.waiting, accounts.has_samples) == (1, False)
    accounts.validate({})


def test_a_batch_that_verification_opens_again_waits_once() -> None:
    accounts = make(10, 10, 10)
    for _ in range(2):
        accounts.reopen(BatchContent(1, 3, 1, {"dns": 1}, ("p",)))
    assert (accounts.waiting, accounts.begin_big_batch(1, 5)) == (1, [1])
    assert accounts.open_refs([1])[0].parts == ("p",)
