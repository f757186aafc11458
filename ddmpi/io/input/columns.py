"""From the columns that a file has to those that the table has: filtered, and of several columns the first value.

A text column may be made of several (``columns: {identifier: [url_gcp, url_aws]}``): its name is then theirs, joined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.config.row_filter import RowFilter
from ddmpi.core.arrays import IntArray
from ddmpi.errors import InputError
from ddmpi.io.input.mirrors import MIRRORS, first_and_mirrors
from ddmpi.io.input.rows import as_text, is_text


def joined_name(columns: Sequence[str]) -> str:
    """Return the name of the column that is made of these."""
    return "|".join(columns)


class Shaping:
    """What is done to the rows of every file of one table.

    Args:
        schema: the columns that the files have.
        joined: columns that are made of several, by ``joined_name``.
        mirrored: the one of them whose further values are its mirrors, in a column of their own; None = none is.

    Raises:
        InputError: the filter needs a column that is absent, or one of another type.
    """

    def __init__(
        self,
        schema: pa.Schema,
        joined: Mapping[str, Sequence[str]],
        row_filter: RowFilter | None,
        mirrored: str | None = None,
    ) -> None:
        self.mirrored = mirrored
        self._joined = {**joined, **({} if mirrored is None else {MIRRORS: joined[mirrored]})}
        self._filter = row_filter
        self._filter_columns = [] if row_filter is None else _checked_columns(row_filter, schema)

    def sources_of(self, columns: Sequence[str]) -> list[str]:
        """Return the columns of a file that these are made from, and those that the filter looks at."""
        parts = [part for column in columns for part in self._joined.get(column, [column])]
        return list(dict.fromkeys([*parts, *self._filter_columns]))

    def shape(self, rows: pa.RecordBatch, first_row: int, columns: Sequence[str]) -> tuple[pa.RecordBatch, IntArray]:
        """Return ``columns`` of those rows that are taken, and where they stand in the input, for some rows of it which
        begin with row ``first_row``. Raises pa.ArrowException: a column has no text form."""
        numbers = np.arange(first_row, first_row + rows.num_rows, dtype=np.int64)
        if self._filter is not None:
            looked_at = {name: _comparable(rows.column(name)) for name in self._filter_columns}
            kept = self._filter.keeps(looked_at, rows.num_rows)
            rows, numbers = rows.filter(pa.array(kept)), numbers[kept]
        shaped: dict[str, pa.Array[Any]] = {}
        if self.mirrored is not None and self.mirrored in columns:
            parts = [_as_bytes(rows.column(part)) for part in self._joined[self.mirrored]]
            shaped = dict(zip((self.mirrored, MIRRORS), first_and_mirrors(parts), strict=True))
        shaped = {column: shaped[column] if column in shaped else self._column(rows, column) for column in columns}
        return pa.RecordBatch.from_pydict(shaped), numbers

    def _column(self, rows: pa.RecordBatch, column: str) -> pa.Array[Any]:
        if column not in self._joined:
            return rows.column(column)
        return pc.coalesce(*(_as_bytes(rows.column(part)) for part in self._joined[column]))


def _as_bytes(values: pa.Array[Any]) -> pa.Array[Any]:
    """Return values of any column with a text form as bytes; broken characters are still to be found in them."""
    if isinstance(values, pa.DictionaryArray):
        values = values.dictionary_decode()
    return (values if is_text(values.type) else as_text(values)[0]).cast(pa.binary())


def _comparable(values: pa.Array[Any]) -> pa.Array[Any]:
    return as_text(values)[0] if isinstance(values, pa.DictionaryArray) or is_text(values.type) else values


def _checked_columns(row_filter: RowFilter, schema: pa.Schema) -> list[str]:
    """Return the columns of a file that the filter looks at. Raises InputError: see ``Shaping``."""
    missing = sorted(row_filter.columns - row_filter.optional - set(schema.names))
    if missing:
        raise InputError(f"filter: no column {', '.join(missing)}; found: {', '.join(schema.names)}")
    present = sorted(row_filter.columns.intersection(schema.names))
    try:
        row_filter.keeps({name: _comparable(pa.array([], schema.field(name).type)) for name in present}, 0)
    except pa.ArrowException as error:
        raise InputError(f"filter: {' '.join(str(error).split())}") from error
    return present
