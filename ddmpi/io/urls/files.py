"""Writes the files of the urls folder, each part of the output from its bucket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.core.partition.placement import ROW_GROUP_ROWS, Placement
from ddmpi.core.records import REQUESTED
from ddmpi.io.folder.durable import NewFile
from ddmpi.io.urls.spill import POSITION, Reordered, Spill

if TYPE_CHECKING:
    from ddmpi.io.input.table import InputTable  # all kinds of input, which ranks that only read urls/ do without

_PLAIN_COLUMNS: Final = frozenset({"row_number", "uuid", "source_id", "identifier", REQUESTED})
"""Columns whose values do not repeat: a dictionary of them would be built in vain."""
_PLAIN_ENCODINGS: Final[dict[pa.DataType, str]] = {
    pa.int64(): "DELTA_BINARY_PACKED",
    pa.string(): "DELTA_LENGTH_BYTE_ARRAY",
}
"""Of numbers the differences, of texts the lengths apart: a tenth smaller than plain ones, and a tenth faster."""
_REPEATED: Final = 2
"""A dictionary pays if a value of a row group stands there so often on average."""
_COUNTED_COLUMNS: Final = ("row_number", "server_name")
"""Columns whose smallest and largest values help a reader to pass over row groups."""
_COMPRESSION_LEVEL: Final = 1
_COMBINED_BYTES: Final = 1 << 30


class PlacedRows(NamedTuple):
    """Bare rows, and where some of them go: ``rows[i]`` to output position ``positions[i]``, which ascend."""

    bare: pa.RecordBatch
    rows: IntArray
    positions: IntArray

    def split(self, bucket_starts: IntArray) -> list[tuple[int, pa.RecordBatch]]:
        """Return the rows as pieces, each with the number of its bucket."""
        bounds = np.append(np.searchsorted(self.positions, bucket_starts), len(self.positions))
        filled = np.flatnonzero(np.diff(bounds)).tolist()
        return [(bucket, self._piece(slice(bounds[bucket], bounds[bucket + 1]))) for bucket in filled]

    def _piece(self, part: slice) -> pa.RecordBatch:
        rows = self.rows[part]
        # Of a table that is sorted by server, or has one, the rows lie side by side.
        are_consecutive = rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all())
        piece = self.bare.slice(int(rows[0]), len(rows)) if are_consecutive else self.bare.take(rows)
        return piece.append_column(POSITION, pa.array(self.positions[part]))


class _Bucket(NamedTuple):
    number: int
    start: int
    groups: list[int]


class UrlsFiles:
    """The files of one layout. ``names`` and ``rows`` are the servers' in output order, with a null name at the end for
    refused rows.

    A bucket holds whole row groups of one file, about ``bucket_rows`` rows if the file has them. ``sample`` shows which
    columns repeat their values.
    """

    def __init__(
        self,
        folder: Path,
        *,
        layout: Placement,
        table: InputTable,
        names: pa.Array[Any],
        rows: IntArray,
        bucket_rows: int,
        sample: pa.RecordBatch | None,
    ) -> None:
        self._folder = folder
        self._table = table
        self._dictionaries = [
            name for name in table.schema.names if name not in _PLAIN_COLUMNS and _repeats(sample, name)
        ]
        self._encodings = {
            field.name: _PLAIN_ENCODINGS[field.type]
            for field in table.schema
            if field.name not in self._dictionaries and field.type in _PLAIN_ENCODINGS
        }
        self._names = names
        self._ends: IntArray = np.cumsum(rows, dtype=np.int64)
        # No rows at all still make a file: readers of the folder see the columns.
        self._buckets = list(_buckets_of([file.tolist() for file in layout.files] or [[]], bucket_rows))
        self.count = len(self._buckets)
        self.bucket_starts: IntArray = np.array([s.start for file in self._buckets for s in file], dtype=np.int64)

    def write(self, file: int, spill: Spill) -> int:
        """Write one file, durably; returns its rows. Raises StorageError or OSError; may be called from any thread."""
        name = file_name(file)
        new = NewFile(self._folder / f".{name}.tmp")
        try:
            with pq.ParquetWriter(
                cast("IO[bytes]", new),
                self._table.schema,
                compression="zstd",
                compression_level=_COMPRESSION_LEVEL,
                column_encoding=self._encodings,
                use_dictionary=self._dictionaries,  # type: ignore[arg-type]  # the stubs know only bool
                write_statistics=list(_COUNTED_COLUMNS),
                write_page_checksum=True,
            ) as writer:
                for bucket in self._buckets[file]:
                    self._write_bucket(writer, bucket, spill.take(bucket.number))
            new.commit(self._folder / name)
        finally:
            new.discard()
        return sum(sum(bucket.groups) for bucket in self._buckets[file])

    def _write_bucket(self, writer: pq.ParquetWriter, bucket: _Bucket, pieces: list[pa.RecordBatch]) -> None:
        reordered = Reordered(pieces, bucket.start)
        pieces.clear()
        for start, end in pairwise(np.cumsum([0, *bucket.groups]).tolist()):
            positions = np.arange(bucket.start + start, bucket.start + end)
            names = self._names.take(np.searchsorted(self._ends, positions, side="right"))
            writer.write_table(self._complete(reordered.rows(start, end), names), row_group_size=end - start)

    def _complete(self, rows: pa.Table, names: pa.Array[Any]) -> pa.Table:
        """Complete rows, very wide ones some at a time: one array of strings cannot hold more than 2 GB."""
        step = -(-len(rows) // (1 + rows.nbytes // _COMBINED_BYTES))
        starts = range(0, len(rows), step)
        return pa.concat_tables([self._table.complete(rows.slice(at, step), names.slice(at, step)) for at in starts])


def _repeats(sample: pa.RecordBatch | None, name: str) -> bool:
    if sample is None or name not in sample.schema.names or pa.types.is_nested(sample.schema.field(name).type):
        return True
    values = sample.column(name).slice(0, ROW_GROUP_ROWS)
    return bool(len(values.unique()) * _REPEATED <= len(values))


def _buckets_of(files: Sequence[Sequence[int]], bucket_rows: int) -> Iterator[list[_Bucket]]:
    number = start = 0
    for groups in files:
        # Of about equal size: a small one at the end would cost as many scratch files as a large one.
        rows_each = -(-sum(groups) // max(1, round(sum(groups) / bucket_rows)))
        buckets: list[_Bucket] = []
        for rows in groups:
            if not buckets or sum(buckets[-1].groups) >= rows_each:
                buckets.append(_Bucket(number + len(buckets), start, []))
            buckets[-1].groups.append(rows)
            start += rows
        number += len(buckets)
        yield buckets


def file_name(file: int) -> str:
    """Return the name of the n-th file of the urls folder."""
    return f"urls-{file:05d}.parquet"


def write_table(path: Path, table: pa.Table) -> None:
    """Write a small table, whole or not at all."""
    new = NewFile(path.with_name(f".{path.name}.tmp"))
    try:
        pq.write_table(table, cast("IO[bytes]", new), compression="zstd")
        new.commit(path)
    finally:
        new.discard()
