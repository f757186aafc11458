"""The outcome of every row that has one, each once, as a pyarrow dataset over the parts on disk or in their store.

The newest outcome of a row counts: an error that ``--retry-failed`` fetched again stays on disk, but is not shown. What
the dataset shows is what was published when it was opened; a run may go on meanwhile, for parts are only ever added.

Each part is a fragment that knows its server, partition, epoch and outcome, so that a filter on one of these opens
no file that it excludes.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.errors import OutputError, StorageError
from ddmpi.io.folder.layout import (
    PART_KINDS,
    PARTITION_PREFIX,
    Layout,
    PartKind,
    PartName,
    parse_part_name,
    server_of_folder,
)
from ddmpi.io.results.outcomes import superseded_rows
from ddmpi.io.results.publishing import store_of
from ddmpi.io.results.schema import ROW_NUMBER, error_schema, success_schema

OUTCOMES: Final[dict[PartKind, str]] = {"successes": "success", "errors": "error"}
"""Values of the column ``outcome``."""
_FOLDER_FIELDS: Final[tuple[pa.Field[Any], ...]] = (
    pa.field("outcome", pa.string()),
    pa.field("server_name", pa.string()),
    pa.field("partition_id", pa.int64()),
    pa.field("epoch", pa.int32()),
)


class Part:
    """A published part, and what its path says."""

    def __init__(self, path: Path, server_name: str, partition_id: int, name: PartName) -> None:
        self.path = path
        self.server_name = server_name
        self.partition_id = partition_id
        self.name = name

    @property
    def knowledge(self) -> pc.Expression:
        """What is true of all rows of the part; the columns that are in no file get their values from it."""
        return (
            (pc.field("outcome") == OUTCOMES[self.name.kind])
            & (pc.field("server_name") == self.server_name)
            & (pc.field("partition_id") == self.partition_id)
            & (pc.field("epoch") == pa.scalar(self.name.epoch, pa.int32()))
        )


def current_outcomes(layout: Layout) -> ds.Dataset:
    """All rows with an outcome, by row number each once: columns of both tables, then outcome, server_name,
    partition_id and epoch. Columns that only the other table has are null.

    Raises:
        OutputError: there is no output folder.
        StorageError: a part, or a folder of parts, cannot be read.
    """
    if not layout.root.is_dir():
        raise OutputError(f"{layout.root}: no such folder")
    parts = [part for kind in PART_KINDS for part in published_parts(layout, kind)]
    schema = _schema(parts)
    file_format = ds.ParquetFileFormat()
    files = pyarrow.fs.LocalFileSystem()
    store = store_of(layout)
    objects = {} if store is None else store.sizes(layout.relative(layout.images))
    fragments = []
    for part in parts:
        name = layout.relative(part.path)
        if store is not None and name in objects:
            fragments.append(file_format.make_fragment(store.path(name), store.files, part.knowledge))
        else:
            fragments.append(file_format.make_fragment(str(part.path), files, part.knowledge))
    dataset: ds.Dataset = ds.FileSystemDataset(fragments, schema, file_format, files)
    superseded = _superseded(layout, parts)
    return dataset if superseded is None else dataset.filter(~superseded)


def published_parts(layout: Layout, kind: PartKind) -> Iterator[Part]:
    """The parts of one tree, in the order of their paths.

    Raises:
        StorageError: a folder cannot be listed.
    """
    for server in _folders(layout.parts_tree(kind)):
        server_name = server_of_folder(server.name)
        if server_name is None:
            continue
        for partition in _folders(Path(server.path)):
            number = partition.name.removeprefix(PARTITION_PREFIX)
            if not number.isdigit() or number == partition.name:
                continue
            for entry in _entries(Path(partition.path)):
                name = parse_part_name(entry.name)
                if name is not None and name.kind == kind:
                    yield Part(Path(entry.path), server_name, int(number), name)


def _folders(folder: Path) -> list[os.DirEntry[str]]:
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"cannot list {folder}: {error.strerror}") from error


def _schema(parts: Sequence[Part]) -> pa.Schema:
    """Kept columns are the same in all parts of a kind: the first one tells."""
    schemas: dict[PartKind, pa.Schema] = {"successes": success_schema(), "errors": error_schema()}
    for kind in PART_KINDS:
        # The part on disk may be without its images: the column is in the schema all the same.
        first = next((part for part in parts if part.name.kind == kind), None)
        if first is not None:
            schemas[kind] = pa.unify_schemas([schemas[kind], _schema_of(first)])
    return pa.unify_schemas([*schemas.values(), pa.schema(_FOLDER_FIELDS)])


def _schema_of(part: Part) -> pa.Schema:
    try:
        return pq.read_schema(part.path)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot read part {part.path}: {error}") from error


def _superseded(layout: Layout, parts: Sequence[Part]) -> pc.Expression | None:
    """Which outcomes no longer count; None where all do. A run gives a row one outcome: row and epoch identify it."""
    batches: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for part in parts:
        batches[part.server_name, part.partition_id].append(layout.relative(part.path))
    by_epoch: defaultdict[int, list[IntArray]] = defaultdict(list)
    for paths in batches.values():
        for epoch, rows in superseded_rows(layout, paths).items():
            by_epoch[epoch].append(rows)
    found: pc.Expression | None = None
    for epoch, rows_of_batches in sorted(by_epoch.items()):
        numbers = pa.array(np.concatenate(rows_of_batches))
        old = (pc.field("epoch") == pa.scalar(epoch, pa.int32())) & pc.field(ROW_NUMBER).isin(numbers)
        found = old if found is None else found | old
    return found
