"""Where bare rows wait, once their position in the output is known, for the part of the output that they belong to.

A shelf is a range of output positions. Pieces may come in any order; those of one shelf are taken away together.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Protocol

import pyarrow as pa


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

    A file is a row of complete IPC streams, one per append: no file stays open, however many shelves there are.
    """

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._pending = MemoryShelves()
        self._pending_shelves: set[int] = set()
        self._pending_bytes = 0

    def put(self, shelf: int, piece: pa.RecordBatch) -> None:
        self._pending.put(shelf, piece)
        self._pending_shelves.add(shelf)
        self._pending_bytes += piece.nbytes
        if self._pending_bytes > self._memory_bytes:
            self.finish()

    def finish(self) -> None:
        for shelf in sorted(self._pending_shelves):
            self._append(shelf, self._pending.take(shelf))
        self._pending_shelves.clear()
        self._pending_bytes = 0

    def take(self, shelf: int) -> list[pa.RecordBatch]:
        path = self._path(shelf)
        if not path.exists():
            return []
        pieces: list[pa.RecordBatch] = []
        with pa.OSFile(str(path), "r") as file:
            while file.tell() < file.size():
                with pa.ipc.open_stream(file) as stream:
                    pieces.extend(stream)
        path.unlink()
        return pieces

    def _append(self, shelf: int, pieces: list[pa.RecordBatch]) -> None:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with (
            self._path(shelf).open("ab") as file,
            pa.ipc.new_stream(file, pieces[0].schema, options=options) as stream,
        ):
            for piece in pieces:
                stream.write_batch(piece)

    def _path(self, shelf: int) -> Path:
        return self._folder / f"{shelf:06d}.arrows"
