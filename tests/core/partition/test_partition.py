"""Servers of URLs, and batches of servers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.core.partition.partition import Cut, ServerTable, cut_batches, servers_of
from ddmpi.core.records import INVALID_SERVER, MANY_SERVERS
from ddmpi.core.rules.urls import Parsed, parse_url
from tests.core.rules.test_urls import ACCEPTED, REJECTED, url_like


def assert_same_as_parse_url(urls: list[str | None]) -> None:
    names, rejects = servers_of(pa.array(urls, pa.string()))
    servers: Any = names
    answers = [parse_url(url) for url in urls]
    assert servers.to_pylist() == [answer.server if isinstance(answer, Parsed) else None for answer in answers]
    assert rejects.to_pylist() == [None if isinstance(answer, Parsed) else answer.reason for answer in answers]


def is_utf8(url: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in url)


def test_servers_of_known_cases() -> None:
    assert_same_as_parse_url([None, *filter(is_utf8, ACCEPTED), *filter(is_utf8, REJECTED)])


def test_servers_of_plain_urls_only() -> None:
    assert_same_as_parse_url(["http://a.com/x", "https://b.org:8080/y?z", "http://127.0.0.1/ü", "http://c.net"])


def test_servers_of_names_with_ports_and_capitals_under_both_schemes() -> None:
    names = ["a.com:80", "a.com:443", "A.com", "127.1", "127.0.0.1:8080", "a.com:99999", "b.org", "a..com", "x_y.c:"]
    assert_same_as_parse_url([f"{scheme}://{name}/{scheme} ü" for name in names for scheme in ("http", "https")])
    assert_same_as_parse_url([f"{scheme}://{name}/é" for name in names for scheme in ("http", "https")])


def test_servers_of_urls_that_all_have_two_slashes() -> None:
    urls = ["http://a.com/x", None, "ftp://b.org/", "x/y/c.net/", "HTTP://d.org/", "//e.org/", "http:///", "http://f.g"]
    assert_same_as_parse_url([*urls, "https://h.i?x=/", " http://j.k/ "])


@settings(derandomize=True)
@given(st.lists(st.none() | url_like.filter(is_utf8), max_size=8))
def test_servers_of_says_what_parse_url_says(urls: list[str | None]) -> None:
    assert_same_as_parse_url(urls)


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()], ids=str)
@pytest.mark.parametrize("first", [0, 2])
def test_servers_of_a_slice_of_either_type(type_: pa.DataType, first: int) -> None:
    urls: Any = pa.array(["x y", None, "http://a.com/", "", "HTTP://B.org", "http://a.com/\x7f"], type_)
    names, rejects = servers_of(urls.slice(first, 4))
    servers: Any = names
    assert servers.to_pylist() == [None, None, "a.com", None, "b.org", None][first : first + 4]
    assert rejects.is_null().to_pylist() == names.is_valid().to_pylist()
    assert len(servers_of(urls.slice(0, 0)).names) == 0


class Batch(NamedTuple):
    """One batch of a cut, as an object."""

    server_name: str
    group: str
    partition_id: int
    rows: int


def batches(made: Cut) -> list[Batch]:
    names, groups = map(str, made.server_names.to_pylist()), map(str, made.groups.to_pylist())
    return list(map(Batch, names, groups, made.partition_ids.tolist(), made.rows.tolist()))


class ServerRows(NamedTuple):
    """A server, its rows, and its server group (its own name if no rule joins it with others)."""

    name: str
    rows: int
    group: str


def table(servers: list[ServerRows]) -> ServerTable:
    groups = [None if server.group == server.name else server.group for server in servers]
    names = pa.array([server.name for server in servers], pa.string())
    return ServerTable(names, np.array([server.rows for server in servers], np.int64), pa.array(groups, pa.string()))


def cut(servers: list[tuple[str, int, str]], *, invalid: int = 0, size: int = 10, small: int = 10) -> Cut:
    rows = table([ServerRows(*server) for server in servers])
    return cut_batches(rows, invalid_rows=invalid, batch_size=size, small_rows=small)


def test_a_large_server_gets_its_own_batches() -> None:
    made = cut([("a", 25, "a")])
    assert batches(made) == [Batch("a", "a", 0, 10), Batch("a", "a", 1, 10), Batch("a", "a", 2, 5)]
    assert (made.first_batch.tolist(), made.batch_counts.tolist()) == ([0], [3])


def test_small_servers_are_packed_in_name_order_after_the_large_ones() -> None:
    made = cut([("z", 3, "z"), ("b", 10, "b"), ("a", 4, "a"), ("c", 4, "c")])
    assert batches(made) == [
        Batch("b", "b", 0, 10),
        Batch(MANY_SERVERS, f"{MANY_SERVERS}/0", 0, 8),
        Batch(MANY_SERVERS, f"{MANY_SERVERS}/1", 1, 3),
    ]
    assert made.order.tolist() == [1, 2, 3, 0]
    assert made.first_batch.tolist() == [2, 0, 1, 1]


def test_servers_of_a_group_are_packed_only_with_each_other() -> None:
    made = cut([("a", 1, "a"), ("b", 1, "g"), ("c", 1, "c"), ("d", 1, "g"), ("e", 1, "h")])
    assert batches(made) == [
        Batch(MANY_SERVERS, f"{MANY_SERVERS}/0", 0, 2),
        Batch(MANY_SERVERS, "g", 1, 2),
        Batch(MANY_SERVERS, "h", 2, 1),
    ]
    assert made.order.tolist() == [0, 2, 1, 3, 4]


def test_a_large_server_keeps_its_group() -> None:
    assert batches(cut([("a", 10, "g")])) == [Batch("a", "g", 0, 10)]


def test_a_server_that_no_pack_could_hold_is_large() -> None:
    assert batches(cut([("a", 11, "a"), ("b", 10, "b")], small=100)) == [
        Batch("a", "a", 0, 10),
        Batch("a", "a", 1, 1),
        Batch(MANY_SERVERS, f"{MANY_SERVERS}/0", 0, 10),
    ]


def test_refused_rows_come_last() -> None:
    assert batches(cut([("a", 1, "a")], invalid=11, small=0)) == [
        Batch("a", "a", 0, 1),
        Batch(INVALID_SERVER, INVALID_SERVER, 0, 10),
        Batch(INVALID_SERVER, INVALID_SERVER, 1, 1),
    ]


def test_nothing_makes_no_batches() -> None:
    assert batches(cut([])) == []


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
    made = cut_batches(table(rows), invalid_rows=invalid, batch_size=size, small_rows=small)
    cut_into = batches(made)
    assert sum(batch.rows for batch in cut_into) == sum(server.rows for server in rows) + invalid
    assert all(0 < batch.rows <= size for batch in cut_into)
    assert sorted(made.order) == list(range(len(rows)))
    keys = [(batch.server_name, batch.partition_id) for batch in cut_into]
    assert len(set(keys)) == len(keys)
    packed: defaultdict[int, list[ServerRows]] = defaultdict(list)
    for server, first, count in zip(rows, made.first_batch.tolist(), made.batch_counts.tolist(), strict=True):
        if cut_into[first].server_name == MANY_SERVERS:
            assert server.rows < small
            packed[first].append(server)
        else:
            mine = cut_into[first : first + count]
            assert {(batch.server_name, batch.group) for batch in mine} == {(server.name, server.group)}
            assert sum(batch.rows for batch in mine) == server.rows
    for number, members in packed.items():
        assert cut_into[number].rows == sum(server.rows for server in members)
        groups = {server.group if server.group != server.name else None for server in members}
        assert len(groups) == 1
        assert cut_into[number].group in {*groups, f"{MANY_SERVERS}/{cut_into[number].partition_id}"}
