"""Shards of targets that have no images: one Parquet file each, of columns that are made of the rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.licenses import spdx_of
from ddmpi.export.target import Picture
from ddmpi.io.folder.durable import NewFile, make_folders

Column: TypeAlias = "pa.ChunkedArray[Any]"
SHARD_BYTES = 1 << 30
"""Of the source, for targets that leave the images out: some 30,000 rows or, of small images, a million."""


class TableShard:
    """A Parquet file of what ``make`` makes of the rows, in the order of the column ``order``; the columns are the same
    for all rows. ``told`` is what ``commit`` returns of the whole."""

    def __init__(
        self,
        temporary: Path,
        final: Path,
        make: Callable[[pa.Table], pa.Table],
        told: Callable[[pa.Table], Any] = lambda _: None,
        *,
        order: str,
    ) -> None:
        self._temporary, self._final = temporary, final
        self._make, self._told, self._order = make, told, order
        self._tables: list[pa.Table] = []

    def add(self, rows: pa.Table, pictures: Sequence[Picture]) -> None:
        del pictures
        self._tables.append(self._make(rows))

    def commit(self) -> Any:
        table = pa.concat_tables(self._tables).sort_by(self._order)
        write_tables(table.schema, [table], self._temporary, self._final)
        return self._told(table)

    def discard(self) -> None:
        self._tables.clear()


def write_tables(schema: pa.Schema, tables: Iterable[pa.Table], temporary: Path, final: Path) -> None:
    """Write a Parquet file that has its final name when it is whole, each table as a row group. Raises StorageError,
    OSError."""
    make_folders(temporary.parent)
    new = NewFile(temporary)
    try:
        with pq.ParquetWriter(cast("Any", new), schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
    except BaseException:
        new.discard()
        raise
    new.commit(final)


def texts(column: Column) -> Column:
    """Return the values of any column as texts: lists and structs as JSON."""
    type_ = column.type.value_type if isinstance(column.type, pa.DictionaryType) else column.type
    if pa.types.is_nested(type_) or pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        found = [None if value is None else _as_text(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(found, pa.string())])
    return column.cast(pa.string())


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return json.dumps(value, ensure_ascii=False, default=str)


def license_names(licenses: Column) -> Column:
    """Return the SPDX identifiers of licenses as they are given, null where that cannot be told."""
    given: Any = licenses.dictionary_encode().combine_chunks()  # they are few, in many rows
    names: Any = pa.array(
        [None if text is None else spdx_of(text) for text in given.dictionary.to_pylist()], pa.string()
    )
    return pa.chunked_array([names.take(given.indices)])
