"""Where metrics lie: logs/metrics.jsonl, which grows over all runs and stays small, and the Prometheus file.

Metrics are a courtesy: a disk that does not take them, or a damaged file, is told to the log and changes nothing.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from ddmpi.core.stats.metrics import Measurement, decode_lines, encode_line, prometheus_text, thinned
from ddmpi.errors import StorageError
from ddmpi.io.folder.durable import write_atomically

log = logging.getLogger(__name__)

MOST_BYTES: Final = 8 << 20
"""Where the history is thinned: two days at full resolution, then ever fewer lines of what is long ago."""
_TAIL_BYTES: Final = 1 << 16


class MetricsFile:
    """The history, one JSON line per measurement."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_broken = False

    def append(self, line: Measurement) -> None:
        """Add a line; a torn one that a kill has left is closed first, and then skipped by readers."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                size_bytes = file.seek(0, os.SEEK_END)
                if size_bytes:
                    file.seek(size_bytes - 1)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                file.write(encode_line(line))
            if size_bytes > MOST_BYTES:
                self._thin()
        except (OSError, StorageError) as error:
            self._complain(error)

    def _thin(self) -> None:
        lines = list(decode_lines(self.path.read_bytes().splitlines()))
        write_atomically(self.path, b"".join(map(encode_line, thinned(lines))))

    def _complain(self, error: Exception) -> None:
        """Once: a full disk would be told every interval."""
        if not self._is_broken:
            self._is_broken = True
            log.warning("metrics are not kept: %s", error)

    def last(self) -> Measurement | None:
        """The newest whole line, None without one."""
        try:
            with self.path.open("rb") as file:
                size_bytes = file.seek(0, os.SEEK_END)
                file.seek(max(0, size_bytes - _TAIL_BYTES))
                tail = list(decode_lines(file.read().splitlines()))
        except OSError:
            return None
        return tail[-1] if tail else None

    def read(self) -> list[Measurement]:
        """All whole lines, oldest first; none where there is no file."""
        try:
            return list(decode_lines(self.path.read_bytes().splitlines()))
        except OSError as error:
            log.debug("no metrics: %s", error)
            return []


class PrometheusFile:
    """The newest measurement, for a collector of text files."""

    def __init__(self, path: Path, output: str) -> None:
        self._path = path
        self._output = output
        self._is_broken = False

    def write(self, line: Measurement) -> None:
        """Replace the file: a collector sees the old numbers or the new ones."""
        try:
            write_atomically(self._path, prometheus_text(line, self._output).encode(errors="replace"))
        except StorageError as error:
            if not self._is_broken:
                self._is_broken = True
                log.warning("the Prometheus file is not kept: %s", error)
