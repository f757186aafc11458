"""Where bare rows wait, once their position in the output is known, until the file that they belong to is written.

A bucket is a range of output positions. Pieces come in any order (``put``); those of one bucket are taken away together
(``take``), and ``Reordered`` gives their rows out in the order of their positions. A piece is made of batches whose
rows have that order already, those of one server side by side: where such runs are long they are copied run by run,
where they are short (many servers, a row here and there) row by row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cached_property, partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from ddmpi.core.arrays import IntArray

POSITION: Final = "__position__"
"""The column that says where in the output a row of a piece belongs."""
LONG_RUN_ROWS: Final = 64
"""A run costs some 10 us to copy, whatever its length, a row taken by its index 0.15 us."""
_SMALL_PIECE_ROWS: Final = 4096
"""Smaller pieces are joined before they are written: each buffer of each piece costs a call to the compressor."""


class Spill:
    """Rows in buckets: a scratch file for each, appended to whenever ``memory_bytes`` are pending. A table that fits is
    pending as a whole, and needs no disk. ``put`` is called from one thread, ``take`` afterwards from any.

    ``start`` begins a call in another thread: while that one compresses and writes, as much again may become pending.
    A file is a row of complete IPC streams, one per append: no file stays open, however many spill there are.
    """

    def __init__(self, folder: Path, memory_bytes: float, start: Callable[[Callable[[], None]], Future[None]]) -> None:
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._start = start
        self._pending: defaultdict[int, list[pa.RecordBatch]] = defaultdict(list)
        self._pending_bytes = 0
        self._appending: list[Future[None]] = []

    def put(self, bucket: int, piece: pa.RecordBatch) -> None:
        """Add rows to a bucket."""
        self._pending[bucket].append(piece)
        self._pending_bytes += piece.nbytes
        if self._pending_bytes > self._memory_bytes:
            self.finish()
            self._appending = [self._start(partial(self._append, *item)) for item in sorted(self._pending.items())]
            self._pending = defaultdict(list)
            self._pending_bytes = 0

    def finish(self) -> None:
        """Wait until the writes under way are done; pending rows stay in memory. Call between the last ``put`` and the
        first ``take``."""
        for append in self._appending:
            append.result()
        self._appending = []

    def take(self, bucket: int) -> list[pa.RecordBatch]:
        """Return all pieces of a bucket, which is empty afterwards."""
        path = self._path(bucket)
        pieces: list[pa.RecordBatch] = []
        if path.exists():
            with pa.OSFile(str(path), "r") as file:
                while file.tell() < file.size():
                    with pa.ipc.open_stream(file) as stream:
                        pieces.extend(stream)
            path.unlink()
        return pieces + self._pending.pop(bucket, [])

    def _append(self, bucket: int, pieces: list[pa.RecordBatch]) -> None:
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        whole = pa.Table.from_batches(pieces)
        if len(whole) < _SMALL_PIECE_ROWS * len(pieces):
            whole = whole.combine_chunks()
        with self._path(bucket).open("ab") as file, pa.ipc.new_stream(file, whole.schema, options=options) as stream:
            stream.write_table(whole)

    def _path(self, bucket: int) -> Path:
        return self._folder / f"{bucket:06d}.arrows"


class _Runs(NamedTuple):
    """Rows of a piece with consecutive positions, by their first position."""

    starts: IntArray
    pieces: IntArray
    offsets: IntArray
    lengths: IntArray


class Reordered:
    """Rows of a bucket by position: ``pieces`` (one or more) hold each position from ``first`` on, in any order."""

    def __init__(self, pieces: Sequence[pa.RecordBatch], first: int) -> None:
        self._positions = [np.asarray(piece.column(POSITION)) - first for piece in pieces]
        self._pieces = [piece.drop_columns([POSITION]) for piece in pieces]
        self._runs = _find_runs(self._positions)

    def rows(self, start: int, end: int) -> pa.Table:
        """Return the rows from ``start`` on and before ``end``, counted from the first, without their positions."""
        runs = self._runs
        some = slice(int(np.searchsorted(runs.starts, start, "right")) - 1, int(np.searchsorted(runs.starts, end)))
        if (some.stop - some.start) * LONG_RUN_ROWS > end - start:
            return self._all.take(self._order[start:end])
        skipped = np.maximum(start - runs.starts[some], 0)
        lengths = np.minimum(runs.lengths[some], end - runs.starts[some]) - skipped
        parts = zip(runs.pieces[some].tolist(), (runs.offsets[some] + skipped).tolist(), lengths.tolist(), strict=True)
        return pa.Table.from_batches([self._pieces[piece].slice(offset, length) for piece, offset, length in parts])

    @cached_property
    def _all(self) -> pa.Table:
        return pa.Table.from_batches(self._pieces).combine_chunks()

    @cached_property
    def _order(self) -> IntArray:
        """Where in ``_all`` the row of each position is."""
        positions = np.concatenate(self._positions)
        order = np.empty(len(positions), dtype=np.int64)
        order[positions] = np.arange(len(positions), dtype=np.int64)
        return order


def _find_runs(positions: Sequence[IntArray]) -> _Runs:
    offsets = [np.append(0, np.flatnonzero(np.diff(each) != 1) + 1) for each in positions]
    starts = np.concatenate([each[begin] for each, begin in zip(positions, offsets, strict=True)])
    lengths = [np.diff(np.append(begin, len(each))) for each, begin in zip(positions, offsets, strict=True)]
    numbers = np.repeat(np.arange(len(positions)), list(map(len, offsets)))
    order = np.argsort(starts)
    return _Runs(starts[order], numbers[order], np.concatenate(offsets)[order], np.concatenate(lengths)[order])
