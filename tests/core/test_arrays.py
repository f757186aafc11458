"""A column of names, short and long."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core import arrays
from ddmpi.core.arrays import NameColumn


def test_it_is_a_sequence_of_texts() -> None:
    column = NameColumn(pa.array(["b", "a", "c"]))
    assert list(column) == ["b", "a", "c"]
    assert (len(column), column[-1], list(column[1:])) == (3, "c", ["a", "c"])
    assert repr(column) == "<NameColumn: 3 names>"


@pytest.mark.parametrize("few_names", [pytest.param(1 << 16, id="by a dict"), pytest.param(0, id="by its order")])
@given(names=st.lists(st.text(max_size=3), max_size=30), other=st.text(max_size=3))
def test_each_name_is_found_and_no_other(few_names: int, names: Sequence[str], other: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "FEW_NAMES", few_names)
        column = NameColumn(pa.array(names, pa.string()))
        for name in {*names, other}:
            place = column.find(name)
            assert (place is None) == (name not in names)
            assert place is None or column[place] == name
