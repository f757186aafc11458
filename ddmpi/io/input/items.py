"""Rows that are made of one row: of the elements of a list, of JSON in a cell, or of the parts of a text.

A row without an element makes one row all the same, whose item is null: it is refused, not lost. Null elements are
elements; empty parts of a text are none, and spaces around a part are dropped. Items stand in columns named by
``item_column``; all else of a row is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.arrays import IntArray
from ddmpi.core.rules.json_cells import EACH, cell_items
from ddmpi.errors import InputError
from ddmpi.io.input.paths import Array, decoded, descend, field_of
from ddmpi.io.input.rows import is_text

_SPACE: Final = 0x20
"""Spaces and control characters come up to here."""


def item_column(steps: Sequence[str]) -> str:
    """Return the name of the column that holds what a path within the items leads to: none that a file has."""
    return "\0" + ".".join(steps)


class FoundItems(NamedTuple):
    """The items of some rows, one after the other."""

    counts: IntArray
    """(n,) how many each row has."""
    columns: dict[str, Array]
    """Columns by ``item_column``, one value per item."""
    is_broken: Array | None
    """(n,) rows whose cell is no JSON; None: there is no JSON."""


class Places(NamedTuple):
    """Rows that are made: of which row each is, which of its items, and where that is among all; -1: there is none."""

    rows: IntArray
    numbers: IntArray
    items: IntArray


@dataclass(frozen=True)
class Items:
    """What rows are made of: ``steps`` lead from a column to its items, unless ``separator`` says how texts are split.
    ``inner`` are the paths in the items that are asked for."""

    column: str
    steps: tuple[str, ...]
    inner: tuple[tuple[str, ...], ...]
    separator: str | None
    shown: str

    def find(self, rows: pa.RecordBatch) -> FoundItems:
        """Return the items of rows. Raises InputError: the column has none, or no such field."""
        values: Array = rows.column(self.column)
        if self.separator is not None:
            return self._parts(values, self.separator)
        owners: IntArray = np.arange(rows.num_rows)
        for place, step in enumerate(self.steps):
            values = decoded(values)
            if is_text(values.type):
                return self._of_json(values, owners, rows.num_rows, self.steps[place:])
            if step != EACH:
                values = field_of(values, step, self.shown)
                continue
            values, places = _elements(values, self.shown)
            owners = owners[places]
        columns = {item_column(inner): descend(values, inner, self.shown) for inner in self.inner}
        return FoundItems(np.bincount(owners, minlength=rows.num_rows), columns, None)

    def _parts(self, texts: Array, separator: str) -> FoundItems:
        texts = decoded(texts)
        if not is_text(texts.type):
            raise InputError(f"{self.shown}: {texts.type} is no text")
        lists = pc.split_pattern(texts.cast(pa.binary()), pattern=separator)
        parts, owners = _elements(lists, self.shown)
        parts = _trimmed(parts)
        lengths: Array = pc.binary_length(parts)
        is_part = np.asarray(lengths) > 0
        if not is_part.all():
            parts, owners = parts.filter(pa.array(is_part)), owners[is_part]
        return FoundItems(np.bincount(owners, minlength=len(texts)), {item_column(()): parts}, None)

    def _of_json(self, cells: Array, owners: IntArray, rows: int, steps: Sequence[str]) -> FoundItems:
        found = cell_items(cells, steps, self.inner)
        counts = np.bincount(owners, weights=found.counts, minlength=rows).astype(np.int64)
        broken = np.zeros(rows, np.bool_)
        broken[owners[np.asarray(found.is_broken)]] = True
        return FoundItems(counts, dict(zip(map(item_column, self.inner), found.columns, strict=True)), pa.array(broken))


def places_of(counts: IntArray) -> Places:
    """Return the rows that are made of rows with so many items each."""
    sizes = np.maximum(counts, 1)
    rows = np.repeat(np.arange(len(counts)), sizes)
    places = np.arange(len(rows))
    numbers = places - np.repeat(np.cumsum(sizes) - sizes, sizes)
    if (counts > 0).all():
        return Places(rows, numbers, places)
    is_item = np.repeat(counts > 0, sizes)
    return Places(rows, numbers, np.where(is_item, np.cumsum(is_item) - 1, -1))


def taken(values: Array, places: npt.NDArray[np.int64]) -> Array:
    """Return the values at these places, null at -1."""
    if not len(places):
        return values.slice(0, 0)
    first = int(places[0])
    if first >= 0 and places[-1] - first == len(places) - 1 and bool((np.diff(places) == 1).all()):
        return values.slice(first, len(places))
    return values.take(pa.array(places, mask=places < 0 if places.min() < 0 else None))


def _trimmed(parts: Array) -> Array:
    """Drop spaces at the ends of parts (bytes), of which most have none."""
    _, offset_buffer, data_buffer = parts.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[parts.offset : parts.offset + len(parts) + 1]
    if not len(parts) or offsets[-1] == offsets[0]:
        return parts
    data = np.frombuffer(data_buffer, np.uint8)
    # An empty part is judged by its neighbors, which does no harm.
    last = int(offsets[-1]) - 1
    if (data[np.minimum(offsets[:-1], last)] > _SPACE).all() and (data[np.maximum(offsets[1:], 1) - 1] > _SPACE).all():
        return parts
    return pc.replace_substring_regex(parts, pattern=r"^\s+|\s+$", replacement="")


def _elements(values: Array, shown: str) -> tuple[Array, IntArray]:
    """Return the elements of lists, or the values of maps and structs, and the place of the value that has them."""
    type_ = values.type
    if pa.types.is_struct(type_):
        return _values_of_structs(values, shown)
    if pa.types.is_map(type_):
        values = values.cast(pa.list_(pa.struct([("key", type_.key_type), ("value", type_.item_type)])))
    elif pa.types.is_fixed_size_list(type_) or pa.types.is_list_view(type_) or pa.types.is_large_list_view(type_):
        values = values.cast(pa.large_list(type_.value_type))
    elif pa.types.is_null(type_):
        return values.slice(0, 0), np.zeros(0, np.int64)
    elif not (pa.types.is_list(type_) or pa.types.is_large_list(type_)):
        raise InputError(f"{shown}: {type_} is no list")
    # Not list_parent_indices: a null may stand for values, which list_flatten leaves out.
    sizes = np.asarray(pc.list_value_length(values).fill_null(0))
    elements, owners = pc.list_flatten(values), np.repeat(np.arange(len(values)), sizes)
    return (pc.struct_field(elements, [1]) if pa.types.is_map(type_) else elements), owners


def _values_of_structs(values: Array, shown: str) -> tuple[Array, IntArray]:
    """Return the fields of each struct that have a value, as JSON's reader makes structs of objects."""
    fields = [pc.struct_field(values, [place]) for place in range(values.type.num_fields)]
    if not fields:
        return pa.nulls(0, pa.string()), np.zeros(0, np.int64)
    if len({field.type for field in fields}) > 1:
        raise InputError(f"{shown}: values of several types: {values.type}")
    rows, width = len(values), len(fields)
    order = (np.arange(rows)[:, None] + rows * np.arange(width)[None, :]).ravel()
    elements = pa.concat_arrays(fields).take(pa.array(order))
    there = pc.is_valid(elements)
    return elements.filter(there), np.repeat(np.arange(rows), width)[np.asarray(there)]
