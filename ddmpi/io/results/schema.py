"""The two tables of results: their schemas, defined once, and the way from buffered rows to Arrow.

Both hold the columns that docs/output.md lists, then ``row_number`` and the kept input columns. ``row_number`` is
the row's position in the input: it alone identifies the row, since a table may bring uuids of its own that repeat.

``image`` is ``large_binary``: an Arrow ``binary`` array ends at 2 GB, and readers that join the chunks of a column
(``combine_chunks``, pandas, a sort) would fail on any dataset of more. In the Parquet file both are BYTE_ARRAY.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.arrays import IntArray
from ddmpi.errors import ConfigError
from ddmpi.io.folder.layout import PartKind
from ddmpi.io.results.body_column import BodyColumn
from ddmpi.io.results.rows import ErrorRow, ResultRow, SuccessRow

Column: TypeAlias = "pa.Array[Any] | pa.ChunkedArray[Any]"

ROW_NUMBER: Final = "row_number"
SAME_AS: Final = "same_as"
"""The uuid of the row that has this row's bytes; there only with ``duplicates: reference``. That row stands before it
in its row group, with no others between them but such as refer to it too."""
MISMATCH: Final = "expected_mismatch"
"""What is not as the table promises, null where nothing is; there only with ``expected.on_mismatch: keep``."""
_LICENSE_COLUMNS: Final = ("license", "source", "title")
_OWN_COLUMNS: Final = frozenset(
    {ROW_NUMBER, "server_name", "uuid", "source_id", "identifier", *_LICENSE_COLUMNS, "reject", "mirrors"}
)
"""Columns of a batch that every table has; the others are kept ones, and the numbers of items."""


# Made once: without pandas, pyarrow 26 searches the whole path for it at each call of pa.scalar.
_NO_TEXT: Final = pa.scalar("")
_FALSE: Final = pa.scalar(value=False)

_TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
_SIZE: Final = pa.list_(pa.int32())


def _of(kind: pa.DataType, *names: str) -> list[pa.Field[Any]]:
    return [pa.field(name, kind) for name in names]


_FIELDS: Final[dict[PartKind, list[pa.Field[Any]]]] = {
    "successes": [
        *_of(pa.string(), "uuid", "source_id", "identifier"),
        *_of(pa.bool_(), "is_license_full"),
        *_of(pa.string(), "license", "source", "title", "hashsum_original", "hashsum_resized"),
        *_of(_SIZE, "original_size", "resized_size"),
        *_of(pa.large_binary(), "image"),
        *_of(pa.int32(), "status"),
        *_of(pa.string(), "final_url", "content_type"),
        *_of(pa.int64(), "bytes"),
        *_of(pa.string(), "etag", "last_modified"),
        *_of(pa.int32(), "attempts"),
        *_of(_TIMESTAMP, "fetched_at"),
        *_of(pa.float32(), "total_ms", "ttfb_ms"),
        *_of(pa.string(), "ip", "usage_signals"),
        *_of(pa.int64(), ROW_NUMBER),
    ],
    "errors": [
        *_of(pa.string(), "uuid", "source_id", "identifier"),
        *_of(pa.int32(), "retry_count", "error_code"),
        *_of(pa.string(), "error_kind", "error_msg", "final_url"),
        *_of(_TIMESTAMP, "fetched_at"),
        *_of(pa.string(), "usage_signals"),
        *_of(pa.int64(), ROW_NUMBER),
    ],
}


def result_schema(
    kind: PartKind, keep_columns: Iterable[pa.Field[Any]] = (), *, refers: bool = False, marks: bool = False
) -> pa.Schema:
    """Return the schema of all parts of a kind, where rows refer to others' bytes or not, and say or not what is not as
    promised. Raises ConfigError: a kept column has the name of one of ours."""
    optional = [SAME_AS] * refers + [MISMATCH] * marks if kind == "successes" else []
    schema = pa.schema([*_FIELDS[kind], *_of(pa.string(), *optional), *keep_columns])
    doubled = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if doubled:
        raise ConfigError(f"keep_columns: {', '.join(doubled)}: the results have columns of these names already")
    return schema


def result_table(
    kind: PartKind,
    rows: Sequence[ResultRow],
    inputs: pa.Table,
    bodies: BodyColumn,
    *,
    refers: bool = False,
    marks: bool = False,
) -> pa.Table:
    """Return results as Arrow: what was fetched, beside each of the rows ``rows[i].rows`` of the batch's ``inputs``,
    which have all columns of the urls folder.
    The images are in the memory of ``bodies``, hence valid until it makes its next column. With ``refers`` the first of
    the rows of a URL has the image, and the others name its uuid."""
    counts = [len(row.rows) for row in rows]
    taken = inputs.take(pa.array(list(chain.from_iterable(row.rows for row in rows)), pa.int64()))
    if kind == "successes":
        successes = cast("Sequence[SuccessRow]", rows)
        columns = _spread(_success_columns(successes), counts)
        columns["image"] = bodies.make(
            [None if refers and place else row.image for row in successes for place in range(len(row.rows))]
        )
        if refers:
            columns[SAME_AS] = _same_as(taken.column("uuid"), counts)
        columns["is_license_full"] = is_license_full(taken)
    else:
        columns = _spread(_error_columns(cast("Sequence[ErrorRow]", rows)), counts)
    kept = [pa.field(field.name, field.type) for field in inputs.schema if field.name not in _OWN_COLUMNS]
    schema = result_schema(kind, kept, refers=refers, marks=marks)
    arrays = [
        columns[field.name] if field.name in columns else taken.column(field.name).cast(field.type) for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def with_all_columns(rows: pa.Table) -> pa.Table:
    """Return successes without their images with the columns that parts of earlier versions do not have: null."""
    fields = [field for field in _FIELDS["successes"] if field.name != "image"]
    for field in fields:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    ours = [field.name for field in fields]
    return rows.select([*ours, *(name for name in rows.column_names if name not in ours)])


def holders_of(rows: pa.Table) -> IntArray:
    """Return (n,) where the image of each row of a row group is: in the row itself, or in the one that it refers to."""
    places = np.arange(len(rows))
    if SAME_AS not in rows.column_names:
        return places
    holders: IntArray = np.maximum.accumulate(np.where(rows.column(SAME_AS).is_null(), places, 0))
    return holders


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


def _success_columns(rows: Sequence[SuccessRow]) -> dict[str, Column]:
    answers = [row.answer for row in rows]
    return {
        MISMATCH: _texts([row.mismatch for row in rows]),
        "hashsum_original": pa.array([row.hashsum_original for row in rows], pa.string()),
        "hashsum_resized": pa.array([row.hashsum_resized for row in rows], pa.string()),
        "original_size": pa.array([row.original_size for row in rows], _SIZE),
        "resized_size": pa.array([row.resized_size for row in rows], _SIZE),
        "status": pa.array([answer.status for answer in answers], pa.int32()),
        "final_url": _texts([answer.final_url for answer in answers]),
        "content_type": _texts([answer.content_type for answer in answers]),
        "bytes": pa.array([row.original_bytes for row in rows], pa.int64()),
        "etag": _texts([answer.etag for answer in answers]),
        "last_modified": _texts([answer.last_modified for answer in answers]),
        "attempts": pa.array([answer.task.attempts for answer in answers], pa.int32()),
        "fetched_at": _timestamps([answer.fetched_at for answer in answers]),
        "total_ms": pa.array([answer.total_s * 1e3 for answer in answers], pa.float32()),
        "ttfb_ms": pa.array([answer.ttfb_s * 1e3 for answer in answers], pa.float32()),
        "ip": _texts([answer.ip for answer in answers]),
        "usage_signals": _texts([answer.usage_signals for answer in answers]),
    }


def _error_columns(rows: Sequence[ErrorRow]) -> dict[str, Column]:
    return {
        "retry_count": pa.array([max(row.attempts - 1, 0) for row in rows], pa.int32()),
        "error_code": pa.array([row.failure.code for row in rows], pa.int32()),
        "error_kind": pa.array([row.failure.kind.value for row in rows], pa.string()),
        "error_msg": _texts([row.failure.message for row in rows]),
        "final_url": _texts([row.final_url for row in rows]),
        "fetched_at": _timestamps([row.fetched_at for row in rows]),
        "usage_signals": _texts([row.usage_signals for row in rows]),
    }


def _is_present(texts: pa.ChunkedArray[Any]) -> pa.BooleanArray:
    filled = pc.not_equal(texts.cast(pa.string()), _NO_TEXT)
    return cast("pa.BooleanArray", pc.fill_null(filled, _FALSE))


def _texts(values: list[str]) -> Column:
    """Return texts as a column; empty means absent. Surrogates, of a server's odd bytes, become "?"."""
    try:
        return pa.array([value or None for value in values], pa.string())
    except UnicodeEncodeError:
        return pa.array([value.encode(errors="replace").decode() or None for value in values], pa.string())


def _timestamps(seconds: list[float]) -> Column:
    return pa.array([round(value * 1e6) if value else None for value in seconds], pa.int64()).cast(_TIMESTAMP)
