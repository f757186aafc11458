"""One Parquet file of results under construction, from its first row group to its final name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from ddmpi.io.folder.durable import NewFile
from ddmpi.io.parquet.blob_file import BlobFile
from ddmpi.io.results.schema import IMAGE, UNLIKE


class PartFile:
    """A part in the temporary folder. A Parquet file has no footer before ``commit``: until then it cannot be read.

    Args:
        schema: of the part.

    Raises:
        StorageError: the file cannot be created; ``commit`` failed.
        OSError, pa.ArrowException: ``write`` failed.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.name = path.name
        self._file = NewFile(path)
        try:
            self._parquet = BlobFile(self._file, schema, IMAGE, UNLIKE)
        except BaseException:  # it writes its magic bytes already; no other code knows of the file yet
            self._file.discard()
            raise

    @property
    def size_bytes(self) -> int:
        return self._file.tell()

    def write(self, table: pa.Table, images: Sequence[bytes | None] = ()) -> None:
        """Append a row group: all columns but the images, and these, which are written page by page."""
        self._parquet.write(table, images)

    def commit(self, final: Path) -> None:
        """Write the footer, then make the file durable under its final name."""
        self._parquet.close()
        self._file.commit(final)

    def discard(self) -> None:
        """Remove the file; never raises for the disk's sake."""
        self._file.discard()
        self._parquet.abandon()
