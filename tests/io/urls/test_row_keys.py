"""Sections from the keys of all rows, however few of them are compared at once."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ddmpi.core.partition.partition import ServerTable
from ddmpi.core.partition.sections import Sections
from ddmpi.io.urls.row_keys import RowKeys

BATCH_ROWS = 50
Rows = list[tuple[int, int]]


def random_rows(seed: int, *, repeats: bool) -> Rows:
    """Rows by the number of their server (0: refused) and their hash; servers 2 and 4 have URLs in several rows."""
    rng = random.Random(seed)
    rows = [(rng.choice([0, 1, 2, 2, 3, 4, 4, 4]), rng.getrandbits(64)) for _ in range(1000)]
    if not repeats:
        return rows
    known = [row for row in rows if row[0] in {2, 4}][::3]
    return [rng.choice(known) if server in {2, 4} and rng.random() < 0.5 else (server, it) for server, it in rows]


def sections(folder: Path, rows: Rows, most_rows: int) -> Sections:
    numbers, hashes = np.array([n for n, _ in rows], np.int32), np.array([h for _, h in rows], np.uint64)
    sizes = np.bincount(numbers, minlength=5)[1:].astype(np.int64)
    table = ServerTable(pa.array(["d", "c", "b", "a"]), sizes, pa.nulls(4, pa.string()))
    with RowKeys(folder, most_rows) as keys:
        for start in range(0, len(rows), 300):
            keys.add_hashes(hashes[start : start + 300])
        keys.add_numbers([numbers[start : start + 300] for start in range(0, len(rows), 300)])
        urls = keys.count_urls(table)
        assert urls.tolist() == [len({it for number, it in rows if number == server}) for server in range(1, 5)]
        found = keys.sections(table, urls, BATCH_ROWS)
        keys.rewind()
        taken = keys.take(700)
        assert (taken.numbers.tolist(), taken.hashes.tolist()) == (numbers[:700].tolist(), hashes[:700].tolist())
        assert len(keys.take(700).numbers) == max(0, len(rows) - 700)
    assert list(folder.iterdir()) == []
    return found


@pytest.mark.parametrize("most_rows", [1, 7, 64, 10_000])
def test_servers_with_repeated_urls_have_sections(tmp_path: Path, most_rows: int) -> None:
    rows = random_rows(1, repeats=True)
    found = sections(tmp_path, rows, most_rows)
    assert found.places.tolist() == [-1, 1, -1, 0, -1], "in the order of their names"
    numbers = found.numbers(np.array([n - 1 for n, _ in rows], np.int32), np.array([h for _, h in rows], np.uint64))
    homes: dict[tuple[int, int], set[int]] = {}
    for row, number in zip(rows, numbers.tolist(), strict=True):
        homes.setdefault(row, set()).add(number)
    assert all(len(home) == 1 for home in homes.values())
    counted = [np.bincount(numbers[[n == server for n, _ in rows]]).tolist() for server in (4, 2)]
    assert found.rows.tolist() == [*counted[0], *counted[1]]
    assert max(found.rows) <= BATCH_ROWS


def test_without_repeated_urls_there_are_none(tmp_path: Path) -> None:
    assert len(sections(tmp_path, random_rows(2, repeats=False), 64).rows) == 0


def test_a_url_that_repeats_in_a_server_of_one_batch_needs_none(tmp_path: Path) -> None:
    rows = [(1, 999)] * BATCH_ROWS + [(2, value) for value in range(BATCH_ROWS + 1)]
    assert len(sections(tmp_path, rows, 64).rows) == 0
