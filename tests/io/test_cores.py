"""How many threads a rank may keep busy."""

from __future__ import annotations

import pytest

from ddmpi.io.process import share_of_cores

ALL = frozenset(range(8))


@pytest.mark.parametrize(
    ("own", "others", "share"),
    [
        pytest.param(ALL, [], 8, id="alone it has all"),
        pytest.param(ALL, [ALL, ALL, ALL], 2, id="without pinning it has its part"),
        pytest.param(ALL, [ALL, ALL], 2, id="a third of eight, in whole cores"),
        pytest.param(frozenset({2}), [frozenset({0}), frozenset({1})], 1, id="pinned to one core each"),
        pytest.param(frozenset({0, 1, 2, 3}), [frozenset({4, 5, 6, 7})], 4, id="pinned to sockets"),
        pytest.param(frozenset({0, 1}), [frozenset({0, 1})] * 7, 1, id="never less than one"),
        pytest.param(ALL, [frozenset()], 8, id="a rank that does not download counts for nothing"),
    ],
)
def test_share_of_cores(own: frozenset[int], others: list[frozenset[int]], share: int) -> None:
    assert share_of_cores(own, [own, *others]) == share
