"""The outcome of every row that has one, each once, as a pyarrow dataset over the parts on disk or in their store.

The newest outcome of a row counts: an error that ``--retry-failed`` fetched again stays on disk, but is not shown. What
the dataset shows is what was published when it was opened; a run may go on meanwhile, for parts are only ever added.

Each part is a fragment that knows its server, partition, epoch and outcome, so that a filter on one of these opens
no file that it excludes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.errors import OutputError, StorageError
from ddmpi.io.folder.layout import PART_KINDS, Layout, PartKind
from ddmpi.io.folder.markers import PublishedPart, published_parts
from ddmpi.io.results.outcomes import superseded_rows
from ddmpi.io.results.publishing import store_of
from ddmpi.io.results.schema import ROW_NUMBER, result_schema

OUTCOMES: Final[dict[PartKind, str]] = {"successes": "success", "errors": "error"}
"""Values of the column ``outcome``."""
_FOLDER_FIELDS: Final[tuple[pa.Field[Any], ...]] = (
    pa.field("outcome", pa.string()),
    pa.field("server_name", pa.string()),
    pa.field("partition_id", pa.int64()),
    pa.field("epoch", pa.int32()),
)


def current_outcomes(layout: Layout) -> ds.Dataset:
    """Return all rows with an outcome, by row number each once: columns of both tables, then outcome, server_name,
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
            fragments.append(file_format.make_fragment(store.path(name), store.files, _knowledge(part)))
        else:
            fragments.append(file_format.make_fragment(str(part.path), files, _knowledge(part)))
    dataset: ds.Dataset = ds.FileSystemDataset(fragments, schema, file_format, files)
    superseded = _superseded(layout, parts)
    return dataset if superseded is None else dataset.filter(~superseded)


def _knowledge(part: PublishedPart) -> pc.Expression:
    """Return what is true of all rows of the part; the columns that are in no file get their values from it."""
    return (
        (pc.field("outcome") == OUTCOMES[part.name.kind])
        & (pc.field("server_name") == part.server_name)
        & (pc.field("partition_id") == part.partition_id)
        & (pc.field("epoch") == pa.scalar(part.name.epoch, pa.int32()))
    )


def _schema(parts: Sequence[PublishedPart]) -> pa.Schema:
    """Return the schema of both kinds; kept columns are alike in all parts of a kind: the first one tells."""
    schemas: dict[PartKind, pa.Schema] = {kind: result_schema(kind) for kind in PART_KINDS}
    for kind in PART_KINDS:
        # The part on disk may be without its images: the column is in the schema all the same.
        first = next((part for part in parts if part.name.kind == kind), None)
        if first is not None:
            schemas[kind] = pa.unify_schemas([schemas[kind], _schema_of(first)])
    return pa.unify_schemas([*schemas.values(), pa.schema(_FOLDER_FIELDS)])


def _schema_of(part: PublishedPart) -> pa.Schema:
    try:
        return pq.read_schema(part.path)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot read part {part.path}: {error}") from error


def _superseded(layout: Layout, parts: Sequence[PublishedPart]) -> pc.Expression | None:
    """Return which outcomes no longer count, None where all do. Row and epoch identify an outcome: a run gives one."""
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
