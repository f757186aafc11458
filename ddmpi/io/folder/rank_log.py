"""Each rank has its own log file, which is rotated, and so has what a person was told of the run."""

from __future__ import annotations

import logging
import logging.handlers
from collections.abc import Callable

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


def run_log(layout: Layout, options: Logging) -> Callable[[str], None]:
    """Return what adds a line, with the time, to the log of what people are told, over all runs."""
    logging.raiseExceptions = False
    handler = logging.handlers.RotatingFileHandler(
        layout.logs / "run.log", maxBytes=options.file_bytes, backupCount=options.kept_files, encoding="utf-8",
        delay=True,
    )  # fmt: skip
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    return lambda line: handler.emit(logging.makeLogRecord({"msg": line}))
