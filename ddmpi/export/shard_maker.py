"""One shard, from its row groups to its final name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.errors import StorageError
from ddmpi.export.options import Options
from ddmpi.export.plan import RowGroup, Shard, reading
from ddmpi.export.selection import choose
from ddmpi.export.target import Picture, ShardWriter, Target
from ddmpi.io.folder.layout import Layout
from ddmpi.io.results.schema import ROW_NUMBER, SAME_AS, holders_of, with_all_columns

PORTION_BYTES: Final = 64 << 20
"""Images that are handed to a shard at once."""


class ShardCounts(msgspec.Struct):
    """What became of a shard's rows: ``rows == exported + sum(left_out.values())``."""

    rows: int = 0
    exported: int = 0
    left_out: dict[str, int] = {}
    """Rows by reason."""
    damaged: list[int] = []
    """Row numbers of images that their digest or the decoder found damaged."""
    told: Any = None
    """What the target's ``finish`` has to know of it."""

    def leave_out(self, reason: str, rows: int = 1) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + rows


@dataclass(frozen=True)
class ShardMaker:
    """The shards of one rank, below ``folder``; ``look`` is that of ``selection.make_look``."""

    layout: Layout
    target: Target
    folder: Path
    temporary: Path
    options: Options
    duplicates: npt.NDArray[np.int64]
    look: Callable[[bytes, str], Picture | str]
    replaced: Mapping[str, IntArray] = field(default_factory=dict)
    """By part the row numbers whose file there does not count, see ``plan.replaced_rows``."""

    def make(self, shard: Shard, name: str) -> ShardCounts:
        """Write one shard; none where no row of it is exported. Raises StorageError: a part cannot be read, or the
        target cannot be written."""
        counts = ShardCounts()
        try:
            writer = self.target.open(name, self.temporary, self.folder)
            try:
                self._fill(writer, shard, counts)
            except BaseException:  # whatever it was, nothing half-written stays
                writer.discard()
                raise
        except OSError as error:
            raise StorageError(f"cannot write {name} in {self.folder}: {error.strerror or error}") from error
        return counts

    def _fill(self, writer: ShardWriter, shard: Shard, counts: ShardCounts) -> None:
        for group in shard:
            rows, pictures = self._choose(group, counts)
            if not self.target.reads_images:
                writer.add(rows, pictures)
            for part in _portions(pictures):
                writer.add(rows.slice(part.start, part.stop - part.start), pictures[part])
        if counts.exported:
            counts.told = writer.commit()
        else:
            writer.discard()

    def _choose(self, group: RowGroup, counts: ShardCounts) -> tuple[pa.Table, list[Picture]]:
        """Return the rows of a group to export, without their image, and their images; count the others."""
        rows, images, holders = self._read(group, counts)
        if images is None:
            counts.exported += rows.num_rows
            return rows, []
        original, resized = (rows.column(f"hashsum_{name}").to_pylist() for name in ("original", "resized"))
        is_good = np.ones(rows.num_rows, np.bool_)
        pictures: list[Picture] = []
        looked_at: dict[int, Picture | str] = {}
        for index, holder in enumerate(holders.tolist()):
            found = looked_at.get(holder)
            if found is None:
                stated = str(resized[index] or original[index])
                found = looked_at[holder] = self.look(images[holder].as_py(), stated)
            if isinstance(found, Picture):
                pictures.append(found)
            else:
                is_good[index] = False
                counts.leave_out(found)
                counts.damaged.append(rows.column(ROW_NUMBER)[index].as_py())
        counts.exported += len(pictures)
        return rows.filter(pa.array(is_good)), pictures

    def _read(
        self, group: RowGroup, counts: ShardCounts
    ) -> tuple[pa.Table, pa.ChunkedArray[pa.LargeBinaryScalar] | None, IntArray]:
        """Return the rows that their columns let pass, the images of the group, which are read only where there are
        such rows and the target wants them, and where among these that of each row is."""
        with reading(self.layout, group.part) as path, pq.ParquetFile(path) as file:
            rows = file.read_row_group(group.group, columns=[n for n in file.schema_arrow.names if n != "image"])
            holders = holders_of(rows)
            if SAME_AS in rows.column_names:
                rows = rows.drop_columns([SAME_AS])
            rows = with_all_columns(rows)
            if group.part in self.replaced:
                is_current = ~np.isin(rows.column(ROW_NUMBER).to_numpy(), self.replaced[group.part])
                rows, holders = rows.filter(pa.array(is_current)), holders[is_current]
            counts.rows += rows.num_rows
            kept, left_out = choose(rows, self.options, self.duplicates)
            for reason, number in left_out.items():
                counts.leave_out(reason, number)
            images = None
            if self.target.reads_images and kept.any():
                images = file.read_row_group(group.group, columns=["image"]).column("image")
        return rows.filter(pa.array(kept)), images, holders[kept]


def _portions(pictures: Sequence[Picture]) -> Iterator[slice]:
    """Cut images into portions: many rows may have the same one, which is written for each of them."""
    start = size_bytes = 0
    for index, picture in enumerate(pictures):
        size_bytes += len(picture.body)
        if size_bytes >= PORTION_BYTES or index == len(pictures) - 1:
            yield slice(start, index + 1)
            start, size_bytes = index + 1, 0
