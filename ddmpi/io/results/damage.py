"""Parts that are no good any more: how they are told from a disk that fails, and where they go.

A part is written once, and its rename is durable. Yet files are cut, changed and deleted: by a disk, a file system's
repair, a person. Such a part is *set aside*, below ``damaged/`` under its own path, and its rows are pending again.
What is left of it may still be looked at, and nothing else is lost with it.

A disk that fails says so with an errno. It may well read the same file a minute later, so nothing is moved for it.
"""

from __future__ import annotations

import logging
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.errors import StorageError
from ddmpi.io.folder.durable import publish
from ddmpi.io.folder.layout import Layout
from ddmpi.io.results.publishing import Publisher

log = logging.getLogger(__name__)

PART_ERRORS: Final = (OSError, pa.ArrowException, KeyError, IndexError, UnicodeDecodeError)
"""What Arrow raises for a file that is no Parquet file, not a whole one, or of other columns."""


class DamagedPartError(StorageError):
    """The file of a part can be read, and is not the part that was written."""

    def __init__(self, part: str, text: str) -> None:
        super().__init__(text)
        self.part = part
        """Its path relative to the output folder."""


def read_columns(layout: Layout, part: str, columns: list[str]) -> pa.Table:
    """Return columns of a part, with the checksums of their pages checked.

    Raises:
        DamagedPartError: it is damaged.
        StorageError: it is missing, or the disk fails.
    """
    path = layout.root / part
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns).select(columns)  # read() leaves out what is not there
    except PART_ERRORS as error:
        text = f"cannot read part {path}: {error}"
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(text) from error
        raise DamagedPartError(part, text) from error


def set_aside(layout: Layout, part: str, publisher: Publisher | None) -> None:
    """Move a damaged part out of the results. The marker of its batch has to be gone before: a kill must not leave a
    batch that counts as complete without it. Raises StorageError: the disk or the store fails."""
    if publisher is not None:
        publisher.store.remove(part)  # first: an object without its part would be nobody's
    publish(layout.root / part, layout.damaged / part)
    log.warning("set aside %s: its rows are fetched again", layout.damaged / part)
