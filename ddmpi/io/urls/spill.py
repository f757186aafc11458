"""Where bare rows wait, once their position in the output is known, for the part of the output that they belong to.

A shelf is a range of output positions. Pieces may come in any order; those of one shelf are taken away together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa

_SMALL_PIECE_ROWS: Final = 4096
"""Smaller pieces are made one before they are written: each buffer of each piece costs a call to the compressor."""


class Shelves(Protocol):
    """What both kinds can do. ``put`` is called from one thread, ``take`` afterwards from any."""

    def put(self, shelf: int, piece: pa.RecordBatch) -> None:
        """Add rows to a shelf."""

    def finish(self) -> None:
        """Call between the last ``put`` and the first ``take``."""

    def take(self, shelf: int) -> list[pa.RecordBatch]:
        """All pieces of a shelf, which is empty afterwards."""


class MemoryShelves:
    """For tables that fit."""

    def __init__(self) -> None:
        self._pieces: defaultdict[int, list[pa.RecordBatch]] = defaultdict(list)

    def put(self, shelf: int, piece: pa.RecordBatch) -> None:
        self._pieces[shelf].append(piece)

    def finish(self) -> None:
        """Nothing is pending here."""

    def take(self, shelf: int) -> list[pa.RecordBatch]:
        return self._pieces.pop(shelf, [])


class DiskShelves:
    """For tables that do not: a scratch file per shelf, appended to whenever ``memory_bytes`` are pending.

    ``start`` begins a call in another thread: while that one compresses and writes, as much again may become pending.
    A file is a row of complete IPC streams, one per append: no file stays open, however many shelves there are.
    """

    def __init__(self, folder: Path, memory_bytes: int, start: Callable[[Callable[[], None]], Future[None]]) -> None:
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._start = start
        self._pending: defaultdict[int, list[pa.RecordBatch]] = defaultdict(list)
        self._pending_bytes = 0
        self._appending: list[Future[None]] = []

    def put(self, shelf: int, piece: pa.RecordBatch) -> None:
        self._pending[shelf].append(piece)
        self._pending_bytes += piece.nbytes
        if self._pending_bytes > self._memory_bytes:
            self.finish()
            self._appending = [self._start(partial(self._append, *item)) for item in sorted(self._pending.items())]
            self._pending = defaultdict(list)
            self._pending_bytes = 0

    def finish(self) -> None:
        """Wait for what is being written; what is pending may stay so."""
        for append in self._appending:
            append.result()
        self._appending = []

    def take(self, shelf: int) -> list[pa.RecordBatch]:
        path = self._path(shelf)
        pieces: list[pa.RecordBatch] = []
        if path.exists():
            with pa.OSFile(str(path), "r") as file:
                while file.tell() < file.size():
                    with pa.ipc.open_stream(file) as stream:
                        pieces.extend(stream)
            path.unlink()
        return pieces + self._pending.pop(shelf, [])

    def _append(self, shelf: int, pieces: list[pa.RecordBatch]) -> None:
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        whole = pa.Table.from_batches(pieces)
        if len(whole) < _SMALL_PIECE_ROWS * len(pieces):
            whole = whole.combine_chunks()
        with self._path(shelf).open("ab") as file, pa.ipc.new_stream(file, whole.schema, options=options) as stream:
            stream.write_table(whole)

    def _path(self, shelf: int) -> Path:
        return self._folder / f"{shelf:06d}.arrows"
