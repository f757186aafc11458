"""Results that wait for their row group, as the columns that they will be: no answer is kept, and no body."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.arrays import IntArray
from ddmpi.core.records import MIRRORS, REQUEST_HEADERS, REQUESTED
from ddmpi.io.folder.layout import PartKind
from ddmpi.io.results.rows import CheckRow, ErrorRow, ResultRow, SuccessRow
from ddmpi.io.results.schema import (
    CHECK,
    FILE_EPOCH,
    IMAGE,
    MISMATCH,
    PLACEHOLDER,
    ROW_NUMBER,
    SAME_AS,
    SIZE,
    TIMESTAMP,
    result_schema,
)

Column: TypeAlias = "pa.Array[Any] | pa.ChunkedArray[Any]"
Values: TypeAlias = "Sequence[Any]"

_LICENSE_COLUMNS: Final = ("license", "source", "title")
_OWN_COLUMNS: Final = frozenset(
    {ROW_NUMBER, "server_name", "uuid", "source_id", "identifier", *_LICENSE_COLUMNS, "reject"}
    | {MIRRORS, REQUESTED, REQUEST_HEADERS}
)
"""Columns of a batch that every table has; the others are kept ones, and the numbers of items."""

# Made once: without pandas, pyarrow 26 searches the whole path for it at each call of pa.scalar.
_NO_TEXT: Final = pa.scalar("")
_FALSE: Final = pa.scalar(value=False)


class RowBuffer:
    """Rows of one part, without their images.

    Args:
        refers: rows of a URL but the first name its uuid instead of having its image.
        marks: what is not as promised is told.
    """

    def __init__(self, kind: PartKind, *, refers: bool, marks: bool) -> None:
        self._kind: PartKind = kind
        self._refers = refers
        self._marks = marks
        self._places: list[int] = []  # of the rows in their batch
        self._counts: list[int] = []  # of rows, for each of the values
        self._values: list[tuple[Any, ...]] = []
        self._lefts: list[int] = []  # how many URLs each had left to ask; -1: it has asked for the first one, or none

    def __len__(self) -> int:
        return len(self._places)

    def add(self, row: ResultRow) -> None:
        """Take the rows of one URL."""
        self._places += row.rows
        self._counts.append(len(row.rows))
        if isinstance(row, SuccessRow):
            self._values.append(_of_success(row))
            left = row.answer.task.mirrors_left
        else:
            self._values.append(_of_error(row) if isinstance(row, ErrorRow) else _of_check(row))
            left = row.mirrors_left
        self._lefts.append(-1 if left is None else left)

    def schema(self, inputs: pa.Table) -> pa.Schema:
        """Return that of the part, the image included, beside these columns of the batch's rows."""
        kept = [pa.field(field.name, field.type) for field in inputs.schema if field.name not in _OWN_COLUMNS]
        rewrites = REQUESTED in inputs.column_names
        return result_schema(self._kind, kept, refers=self._refers, marks=self._marks, rewrites=rewrites)

    def take(self, inputs: pa.Table, placeholders: Collection[str]) -> pa.Table:
        """Return the rows beside the columns of their batch, and begin anew.

        Args:
            inputs: the batch's rows, with all columns of the urls folder.
            placeholders: the hashes of some.
        """
        taken = inputs.take(pa.array(self._places, pa.int64()))
        makers = _COLUMNS[self._kind]
        made = {
            name: make(values) for (name, make), values in zip(makers, zip(*self._values, strict=True), strict=True)
        }
        if self._kind == "successes":
            made[PLACEHOLDER] = pa.array([digest in placeholders for digest, *_ in self._values], pa.bool_())
        columns = _spread(made, self._counts)
        if REQUESTED in inputs.column_names:
            columns[REQUESTED] = _requested(taken, np.repeat(np.array(self._lefts, np.int64), self._counts))
        if self._kind == "successes":
            columns["is_license_full"] = is_license_full(taken)
            if self._refers:
                columns[SAME_AS] = _same_as(taken.column("uuid"), self._counts)
        self._places, self._counts, self._values, self._lefts = [], [], [], []
        schema = self.schema(inputs)
        if IMAGE in schema.names:
            schema = schema.remove(schema.get_field_index(IMAGE))
        arrays = [
            columns[field.name] if field.name in columns else taken.column(field.name).cast(field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(arrays, schema=schema)


def _of_success(row: SuccessRow) -> tuple[Any, ...]:
    answer = row.answer
    return (
        row.hashsum_original, row.hashsum_resized, row.original_size, row.resized_size, answer.status,
        answer.final_url, answer.content_type, row.original_bytes, answer.etag, answer.last_modified,
        answer.task.attempts, answer.fetched_at, answer.total_s * 1e3, answer.ttfb_s * 1e3, answer.ip, row.mismatch,
        answer.usage_signals, answer.warnings,
    )  # fmt: skip


def _of_error(row: ErrorRow) -> tuple[Any, ...]:
    failure = row.failure
    return (
        max(row.attempts - 1, 0), failure.code, failure.kind.value, failure.message, row.final_url, row.fetched_at,
        row.usage_signals,
    )  # fmt: skip


def _of_check(row: CheckRow) -> tuple[Any, ...]:
    failure = row.failure
    told = (None, "", "") if failure is None else (failure.code, failure.kind.value, failure.message)
    return (
        row.check, row.status or None, *told, row.final_url, row.etag, row.last_modified, row.attempts, row.fetched_at,
        row.usage_signals, row.file_epoch,
    )  # fmt: skip


def is_license_full(inputs: pa.Table) -> Column:
    """Return true where license, source and title are all there and not empty."""
    licensed, sourced, titled = (_is_present(inputs.column(name)) for name in _LICENSE_COLUMNS)
    return pc.and_(pc.and_(licensed, sourced), titled)


def _spread(columns: dict[str, Column], counts: Sequence[int]) -> dict[str, Column]:
    """Return columns in which each value stands so often."""
    if sum(counts) == len(counts):
        return columns
    places = np.repeat(np.arange(len(counts)), counts)
    return {name: column.take(places) for name, column in columns.items()}


def _same_as(uuids: Column, counts: Sequence[int]) -> Column:
    """Return for each row the uuid of the first one of its URL, null for that one."""
    firsts = np.repeat(np.cumsum(counts) - counts, counts)
    return uuids.take(pa.array(firsts, pa.int64(), mask=firsts == np.arange(len(firsts))))


def _requested(taken: pa.Table, lefts: IntArray) -> Column:
    """Return (n,) what was asked for last in each of these rows, null where it is the table's URL."""
    first = taken.column(REQUESTED)
    if MIRRORS not in taken.column_names:
        return first
    mirrors: Any = taken.column(MIRRORS).combine_chunks()
    counts = np.asarray(pc.list_value_length(mirrors).fill_null(0))
    moved = np.flatnonzero((lefts >= 0) & (lefts < counts))
    if not len(moved):
        return first
    given = zip(moved.tolist(), lefts[moved].tolist(), mirrors.take(moved).to_pylist(), strict=True)
    asked = first.to_pylist()
    for row, left, urls in given:
        url = urls[len(urls) - left - 1]
        asked[row] = None if url == taken.column("identifier")[row].as_py() else url
    return pa.array(asked, pa.string())


def _is_present(texts: pa.ChunkedArray[Any]) -> pa.BooleanArray:
    filled = pc.not_equal(texts.cast(pa.string()), _NO_TEXT)
    return cast("pa.BooleanArray", pc.fill_null(filled, _FALSE))


def _texts(values: Sequence[str]) -> Column:
    """Return texts as a column; empty means absent. Surrogates, of a server's odd bytes, become "?"."""
    try:
        return pa.array([value or None for value in values], pa.string())
    except UnicodeEncodeError:
        return pa.array([value.encode(errors="replace").decode() or None for value in values], pa.string())


def _timestamps(seconds: Sequence[float]) -> Column:
    return pa.array([round(value * 1e6) if value else None for value in seconds], pa.int64()).cast(TIMESTAMP)


def _of(kind: pa.DataType) -> Callable[[Values], Column]:
    return lambda values: pa.array(values, kind)


_SUCCESS_COLUMNS: Final[Sequence[tuple[str, Callable[[Values], Column]]]] = (
    ("hashsum_original", _of(pa.string())),
    ("hashsum_resized", _of(pa.string())),
    ("original_size", _of(SIZE)),
    ("resized_size", _of(SIZE)),
    ("status", _of(pa.int32())),
    ("final_url", _texts),
    ("content_type", _texts),
    ("bytes", _of(pa.int64())),
    ("etag", _texts),
    ("last_modified", _texts),
    ("attempts", _of(pa.int32())),
    ("fetched_at", _timestamps),
    ("total_ms", _of(pa.float32())),
    ("ttfb_ms", _of(pa.float32())),
    ("ip", _texts),
    (MISMATCH, _texts),
    ("usage_signals", _texts),
    ("warnings", _texts),
)
"""In the order of ``_of_success``."""
_ERROR_COLUMNS: Final[Sequence[tuple[str, Callable[[Values], Column]]]] = (
    ("retry_count", _of(pa.int32())),
    ("error_code", _of(pa.int32())),
    ("error_kind", _of(pa.string())),
    ("error_msg", _texts),
    ("final_url", _texts),
    ("fetched_at", _timestamps),
    ("usage_signals", _texts),
)
"""In the order of ``_of_error``."""
_CHECK_COLUMNS: Final[Sequence[tuple[str, Callable[[Values], Column]]]] = (
    (CHECK, _of(pa.string())),
    ("status", _of(pa.int32())),
    ("error_code", _of(pa.int32())),
    ("error_kind", _texts),
    ("error_msg", _texts),
    ("final_url", _texts),
    ("etag", _texts),
    ("last_modified", _texts),
    ("attempts", _of(pa.int32())),
    ("fetched_at", _timestamps),
    ("usage_signals", _texts),
    (FILE_EPOCH, _of(pa.int32())),
)
"""In the order of ``_of_check``."""
_COLUMNS: Final = {"successes": _SUCCESS_COLUMNS, "errors": _ERROR_COLUMNS, "checks": _CHECK_COLUMNS}
