"""Different hashes are counted: exactly up to a number, and nearly beyond it."""

from __future__ import annotations

import numpy as np
import pytest

from ddmpi.core.partition.distinct_count import DistinctCount


def hashes(count: int, seed: int = 1) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def test_few_are_counted_exactly_however_often_and_in_whatever_order_they_come() -> None:
    found = DistinctCount(most=1000)
    several = hashes(1000)
    for part in (several[:700], several[300:], several[::-1], several[:0]):
        found.add(part)
    assert found.is_exact
    assert found.count == 1000


def test_nothing_is_nothing() -> None:
    found = DistinctCount(most=10)
    assert (found.count, found.is_exact) == (0, True)


@pytest.mark.parametrize("count", [5_000, 200_000])
def test_of_many_the_count_is_near_and_little_is_kept(count: int) -> None:
    found = DistinctCount(most=4096)
    for part in np.array_split(np.tile(hashes(count), 2), 50):
        found.add(part)
    assert not found.is_exact
    assert found.count == pytest.approx(count, rel=0.1)
    assert len(found._kept) <= 4096


def test_the_count_follows_from_the_set_alone() -> None:
    several, counts = hashes(50_000), set()
    for pieces in (1, 7, 300):
        found = DistinctCount(most=1000)
        for part in np.array_split(np.random.default_rng(pieces).permutation(several), pieces):
            found.add(part)
        counts.add(found.count)
    assert len(counts) == 1
