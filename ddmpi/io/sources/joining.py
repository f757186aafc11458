"""Rows of small files, put together before they are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import pyarrow as pa

from ddmpi.io.sources.files import InputPath
from ddmpi.io.sources.source_file import BATCH_BYTES

SMALL_ROWS: Final = 4096
"""Of more rows in a batch the calls of arrow cost little beside the rows."""
_JOINED_ROWS: Final = 64 * 1024


class ReadRows(NamedTuple):
    """Some rows, and the file or files that they are from."""

    path: InputPath | str
    rows: pa.RecordBatch


def join_small(batches: Iterable[ReadRows]) -> Iterator[ReadRows]:
    """Yield the rows of all batches, in order, neighboring small ones of one schema in one batch."""
    gathered: list[ReadRows] = []
    rows = size_bytes = 0
    for batch in batches:
        is_small = batch.rows.num_rows <= SMALL_ROWS and batch.rows.num_columns > 0  # else its rows would be lost
        if gathered and not (is_small and batch.rows.schema.equals(gathered[0].rows.schema)):
            yield _joined(gathered)
            gathered, rows, size_bytes = [], 0, 0
        if not is_small:
            yield batch
            continue
        gathered.append(batch)
        rows += batch.rows.num_rows
        size_bytes += batch.rows.nbytes
        if rows >= _JOINED_ROWS or size_bytes >= BATCH_BYTES:
            yield _joined(gathered)
            gathered, rows, size_bytes = [], 0, 0
    if gathered:
        yield _joined(gathered)


def _joined(gathered: list[ReadRows]) -> ReadRows:
    if len(gathered) == 1:
        return gathered[0]
    first, last = gathered[0].path, gathered[-1].path
    path = first if first == last else f"{first} to {last}"
    whole = pa.Table.from_batches([batch.rows for batch in gathered]).combine_chunks()
    return ReadRows(path, next(iter(whole.to_batches()), gathered[0].rows))
