"""The outcome of every row that has one, each once, as a pyarrow dataset over the parts on disk or in their store.

The newest outcome of a row counts, or the newest at some moment: an error that ``--retry-failed`` fetched again stays
on disk, and so does a file that a refresh has found changed. What the dataset shows is what was published when it was
opened; a run may go on meanwhile, for parts are only ever added.

Each part is a fragment that knows its server, partition, epoch and outcome, so that a filter on one of these opens
no file that it excludes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.errors import OutputError, StorageError
from ddmpi.io.folder.layout import ROW_KINDS, Layout, PartKind, part_of
from ddmpi.io.folder.markers import PublishedPart, published_parts
from ddmpi.io.results.outcomes import outcomes_of, superseded_rows
from ddmpi.io.results.publishing import store_of
from ddmpi.io.results.schema import ROW_NUMBER, result_schema

OUTCOMES: Final[dict[PartKind, str]] = {"successes": "success", "errors": "error", "checks": "check"}
"""Values of the column ``outcome``."""
_FOLDER_FIELDS: Final[tuple[pa.Field[Any], ...]] = (
    pa.field("outcome", pa.string()),
    pa.field("server_name", pa.string()),
    pa.field("partition_id", pa.int64()),
    pa.field("epoch", pa.int32()),
)


def current_outcomes(layout: Layout, at: float | None = None) -> ds.Dataset:
    """Return all rows with an outcome, by row number each once: columns of both tables, then outcome, server_name,
    partition_id and epoch. Columns that only the other table has are null.

    Args:
        at: as of this moment (seconds since 1970); None: as of now.

    Raises:
        OutputError: there is no output folder.
        StorageError: a part, or a folder of parts, cannot be read.
    """
    if not layout.root.is_dir():
        raise OutputError(f"{layout.root}: no such folder")
    parts = [part for kind in ROW_KINDS for part in published_parts(layout, kind)]
    schema = _schema(parts, ROW_KINDS)
    checks = list(published_parts(layout, "checks"))
    return _dataset(layout, parts, schema, _superseded(layout, [*parts, *checks], at))


def current_checks(layout: Layout) -> ds.Dataset:
    """Return the newest check of each row that has one since its file came, each once; otherwise as
    ``current_outcomes``."""
    if not layout.root.is_dir():
        raise OutputError(f"{layout.root}: no such folder")
    checks = list(published_parts(layout, "checks"))
    others = [part for kind in ROW_KINDS for part in published_parts(layout, kind)] if checks else []
    counting: defaultdict[int, list[IntArray]] = defaultdict(list)
    for paths in _by_batch(layout, [*checks, *others]).values():
        if any(part_of(path).kind == "checks" for path in paths):
            outcomes = outcomes_of(layout, paths)
            is_check = np.array([bool(check) for check in outcomes.checks], np.bool_)
            for epoch in np.unique(outcomes.epochs[is_check]).tolist():
                counting[epoch].append(outcomes.rows[is_check & (outcomes.epochs == epoch)])
    schema = _schema(checks, ("checks",))
    shown = _any_of(counting)
    return _dataset(layout, checks if shown is not None else [], schema, None if shown is None else ~shown)


def _dataset(
    layout: Layout, parts: Sequence[PublishedPart], schema: pa.Schema, left_out: pc.Expression | None
) -> ds.Dataset:
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
    return dataset if left_out is None else dataset.filter(~left_out)


def _knowledge(part: PublishedPart) -> pc.Expression:
    """Return what is true of all rows of the part; the columns that are in no file get their values from it."""
    return (
        (pc.field("outcome") == OUTCOMES[part.name.kind])
        & (pc.field("server_name") == part.server_name)
        & (pc.field("partition_id") == part.partition_id)
        & (pc.field("epoch") == pa.scalar(part.name.epoch, pa.int32()))
    )


def _schema(parts: Sequence[PublishedPart], kinds: Sequence[PartKind]) -> pa.Schema:
    """Return the schema of all these kinds; kept columns are alike in all parts of a kind: the first one tells."""
    schemas: dict[PartKind, pa.Schema] = {kind: result_schema(kind) for kind in kinds}
    for kind in kinds:
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


def _superseded(layout: Layout, parts: Sequence[PublishedPart], at: float | None) -> pc.Expression | None:
    """Return which outcomes do not count, None where all do. Row and epoch identify an outcome: a run gives one."""
    by_epoch: defaultdict[int, list[IntArray]] = defaultdict(list)
    for paths in _by_batch(layout, parts).values():
        for epoch, rows in superseded_rows(layout, paths, at).items():
            by_epoch[epoch].append(rows)
    return _any_of(by_epoch)


def _by_batch(layout: Layout, parts: Sequence[PublishedPart]) -> dict[tuple[str, int], list[str]]:
    """Return the paths of the parts of each batch."""
    batches: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for part in parts:
        batches[part.server_name, part.partition_id].append(layout.relative(part.path))
    return batches


def _any_of(by_epoch: Mapping[int, Sequence[IntArray]]) -> pc.Expression | None:
    """Return whether an outcome is one of these rows' of a run; None where there are none."""
    found: pc.Expression | None = None
    for epoch, rows_of_batches in sorted(by_epoch.items()):
        numbers = pa.array(np.concatenate(rows_of_batches))
        these = (pc.field("epoch") == pa.scalar(epoch, pa.int32())) & pc.field(ROW_NUMBER).isin(numbers)
        found = these if found is None else found | these
    return found
