"""One Parquet file of results under construction, from its first row group to its final name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import IO, Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.io.folder.durable import NewFile

_WRITE_BATCH_ROWS: Final = 32
"""Arrow looks at the page size (1 MB) after this many values: with its default of 1,024 images make pages of 30 MB."""


class PartFile:
    """A part in the temporary folder. A Parquet file has no footer before ``commit``: until then it cannot be read.

    Raises:
        StorageError: the file cannot be created; ``commit`` failed.
        OSError, pa.ArrowException: ``write`` failed.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.name = path.name
        self._file = NewFile(path)
        try:
            self._parquet = _open_parquet(cast("IO[bytes]", self._file), schema)
        except BaseException:  # it writes its magic bytes already; no other code knows of the file yet
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


def _open_parquet(sink: IO[bytes], schema: pa.Schema) -> pq.ParquetWriter:
    """Open a writer for one part. Bodies are compressed already: they are stored plainly, without dictionary or
    statistics. Pages carry a CRC32, so that a flipped byte is found in any column and not only in the images."""
    others = [path for path in _leaf_paths(schema) if path != "image"]
    return pq.ParquetWriter(
        sink,
        schema,
        compression=dict.fromkeys(others, "zstd"),
        use_dictionary=others,  # type: ignore[arg-type]  # the stubs know only bool
        write_statistics=others,
        write_batch_size=_WRITE_BATCH_ROWS,
        write_page_checksum=True,
    )


@lru_cache(maxsize=8)
def _leaf_paths(schema: pa.Schema) -> tuple[str, ...]:
    """Return Parquet's own names of the columns: lists and structs among the kept ones have several or longer ones."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return tuple(leaves.column(i).path for i in range(len(leaves)))
