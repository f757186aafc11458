"""One Parquet file under construction, from its first row group to its final name."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, cast

from ddmpi.io.folder.durable import NewFile
from ddmpi.io.results.schema import open_parquet

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


class PartFile:
    """A part in the temporary folder. A Parquet file has no footer before ``commit``: until then nobody can read it.

    Raises:
        StorageError: the file cannot be created; ``commit`` failed.
        OSError, pa.ArrowException: ``write`` failed.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.name = path.name
        self._file = NewFile(path)
        try:
            self._parquet = open_parquet(cast("IO[bytes]", self._file), schema)
        except BaseException:  # it writes its magic bytes already; nobody else knows of the file yet
            self._file.discard()
            raise

    @property
    def size_bytes(self) -> int:
        return self._file.tell()

    def write(self, table: pa.Table) -> None:
        """Append ``table`` as one row group."""
        self._parquet.write_table(table, row_group_size=max(table.num_rows, 1))

    def commit(self, final: Path) -> None:
        """Write the footer, then make the file durable under its final name."""
        self._parquet.close()
        self._file.commit(final)

    def discard(self) -> None:
        """Remove the file; never raises for the disk's sake."""
        self._file.discard()
        # Arrow closes an open writer when it is collected, and would complain there about the file that is gone.
        self._parquet.is_open = False
