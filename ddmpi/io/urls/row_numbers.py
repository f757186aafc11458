"""The server's number of every row, on disk between the two passes over an input that does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np

from ddmpi.io.urls.server_tally import Numbers

_BYTES_EACH: Final = 4


class NumberFile:
    """Four bytes per row: written from the first row to the last, then read in the same order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("x+b")

    def __enter__(self) -> NumberFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink()

    def append_all(self, batches: Iterable[Numbers]) -> None:
        """Add the next rows."""
        for numbers in batches:
            self._file.write(numbers.tobytes())

    def rewind(self) -> None:
        """Call between the last ``append_all`` and the first ``take``."""
        self._file.seek(0)

    def take(self, rows: int) -> Numbers:
        """The numbers of the next rows; fewer where there are no more."""
        return np.frombuffer(self._file.read(rows * _BYTES_EACH), dtype=np.int32)
