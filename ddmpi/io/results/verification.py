"""Does law 1 hold for a batch? Answered from the files alone, without trust in checkpoint, ledger or marker.

Every row of the batch must have exactly one outcome that counts, the newest. Older ones are legitimate only in earlier
epochs: errors, as such a row was fetched again; checks; and files that a refresh has found to be others since. A check
is an outcome together with the file that it is about. Anything else is a fault and is counted or named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.core.records import BatchRef
from ddmpi.errors import StorageError
from ddmpi.io.folder.layout import Layout, PartKind, PartName, part_of
from ddmpi.io.folder.markers import parts_of, read_completed
from ddmpi.io.results.damage import PART_ERRORS
from ddmpi.io.results.digests import Digest, make_digest
from ddmpi.io.results.outcomes import RowReader, is_on
from ddmpi.io.results.publishing import is_thin, object_bytes, with_images
from ddmpi.io.results.schema import FILE_EPOCH, ROW_NUMBER, holders_of

Objects: TypeAlias = "Mapping[str, int]"
"""Objects of a store and their bytes, by the paths of the parts that they are."""


class PartRows(NamedTuple):
    """The outcomes of n rows in a part."""

    part: PartName
    rows: IntArray
    """(n,) their numbers."""
    file_epochs: IntArray | None = None
    """(n,) of checks: the runs that the files are from."""
    digests: Sequence[str] = ()
    """(n,) of successes, where the batch has some of several runs."""


_ERROR, _CHECK, _SUCCESS = range(3)
_KINDS: Final[dict[PartKind, int]] = {"errors": _ERROR, "checks": _CHECK, "successes": _SUCCESS}


@dataclass(frozen=True)
class _Tally:
    """What the outcomes of one batch come to, in rows."""

    successes: int
    errors: int
    superseded: int
    """Older outcomes of rows that were fetched again; legitimate."""
    doubled: int
    """Rows with outcomes that exclude each other."""
    unknown: int
    """Outcomes of rows that the batch does not have."""
    fileless: int
    """Rows whose newest outcome is a check of a file that is not there: they have to be fetched again."""


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
        return not (self.doubled or self.unknown or self.fileless or self.unreadable or self.damaged or self.marker)


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
    outcomes: list[PartRows] = []
    unreadable: list[str] = []
    damaged: list[str] = []
    paths = parts_of(layout, batch)
    names = map(part_of, paths)
    with_digests = len({name.epoch for name in names if name.kind == "successes"}) > 1
    for path in paths:
        problem = _read_part(layout, path, outcomes, damaged, rehash, with_digests=with_digests)
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


def _read_part(
    layout: Layout,
    path: str,
    outcomes: list[PartRows],
    damaged: list[str],
    rehash: str | None,
    *,
    with_digests: bool,
) -> str:
    """Add what a part says; returns why it cannot be read, or ""."""
    try:
        outcomes.append(_part_rows(layout, path, with_digests=with_digests))
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


def _all_rows(outcomes: Sequence[PartRows]) -> IntArray:
    return np.concatenate([np.empty(0, np.int64), *(each.rows for each in outcomes)])


def _tally(outcomes: Sequence[PartRows], expected_rows: IntArray) -> _Tally:
    """Return what the outcomes of one batch come to, as columns: 10,000 rows are no reason for Python objects."""
    rows, counts = _all_rows(outcomes), [each.rows.size for each in outcomes]
    epochs = np.repeat([each.part.epoch for each in outcomes], counts).astype(np.int64)
    kinds = np.repeat([_KINDS[each.part.kind] for each in outcomes], counts).astype(np.int64)
    of_files = (
        np.zeros(each.rows.size, np.int64) if each.file_epochs is None else each.file_epochs for each in outcomes
    )
    file_epochs = np.concatenate([np.empty(0, np.int64), *of_files])
    known = np.isin(rows, expected_rows)
    order = np.flatnonzero(known)[np.lexsort((kinds[known], epochs[known], rows[known]))]
    unknown = int(np.count_nonzero(~known))
    rows, epochs, kinds, file_epochs = rows[order], epochs[order], kinds[order], file_epochs[order]
    # Sorted by row, then epoch: the newest outcome of a row stands last in its run.
    is_newest = np.append(rows[1:] != rows[:-1], np.ones(min(rows.size, 1), np.bool_))
    newest_of = np.searchsorted(rows, rows, side="right") - 1
    is_replaced = (kinds != _SUCCESS) | (
        (kinds[newest_of] != _ERROR) & ~_repeated(outcomes, rows, epochs, kinds, order)
    )
    is_legitimate = is_newest | ((epochs < epochs[newest_of]) & is_replaced)
    is_file, is_check = kinds == _SUCCESS, is_newest & (kinds == _CHECK)
    files = set(zip(rows[is_file].tolist(), epochs[is_file].tolist(), strict=True)) if is_check.any() else set()
    checked = zip(rows[is_check].tolist(), file_epochs[is_check].tolist(), strict=True)
    fileless = sum(pair not in files for pair in checked)
    errors = int(np.count_nonzero(is_newest & (kinds == _ERROR)))
    return _Tally(
        successes=int(np.count_nonzero(is_newest)) - errors - fileless,
        errors=errors,
        superseded=int(np.count_nonzero(is_legitimate & ~is_newest)),
        doubled=int(np.unique(rows[~is_legitimate]).size),
        unknown=unknown,
        fileless=fileless,
    )


def _repeated(
    outcomes: Sequence[PartRows], rows: IntArray, epochs: IntArray, kinds: IntArray, order: IntArray
) -> npt.NDArray[np.bool_]:
    """Return (n,) after which successes the row has the same file once more: one of them is too many.

    Args:
        rows, epochs, kinds: (n,) of the outcomes, by row and epoch.
        order: (n,) where they are in all parts together.
    """
    repeated = np.zeros(rows.size, np.bool_)
    places = np.flatnonzero(kinds == _SUCCESS)
    again = np.flatnonzero(rows[places][1:] == rows[places][:-1])
    starts = np.cumsum([0, *(each.rows.size for each in outcomes)])

    def digest_of(place: int) -> str:
        part = int(np.searchsorted(starts, place, side="right")) - 1
        return outcomes[part].digests[place - int(starts[part])]

    for older, newer in zip(places[again].tolist(), places[again + 1].tolist(), strict=True):
        is_same_run = epochs[older] == epochs[newer]
        repeated[older] = is_same_run or digest_of(int(order[older])) == digest_of(int(order[newer]))
    return repeated


def _part_rows(layout: Layout, path: str, *, with_digests: bool) -> PartRows:
    part = part_of(path)
    is_checks, has_digests = part.kind == "checks", with_digests and part.kind == "successes"
    with pq.ParquetFile(layout.root / path, page_checksum_verification=True) as file:
        table = file.read([ROW_NUMBER, *[FILE_EPOCH] * is_checks, *["hashsum_original"] * has_digests])
    rows: IntArray = table.column(ROW_NUMBER).to_numpy()
    file_epochs = table.column(FILE_EPOCH).to_numpy().astype(np.int64) if is_checks else None
    digests = [str(digest) for digest in table.column("hashsum_original").to_pylist()] if has_digests else []
    return PartRows(part, rows, file_epochs, digests)


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
