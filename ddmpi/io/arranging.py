"""Rows that lie about in pieces, given out in the order of their positions in the output.

A piece has its rows in that order already, those of one server side by side. Where such runs are long they are copied
run by run; where they are short (many servers, a row here and there), row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np
import pyarrow as pa

from ddmpi.partition import IntArray

POSITION: Final = "__position__"
"""The column that says where in the output a row of a piece belongs."""
LONG_RUN_ROWS: Final = 24
"""A run costs some 4 us to copy, whatever its length, a row taken by its index 0.2 us."""

Piece: TypeAlias = pa.RecordBatch


class Arranged(Protocol):
    """Rows by position, counted from the first."""

    def rows(self, start: int, end: int) -> pa.Table:
        """The rows from ``start`` on and before ``end``, without their positions."""


def arrange(pieces: Sequence[Piece], first: int) -> Arranged:
    """``pieces`` (at least one) together hold every position from ``first`` on, once; each of them ascending."""
    positions = [np.asarray(piece.column(POSITION)) for piece in pieces]
    bare = [piece.drop_columns([POSITION]) for piece in pieces]
    runs = _find_runs(positions, first)
    if len(runs.starts) * LONG_RUN_ROWS <= sum(map(len, positions)):
        return _ByRun(bare, runs)
    return _ByRow(bare, np.concatenate(positions) - first)


class _Runs(NamedTuple):
    """Rows of a piece with consecutive positions, by their first position."""

    starts: IntArray
    pieces: IntArray
    offsets: IntArray
    lengths: IntArray


def _find_runs(positions: Sequence[IntArray], first: int) -> _Runs:
    offsets = [np.append(0, np.flatnonzero(np.diff(each) != 1) + 1) for each in positions]
    starts = np.concatenate([each[begin] for each, begin in zip(positions, offsets, strict=True)]) - first
    lengths = [np.diff(np.append(begin, len(each))) for each, begin in zip(positions, offsets, strict=True)]
    numbers = np.repeat(np.arange(len(positions)), list(map(len, offsets)))
    order = np.argsort(starts)
    return _Runs(starts[order], numbers[order], np.concatenate(offsets)[order], np.concatenate(lengths)[order])


class _ByRun:
    def __init__(self, pieces: Sequence[Piece], runs: _Runs) -> None:
        self._pieces = pieces
        self._runs = runs

    def rows(self, start: int, end: int) -> pa.Table:
        runs = self._runs
        some = slice(int(np.searchsorted(runs.starts, start, side="right")) - 1, np.searchsorted(runs.starts, end))
        skipped = np.maximum(start - runs.starts[some], 0)
        lengths = np.minimum(runs.lengths[some], end - runs.starts[some]) - skipped
        parts = zip(runs.pieces[some].tolist(), (runs.offsets[some] + skipped).tolist(), lengths.tolist(), strict=True)
        return pa.Table.from_batches([self._pieces[piece].slice(offset, length) for piece, offset, length in parts])


class _ByRow:
    def __init__(self, pieces: Sequence[Piece], positions: IntArray) -> None:
        self._all = pa.Table.from_batches(pieces).combine_chunks()
        self._order = np.empty(len(positions), dtype=np.int64)
        self._order[positions] = np.arange(len(positions), dtype=np.int64)

    def rows(self, start: int, end: int) -> pa.Table:
        return self._all.take(self._order[start:end])
