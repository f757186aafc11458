"""The parts that are exported, and their row groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.errors import OutputError, StorageError
from ddmpi.export.plan import RowGroup
from ddmpi.io.folder.layout import Layout
from ddmpi.io.results.dataset import published_parts
from ddmpi.io.results.publishing import with_images


def success_parts(layout: Layout) -> list[str]:
    """All parts with images, relative to the output folder, in the order of their paths.

    Raises:
        OutputError: there are none.
        StorageError: a folder cannot be listed.
    """
    parts = [layout.relative(part.path) for part in published_parts(layout, "successes")]
    if not parts:
        raise OutputError(f"{layout.images}: no images of a ddmpi job are here")
    return parts


def row_groups(layout: Layout, part: str) -> list[RowGroup]:
    """The row groups of one part, as its footer tells.

    Raises:
        StorageError: it cannot be read.
    """
    with reading(layout, part) as path, pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        return [
            RowGroup(part, index, group.num_rows, sum(_stored_bytes(group)))
            for index, group in enumerate(groups)
            if group.num_rows
        ]


@contextmanager
def reading(layout: Layout, part: str) -> Iterator[Path | pa.NativeFile]:
    """A part with all of its columns, from the disk or an object store; what goes wrong with it names it.

    Raises:
        StorageError: it cannot be read.
    """
    path = layout.root / part
    try:
        yield with_images(layout, part)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise StorageError(f"cannot read part {path}: {error}") from error


def _stored_bytes(group: pq.RowGroupMetaData) -> Iterator[int]:
    return (group.column(index).total_compressed_size for index in range(group.num_columns))
