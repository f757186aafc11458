"""JSON in the cells of a text column: the elements of an array or the values of an object, and fields of both.

A scalar is the text that it stands for, null is null, and what is nested stays JSON. A cell that is no JSON costs its
own row alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from ddmpi.core.arrays import IntArray
from ddmpi.core.records import UNDECODABLE

EACH: Final = "[]"
"""The step of a path that stands for all elements."""
_BROKEN: Final = object()


class CellItems(NamedTuple):
    """Elements of some cells, one after the other."""

    counts: IntArray
    """(n,) how many each cell has."""
    columns: list[pa.Array[Any]]
    """Of each path that was asked for, its text in each element."""
    is_broken: pa.Array[Any]
    """(n,) cells that are no JSON, or neither an array nor an object."""


def cell_items(cells: pa.Array[Any], path: Sequence[str], inner: Sequence[Sequence[str]]) -> CellItems:
    """Return what ``path``, which ends with ``EACH``, leads to in each cell, and in that the paths ``inner``."""
    counts = np.zeros(len(cells), np.int64)
    texts: list[list[str | None]] = [[] for _ in inner]
    broken = [False] * len(cells)
    for row, cell in enumerate(cells.to_pylist()):
        document = _decoded(cell)
        broken[row] = document is _BROKEN or (path[0] == EACH and not isinstance(document, (list, dict, type(None))))
        for item in _walk(document, path):
            counts[row] += 1
            for column, steps in zip(texts, inner, strict=True):
                column.append(_text(_field(item, steps)))
    return CellItems(counts, [pa.array(column, pa.string()) for column in texts], pa.array(broken, pa.bool_()))


def cell_fields(cells: pa.Array[Any], path: Sequence[str]) -> pa.Array[Any]:
    """Return the text of one field of each cell; null where there is none."""
    return pa.array([_text(_field(_decoded(cell), path)) for cell in cells.to_pylist()], pa.string())


def _decoded(cell: str | bytes | None) -> Any:
    if cell is None or not cell.strip():
        return None
    try:
        return msgspec.json.decode(cell)
    except UNDECODABLE:
        return _BROKEN


def _walk(value: Any, path: Sequence[str]) -> Iterator[Any]:
    if not path:
        yield value
    elif path[0] == EACH:
        values = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
        for item in values:
            yield from _walk(item, path[1:])
    elif isinstance(value, dict):
        yield from _walk(value.get(path[0]), path[1:])


def _field(value: Any, path: Sequence[str]) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str | None:
    if value is None or value is _BROKEN:
        return None
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
