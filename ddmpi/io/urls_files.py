"""Writes the files of the urls folder, each part of the output from its shelf, and the two index tables.

``batches.parquet`` says where each batch is; ``servers.parquet`` in which batches each server is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.io.durable import NewFile
from ddmpi.io.shelves import Shelves
from ddmpi.io.url_rows import complete
from ddmpi.partition import Cut, IntArray, Layout, ServerRows

BATCHES_NAME: Final = "batches.parquet"
SERVERS_NAME: Final = "servers.parquet"

_INT64: Final[pa.DataType] = pa.int64()
_INT32: Final[pa.DataType] = pa.int32()
_TEXT: Final[pa.DataType] = pa.string()

BATCHES_SCHEMA: Final = pa.schema(
    [
        ("batch_id", _INT64),
        ("server_name", _TEXT),
        ("group", _TEXT),
        ("partition_id", _INT64),
        ("file", _TEXT),
        ("row_group", _INT32),
        ("offset", _INT32),
        ("rows", _INT64),
        ("first_row", _INT64),
    ]
)
"""One row per batch, by batch_id (from 0). ``offset`` counts rows from the row group's first, ``first_row`` from the
file's; ``file`` is relative to the urls folder."""

SERVERS_SCHEMA: Final = pa.schema(
    [("server_name", _TEXT), ("group", _TEXT), ("rows", _INT64), ("first_batch_id", _INT64), ("batches", _INT64)]
)
"""One row per server, by name. A server's batches are consecutive; one that is packed shares its only one."""

_POSITION: Final = "__position__"
_PLAIN_COLUMNS: Final = frozenset({"row_number", "uuid", "source_id", "identifier"})
"""Columns whose values do not repeat: a dictionary of them would be built in vain."""
_COUNTED_COLUMNS: Final = ("row_number", "server_name")
"""Columns whose smallest and largest values help a reader to pass over row groups."""
_COMPRESSION_LEVEL: Final = 1


class PlacedRows(NamedTuple):
    """Bare rows, and where some of them go: ``rows[i]`` to output position ``positions[i]``, which ascend."""

    bare: pa.RecordBatch
    rows: IntArray
    positions: IntArray

    def split(self, shelf_starts: IntArray) -> list[tuple[int, pa.RecordBatch]]:
        """The rows as pieces, each with the number of its shelf."""
        bounds = np.append(np.searchsorted(self.positions, shelf_starts), len(self.positions))
        filled = np.flatnonzero(np.diff(bounds)).tolist()
        return [(shelf, self._piece(slice(bounds[shelf], bounds[shelf + 1]))) for shelf in filled]

    def _piece(self, part: slice) -> pa.RecordBatch:
        return self.bare.take(self.rows[part]).append_column(_POSITION, pa.array(self.positions[part]))


class _Shelf(NamedTuple):
    number: int
    start: int
    groups: list[int]


class UrlsFiles:
    """The files of one layout. ``servers`` are names and rows in output order, with name None for refused rows.

    A shelf holds whole row groups of one file, at least ``shelf_rows`` rows if the file has them (None: all of it).
    """

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        schema: pa.Schema,
        servers: Sequence[tuple[str | None, int]],
        shelf_rows: int | None,
    ) -> None:
        self._folder = folder
        self._schema = schema
        self._names = pa.array([name for name, _ in servers], pa.string())
        self._ends: IntArray = np.cumsum([rows for _, rows in servers], dtype=np.int64)
        # No rows at all still make a file: readers of the folder see the columns.
        self._shelves = list(_shelve(layout.files or [[]], shelf_rows))
        self.count = len(self._shelves)
        self.shelf_starts: IntArray = np.array([s.start for file in self._shelves for s in file], dtype=np.int64)

    def write(self, file: int, shelves: Shelves) -> int:
        """Write one file, durably; returns its rows. Raises StorageError or OSError; may be called from any thread."""
        name = file_name(file)
        dictionaries = [column for column in self._schema.names if column not in _PLAIN_COLUMNS]
        new = NewFile(self._folder / f".{name}.tmp")
        try:
            with pq.ParquetWriter(
                cast("IO[bytes]", new),
                self._schema,
                compression="zstd",
                compression_level=_COMPRESSION_LEVEL,
                use_dictionary=dictionaries,  # type: ignore[arg-type]  # the stubs know only bool
                write_statistics=list(_COUNTED_COLUMNS),
                write_page_checksum=True,
            ) as writer:
                for shelf in self._shelves[file]:
                    self._write_shelf(writer, shelf, shelves.take(shelf.number))
            new.commit(self._folder / name)
        finally:
            new.discard()
        return sum(sum(shelf.groups) for shelf in self._shelves[file])

    def _write_shelf(self, writer: pq.ParquetWriter, shelf: _Shelf, pieces: list[pa.RecordBatch]) -> None:
        rows = pa.Table.from_batches(pieces)
        pieces.clear()
        positions = np.asarray(rows.column(_POSITION)) - shelf.start
        rows = rows.drop_columns([_POSITION]).combine_chunks()
        order = np.empty(len(positions), dtype=np.int64)
        order[positions] = np.arange(len(positions), dtype=np.int64)
        for start, end in pairwise(np.cumsum([0, *shelf.groups]).tolist()):
            ranks = np.searchsorted(self._ends, np.arange(shelf.start + start, shelf.start + end), side="right")
            group = complete(rows.take(order[start:end]), self._names.take(ranks), self._schema)
            writer.write_table(group, row_group_size=end - start)


def _shelve(files: Sequence[Sequence[int]], shelf_rows: int | None) -> Iterator[list[_Shelf]]:
    number = start = 0
    for groups in files:
        shelves: list[_Shelf] = []
        for rows in groups:
            if not shelves or (shelf_rows is not None and sum(shelves[-1].groups) >= shelf_rows):
                shelves.append(_Shelf(number + len(shelves), start, []))
            shelves[-1].groups.append(rows)
            start += rows
        number += len(shelves)
        yield shelves


def file_name(file: int) -> str:
    """Name of the n-th file of the urls folder."""
    return f"urls-{file:05d}.parquet"


def write_index(folder: Path, cut: Cut, layout: Layout, servers: Sequence[ServerRows]) -> None:
    """Write both index tables; ``servers`` are what the batches were cut from."""
    batches, places = cut.batches, layout.places
    columns: list[Sequence[str | int]] = [
        range(len(batches)),
        [batch.server_name for batch in batches],
        [batch.group for batch in batches],
        [batch.partition_id for batch in batches],
        [file_name(place.file) for place in places],
        [place.row_group for place in places],
        [place.offset for place in places],
        [batch.rows for batch in batches],
        [place.first_row for place in places],
    ]
    _write_table(folder / BATCHES_NAME, columns, BATCHES_SCHEMA)
    columns = [
        [server.name for server in servers],
        [server.group for server in servers],
        [server.rows for server in servers],
        cut.first_batch,
        cut.batch_counts,
    ]
    _write_table(folder / SERVERS_NAME, columns, SERVERS_SCHEMA)


def _write_table(path: Path, columns: Sequence[Sequence[str | int]], schema: pa.Schema) -> None:
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    table = pa.table(arrays, schema=schema)
    if schema is SERVERS_SCHEMA:
        table = table.sort_by("server_name")
    new = NewFile(path.with_name(f".{path.name}.tmp"))
    try:
        pq.write_table(table, cast("IO[bytes]", new), compression="zstd")
        new.commit(path)
    finally:
        new.discard()
