"""Rows with the same URL share a batch, whatever the table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.core.partition import sections
from ddmpi.core.partition.partition import ServerTable, cut_batches
from ddmpi.core.partition.sections import Hashes, Sections, cut_sections, keys_of, nominal_positions, repeated


def words(*values: int) -> Hashes:
    return np.array(values, np.uint64)


@pytest.mark.parametrize(
    ("hashes", "found"),
    [
        ((), ()),
        ((5,), (False,)),
        ((5, 7, 6), (False, False, False)),
        ((5, 7, 2**64 - 1, 5), (True, False, False, True)),
    ],
)
def test_hashes_that_stand_there_more_than_once(hashes: Sequence[int], found: Sequence[bool]) -> None:
    assert repeated(words(*hashes)).tolist() == list(found)


def sections_of(rows: Sequence[tuple[int, int]], servers: int, batch_size: int) -> Sections:
    """The sections of servers 0 to ``servers`` - 1, each of which has rows; by (server, hash)."""
    owners, hashes = np.array([server for server, _ in rows]), words(*(value for _, value in rows))
    starts, counts = cut_sections(np.sort(keys_of(owners, hashes, servers)), servers, batch_size)
    return Sections(np.append(np.arange(servers), -1), starts, counts)


def test_a_section_has_the_rows_of_a_batch_or_one_url() -> None:
    high = 1 << 62
    rows = [(0, 3 * high), (0, 0), (0, high), *[(0, 2 * high)] * 5]
    found = sections_of(rows, 1, batch_size=2)
    assert found.rows.tolist() == [2, 5, 1]
    owners, hashes = np.zeros(4, np.int32), words(0, high, 2 * high, 3 * high)
    assert found.numbers(owners, hashes).tolist() == [0, 0, 1, 2]
    assert found.counts.tolist() == [3, 1]
    batch_rows, batches = found.batch_rows(2)
    assert (batch_rows.tolist(), batches.tolist()) == ([2, 5, 1], [3])


def test_a_url_with_very_many_rows_has_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "MOST_ROWS", 4)
    found = sections_of([(0, 7)] * 9 + [(0, 1 << 63)], 1, batch_size=2)
    assert found.rows.tolist() == [9, 1]
    batch_rows, batches = found.batch_rows(2)
    assert (batch_rows.tolist(), batches.tolist()) == ([4, 4, 1, 1], [4])


def test_without_sections_every_row_is_in_the_first() -> None:
    none = Sections.none(3)
    assert none.counts.tolist() == [1, 1, 1, 1]
    assert none.numbers(np.array([0, 2, -1], np.int32), words(1, 2, 3)).tolist() == [0, 0, 0]
    assert [each.tolist() for each in none.batch_rows(10)] == [[], []]


ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=200)


@settings(derandomize=True)
@given(ROWS, st.integers(1, 12), st.integers(1, 50))
def test_all_rows_of_a_url_share_a_batch(rows: list[tuple[int, int]], batch_size: int, spread: int) -> None:
    """Over several servers, some of which have sections; the sections are cut from a part of all keys at a time."""
    found = Counter(server for server, _ in rows)
    sizes = np.array([found[server] for server in range(5)], np.int64)
    chosen = [server for server in range(5) if server % 2 == 0 and sizes[server]]
    if not chosen:
        return
    places = np.full(6, -1)
    places[chosen] = np.arange(len(chosen))
    hashes = words(*(value * (2**64 // 31) for _, value in rows))
    servers = np.array([server for server, _ in rows], np.int32)
    cut = np.isin(servers, chosen)
    positions = nominal_positions(places[servers[cut]], hashes[cut], sizes[chosen])
    keys = keys_of(places[servers[cut]], hashes[cut], len(chosen))
    order = np.argsort(keys, kind="stable")
    assert (np.diff(positions[order]) >= 0).all(), "the order of the positions is that of the keys"
    parts = [
        cut_sections(np.sort(keys[positions // spread == part]), len(chosen), batch_size)
        for part in np.unique(positions // spread)
    ]
    starts, counts = (np.concatenate(each) for each in zip(*parts, strict=True))
    assert (np.diff(starts.astype(np.float64)) >= 0).all()
    made = Sections(places, starts, counts)

    numbers = made.numbers(servers, hashes)
    by_section: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    homes: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for (server, value), number in zip(rows, numbers.tolist(), strict=True):
        by_section[server, number].append(value)
        homes[server, value].add(number)
    assert all(len(numbers) == 1 for numbers in homes.values())
    assert all(
        len(values) <= batch_size or len(set(values)) == 1 for (s, _), values in by_section.items() if s in chosen
    )
    assert [len(by_section[server, number]) for server in chosen for number in range(made.counts[server])] == list(
        counts
    )

    names = pa.array([f"s{server}" for server in range(5)])
    table = ServerTable(names, sizes, pa.nulls(5, pa.string()))
    batches = cut_batches(table, invalid_rows=0, batch_size=batch_size, small_rows=0, sections=made)
    assert int(batches.rows.sum()) == len(rows)
    for server, (first, count) in enumerate(zip(batches.first_batch, batches.batch_counts, strict=True)):
        in_batches = batches.rows[first : first + count].tolist()
        if server in chosen:
            assert in_batches == [len(by_section[server, number]) for number in range(made.counts[server])]
