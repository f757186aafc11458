"""The parts that a rank has open: when their rows go to disk, and when they get their final names.

Used by one thread, the writer's (see ``writer``). A part is a buffer first; it gets a file when its bodies are worth
one or memory is short, so a part that closes early costs one open, one fsync of the file and one of the folder. From
then on its bodies go to the file page by page, and only its other columns wait for the row group's end.

Invariants:

- a row is in exactly one buffer or row group, and all rows of a URL are in one part, those that refer to another one's
  bytes in its row group: a restart finds all of them or none;
- ``held_bytes`` is the sum of the buffers, and falls below its limit after every ``add``;
- at most ``MAX_OPEN_FILES`` files are open;
- an event is emitted after its part is durable.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, Protocol, TypeVar

import pyarrow as pa

from ddmpi.config.config import Config
from ddmpi.core.protocol import PartReport
from ddmpi.core.records import BatchRef
from ddmpi.io.folder.layout import PART_KINDS, Layout, PartKind, part_name
from ddmpi.io.results.part_file import PartFile
from ddmpi.io.results.publishing import Publisher
from ddmpi.io.results.row_buffer import RowBuffer
from ddmpi.io.results.rows import ResultRow, SuccessRow

FILE_BYTES: Final = 8 << 20
"""With so much in its buffer a part gets a file."""
ROW_GROUP_BYTES: Final = 32 << 20
"""Of one row group, its bodies included: each costs 3 ms for its 23 other columns, and readers take one at a time."""
ROW_GROUP_ROWS: Final = 10_000
MAX_OPEN_FILES: Final = 64
"""Beyond it the part whose file was opened first closes: descriptors are for connections."""
_INPUT_CACHE_BYTES: Final = 32 << 20
_ROW_BYTES: Final = 1_536
"""What a row takes in memory beside its body, with long URLs and headers."""


class RowReader(Protocol):
    """Reads a batch's input rows (schema of the urls files, kept columns included), from any thread."""

    def read(self, batch: BatchRef, columns: Sequence[str] | None = None) -> pa.Table: ...


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
        """Of the row group."""
        self.images: list[bytes | None] = []
        """Of the row group, as long as there is no file."""
        self.file: PartFile | None = None
        self.row_bytes = 0
        """The rows' share of what is in memory."""
        self.image_bytes = 0
        """The images' share."""
        self.group_bytes = 0
        """Of the row group, in memory or in the file."""
        self.unreleased_bytes = 0
        """Bodies that ``Parts.on_released`` has to be told of."""
        self.written_rows = 0
        self.kinds: Counter[str] = Counter()
        self.kept_bytes: Counter[str] = Counter()
        """Of files, by server."""

    @property
    def held_bytes(self) -> int:
        return self.row_bytes + self.image_bytes


class Parts:
    """All open parts of one rank. What is in memory beyond half of the memory budget is written, of the largest parts
    first, although their pages are small.

    Args:
        on_commit: told of each part that is durable.
        on_released: told of body bytes that left the memory for a file.
    """

    def __init__(
        self, options: ResultOptions, on_commit: Callable[[PartReport], None], on_released: Callable[[int], None]
    ) -> None:
        parameters = options.config.downloader_parameters
        self._options = options
        self._inputs = InputCache(options.reader, None, lambda rows: rows)
        self._refers = options.config.duplicates == "reference"
        self._marks = options.config.expected.marks
        self.placeholders: set[str] = set()
        """Hashes of files that are some, as far as is known."""
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
            part = self._part(batch, "successes")
            self._add_success(part, row)
        else:
            part = self._part(batch, "errors")
            part.kinds[row.failure.kind.value] += len(row.rows)
            self._hold(part, row, ())
        if part.group_bytes >= ROW_GROUP_BYTES or len(part.rows) >= ROW_GROUP_ROWS:
            self._write_row_group(part)
            self._close_one(part)
        elif self._held_bytes > self._held_limit_bytes:
            self._relieve_memory()

    def _add_success(self, part: _Part, row: SuccessRow) -> None:
        """Rows of a URL that do not fit into a row group take several; but not where they refer to the first one."""
        image = row.image
        part.unreleased_bytes += len(image)
        part.kept_bytes[row.answer.task.server] += len(image)
        if self._refers or len(row.rows) == 1:
            self._hold(part, row, (image, *[None] * (len(row.rows) - 1)))
            return
        fitting = max(1, ROW_GROUP_BYTES // (_ROW_BYTES + len(image)))
        for start in range(0, len(row.rows), fitting):
            if start:
                self._write_row_group(part)
            rows = row.rows[start : start + fitting]
            self._hold(part, replace(row, rows=rows), [image] * len(rows))

    def _hold(self, part: _Part, row: ResultRow, images: Sequence[bytes | None]) -> None:
        part.rows.add(row)
        row_bytes = _ROW_BYTES * len(row.rows)
        part.row_bytes += row_bytes
        self._held_bytes += row_bytes
        part.group_bytes += row_bytes
        if images:
            image_bytes = sum(map(len, filter(None, images)))
            part.group_bytes += image_bytes
            if part.file is not None:
                part.file.add_images(images)
                self._note_images(part, part.file.held_bytes)
            else:
                part.images += images
                self._note_images(part, part.image_bytes + image_bytes)
                if part.held_bytes >= FILE_BYTES:
                    self._file_of(part)

    def _note_images(self, part: _Part, image_bytes: int) -> None:
        """Note how much of the part's images is in memory; what is no longer there is released."""
        self._held_bytes += image_bytes - part.image_bytes
        part.image_bytes = image_bytes
        released_bytes = part.unreleased_bytes - image_bytes
        if released_bytes > 0:  # rows with the same image hold it once
            part.unreleased_bytes = image_bytes
            self._on_released(released_bytes)

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
        released = sum(part.unreleased_bytes for part in self._parts.values())
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
        """Write what is in memory until half of the limit is left: images first, since each row group costs time."""
        for part in sorted(self._parts.values(), key=lambda part: part.held_bytes, reverse=True):
            if self._held_bytes <= self._held_limit_bytes // 2:
                break
            if part.image_bytes > part.row_bytes:
                file = self._file_of(part)
                file.write_images()
                self._note_images(part, file.held_bytes)
            elif part.rows:
                self._write_row_group(part)
        self._close_one(None)

    def _close_one(self, part: _Part | None) -> None:
        """Close the part if its file is large, or another one if too many have files."""
        if part is not None and part.file is not None and part.file.size_bytes >= self._part_bytes:
            self._commit(part)
        while len(self._files) > MAX_OPEN_FILES:
            self._commit(next(iter(self._files.values())))

    def _write_row_group(self, part: _Part) -> PartFile:
        file = self._file_of(part)
        written_rows = len(part.rows)
        file.write(part.rows.take(self._inputs.read(part.batch), self.placeholders))
        self._held_bytes -= part.row_bytes
        part.written_rows += written_rows
        part.row_bytes = part.group_bytes = 0
        self._note_images(part, file.held_bytes)
        return file

    def _file_of(self, part: _Part) -> PartFile:
        """Return the part's file; a new one takes the images so far."""
        if part.file is None:
            # One count for all batches: no two parts of this run and rank meet, in whatever folder, without a memory
            # of all batches that came and went.
            epoch, layout = self._options.epoch, self._options.layout
            name = part_name(part.kind, epoch, self._options.rank, self._names_given)
            self._names_given += 1
            schema = part.rows.schema(self._inputs.read(part.batch))
            part.file = PartFile(layout.epoch_temporary(epoch) / name, schema)
            self._files[name] = part
            images, part.images = part.images, []
            part.file.add_images(images)
            self._note_images(part, part.file.held_bytes)
        return part.file

    def _commit(self, part: _Part) -> None:
        file = self._write_row_group(part) if part.rows else self._file_of(part)
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
