"""One file of the input, of whatever kind: its columns, and its rows as record batches, in file order.

Whatever is wrong with a file is an ``InputError`` that names it. A kind adds how its columns and rows are read.
"""

from __future__ import annotations

import lzma
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Final

import pyarrow as pa

from ddmpi.config.input_section import InputSection
from ddmpi.errors import InputError
from ddmpi.io.folder.disk_errors import one_line
from ddmpi.io.sources.byte_streams import Compression
from ddmpi.io.sources.files import InputFile, InputPath, size_and_time

BATCH_ROWS: Final = 192 * 1024
"""Rows per record batch at most: large enough for arrow's kernels, some 20 MB of URLs."""
BATCH_BYTES: Final = 64 << 20
"""About what a record batch has at most, far below the 2 GB that 32-bit offsets reach: wide rows come in small ones."""
BAD_LINE: Final = "__bad_line__"
"""A column that batches with bad lines have beside those that were asked for: null, or ``line 17: its text``."""


@dataclass(frozen=True)
class Reading:
    """What has to be known to open a file, beside the file.

    Attributes:
        keys: what the config says.
        text_column: the name that lines of a .txt file get.
        text_columns: columns of JSON that are text where they are not seen at once.
        first: the names in the header of the table's first file, if that is a separated text and is open.
    """

    keys: InputSection
    text_column: str
    text_columns: Sequence[str] = ()
    first: Sequence[str] = ()


class SourceFile(ABC):
    """One input file. Its size and modification time are taken when it is opened, and must not change."""

    schema_is_guessed: ClassVar[bool] = False
    """Whether another file of the same table may show other columns, since only a part was looked at."""
    is_looked_through = False
    """Whether all rows were looked at for columns."""

    def __init__(self, file: InputFile, compression: Compression | None, reading: Reading) -> None:
        self.path = path = file.path
        self.compression = compression
        self.reading = reading
        self.row_count: int | None = None
        """Known beforehand for Parquet and Arrow files only."""
        self.repeated: frozenset[str] = frozenset()
        """Text columns that have few different values, as far as the file itself says so (Parquet)."""
        with naming(path):
            self.size_bytes, self.mtime_ns = size_and_time(path)
            own = self._read_schema()
        self.folder_columns = {name: value for name, value in file.folder_columns.items() if name not in own.names}
        """Columns that the names of its folders give it; text, and null or the same in all rows."""
        self.doubled = frozenset(name for name, count in Counter(own.names).items() if count > 1)
        """Names that more than one column has: none of these can be read."""
        single = [field for field in own if field.name not in self.doubled]
        self.schema = pa.schema([*single, *(pa.field(name, pa.string()) for name in self.folder_columns)])

    @property
    @abstractmethod
    def description(self) -> str:
        """How the file is read: ``CSV, separator tab, no quoting, header, UTF-8``."""

    @property
    def unusual(self) -> str:
        """What, beside the file itself, decides which rows it has; "" where it is what the file's name says."""
        return ""

    def look_through(self) -> None:
        """Look at all rows for columns, where only a part was looked at. Raises InputError."""
        return

    def read_as(self, types: Mapping[str, pa.DataType]) -> None:  # noqa: ARG002
        """Take these types for columns, where types were guessed."""
        return

    def batches(self, columns: Sequence[str], as_dictionary: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
        """Yield all rows with these columns; those ``as_dictionary``, which must be ``repeated``, as dictionary arrays.
        A batch with lines that could not be read has ``BAD_LINE`` as a further column, and nulls in these rows.
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
        names = [*columns, *([BAD_LINE] if BAD_LINE in rows.schema.names else [])]
        arrays = [
            pa.repeat(pa.scalar(self.folder_columns[name], pa.string()), rows.num_rows)
            if name in self.folder_columns
            else rows.column(name)
            for name in names
        ]
        return pa.record_batch(arrays, names=names)

    @abstractmethod
    def _read_schema(self) -> pa.Schema:
        """Return names and types of the columns."""

    @abstractmethod
    def _read(self, columns: Sequence[str], as_dictionary: Collection[str]) -> Iterator[pa.RecordBatch]:
        """Return all rows with these columns."""


@contextmanager
def naming(path: InputPath | str) -> Iterator[None]:
    """Turn what arrow and the system raise about a file into an InputError that names it."""
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError, pa.ArrowException, UnicodeError) as error:
        raise InputError(f"{path}: {one_line(error)}") from error
