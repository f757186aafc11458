"""Does law 1 hold for a batch? Answered from the files alone, without trust in checkpoint, ledger or marker.

Every row of the batch must have exactly one outcome that counts, the newest. Older ones are legitimate only as errors
of earlier epochs: such a row was fetched again. Anything else is a fault and is counted or named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.core.records import BatchRef
from ddmpi.errors import StorageError
from ddmpi.io.folder.layout import Layout, PartName, part_of
from ddmpi.io.folder.markers import parts_of, read_completed
from ddmpi.io.results.damage import PART_ERRORS
from ddmpi.io.results.digests import Digest, make_digest
from ddmpi.io.results.outcomes import is_on
from ddmpi.io.results.parts import RowReader
from ddmpi.io.results.publishing import is_thin, object_bytes, with_images
from ddmpi.io.results.schema import ROW_NUMBER, holders_of

Objects: TypeAlias = "Mapping[str, int]"
"""Objects of a store and their bytes, by the paths of the parts that they are."""
_PartRows: TypeAlias = "tuple[PartName, IntArray]"
"""A part, and the numbers of the rows whose outcomes it has."""


@dataclass(frozen=True)
class _Tally:
    """What the outcomes of one batch come to, in rows."""

    successes: int
    errors: int
    superseded: int
    """Older errors of rows that were fetched again; legitimate."""
    doubled: int
    """Rows with outcomes that exclude each other."""
    unknown: int
    """Outcomes of rows that the batch does not have."""


@dataclass(frozen=True)
class BatchCheck(_Tally):
    """What the files say of one batch; all counts are rows of its input. ``rows == successes + errors + pending +
    ignored`` always; the batch is completed if ``ok`` and nothing is pending."""

    rows: int
    pending: int
    ignored: int
    """Rows on ignored servers without an outcome."""
    unreadable: list[str]
    """Parts that cannot be read, with reason."""
    damaged: list[str]
    """Rows whose image is not what its digest says (only with ``rehash``)."""
    marker: str
    """What is wrong with the ``completed`` marker, or ""."""

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts law 1; rows may still be pending."""
        return not (self.doubled or self.unknown or self.unreadable or self.damaged or self.marker)


def check_batch(
    layout: Layout,
    reader: RowReader,
    batch: BatchRef,
    ignored_rows: int,
    *,
    rehash: str | None = None,
    objects: Objects | None = None,
) -> BatchCheck:
    """Check one batch of the urls folder.

    Args:
        ignored_rows: how many of its rows are on ignored servers.
        rehash: a hash algorithm: read everything, check Parquet's page checksums and the images' digests.
        objects: what the store of a published dataset has; each part must be there with all of its bytes.

    Raises:
        StorageError: a folder cannot be listed, or the marker cannot be read.
        OutputError: the urls folder cannot be read.
    """
    inputs = reader.read(batch, [ROW_NUMBER, "server_name"] if batch.ignored else [ROW_NUMBER])
    numbers = inputs.column(ROW_NUMBER).to_numpy()
    ignored = numbers if ignored_rows else numbers[:0]
    if batch.ignored:
        ignored = numbers[is_on(inputs.column("server_name"), batch.ignored)]
    outcomes: list[_PartRows] = []
    unreadable: list[str] = []
    damaged: list[str] = []
    for path in parts_of(layout, batch):
        problem = _read_part(layout, path, outcomes, damaged, rehash)
        if objects is not None and not problem:
            problem = _unpublished(layout, path, objects)
        if problem:
            unreadable.append(f"{path}: {problem}")
    tally = _tally(outcomes, numbers)
    left_out = int(np.count_nonzero(~np.isin(ignored, _all_rows(outcomes))))
    return BatchCheck(
        **asdict(tally),
        rows=batch.rows,
        pending=batch.rows - tally.successes - tally.errors - left_out,
        ignored=left_out,
        unreadable=unreadable,
        damaged=damaged,
        marker=_marker_problem(layout, batch, tally),
    )


def _read_part(layout: Layout, path: str, outcomes: list[_PartRows], damaged: list[str], rehash: str | None) -> str:
    """Add what a part says; returns why it cannot be read, or ""."""
    try:
        outcomes.append((part_of(path), _row_numbers(layout, path)))
        if rehash is not None:
            damaged.extend(_damaged_rows(layout, path, make_digest(rehash)))
    except (*PART_ERRORS, StorageError) as error:
        return str(error)
    return ""


def _unpublished(layout: Layout, path: str, objects: Objects) -> str:
    """Return why a part that can be read is not the one in the store, or ""."""
    expected, found = object_bytes(layout.root / path), objects.get(path)
    if found is None:
        return "is not in the store" if is_thin(layout.root / path) else "is not in the store yet: start the job again"
    return "" if found == expected else f"has {found} bytes in the store, not {expected}"


def _all_rows(outcomes: Sequence[_PartRows]) -> IntArray:
    return np.concatenate([np.empty(0, np.int64), *(rows for _, rows in outcomes)])


def _tally(outcomes: Sequence[_PartRows], expected_rows: IntArray) -> _Tally:
    """Return what the outcomes of one batch come to, as columns: 10,000 rows are no reason for Python objects."""
    rows, counts = _all_rows(outcomes), [part_rows.size for _, part_rows in outcomes]
    epochs = np.repeat([part.epoch for part, _ in outcomes], counts)
    are_successes = np.repeat([part.kind == "successes" for part, _ in outcomes], counts).astype(np.bool_)
    known = np.isin(rows, expected_rows)
    unknown = int(np.count_nonzero(~known))
    order = np.lexsort((are_successes[known], epochs[known], rows[known]))
    rows, epochs, are_successes = rows[known][order], epochs[known][order], are_successes[known][order]
    # Sorted by row, then epoch: the newest outcome of a row stands last in its run.
    is_newest = np.append(rows[1:] != rows[:-1], np.ones(min(rows.size, 1), np.bool_))
    newest_of = np.searchsorted(rows, rows, side="right") - 1
    is_legitimate = is_newest | (~are_successes & (epochs < epochs[newest_of]))
    successes = int(np.count_nonzero(is_newest & are_successes))
    return _Tally(
        successes=successes,
        errors=int(np.count_nonzero(is_newest)) - successes,
        superseded=int(np.count_nonzero(is_legitimate & ~is_newest)),
        doubled=int(np.unique(rows[~is_legitimate]).size),
        unknown=unknown,
    )


def _row_numbers(layout: Layout, path: str) -> IntArray:
    with pq.ParquetFile(layout.root / path, page_checksum_verification=True) as file:
        return file.read([ROW_NUMBER]).column(ROW_NUMBER).to_numpy()


def _damaged_rows(layout: Layout, path: str, digest: Digest) -> Iterator[str]:
    with pq.ParquetFile(with_images(layout, path), page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):  # one at a time: a part is larger than a rank's memory budget
            table = file.read_row_group(group)
            if "image" in table.column_names:
                yield from (f"{path}: row {row}" for row in _wrong_digests(table, digest))


def _wrong_digests(table: pa.Table, digest: Digest) -> Iterator[int]:
    """Yield the rows of a row group whose bytes, or those of the row that they refer to, are others."""
    columns = [table.column(name) for name in (ROW_NUMBER, "hashsum_original", "hashsum_resized")]
    holders, images = holders_of(table), table.column("image")
    found: dict[int, str] = {}
    for place, (row, original, resized) in enumerate(zip(*columns, strict=True)):
        holder = int(holders[place])
        if holder not in found:
            image = images[holder].as_buffer()
            found[holder] = "" if image is None else digest(memoryview(image))
        if found[holder] != (resized.as_py() or original.as_py()):
            yield row.as_py()


def _marker_problem(layout: Layout, batch: BatchRef, tally: _Tally) -> str:
    marked = read_completed(layout, batch)
    if marked is None:
        path = layout.completed(batch.server_name, batch.partition_id)
        return "the marker cannot be read" if path.exists() else ""
    said = (marked.rows + marked.ignored, marked.successes, marked.errors)
    found = (batch.rows, tally.successes, tally.errors)
    if said == found:
        return ""
    return f"the marker says rows, successes, errors = {said}, the parts say {found}"
