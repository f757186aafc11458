"""Bodies as Arrow columns: the same bytes in the same order, whatever their sizes."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from ddmpi.io.results import body_column
from ddmpi.io.results.body_column import BodyColumn


@pytest.mark.parametrize(
    "sizes",
    [[], [0], [5], [5, 0, 7], [40], [40, 41], [1, 40, 2, 3, 50, 4], [40, 1]],
    ids=["none", "an empty one", "one", "small ones", "a large one", "large ones", "mixed", "large first"],
)
def test_bodies_come_out_as_they_went_in(monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    monkeypatch.setattr(body_column, "WHOLE_BYTES", 40)
    rng = random.Random(1)
    column = BodyColumn()
    for _ in range(3):  # also in memory that was used before
        bodies = [rng.randbytes(size) for size in sizes]
        assert column.make(bodies).to_pylist() == bodies


def test_where_no_body_is_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_column, "WHOLE_BYTES", 10)
    bodies = [None, b"a", None, b"", bytes(11), None, b"b"]
    assert BodyColumn().make(bodies).to_pylist() == bodies


def test_a_large_body_is_not_copied() -> None:
    body = bytes(body_column.WHOLE_BYTES)
    (chunk,) = BodyColumn().make([body]).chunks
    data = chunk.buffers()[2]
    assert data is not None
    assert data.address == pa.py_buffer(body).address
