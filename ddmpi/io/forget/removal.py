"""Withdrawn rows of a batch: their images leave its parts for good, and they become errors that say so.

A kill between any two steps loses nothing and counts nothing twice; the same command goes on from there:

    what is withdrawn is durable (``names``): from here on no run fetches it
    -> the marker of the batch is gone -> copies outside of the parts are gone
    -> each part that has such rows is replaced by one without them, in one rename
    -> their errors are durable -> the marker is back

In between, rows may be pending; a run that comes first makes them the same errors. In a store a part is replaced as it
was published: the disk first, then the object, which ``Publisher.settle`` does again after a kill.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.core.protocol import PartReport
from ddmpi.core.records import MIRRORS, REQUESTED, BatchRef, ErrorKind
from ddmpi.errors import StorageError
from ddmpi.io.folder import durable
from ddmpi.io.folder.disk_errors import named_disk_errors
from ddmpi.io.folder.layout import PART_KINDS, part_of
from ddmpi.io.folder.markers import Marker, parts_of, read_completed, remove_completed, write_completed
from ddmpi.io.folder.placeholders import read_placeholders, write_placeholders
from ddmpi.io.forget.names import FAILURE, URL_COLUMNS, Forgotten, Mask
from ddmpi.io.results.damage import PART_ERRORS, read_columns
from ddmpi.io.results.outcomes import outcomes_of
from ddmpi.io.results.part_file import PartFile
from ddmpi.io.results.parts import Parts, ResultOptions
from ddmpi.io.results.publishing import with_images
from ddmpi.io.results.rows import ErrorRow
from ddmpi.io.results.schema import IMAGE, ROW_NUMBER, SAME_AS, holders_of

_FOUND_BY: Final = ("uuid", "identifier")


@dataclass(frozen=True)
class Removed:
    """What has left the results."""

    images: int = 0
    """Files, old ones that a refresh has found changed included."""
    rows: int = 0
    """Rows that had one."""
    others: int = 0
    """Rows that had no image, and have become errors that say that they are withdrawn."""
    parts: int = 0
    """That were rewritten, or deleted since all of their rows were withdrawn."""
    kinds: tuple[str, ...] = ()
    """The errors of ``others`` before: those that are left out were pending."""


@dataclass(frozen=True)
class Found:
    """Withdrawn rows of one batch."""

    batch: BatchRef
    rows: IntArray
    """(w,) their row numbers, sorted."""
    urls: dict[int, frozenset[str]]
    """All that is known of each one's URLs."""
    names: set[str]
    """By which they were found."""


def find(options: ResultOptions, batch: BatchRef, forgotten: Forgotten) -> Found:
    """Return the rows of a batch that are withdrawn: by the table, and by where redirects led, if names are URLs.

    Raises:
        OutputError: the urls folder cannot be read.
        StorageError: a part cannot be read.
    """
    config = options.config
    columns = [ROW_NUMBER, *_FOUND_BY, *[MIRRORS] * config.has_mirrors, *[REQUESTED] * config.rewrites]
    tables = [options.reader.read(batch, columns)]
    if any("://" in name for name in forgotten.names):
        parts = [part for part in parts_of(options.layout, batch) if part_of(part).kind == "successes"]
        tables += [read_columns(options.layout, part, [ROW_NUMBER, *_FOUND_BY, "final_url"]) for part in parts]
    names: set[str] = set()
    urls: dict[int, frozenset[str]] = {}
    for table in tables:
        mask, found = forgotten.withdrawn(table)
        names |= found
        for row in table.filter(mask).to_pylist():
            own = frozenset(row[name] for name in URL_COLUMNS if row.get(name)).union(row.get(MIRRORS) or ())
            urls[row[ROW_NUMBER]] = urls.get(row[ROW_NUMBER], frozenset()) | own
    return Found(batch, np.array(sorted(urls), np.int64), urls, names)


class Remover:
    """Removes withdrawn rows, batch by batch. The output folder is this process's, and its epoch open.

    Args:
        options: ``rank`` is 0, as no rank runs.
    """

    def __init__(self, options: ResultOptions) -> None:
        self._options = options
        self._layout = options.layout
        self._publisher = options.publisher
        self._errors = Parts(options, (), self._publish, lambda _: None)

    def remove(self, found: Found) -> Removed:
        """Remove the withdrawn rows of one batch, or what an interrupted removal has left of them.

        Raises:
            StorageError: the disk or the store fails; what is named there is as it was, or as it is to be.
            OutputError: the urls folder cannot be read.
        """
        try:
            return self._remove(found)
        except (OSError, pa.ArrowException) as error:
            folder = self._layout.parts_folder("successes", found.batch.server_name, found.batch.partition_id)
            raise StorageError(f"cannot remove rows from {folder}: {error}") from error

    def _remove(self, found: Found) -> Removed:
        layout, batch = self._layout, found.batch
        marker = read_completed(layout, batch)
        parts = parts_of(layout, batch)
        outcomes = outcomes_of(layout, parts)
        kinds = dict(zip(outcomes.rows.tolist(), outcomes.kinds, strict=True))
        before = {row: kinds.get(row) for row in found.rows.tolist()}
        untold = [row for row, kind in before.items() if kind != ErrorKind.FORGOTTEN.value]
        holding = {part: mask for part in parts if (mask := self._withdrawn_in(part, found.rows)).any()}
        if untold or holding:
            remove_completed(layout, batch)
            self._remove_copies(batch, holding)
        for part, mask in holding.items():
            self._rewrite(part, mask)
        if untold:
            self._tell(batch, untold)
        if self._publisher is not None:
            self._publisher.settle(parts_of(layout, batch))
        self._mark(batch, marker)
        images = int(sum(np.count_nonzero(mask) for mask in holding.values()))
        others = [kind for kind in before.values() if kind not in {"", ErrorKind.FORGOTTEN.value}]
        rows = sum(kind == "" for kind in before.values())
        return Removed(images, rows, len(others), len(holding), tuple(kind for kind in others if kind))

    def _withdrawn_in(self, part: str, rows: IntArray) -> Mask:
        """Return (n,) which successes of a part are withdrawn; of other outcomes none are, as they have no image."""
        if part_of(part).kind != "successes":
            return np.zeros(0, np.bool_)
        numbers = read_columns(self._layout, part, [ROW_NUMBER]).column(ROW_NUMBER).to_numpy()
        return np.isin(numbers, rows)

    def _remove_copies(self, batch: BatchRef, holding: dict[str, Mask]) -> None:
        """Remove what may show the images beside the parts."""
        layout = self._layout
        for kind in PART_KINDS:
            folder = layout.relative(layout.parts_folder(kind, batch.server_name, batch.partition_id))
            if (layout.damaged / folder).exists():
                shutil.rmtree(layout.damaged / folder)
        if not holding:
            return
        layout.report.unlink(missing_ok=True)
        digests = reduce(or_, (self._digests(part, mask) for part, mask in holding.items()))
        known = read_placeholders(layout.placeholders)
        if any(each.image and each.hashsum_original in digests for each in known):
            shown = [replace(each, image=b"") if each.hashsum_original in digests else each for each in known]
            write_placeholders(layout.placeholders, shown, layout.temporary)

    def _digests(self, part: str, mask: Mask) -> set[str]:
        digests: list[Any] = read_columns(self._layout, part, ["hashsum_original"]).filter(mask).column(0).to_pylist()
        return set(digests)

    def _rewrite(self, part: str, withdrawn: Mask) -> None:
        """Replace a part by one without some of its rows; delete it where none are left."""
        path = self._layout.root / part
        if withdrawn.all():
            if self._publisher is not None:
                self._publisher.store.remove(part)  # first: an object without its part would be nobody's
            with named_disk_errors("cannot delete", path):
                durable.os_unlink(path)
                durable.fsync_path(path.parent)
            return
        try:
            with pq.ParquetFile(with_images(self._layout, part), page_checksum_verification=True) as old:
                new = PartFile(self._layout.epoch_temporary(self._options.epoch) / path.name, old.schema_arrow)
                try:
                    first = 0
                    for group in range(old.num_row_groups):
                        rows = old.read_row_group(group)
                        _write_kept(new, rows, withdrawn[first : first + len(rows)])
                        first += len(rows)
                    new.commit(path)
                except BaseException:
                    new.discard()
                    raise
        except PART_ERRORS as error:
            raise StorageError(f"cannot rewrite part {path}: {error}") from error
        if self._publisher is not None:
            self._publisher.publish(part, new.size_bytes)

    def _tell(self, batch: BatchRef, rows: Sequence[int]) -> None:
        """Store that these rows are withdrawn."""
        numbers = self._options.reader.read(batch, [ROW_NUMBER]).column(ROW_NUMBER).to_numpy()
        self._errors.add(batch, ErrorRow(tuple(np.flatnonzero(np.isin(numbers, rows)).tolist()), FAILURE, 0))
        self._errors.close(None)

    def _publish(self, report: PartReport) -> None:
        if self._publisher is not None:
            self._publisher.publish(report.path, report.bytes)

    def _mark(self, batch: BatchRef, before: Marker | None) -> None:
        """Write the marker of a batch whose rows have outcomes, all but those that the last one says are ignored."""
        outcomes = outcomes_of(self._layout, parts_of(self._layout, batch))
        done = len(outcomes.rows)
        left = batch.rows - done
        if left > (0 if before is None else before.ignored):
            return
        marker = Marker(done, outcomes.successes, outcomes.errors, outcomes.count_kinds(), left)
        if marker != before:
            write_completed(self._layout, batch, marker)


def _write_kept(new: PartFile, rows: pa.Table, withdrawn: Mask) -> None:
    """Write a row group without the withdrawn rows. Where others refer to the image of one, the first of these has it
    from now on, and the rest refer to that one."""
    kept = np.flatnonzero(~withdrawn)
    if not len(kept):
        return
    images: pa.ChunkedArray[Any] = rows.column(IMAGE)
    holders = holders_of(rows)
    heirs = {int(holders[place]): int(place) for place in reversed(kept.tolist()) if withdrawn[holders[place]]}
    bodies = []
    for place in kept.tolist():
        holder = int(holders[place])
        is_held = heirs.get(holder, holder) == place
        bodies.append(images[holder].as_py() if is_held else None)
    if heirs:
        rows = _with_heirs(rows, holders, heirs)
    new.write(rows.drop_columns([IMAGE]).take(kept), bodies)


def _with_heirs(rows: pa.Table, holders: IntArray, heirs: dict[int, int]) -> pa.Table:
    """Return the rows, in which those that referred to a withdrawn one refer to its heir, and that to none."""
    uuids = rows.column("uuid").to_pylist()
    refers = rows.column(SAME_AS).to_pylist()
    for place, holder in enumerate(holders.tolist()):
        if holder in heirs:
            refers[place] = None if heirs[holder] == place else uuids[heirs[holder]]
    column = rows.column_names.index(SAME_AS)
    return rows.set_column(column, rows.schema.field(column), pa.array(refers, pa.string()))
