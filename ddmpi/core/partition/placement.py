"""Batches to places in files, and rows to places in the output.

Decides: which row group of which file each batch is in, and at which position of the output each row stands.
Must not know: what a file is made of, where rows wait, how many fit into memory. It works on numpy arrays.

Invariants: a batch lies within one row group, a row group within one file, both in the order of the batches; rows of a
server (where it has ``sections``: of one of these) keep the order of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ddmpi.core.arrays import IntArray

ROW_GROUP_ROWS: Final = 10_000
"""A row group is closed once it has so many rows: what one read of a batch decodes at least."""
FILE_ROWS: Final = 1_000_000
"""About what a file has: few files for the metadata server, enough of them to write in parallel."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A place for each batch, as columns: ``offset`` counts rows from the row group's first, ``first_row`` from the
    file's; and the rows of each row group of each file."""

    file: IntArray
    row_group: IntArray
    offset: IntArray
    first_row: IntArray
    files: list[IntArray]


def lay_out(batch_rows: IntArray) -> Placement:
    """Fill row groups and files with batches, in order; each is closed once it is full (see the constants).

    The files are of about the same size. There is one per ``FILE_ROWS`` at most, and of several an even number, for two
    threads to share.
    """
    batch_ends = np.cumsum(batch_rows, dtype=np.int64)
    total = int(batch_ends[-1]) if len(batch_ends) else 0
    files = max(1, total // FILE_ROWS)
    full_rows = max(1, -(-total // (files - files % 2 if files > 1 else 1)))
    group_starts = _fill(batch_ends, ROW_GROUP_ROWS)
    group_ends = batch_ends[np.append(group_starts[1:], len(batch_rows)) - 1] if total else batch_ends
    file_starts = _fill(group_ends, full_rows)
    group_of = np.searchsorted(group_starts, np.arange(len(batch_rows)), side="right") - 1
    file_of = np.searchsorted(file_starts, group_of, side="right") - 1
    row_starts = batch_ends - batch_rows
    group_row_starts = row_starts[group_starts]
    return Placement(
        file=file_of,
        row_group=group_of - file_starts[file_of],
        offset=row_starts - group_row_starts[group_of],
        first_row=row_starts - group_row_starts[file_starts][file_of],
        files=np.split(group_ends - group_row_starts, file_starts[1:]) if total else [],
    )


def _fill(ends: IntArray, full_rows: int) -> IntArray:
    """Where each container begins, when one is closed as soon as it has ``full_rows``. ``ends`` are rows, added up."""
    starts = []
    start = 0
    while start < len(ends):
        starts.append(start)
        before = int(ends[start - 1]) if start else 0
        start = int(np.searchsorted(ends, before + full_rows, side="left")) + 1
    return np.array(starts, np.int64)


class Destinations:
    """Hands out output positions to rows that come in input order. ``ranks`` are servers' positions in the output."""

    def __init__(self, rows_by_rank: npt.ArrayLike) -> None:
        rows = np.asarray(rows_by_rank, dtype=np.int64)
        self._ends: IntArray = np.cumsum(rows, dtype=np.int64)
        self._next: IntArray = self._ends - rows
        self._sort_type = np.uint16 if len(rows) <= 0x10000 else np.uint32

    def take(self, ranks: npt.NDArray[np.int32]) -> tuple[IntArray, IntArray]:
        """``(rows, positions)``: the rows, sorted by their positions in the output, and these."""
        # numpy sorts 16-bit keys by radix, four times as fast as wider ones
        rows = np.argsort(ranks.astype(self._sort_type), kind="stable")
        if not len(rows):
            return rows, rows
        ranked = ranks[rows]
        starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))
        counts = np.diff(np.append(starts, len(ranked)))
        heads = ranked[starts]
        positions = np.arange(len(ranked), dtype=np.int64) + np.repeat(self._next[heads] - starts, counts)
        self._next[heads] += counts
        return rows, positions

    @property
    def complete(self) -> bool:
        """Whether every position was handed out exactly once."""
        return bool(np.array_equal(self._next, self._ends))
