"""Servers of URLs, batches of servers, places of batches."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.partition import (
    FILE_ROWS,
    ROW_GROUP_ROWS,
    Batch,
    Cut,
    Destinations,
    ServerRows,
    cut_batches,
    lay_out,
    servers_of,
)
from ddmpi.records import INVALID_SERVER, MANY_SERVERS
from ddmpi.urls import Parsed, parse_url
from tests.test_urls import ACCEPTED, REJECTED, url_like


def assert_same_as_parse_url(urls: list[str | None]) -> None:
    names, rejects = servers_of(pa.array(urls, pa.string()))
    answers = [parse_url(url) for url in urls]
    assert names.to_pylist() == [answer.server if isinstance(answer, Parsed) else None for answer in answers]
    assert rejects.to_pylist() == [None if isinstance(answer, Parsed) else answer.reason for answer in answers]


def is_utf8(url: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in url)


def test_servers_of_known_cases() -> None:
    assert_same_as_parse_url([None, *filter(is_utf8, ACCEPTED), *filter(is_utf8, REJECTED)])


def test_servers_of_plain_urls_only() -> None:
    assert_same_as_parse_url(["http://a.com/x", "https://b.org:8080/y?z", "http://127.0.0.1/ü", "http://c.net"])


@settings(derandomize=True)
@given(st.lists(st.none() | url_like.filter(is_utf8), max_size=8))
def test_servers_of_says_what_parse_url_says(urls: list[str | None]) -> None:
    assert_same_as_parse_url(urls)


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()], ids=str)
def test_servers_of_chunks(type_: pa.DataType) -> None:
    chunks = chunked([["http://a.com/"], [], ["x", None]], type_)
    names, rejects = servers_of(chunks)
    assert names.to_pylist() == ["a.com", None, None]
    assert rejects.to_pylist() == [None, "bad_scheme: none given", "null_url"]
    assert len(servers_of(chunked([], type_)).names) == 0


def chunked(chunks: list[list[str | None]], type_: pa.DataType) -> Any:
    empty: Any = pa.array([], type_)
    return pa.chunked_array([pa.array(chunk, type_) for chunk in chunks] or [empty])


def cut(servers: list[tuple[str, int, str]], *, invalid: int = 0, size: int = 10, small: int = 10) -> Cut:
    rows = [ServerRows(*server) for server in servers]
    return cut_batches(rows, invalid_rows=invalid, batch_size=size, small_rows=small)


def test_a_large_server_gets_its_own_batches() -> None:
    made = cut([("a", 25, "a")])
    assert made.batches == [Batch("a", "a", 0, 10), Batch("a", "a", 1, 10), Batch("a", "a", 2, 5)]
    assert (made.first_batch, made.batch_counts) == ([0], [3])


def test_small_servers_are_packed_in_name_order_after_the_large_ones() -> None:
    made = cut([("z", 3, "z"), ("b", 10, "b"), ("a", 4, "a"), ("c", 4, "c")])
    assert made.batches == [
        Batch("b", "b", 0, 10),
        Batch(MANY_SERVERS, f"{MANY_SERVERS}/0", 0, 8),
        Batch(MANY_SERVERS, f"{MANY_SERVERS}/1", 1, 3),
    ]
    assert made.order == [1, 2, 3, 0]
    assert made.first_batch == [2, 0, 1, 1]


def test_servers_of_a_group_are_packed_only_with_each_other() -> None:
    made = cut([("a", 1, "a"), ("b", 1, "g"), ("c", 1, "c"), ("d", 1, "g"), ("e", 1, "h")])
    assert made.batches == [
        Batch(MANY_SERVERS, f"{MANY_SERVERS}/0", 0, 2),
        Batch(MANY_SERVERS, "g", 1, 2),
        Batch(MANY_SERVERS, "h", 2, 1),
    ]
    assert made.order == [0, 2, 1, 3, 4]


def test_a_large_server_keeps_its_group() -> None:
    assert cut([("a", 10, "g")]).batches == [Batch("a", "g", 0, 10)]


def test_a_server_that_no_pack_could_hold_is_large() -> None:
    assert cut([("a", 11, "a"), ("b", 10, "b")], small=100).batches == [
        Batch("a", "a", 0, 10),
        Batch("a", "a", 1, 1),
        Batch(MANY_SERVERS, f"{MANY_SERVERS}/0", 0, 10),
    ]


def test_refused_rows_come_last() -> None:
    assert cut([("a", 1, "a")], invalid=11, small=0).batches == [
        Batch("a", "a", 0, 1),
        Batch(INVALID_SERVER, INVALID_SERVER, 0, 10),
        Batch(INVALID_SERVER, INVALID_SERVER, 1, 1),
    ]


def test_nothing_makes_no_batches() -> None:
    assert cut([]).batches == []
    assert lay_out([]).files == []


def test_a_batch_has_room_for_a_row() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        cut([], size=0)


sizes = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.tuples(st.integers(1, 40), st.sampled_from("-gh")))


@settings(derandomize=True)
@given(sizes, st.integers(1, 15), st.integers(0, 20), st.integers(0, 30))
def test_batches_cover_all_rows_and_packs_keep_servers_whole(
    servers: dict[str, tuple[int, str]], size: int, small: int, invalid: int
) -> None:
    rows = [ServerRows(name, count, name if group == "-" else group) for name, (count, group) in servers.items()]
    made = cut_batches(rows, invalid_rows=invalid, batch_size=size, small_rows=small)
    assert sum(batch.rows for batch in made.batches) == sum(server.rows for server in rows) + invalid
    assert all(0 < batch.rows <= size for batch in made.batches)
    assert sorted(made.order) == list(range(len(rows)))
    keys = [(batch.server_name, batch.partition_id) for batch in made.batches]
    assert len(set(keys)) == len(keys)
    packed: defaultdict[int, list[ServerRows]] = defaultdict(list)
    for server, first, count in zip(rows, made.first_batch, made.batch_counts, strict=True):
        if made.batches[first].server_name == MANY_SERVERS:
            assert server.rows < small
            packed[first].append(server)
        else:
            mine = made.batches[first : first + count]
            assert {(batch.server_name, batch.group) for batch in mine} == {(server.name, server.group)}
            assert sum(batch.rows for batch in mine) == server.rows
    for number, members in packed.items():
        assert made.batches[number].rows == sum(server.rows for server in members)
        groups = {server.group if server.group != server.name else None for server in members}
        assert len(groups) == 1
        assert made.batches[number].group in {*groups, f"{MANY_SERVERS}/{made.batches[number].partition_id}"}


@settings(derandomize=True)
@given(st.lists(st.integers(1, 3 * ROW_GROUP_ROWS), max_size=60))
def test_a_batch_lies_within_one_row_group(rows: list[int]) -> None:
    layout = lay_out([Batch("a", "a", number, count) for number, count in enumerate(rows)])
    assert sum(map(sum, layout.files)) == sum(rows)
    for place, count in zip(layout.places, rows, strict=True):
        groups = layout.files[place.file]
        assert place.offset + count <= groups[place.row_group]
        assert place.first_row == sum(groups[: place.row_group]) + place.offset
    for groups in layout.files:
        assert all(group >= ROW_GROUP_ROWS for group in groups[:-1])


@pytest.mark.parametrize(
    ("total", "files"), [(1, 1), (FILE_ROWS, 1), (FILE_ROWS + 1, 2), (5 * FILE_ROWS, 6), (7 * FILE_ROWS + 5, 8)]
)
def test_files_are_few_and_alike(total: int, files: int) -> None:
    layout = lay_out(cut_batches([ServerRows("a", total, "a")], invalid_rows=0, batch_size=999, small_rows=1).batches)
    assert len(layout.files) == files <= total / FILE_ROWS + 2
    assert all(abs(sum(groups) - total / files) <= ROW_GROUP_ROWS * files for groups in layout.files)


@pytest.mark.parametrize("servers", [3, 70_000], ids=["16-bit ranks", "wide ranks"])
def test_destinations_are_in_server_order_and_input_order_within(servers: int) -> None:
    rng = random.Random(1)
    ranks = np.array([rng.choice([-1, 0, 1, servers - 1]) for _ in range(1000)], dtype=np.int32)
    counts = np.bincount(ranks[ranks >= 0], minlength=servers)
    destinations = Destinations(counts)
    output = np.full(int(counts.sum()), -1, dtype=np.int64)
    for start in range(0, 1000, 170):
        rows, positions = destinations.take(ranks[start : start + 170])
        assert (np.diff(positions) > 0).all()
        output[positions] = rows + start
    assert destinations.complete
    assert output.tolist() == [row for rank in (0, 1, servers - 1) for row in np.flatnonzero(ranks == rank).tolist()]


def test_destinations_notice_missing_rows() -> None:
    destinations = Destinations([2])
    assert destinations.take(np.array([-1], dtype=np.int32))[0].size == 0
    destinations.take(np.array([0], dtype=np.int32))
    assert not destinations.complete
