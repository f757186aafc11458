"""The tables of results: their schemas, defined once.

All hold the columns that docs/output.md lists, then ``row_number`` and the kept input columns. ``row_number`` is
the row's position in the input: it alone identifies the row, since a table may bring uuids of its own that repeat.

``image`` is ``large_binary``: an Arrow ``binary`` array ends at 2 GB, and readers that join the chunks of a column
(``combine_chunks``, pandas, a sort) would fail on any dataset of more. In the Parquet file both are BYTE_ARRAY.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ddmpi.core.arrays import IntArray
from ddmpi.core.records import REQUESTED
from ddmpi.errors import ConfigError
from ddmpi.io.folder.layout import PartKind

ROW_NUMBER: Final = "row_number"
IMAGE: Final = "image"
IMAGE_FIELD: Final = pa.field(IMAGE, pa.large_binary())
SAME_AS: Final = "same_as"
"""The uuid of the row that has this row's bytes; there only with ``duplicates: reference``. That row stands before it
in its row group, with no others between them but such as refer to it too."""
MISMATCH: Final = "expected_mismatch"
"""What is not as the table promises, null where nothing is; there only with ``expected.on_mismatch: keep``."""
CHECK: Final = "check"
"""What a refresh has found of a file that the row keeps."""
FILE_EPOCH: Final = "file_epoch"
"""The run that the file is from which was checked."""
PLACEHOLDER: Final = "placeholder"
"""Whether the file was known to be a placeholder when its row was written."""
UNLIKE: Final = frozenset(
    {"uuid", "identifier", "hashsum_original", "hashsum_resized", "final_url", "etag", "fetched_at"}
    | {"total_ms", "ttfb_ms", ROW_NUMBER}
)
"""Columns in which each row has a value of its own."""

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
SIZE: Final = pa.list_(pa.int32())


def _of(kind: pa.DataType, *names: str) -> list[pa.Field[Any]]:
    return [pa.field(name, kind) for name in names]


_FIELDS: Final[dict[PartKind, list[pa.Field[Any]]]] = {
    "successes": [
        *_of(pa.string(), "uuid", "source_id", "identifier"),
        *_of(pa.bool_(), "is_license_full"),
        *_of(pa.string(), "license", "source", "title", "hashsum_original", "hashsum_resized"),
        *_of(SIZE, "original_size", "resized_size"),
        IMAGE_FIELD,
        *_of(pa.int32(), "status"),
        *_of(pa.string(), "final_url", "content_type"),
        *_of(pa.int64(), "bytes"),
        *_of(pa.string(), "etag", "last_modified"),
        *_of(pa.int32(), "attempts"),
        *_of(TIMESTAMP, "fetched_at"),
        *_of(pa.float32(), "total_ms", "ttfb_ms"),
        *_of(pa.string(), "ip", "usage_signals", "warnings"),
        *_of(pa.bool_(), PLACEHOLDER),
        *_of(pa.int64(), ROW_NUMBER),
    ],
    "errors": [
        *_of(pa.string(), "uuid", "source_id", "identifier"),
        *_of(pa.int32(), "retry_count", "error_code"),
        *_of(pa.string(), "error_kind", "error_msg", "final_url"),
        *_of(TIMESTAMP, "fetched_at"),
        *_of(pa.string(), "usage_signals"),
        *_of(pa.int64(), ROW_NUMBER),
    ],
    "checks": [
        *_of(pa.string(), "uuid", "source_id", "identifier", CHECK),
        *_of(pa.int32(), "status", "error_code"),
        *_of(pa.string(), "error_kind", "error_msg", "final_url", "etag", "last_modified"),
        *_of(pa.int32(), "attempts"),
        *_of(TIMESTAMP, "fetched_at"),
        *_of(pa.string(), "usage_signals"),
        *_of(pa.int32(), FILE_EPOCH),
        *_of(pa.int64(), ROW_NUMBER),
    ],
}


def result_schema(
    kind: PartKind,
    keep_columns: Iterable[pa.Field[Any]] = (),
    *,
    refers: bool = False,
    marks: bool = False,
    rewrites: bool = False,
) -> pa.Schema:
    """Return the schema of all parts of a kind, where rows refer to others' bytes or not, say or not what is not as
    promised, and what was asked for. Raises ConfigError: a kept column has the name of one of ours."""
    optional = [SAME_AS] * refers + [MISMATCH] * marks if kind == "successes" else []
    optional += [REQUESTED] * rewrites
    schema = pa.schema([*_FIELDS[kind], *_of(pa.string(), *optional), *keep_columns])
    doubled = sorted(name for name, times in Counter(schema.names).items() if times > 1)
    if doubled:
        raise ConfigError(f"keep_columns: {', '.join(doubled)}: the results have columns of these names already")
    return schema


def with_all_columns(rows: pa.Table) -> pa.Table:
    """Return successes without their images with the columns that parts of earlier versions do not have: null."""
    fields = [field for field in _FIELDS["successes"] if field.name != IMAGE]
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
