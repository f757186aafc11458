"""Patterns that name servers: what a table of them says, and which servers they match."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.partition.server_patterns import matching_servers, patterns_in


def test_patterns_are_the_first_column() -> None:
    text = 'Server_Name,reason\n"*.Archive.org", slow\n\na.example\r\n# b.example\na.example,again\n[::1]:80\n'
    assert patterns_in(text) == ["*.archive.org", "a.example", "[::1]:80"]


def test_a_header_says_which_column_has_the_names() -> None:
    assert patterns_in("reason,server_name\nslow,a.example\nshort\ngone,*.B.example\n") == ["a.example", "*.b.example"]


names = st.text("ab.*?[]!-:", max_size=6)


@given(st.lists(names, max_size=6), st.lists(names.filter(bool), max_size=3))
def test_patterns_mean_what_they_mean_in_server_rules(servers: list[str], patterns: list[str]) -> None:
    expected = [any(name == p or fnmatchcase(name, p) for p in patterns) for name in servers]
    assert matching_servers(pa.array(servers, pa.string()), patterns).tolist() == expected
