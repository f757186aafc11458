"""Input files: which there are, their columns, and their rows as record batches, in file order.

Whatever is wrong with a file is an ``InputError`` that names it. Text files carry no types: columns of .csv, .tsv and
.txt are strings, but come as bytes, so that a broken character is a refused row and not the end of the run.
"""

from __future__ import annotations

import csv
import io
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import ClassVar, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ddmpi.core.rules.column_types import common_type
from ddmpi.errors import InputError
from ddmpi.io.folder.disk_errors import one_line
from ddmpi.io.input.files import InputFile, InputPath, StoredFile, size_and_time
from ddmpi.io.input.line_blocks import (
    Compression,
    check_encoding,
    guess_schema,
    line_blocks,
    open_bytes,
    parse_json_block,
)

BATCH_ROWS: Final = 192 * 1024
"""Rows per record batch at most: large enough for arrow's kernels, some 20 MB of URLs."""
BATCH_BYTES: Final = 64 << 20
"""About what a record batch has at most, far below the 2 GB that 32-bit offsets reach: wide rows come in small ones."""
_REPEATED_BYTES: Final = 1.7
"""Bytes per value, dictionary included, that tell a column with few values: up to some 4,000 in 500,000 rows."""
_CSV_BLOCK_BYTES: Final = 8 << 20
_HEADER_MAX_BYTES: Final = 1 << 20
_COMPRESSIONS: Final[dict[str, Compression]] = {".gz": "gzip", ".zst": "zstd"}


class SourceFile(ABC):
    """One input file. Its size and modification time are taken when it is opened, and must not change."""

    schema_is_guessed: ClassVar[bool] = False
    """Whether another file of the same table may show other columns, since only a part was looked at."""
    is_looked_through = False
    """Whether all rows were looked at for columns."""

    def __init__(
        self, file: InputFile, compression: Compression | None, text_column: str, text_columns: Sequence[str]
    ) -> None:
        self.path = path = file.path
        self.compression = compression
        self.text_column = text_column
        self.text_columns = text_columns
        self.row_count: int | None = None
        """Known beforehand for Parquet only."""
        self.repeated: frozenset[str] = frozenset()
        """Text columns that have few different values, as far as the file itself says so (Parquet)."""
        with naming(path):
            self.size_bytes, self.mtime_ns = size_and_time(path)
            own = self._read_schema()
        self.folder_columns = {name: value for name, value in file.folder_columns.items() if name not in own.names}
        """Columns that the names of its folders give it; text, and null or the same in all rows."""
        self.doubled = frozenset(name for name, count in Counter(own.names).items() if count > 1)
        """Names that more than one column has: none of these can be read."""
        single = [(field.name, field.type) for field in own if field.name not in self.doubled]
        self.schema = pa.schema([*single, *((name, pa.string()) for name in self.folder_columns)])

    def look_through(self) -> None:
        """Look at all rows for columns, where only a part was looked at. Raises InputError."""
        return

    def read_as(self, types: Mapping[str, pa.DataType]) -> None:  # noqa: ARG002
        """Take these types for columns, where types were guessed."""
        return

    def batches(self, columns: Sequence[str], as_dictionary: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
        """Yield all rows with these columns; those ``as_dictionary``, which must be ``repeated``, as dictionary arrays.
        Raises InputError where the file is damaged or is no longer the one opened."""
        rows = 0
        own = [name for name in columns if name not in self.folder_columns]
        with naming(self.path):
            for batch in self._read(own, as_dictionary):
                rows += batch.num_rows
                yield batch if len(own) == len(columns) else self._with_folder_columns(batch, columns)
            if (self.size_bytes, self.mtime_ns) != size_and_time(self.path) or self.row_count not in {None, rows}:
                raise InputError(f"{self.path}: changed while it was read")

    def expected_bytes(self, columns: Sequence[str]) -> int:
        """Return about how much memory these columns take."""
        return self.size_bytes * (1 if self.compression is None else 8) if columns else 0

    def _with_folder_columns(self, rows: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
        arrays = [
            pa.repeat(pa.scalar(self.folder_columns[name], pa.string()), rows.num_rows)
            if name in self.folder_columns
            else rows.column(name)
            for name in columns
        ]
        return pa.record_batch(arrays, names=list(columns))

    @abstractmethod
    def _read_schema(self) -> pa.Schema:
        """Return names and types of the columns."""

    @abstractmethod
    def _read(self, columns: Sequence[str], as_dictionary: Collection[str]) -> Iterator[pa.RecordBatch]:
        """Return all rows with these columns."""


class ParquetSource(SourceFile):
    def _open(self, as_dictionary: Collection[str] = ()) -> pq.ParquetFile:
        if self.size_bytes == 0:
            raise InputError(f"{self.path}: is empty (0 bytes), not a Parquet file")
        return pq.ParquetFile(
            self.path.files.open_input_file(self.path.path) if isinstance(self.path, StoredFile) else self.path,
            page_checksum_verification=True,
            read_dictionary=list(as_dictionary),
            pre_buffer=isinstance(self.path, StoredFile),  # neighboring columns in one request
        )

    def _read_schema(self) -> pa.Schema:
        with self._open() as file:
            self.row_count = file.metadata.num_rows
            schema = file.schema_arrow
            texts = {field.name for field in schema if pa.types.is_string(field.type)}
            self.repeated = frozenset(texts & _repeated_columns(file.metadata))
            return schema

    def _read(self, columns: Sequence[str], as_dictionary: Collection[str]) -> Iterator[pa.RecordBatch]:
        with self._open(as_dictionary) as file:
            # Group by group: memory is then bounded by one group, and no later one is read ahead.
            for group in range(file.metadata.num_row_groups):
                rows = _batch_rows(file.metadata.row_group(group), columns)
                yield from file.iter_batches(rows, row_groups=[group], columns=list(columns))

    def expected_bytes(self, columns: Sequence[str]) -> int:
        with naming(self.path), self._open() as file:
            metadata = file.metadata
            return sum(_bytes_of(metadata.row_group(index), columns) for index in range(metadata.num_row_groups))


def _bytes_of(group: pq.RowGroupMetaData, columns: Collection[str]) -> int:
    chunks = map(group.column, range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns)


def _batch_rows(group: pq.RowGroupMetaData, columns: Collection[str]) -> int:
    row_bytes = _bytes_of(group, columns) / max(1, group.num_rows)
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(1.0, row_bytes))))


def _repeated_columns(metadata: pq.FileMetaData) -> set[str]:
    """Return the columns whose values take next to nothing in every row group: numbers into a small dictionary."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    chunks = [group.column(index) for group in groups for index in range(group.num_columns)]
    large = {
        chunk.path_in_schema
        for chunk in chunks
        if not chunk.has_dictionary_page or chunk.total_uncompressed_size > _REPEATED_BYTES * chunk.num_values
    }
    return {chunk.path_in_schema for chunk in chunks} - large


class CsvSource(SourceFile):
    delimiter = ","

    def _open(self, columns: Sequence[str] | None) -> pyarrow.csv.CSVStreamingReader:
        types = {name: pa.binary() for name in columns or ()}
        return pyarrow.csv.open_csv(
            self._header_alone() or open_bytes(self.path, self.compression),
            read_options=pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES),
            parse_options=pyarrow.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=types,
                include_columns=list(columns or ()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def _header_alone(self) -> io.BytesIO | None:
        """Return the file if it is one line without an end: arrow 26 reads a header only up to its line feed."""
        with open_bytes(self.path, self.compression) as stream:
            first = stream.read(_HEADER_MAX_BYTES)
        is_line = 0 < len(first) < _HEADER_MAX_BYTES and b"\n" not in first and b"\r" not in first
        return io.BytesIO(first + b"\n") if is_line else None

    def _read_schema(self) -> pa.Schema:
        check_encoding(self.path, self.compression)
        with self._telling_the_line(), self._open(None) as reader:
            return pa.schema([(name, pa.string()) for name in reader.schema.names])

    def _read(self, columns: Sequence[str], as_dictionary: Collection[str]) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        with self._telling_the_line(), self._open(columns) as reader:
            yield from reader

    @contextmanager
    def _telling_the_line(self) -> Iterator[None]:
        try:
            yield
        except pa.ArrowInvalid as error:
            line = self._first_ragged_line()
            raise InputError(f"{self.path}: {f'line {line}: ' if line else ''}{one_line(error)}") from error

    def _first_ragged_line(self) -> int | None:
        """Line (from 1) of the first row with another number of values than the header; arrow does not tell it."""
        with open_bytes(self.path, self.compression) as stream, io.TextIOWrapper(stream, "latin-1", newline="") as text:
            rows = csv.reader(text, delimiter=self.delimiter)
            try:
                expected = len(next(rows, []))
                start = rows.line_num + 1
                for row in rows:
                    if row and len(row) != expected:
                        return start
                    start = rows.line_num + 1
            except csv.Error:  # a value longer than the module takes: the row is then told by its text alone
                return None
        return None


class TsvSource(CsvSource):
    delimiter = "\t"


class LinesSource(SourceFile):
    """One URL per line; an empty line is a row too, so that row numbers are line numbers (from 0)."""

    def _read_schema(self) -> pa.Schema:
        check_encoding(self.path, self.compression)
        return pa.schema([(self.text_column, pa.string())])

    def _read(self, columns: Sequence[str], as_dictionary: Collection[str]) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        for block in line_blocks(self.path, self.compression):
            lines = block.data.removesuffix(b"\n").split(b"\n")
            urls = pa.array([line.removesuffix(b"\r") for line in lines], pa.binary())
            yield pa.record_batch([urls], names=list(columns))


class JsonLinesSource(SourceFile):
    """Types are those of the first block (8 MB), until ``look_through`` is called; the text columns may also turn up
    later."""

    schema_is_guessed = True

    def _read_schema(self) -> pa.Schema:
        check_encoding(self.path, self.compression)
        self._types: dict[str, pa.DataType] = {}
        for block in line_blocks(self.path, self.compression):
            return guess_schema(self.path, block)
        return pa.schema([(self.text_column, pa.string())])

    def look_through(self) -> None:
        """Widen the types to those of all blocks, as far as they go together."""
        if self.is_looked_through:
            return
        types = {field.name: field.type for field in self.schema}
        with naming(self.path):
            for block in line_blocks(self.path, self.compression):
                for field in guess_schema(self.path, block):
                    common = common_type(types.get(field.name, field.type), field.type)
                    types[field.name] = common or types[field.name]
        self.schema = pa.schema(list(types.items()))
        self.is_looked_through = True

    def read_as(self, types: Mapping[str, pa.DataType]) -> None:
        self._types = dict(types)

    def _read(self, columns: Sequence[str], as_dictionary: Collection[str]) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        types: dict[str, pa.DataType] = {name: pa.string() for name in self.text_columns}
        types |= {field.name: field.type for field in self.schema}
        types |= self._types
        wanted = pa.schema([(name, types[name]) for name in columns])
        for block in line_blocks(self.path, self.compression):
            yield from parse_json_block(self.path, block, wanted).select(list(columns)).to_batches(BATCH_ROWS)


_KINDS: Final[dict[str, Callable[[InputFile, Compression | None, str, Sequence[str]], SourceFile]]] = {
    ".parquet": ParquetSource,
    ".csv": CsvSource,
    ".tsv": TsvSource,
    ".txt": LinesSource,
    ".jsonl": JsonLinesSource,
}


def open_source(file: InputFile, text_column: str, text_columns: Sequence[str]) -> SourceFile:
    """Open one file by the ending of its name. ``text_column`` is the name that lines of a .txt file get.
    ``text_columns`` are the columns of a .jsonl file that are text where they are not seen at once."""
    kind, compression = _kind_of(file.path)
    if kind not in _KINDS or (compression and kind == ".parquet"):
        endings = ", ".join(_KINDS)
        raise InputError(f"{file.path}: not a known kind of file (known: {endings}; text ones also with .gz or .zst)")
    return _KINDS[kind](file, compression, text_column, text_columns)


def is_known_kind(path: PurePath) -> bool:
    """Return whether the name ends like one of the kinds of files that are read."""
    return _kind_of(path)[0] in _KINDS


def _kind_of(path: PurePath | StoredFile) -> tuple[str, Compression | None]:
    name = path.name.lower()
    compression = _COMPRESSIONS.get(os.path.splitext(name)[1])  # noqa: PTH122  # of a text, not of a path
    stem = os.path.splitext(name)[0] if compression else name  # noqa: PTH122
    return os.path.splitext(stem)[1], compression  # noqa: PTH122


@contextmanager
def naming(path: InputPath) -> Iterator[None]:
    """Turn what arrow and the system raise about a file into an InputError that names it."""
    try:
        yield
    except (OSError, EOFError, pa.ArrowException, UnicodeError) as error:
        raise InputError(f"{path}: {one_line(error)}") from error
