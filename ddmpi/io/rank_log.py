"""Each rank has its own log file, which is rotated."""

from __future__ import annotations

import logging
import logging.handlers

from ddmpi.io.layout import Layout

LOG_BYTES = 16 << 20
LOG_FILES = 4


def log_to_file(layout: Layout, rank: int) -> None:
    """Log to the rank's own file, from now on; a disk that takes no more log does not stop the run."""
    root = logging.getLogger()
    if any(isinstance(handler, logging.handlers.RotatingFileHandler) for handler in root.handlers):
        return
    logging.raiseExceptions = False
    path = layout.logs / f"rank-{rank:05d}.log"
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, delay=True)
    handler.setFormatter(logging.Formatter(f"%(asctime)s rank {rank} %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
