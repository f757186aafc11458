"""JSON in cells, against Python's own reader."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.rules.json_cells import cell_fields, cell_items

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("uvw"), inner, max_size=3),
    max_leaves=6,
)


def items(cells: list[Any], path: list[str], *inner: list[str]) -> tuple[list[int], list[list[Any]], list[Any]]:
    found = cell_items(pa.array(cells), path, inner)
    return found.counts.tolist(), [column.to_pylist() for column in found.columns], found.is_broken.to_pylist()


def test_elements_of_arrays_and_values_of_objects() -> None:
    cells = ['["a", null]', '{"x": "b", "y": "c"}', "[]", None, "", "null"]
    assert items(cells, ["[]"], []) == ([2, 2, 0, 0, 0, 0], [["a", None, "b", "c"]], [False] * 6)


def test_fields_in_elements_and_before_them() -> None:
    cells = ['{"images": [{"url": "a", "w": 1.5}, {"w": [1]}, 7]}', '{"images": {"k": {"url": "b"}}}', '{"other": 1}']
    assert items(cells, ["images", "[]"], ["url"], ["w"]) == (
        [3, 1, 0], [["a", None, None, "b"], ["1.5", "[1]", None, None]], [False] * 3
    )  # fmt: skip
    assert items(['[{"u": ["a", "b"]}, {"u": ["c"]}]'], ["[]", "u", "[]"], [])[:2] == ([3], [["a", "b", "c"]])


@pytest.mark.parametrize("cell", ["['a', 'b']", "http://a.org/1", '"a text"', "5", "[1", b"\xff", "[" * 5000])
def test_a_cell_without_elements_is_told(cell: str | bytes) -> None:
    assert items([cell], ["[]"], []) == ([0], [[]], [True])


def test_a_field_is_a_text_or_null() -> None:
    cells = ['{"m": {"url": "a"}}', '{"m": {"url": true}}', '{"m": 1}', "no JSON", None, '{"m": {"url": {"k": 1}}}']
    assert cell_fields(pa.array(cells), ["m", "url"]).to_pylist() == ["a", "true", None, None, None, '{"k":1}']


@given(st.lists(JSON, max_size=4))
def test_any_document_gives_what_python_reads(documents: list[Any]) -> None:
    found = cell_items(pa.array([json.dumps(document) for document in documents], pa.string()), ["[]"], [["u"]])
    expected = [list(d.values()) if isinstance(d, dict) else d if isinstance(d, list) else [] for d in documents]
    assert found.counts.tolist() == [len(values) for values in expected]
    fields = [value.get("u") if isinstance(value, dict) else None for values in expected for value in values]
    read = found.columns[0].to_pylist()
    assert [value is None for value in read] == [field is None for field in fields]
    assert [value for value, field in zip(read, fields, strict=True) if isinstance(field, str)] == [
        field for field in fields if isinstance(field, str)
    ]
