"""The parts that a rank has open: when their rows go to disk, and when they get their final names.

Used by one thread, the writer's (see ``writer``). A part is a buffer first; it gets a file when a row group is full
or memory is short, so a part that closes early costs one open, one fsync of the file and one of the folder.

Invariants:

- a row is in exactly one buffer or file, and all rows of a URL are in one part, those that refer to another one's
  bytes in its row group: a restart finds all of them or none;
- ``held_bytes`` is the sum of the buffers, and falls below its limit after every ``add``;
- at most ``MAX_OPEN_FILES`` files are open;
- an event is emitted after its part is durable.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

import pyarrow as pa

from ddmpi.config.config import Config
from ddmpi.core.protocol import PartReport
from ddmpi.core.records import BatchRef
from ddmpi.io.folder.layout import PART_KINDS, Layout, PartKind, part_name
from ddmpi.io.results.outcomes import RowReader
from ddmpi.io.results.part_file import PartFile
from ddmpi.io.results.publishing import Publisher
from ddmpi.io.results.row_buffer import RowBuffer
from ddmpi.io.results.rows import CheckRow, ResultRow, SuccessRow

ROW_GROUP_BYTES: Final = 8 << 20
"""Bodies of one row group: large enough for whole-disk speed, small enough to read one at a time."""
ROW_GROUP_ROWS: Final = 10_000
MAX_OPEN_FILES: Final = 64
"""Beyond it the part whose file was opened first closes: descriptors are for connections."""
_INPUT_CACHE_BYTES: Final = 32 << 20
_ROW_BYTES: Final = 1_536
"""What a row takes in memory beside its body, with long URLs and headers."""


@dataclass(frozen=True)
class ResultOptions:
    """What one rank makes its results with."""

    config: Config
    layout: Layout
    """The output folder; ``fence.open_epoch`` has made the epoch's temporary folder."""
    reader: RowReader
    """Gives the input columns of a batch."""
    epoch: int
    rank: int
    """Goes into the names of the parts, as the epoch does."""
    threads: int
    """How many decode images and hash large bodies."""
    publisher: Publisher | None = None
    """Brings each part to an object store, too."""


class _Part:
    """One part under construction."""

    def __init__(self, batch: BatchRef, kind: PartKind, rows: RowBuffer) -> None:
        self.batch = batch
        self.kind: PartKind = kind
        self.rows = rows
        self.images: list[bytes | None] = []
        """Of the rows."""
        self.held_bytes = 0
        self.body_bytes = 0
        """The share of ``held_bytes`` that ``Parts.on_released`` has to be told of."""
        self.written_rows = 0
        self.kinds: Counter[str] = Counter()
        self.kept_bytes: Counter[str] = Counter()
        """Of files, by server."""
        self.file: PartFile | None = None


class Parts:
    """All open parts of one rank. Buffers beyond half of the memory budget are written, largest first, although their
    row groups are small.

    Args:
        placeholders: hashes of files that are some, as far as is known.
        on_commit: told of each part that is durable.
        on_released: told of body bytes that left the memory for a file.
    """

    def __init__(
        self,
        options: ResultOptions,
        placeholders: Collection[str],
        on_commit: Callable[[PartReport], None],
        on_released: Callable[[int], None],
    ) -> None:
        parameters = options.config.downloader_parameters
        self._options = options
        # In one chunk: to take rows of several costs ten times as much, for each row group.
        self._inputs = InputCache(options.reader, None, pa.Table.combine_chunks)
        self._refers = options.config.duplicates == "reference"
        self._marks = options.config.expected.marks
        self._placeholders = placeholders
        self._part_bytes = parameters.part_bytes
        self._held_limit_bytes = parameters.memory_budget_bytes // 2
        self._on_commit = on_commit
        self._on_released = on_released
        self._parts: dict[tuple[int, PartKind], _Part] = {}
        self._files: OrderedDict[str, _Part] = OrderedDict()
        self._held_bytes = 0
        self._names_given = 0

    def __repr__(self) -> str:
        return f"{len(self._parts)} parts, {len(self._files)} with files, {self._held_bytes} bytes held"

    def add(self, batch: BatchRef, row: ResultRow) -> None:
        """Take the rows of a URL into their batch's part; writes and closes what has become large enough, but no part
        that has only some of them. Raises StorageError, OSError, pa.ArrowException: the caller has to give up and
        ``discard_all``."""
        if isinstance(row, SuccessRow):
            part, image = self._part(batch, "successes"), row.image
            part.kept_bytes[row.answer.task.server] += len(image)
        elif isinstance(row, CheckRow):
            part, image = self._part(batch, "checks"), b""
        else:
            part, image = self._part(batch, "errors"), b""
            part.kinds[row.failure.kind.value] += len(row.rows)
        each_bytes = _ROW_BYTES + (0 if self._refers else len(image))
        fitting = len(row.rows) if self._refers else max(1, ROW_GROUP_BYTES // each_bytes)
        for start in range(0, len(row.rows), fitting):
            if start:
                self._write(part)
            piece = row if len(row.rows) <= fitting else replace(row, rows=row.rows[start : start + fitting])
            self._hold(part, piece, len(piece.rows) * each_bytes + (len(image) if self._refers else 0))
        part.body_bytes += len(image)
        if part.held_bytes >= ROW_GROUP_BYTES or len(part.rows) >= ROW_GROUP_ROWS:
            self._write_row_group(part)
        elif self._held_bytes > self._held_limit_bytes:
            self._relieve_memory()

    def _hold(self, part: _Part, row: ResultRow, size_bytes: int) -> None:
        part.rows.add(row)
        if isinstance(row, SuccessRow):
            others = len(row.rows) - 1
            part.images += (row.image, *[None if self._refers else row.image] * others)
        part.held_bytes += size_bytes
        self._held_bytes += size_bytes

    def close(self, batch_ids: Iterable[int] | None) -> None:
        """Commit the open parts of these batches, or all; raises what ``add`` raises."""
        if batch_ids is None:
            chosen = list(self._parts.values())
        else:
            keys = [(batch_id, kind) for batch_id in sorted(batch_ids) for kind in PART_KINDS]
            chosen = [self._parts[key] for key in keys if key in self._parts]
        for part in chosen:
            self._commit(part)

    def discard_all(self) -> None:
        """Remove all files that are not committed, as far as the disk lets us; the rows are given up."""
        for part in self._parts.values():
            if part.file is not None:
                part.file.discard()
        released = sum(part.body_bytes for part in self._parts.values())
        self._parts.clear()
        self._files.clear()
        self._held_bytes = 0
        self._on_released(released)

    def _part(self, batch: BatchRef, kind: PartKind) -> _Part:
        key = (batch.batch_id, kind)
        part = self._parts.get(key)
        if part is None:
            rows = RowBuffer(kind, refers=self._refers, marks=self._marks)
            part = self._parts[key] = _Part(batch, kind, rows)
        return part

    def _relieve_memory(self) -> None:
        """Write buffers until half of the limit is left, or each further row would cost a row group."""
        for part in sorted(self._parts.values(), key=lambda part: part.held_bytes, reverse=True):
            if self._held_bytes <= self._held_limit_bytes // 2:
                return
            self._write_row_group(part)

    def _write_row_group(self, part: _Part) -> None:
        """Move the buffer into the file; closes the part if it is large, or another one if too many have files."""
        if not part.rows:
            return
        file = self._write(part)
        if file.size_bytes >= self._part_bytes:
            self._commit(part)
        elif len(self._files) > MAX_OPEN_FILES:
            self._commit(next(iter(self._files.values())))

    def _write(self, part: _Part) -> PartFile:
        inputs = self._inputs.read(part.batch)
        file = part.file or self._open(part, part.rows.schema(inputs))
        written_rows, released_bytes = len(part.rows), part.body_bytes
        file.write(part.rows.take(inputs, self._placeholders), part.images)
        self._held_bytes -= part.held_bytes
        part.written_rows += written_rows
        part.images = []
        part.held_bytes = part.body_bytes = 0
        self._on_released(released_bytes)
        return file

    def _open(self, part: _Part, schema: pa.Schema) -> PartFile:
        # One count for all batches: no two parts of this run and rank meet, in whatever folder, without a memory
        # of all batches that came and went.
        epoch, layout = self._options.epoch, self._options.layout
        name = part_name(part.kind, epoch, self._options.rank, self._names_given)
        self._names_given += 1
        part.file = PartFile(layout.epoch_temporary(epoch) / name, schema)
        self._files[name] = part
        return part.file

    def _commit(self, part: _Part) -> None:
        file = self._write(part) if part.rows or part.file is None else part.file
        layout = self._options.layout
        folder = layout.parts_folder(part.kind, part.batch.server_name, part.batch.partition_id)
        final = folder / file.name
        file.commit(final)
        del self._parts[part.batch.batch_id, part.kind]
        del self._files[file.name]
        self._on_commit(
            PartReport(
                batch_id=part.batch.batch_id,
                path=layout.relative(final),
                rows=part.written_rows,
                is_errors=part.kind == "errors",
                bytes=file.size_bytes,
                kinds=dict(part.kinds),
                kept_bytes=dict(part.kept_bytes),
            )
        )


_Shaped = TypeVar("_Shaped", pa.Table, pa.RecordBatch)


class InputCache(Generic[_Shaped]):
    """Input columns (None: all) of the batches written last, or what ``shape`` makes of them: a batch of 10,000 rows
    makes dozens of row groups. May be used from several threads."""

    def __init__(self, reader: RowReader, columns: Sequence[str] | None, shape: Callable[[pa.Table], _Shaped]) -> None:
        self._reader = reader
        self._columns = columns
        self._shape: Callable[[pa.Table], _Shaped] = shape
        self._tables: OrderedDict[int, _Shaped] = OrderedDict()
        self._size_bytes = 0
        self._lock = threading.Lock()

    def read(self, batch: BatchRef) -> _Shaped:
        """Return what is made of the rows of a batch of which results come in; raises what ``Parts.add`` raises."""
        with self._lock:
            table = self._tables.pop(batch.batch_id, None)
            if table is None:
                table = self._shape(self._reader.read(batch, self._columns))
                self._size_bytes += table.nbytes
            self._tables[batch.batch_id] = table
            while self._size_bytes > _INPUT_CACHE_BYTES and len(self._tables) > 1:
                _, dropped = self._tables.popitem(last=False)
                self._size_bytes -= dropped.nbytes
        return table
