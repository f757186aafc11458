"""Batches as the ranks read them: each from its row group of the urls folder alone."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.records import BatchRef
from ddmpi.errors import OutputError
from ddmpi.io.folder.disk_errors import one_line

_OPEN_FILES: Final = 8
"""Files that one reader keeps open: the batches of a rank lie near each other, but not all in one file."""


_ROW_GROUPS: Final = 2
"""Row groups that are kept: of small servers one holds dozens of batches, which are read one after the other, once for
their URLs and once for what goes into the results."""


class BatchReader:
    """Reads batches of a urls folder, each from its row group alone. May be used from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._groups: OrderedDict[tuple[str, int, tuple[str, ...] | None], pa.Table] = OrderedDict()
        self._lock = threading.Lock()  # a ParquetFile has one file position: two reads at once would mix

    def read(self, batch: BatchRef, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the batch's rows, in input order, with these columns (None: all), in this order. Raises OutputError:
        the file is missing or damaged, or does not have these rows or columns."""
        path = self._folder / batch.file
        try:
            with self._lock:
                group = self._row_group(batch, None if columns is None else tuple(columns))
            rows = group.slice(batch.offset, batch.rows)
            rows = rows if columns is None else rows.select(list(columns))
        except (OSError, IndexError, KeyError, pa.ArrowException) as error:
            raise OutputError(f"{path}: cannot read batch {batch.batch_id}: {one_line(error)}") from error
        if rows.num_rows != batch.rows:
            raise OutputError(f"{path}: row group {batch.row_group} ends within batch {batch.batch_id}")
        return rows

    def close(self) -> None:
        """Close all files; the next ``read`` opens them again."""
        with self._lock:
            self._groups.clear()
            while self._files:
                self._files.popitem()[1].close()

    def _row_group(self, batch: BatchRef, columns: tuple[str, ...] | None) -> pa.Table:
        key = batch.file, batch.row_group, columns
        group = self._groups.get(key)
        if group is None:
            file = self._open(batch.file)
            group = file.read_row_group(batch.row_group, columns=None if columns is None else list(columns))
            if group.num_rows == batch.rows:
                return group  # no other batch has rows in it
            self._groups[key] = group
            if len(self._groups) > _ROW_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return group

    def _open(self, name: str) -> pq.ParquetFile:
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = pq.ParquetFile(self._folder / name, page_checksum_verification=True)
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(name)
        return file
