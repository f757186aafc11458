"""Places of batches in files, and of rows in the output."""

from __future__ import annotations

import random
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.core.partition.placement import FILE_ROWS, ROW_GROUP_ROWS, Destinations, lay_out


def test_no_batch_needs_no_file() -> None:
    assert lay_out(np.array([], np.int64)).files == []


def test_a_batch_is_found_by_its_row_group_and_by_its_first_row() -> None:
    half = ROW_GROUP_ROWS // 2
    layout = lay_out(np.array([half, half + 1, 7, ROW_GROUP_ROWS, 3], np.int64))
    assert layout.file.tolist() == [0] * 5
    assert layout.row_group.tolist() == [0, 0, 1, 1, 2]
    assert layout.offset.tolist() == [0, half, 0, 7, 0]
    assert layout.first_row.tolist() == [0, half, 2 * half + 1, 2 * half + 8, 2 * half + 8 + ROW_GROUP_ROWS]
    assert [file.tolist() for file in layout.files] == [[2 * half + 1, ROW_GROUP_ROWS + 7, 3]]


def test_batches_that_fill_row_groups_and_files_to_the_last_row_close_them() -> None:
    each = FILE_ROWS // ROW_GROUP_ROWS
    layout = lay_out(np.full(2 * each, ROW_GROUP_ROWS, np.int64))
    assert layout.file.tolist() == [0] * each + [1] * each
    assert layout.row_group.tolist() == [*range(each), *range(each)]
    assert set(layout.offset.tolist()) == {0}
    assert layout.first_row.tolist() == 2 * list(range(0, FILE_ROWS, ROW_GROUP_ROWS))
    assert [set(file.tolist()) for file in layout.files] == [{ROW_GROUP_ROWS}] * 2


@settings(derandomize=True)
@given(st.lists(st.integers(1, 3 * ROW_GROUP_ROWS), max_size=60))
def test_a_batch_lies_within_one_row_group(rows: list[int]) -> None:
    layout = lay_out(np.array(rows, np.int64))
    files = [file.tolist() for file in layout.files]
    assert sum(map(sum, files)) == sum(rows)
    places = zip(layout.file.tolist(), layout.row_group.tolist(), layout.offset, layout.first_row, rows, strict=True)
    ends: dict[tuple[int, int], int] = {}
    for file, row_group, offset, first_row, count in places:
        assert offset == ends.get((file, row_group), 0)
        ends[file, row_group] = offset + count
        assert first_row == sum(files[file][:row_group]) + offset
    assert [list(ends.values())] == [list(chain.from_iterable(files))]
    for groups in files:
        assert all(group >= ROW_GROUP_ROWS for group in groups[:-1])


@pytest.mark.parametrize(
    ("total", "files"),
    [(1, 1), (FILE_ROWS, 1), (2 * FILE_ROWS - 1, 1), (2 * FILE_ROWS, 2), (5 * FILE_ROWS, 4), (8 * FILE_ROWS, 8)],
)
def test_files_are_few_and_alike(total: int, files: int) -> None:
    whole, rest = divmod(total, 999)
    layout = lay_out(np.array([999] * whole + [rest] * (rest > 0), np.int64))
    assert len(layout.files) == files <= max(1, total / FILE_ROWS)
    assert all(abs(sum(groups) - total / files) <= ROW_GROUP_ROWS * files for groups in layout.files)


@pytest.mark.parametrize("servers", [3, 70_000], ids=["16-bit ranks", "wide ranks"])
def test_destinations_are_in_server_order_and_input_order_within(servers: int) -> None:
    rng = random.Random(1)
    last = min(servers - 1, 0x10000)  # in 16 bits it would be the first
    ranks = np.array([rng.choice([0, 1, last]) for _ in range(1000)], dtype=np.int32)
    counts = np.bincount(ranks, minlength=servers)
    destinations = Destinations(counts)
    output = np.full(int(counts.sum()), -1, dtype=np.int64)
    for start in range(0, 1000, 170):
        rows, positions = destinations.take(ranks[start : start + 170])
        assert (np.diff(positions) > 0).all()
        output[positions] = rows + start
    assert destinations.complete
    assert output.tolist() == [row for rank in (0, 1, last) for row in np.flatnonzero(ranks == rank).tolist()]


def test_destinations_notice_missing_rows() -> None:
    destinations = Destinations([2])
    assert destinations.take(np.array([], dtype=np.int32))[0].size == 0
    destinations.take(np.array([0], dtype=np.int32))
    assert not destinations.complete
