"""Each rank has its own log file, which is rotated, and so has what a person was told of the run."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers

from ddmpi.config.sections import Logging
from ddmpi.io.folder.layout import Layout


def log_to_file(layout: Layout, rank: int, options: Logging) -> None:
    """Log to the rank's own file, from now on; a disk that takes no more log does not stop the run. Only our own lines
    are more at "debug": those of libraries may hold anything."""
    root = logging.getLogger()
    if any(isinstance(handler, logging.handlers.RotatingFileHandler) for handler in root.handlers):
        return
    logging.raiseExceptions = False
    path = layout.logs / f"rank-{rank:05d}.log"
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=options.file_bytes, backupCount=options.kept_files, encoding="utf-8", delay=True
    )
    handler.setFormatter(logging.Formatter(f"%(asctime)s rank {rank} %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("ddmpi").setLevel(options.level.upper())


class RunLog:
    """The log of what people are told, over all runs; a disk that takes no more of it does not stop the run."""

    def __init__(self, layout: Layout, options: Logging) -> None:
        logging.raiseExceptions = False
        self._handler = logging.handlers.RotatingFileHandler(
            layout.logs / "run.log", maxBytes=options.file_bytes, backupCount=options.kept_files, encoding="utf-8",
            delay=True,
        )  # fmt: skip
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))

    def add(self, line: str) -> None:
        """Add a line, with the time."""
        self._handler.emit(logging.makeLogRecord({"msg": line}))

    def close(self) -> None:
        """Give the file back; what the disk has not taken of it is lost."""
        with contextlib.suppress(OSError):
            self._handler.close()
