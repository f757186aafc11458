"""Values in the types that files have agreed on."""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ddmpi.core.rules.column_types import plain_type
from ddmpi.io.input.agreement import as_type, with_types

ID = uuid.UUID(int=7)
IDS: Any = pa.array([ID.bytes], pa.uuid())
ENCODE: Any = getattr(pc, "run_end_encode")  # noqa: B009  # the stubs do not know it


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array([1, None]).dictionary_encode(), [1, None]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array([ID.bytes, None], pa.uuid()), [str(ID), None]),
        (pa.ListArray.from_arrays([0, 1, 1], IDS), [[ID.bytes], []]),
        (ENCODE(pa.array(["a", "a", "b"])), ["a", "a", "b"]),
        (pa.array([["a"], None], pa.list_view(pa.string())), [["a"], None]),
        (pa.array([["a"], None], pa.list_(pa.dictionary(pa.int8(), pa.string()))), [["a"], None]),
    ],
    ids=lambda value: str(value.type) if hasattr(value, "type") else "",
)
def test_values_travel_as_they_are(values: Any, expected: list[Any]) -> None:
    assert as_type(values, plain_type(values.type)).to_pylist() == expected


def test_numbers_are_widened_and_lost_digits_are_no_widening() -> None:
    assert as_type(pa.array([1, None]), pa.float64()).to_pylist() == [1.0, None]
    with pytest.raises(pa.ArrowInvalid):
        as_type(pa.array([(1 << 53) + 1]), pa.float64())


def test_a_column_that_a_file_does_not_have_is_null() -> None:
    rows = pa.RecordBatch.from_pydict({"a": [1, 2]})
    completed = with_types(rows, ["b", "a"], {"a": pa.float64(), "b": pa.string()})
    assert completed.to_pydict() == {"b": [None, None], "a": [1.0, 2.0]}
