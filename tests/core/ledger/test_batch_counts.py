"""The counts of batches: what a part adds, what the files replace, and when a batch is complete."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.ledger.batch_counts import BatchContent, BatchCounts
from ddmpi.core.protocol import PartReport
from ddmpi.errors import TransitionError


def make() -> BatchCounts:
    """Three batches of 10, 5 and no rows."""
    return BatchCounts(np.array([10, 5, 0]))


def part(rows: int, path: str = "p", **kinds: int) -> PartReport:
    return PartReport(0, path, rows, bool(kinds), kinds=kinds)


def test_nothing_is_final_at_first_but_batches_without_rows_are_complete() -> None:
    counts = make()
    assert (counts.pending, counts.rows_final, counts.incomplete, len(counts)) == (15, 0, 2, 3)
    assert counts.incomplete_batches().tolist() == [0, 1]
    assert counts.is_complete(2)


def test_a_part_is_counted_in_one_call() -> None:
    counts = make()
    counts.add_part(part(6, "s"))
    counts.add_part(part(3, "e", dns=2, timeout=1))
    assert (counts.successes.tolist(), counts.errors.tolist()) == ([6, 0, 0], [3, 0, 0])
    assert (counts.final(0), counts.rows_left().tolist(), counts.pending) == (9, [1, 5, 0], 6)
    assert (counts.kinds_of(0), counts.error_kinds) == ({"dns": 2, "timeout": 1}, {"dns": 2, "timeout": 1})
    assert counts.parts == {0: ["s", "e"]}


def test_more_outcomes_than_rows_are_a_bug_and_are_not_counted() -> None:
    counts = make()
    counts.add_part(part(9))
    with pytest.raises(TransitionError, match=r"batch 0 has 10 rows and 11 outcomes: \['p', 'q'\]"):
        counts.add_part(part(2, "q"))
    assert counts.final(0) == 9


def test_a_batch_is_due_when_all_rows_are_final_and_complete_when_that_was_noted() -> None:
    counts = make()
    counts.add_part(part(10, dns=10))
    assert (counts.is_open(0), counts.is_complete(0), counts.due(), counts.incomplete) == (False, False, [0], 2)
    counts.complete(0)
    assert (counts.is_complete(0), counts.due(), counts.incomplete, counts.parts) == (True, [], 1, {})
    assert counts.kinds_of(0) == {"dns": 10}, "its marker is made of them"
    counts.complete(0)
    assert counts.incomplete == 1, "once is enough"


@pytest.mark.parametrize(
    ("content", "rows", "complete"),
    [
        pytest.param(BatchContent(0, 8, 2, {"dns": 2}), None, True, id="a marker speaks for all rows"),
        pytest.param(BatchContent(0, 8, 2, {"dns": 2}, ("p",)), None, False, id="the parts do: its marker is due"),
        pytest.param(BatchContent(0, 4, 1, {"tls": 1}, ("p",)), None, False, id="rows are missing"),
        pytest.param(BatchContent(0, 0, 0), None, False, id="all of them"),
        pytest.param(BatchContent(0, 11, 1, {"dns": 1}), 12, True, id="rows that were ignored are final"),
    ],
)
def test_what_was_read_back_replaces_what_was_counted(
    content: BatchContent, rows: int | None, *, complete: bool
) -> None:
    counts = make()
    counts.add_part(part(3, "old", timeout=3))
    counts.set(content, rows)
    assert (int(counts.successes[0]), int(counts.errors[0])) == (content.successes, content.errors)
    assert (counts.kinds_of(0), counts.error_kinds) == (content.kinds, content.kinds)
    assert counts.parts == ({0: list(content.parts)} if content.parts else {})
    assert (counts.is_complete(0), counts.incomplete) == (complete, 2 - complete)
    counts.validate()


def test_a_complete_batch_can_be_opened_again() -> None:
    counts = make()
    counts.set(BatchContent(0, 6, 4, {"dns": 1, "timeout": 3}))
    counts.set(BatchContent(0, 6, 3, {"timeout": 3}, ("s", "e")))
    assert (counts.is_open(0), counts.is_complete(0), counts.incomplete, counts.pending) == (True, False, 2, 6)
    assert counts.error_kinds == {"timeout": 3}


def test_parts_of_batches_that_are_whole_are_of_no_interest() -> None:
    counts = BatchCounts(np.array([10, 5]), np.array([10, 2]), parts={0: ["x"], 1: ["y"]})
    assert counts.parts == {1: ["y"]}
    assert counts.is_complete(0)


parts_of_batches = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(["", "dns", "tls"])))


@given(parts_of_batches)
def test_the_counts_add_up_whatever_comes(parts: list[tuple[int, int, str]]) -> None:
    counts = make()
    expected: dict[str, int] = {}
    for batch_id, rows, kind in parts:
        if counts.final(batch_id) + rows > counts.rows[batch_id]:
            continue
        counts.add_part(PartReport(batch_id, "p", rows, bool(kind), kinds={kind: rows} if kind else {}))
        expected[kind] = expected.get(kind, 0) + rows
        for due in counts.due():
            counts.complete(due)
        counts.validate()
    assert counts.rows_final == sum(expected.values()) == 15 - counts.pending
    expected.pop("", None)
    assert counts.error_kinds == expected
