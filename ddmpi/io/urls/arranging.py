"""Rows that lie about in pieces, given out in the order of their positions in the output.

A piece is made of batches whose rows have that order already, those of one server side by side. Where such runs are
long they are copied run by run; where they are short (many servers, a row here and there), row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from ddmpi.core.partition.partition import IntArray

POSITION: Final = "__position__"
"""The column that says where in the output a row of a piece belongs."""
LONG_RUN_ROWS: Final = 64
"""A run costs some 10 us to copy, whatever its length, a row taken by its index 0.15 us."""


class _Runs(NamedTuple):
    """Rows of a piece with consecutive positions, by their first position."""

    starts: IntArray
    pieces: IntArray
    offsets: IntArray
    lengths: IntArray


class Arranged:
    """``pieces`` (at least one) together hold every position from ``first`` on, once, in any order."""

    def __init__(self, pieces: Sequence[pa.RecordBatch], first: int) -> None:
        self._positions = [np.asarray(piece.column(POSITION)) - first for piece in pieces]
        self._pieces = [piece.drop_columns([POSITION]) for piece in pieces]
        self._runs = _find_runs(self._positions)

    def rows(self, start: int, end: int) -> pa.Table:
        """The rows from ``start`` on and before ``end``, counted from the first, without their positions."""
        runs = self._runs
        some = slice(int(np.searchsorted(runs.starts, start, "right")) - 1, int(np.searchsorted(runs.starts, end)))
        if (some.stop - some.start) * LONG_RUN_ROWS > end - start:
            return self._all.take(self._order[start:end])
        skipped = np.maximum(start - runs.starts[some], 0)
        lengths = np.minimum(runs.lengths[some], end - runs.starts[some]) - skipped
        parts = zip(runs.pieces[some].tolist(), (runs.offsets[some] + skipped).tolist(), lengths.tolist(), strict=True)
        return pa.Table.from_batches([self._pieces[piece].slice(offset, length) for piece, offset, length in parts])

    @cached_property
    def _all(self) -> pa.Table:
        return pa.Table.from_batches(self._pieces).combine_chunks()

    @cached_property
    def _order(self) -> IntArray:
        """Where in ``_all`` the row of each position is."""
        positions = np.concatenate(self._positions)
        order = np.empty(len(positions), dtype=np.int64)
        order[positions] = np.arange(len(positions), dtype=np.int64)
        return order


def _find_runs(positions: Sequence[IntArray]) -> _Runs:
    offsets = [np.append(0, np.flatnonzero(np.diff(each) != 1) + 1) for each in positions]
    starts = np.concatenate([each[begin] for each, begin in zip(positions, offsets, strict=True)])
    lengths = [np.diff(np.append(begin, len(each))) for each, begin in zip(positions, offsets, strict=True)]
    numbers = np.repeat(np.arange(len(positions)), list(map(len, offsets)))
    order = np.argsort(starts)
    return _Runs(starts[order], numbers[order], np.concatenate(offsets)[order], np.concatenate(lengths)[order])
