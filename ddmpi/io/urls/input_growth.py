"""Has the input grown? Its first rows must then be the rows that the urls folder holds.

Proved from what both hold, row by row, not from names and times of files: an input may be compressed, converted,
renamed or cut into other files, as long as its rows are the same and come in the same order. What is compared of a row
is its number and the columns of the urls folder; the sums of the rows' 64-bit digests have to be equal, for each block
of rows. Rows that the filter leaves out are in no urls folder and are not compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.core.records import REQUESTED
from ddmpi.errors import Interrupted, OutputError
from ddmpi.io.folder.disk_errors import one_line
from ddmpi.io.input.table import InputTable, RawRows
from ddmpi.io.input.uuids import HASHED_BYTES, hash_texts, mix
from ddmpi.io.urls.index import UrlsIndex
from ddmpi.io.urls.workers import Workers

Words: TypeAlias = npt.NDArray[np.uint64]
Digests: TypeAlias = tuple[IntArray, Words]
"""Row numbers, and a digest of each row."""

MOST_BLOCKS: Final = 1_000_000
"""Of up to this many rows the first one that differs is named, of larger tables a block."""
_DERIVED: Final = frozenset({"row_number", "server_name", "reject", REQUESTED})
"""Columns that follow from the others."""
_NULL: Final = np.uint64(0xD1B54A32D192ED03)


def known_rows(table: InputTable, index: UrlsIndex, should_stop: Callable[[], bool] = lambda: False) -> int:
    """Return how many of the input's rows the urls folder holds already: its first ones, unchanged.

    Raises:
        InputError: the input is damaged.
        OutputError: the rows are others, or fewer; or what the folder holds cannot be told.
        Interrupted: ``should_stop`` turned true.
    """
    rows = index.input_rows
    if rows is None:
        raise OutputError(f"{index.folder} does not say how many rows of the input it holds")
    block_rows = 1 + rows // MOST_BLOCKS
    # Sums of digests per block of rows; those of equal rows cancel each other out.
    sums: Words = np.zeros(1 + rows // block_rows, np.uint64)
    with closing(Workers()) as workers:
        compared = [name for name in table.schema.names if name not in _DERIVED]
        held = chain.from_iterable(map(_row_groups, index.files))
        for number, (numbers, digests) in enumerate(workers.map(partial(digest_rows, columns=compared), held)):
            np.add.at(sums, numbers // block_rows, digests)
            _look(should_stop, number)
        read = 0
        for number, (end, (numbers, digests)) in enumerate(
            workers.map(partial(_digest_input, table, compared, rows), table.raw(up_to=rows, joined=True))
        ):
            np.subtract.at(sums, numbers // block_rows, digests)
            read = max(read, end)
            _look(should_stop, number)
    if read < rows:
        raise OutputError(f"it has {read:,} rows, and had {rows:,}: rows may be added to an input, and none taken away")
    different = np.flatnonzero(sums)
    if len(different):
        start = int(different[0]) * block_rows
        end = min(rows, start + block_rows) - 1
        which = f"row {start:,} is" if end <= start else f"of rows {start:,} to {end:,} at least one is"
        raise OutputError(f"{which} (counted from 0) not as before: rows may be added only after the last one")
    return rows


def _look(should_stop: Callable[[], bool], number: int) -> None:
    if number % 8 == 0 and should_stop():
        raise Interrupted("stopped while the input was compared with what is there; run the same command again")


def _row_groups(path: Path) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"{path}: cannot be read: {one_line(error)}") from error


def _digest_input(table: InputTable, columns: Sequence[str], rows: int, raw: RawRows) -> tuple[int, Digests]:
    """Return where the raw rows end in the input, and the digests of those before ``rows``."""
    bare = table.bare(raw)
    complete = table.complete(pa.Table.from_batches([bare.rows]), bare.servers.cast(pa.string()))
    is_known = raw.row_numbers < rows
    return raw.end, digest_rows(complete.filter(pa.array(is_known)), columns)


def digest_rows(rows: pa.Table, columns: Sequence[str]) -> Digests:
    """Return a digest of each row: of its number and the values of these columns, null and empty told apart."""
    numbers = cast("IntArray", rows.column("row_number").to_numpy())
    digests = mix(numbers.astype(np.uint64) + np.uint64(1))
    for place, name in enumerate(columns, start=1):
        texts = _as_text(rows.column(name).combine_chunks())
        hashed = hash_texts(texts) ^ _of_long_texts(texts)
        hashed = hashed ^ np.where(np.asarray(pc.is_null(texts)), _NULL, np.uint64(0))
        digests = mix(digests + mix(hashed + np.uint64(place)))
    return numbers, digests


def _as_text(values: Any) -> pa.Array[Any]:
    if pa.types.is_nested(values.type) or pa.types.is_interval(values.type):
        return pa.array([None if value is None else repr(value) for value in values.to_pylist()], pa.string())
    return cast("pa.Array[Any]", values.cast(pa.large_string(), safe=False))


def _of_long_texts(texts: pa.Array[Any]) -> Words:
    """Return a digest of each text that ``hash_texts`` does not look at to its end; 0 for the others."""
    digests = np.zeros(len(texts), np.uint64)
    lengths: Any = pc.binary_length(texts)  # type: ignore[call-overload]
    for row in np.flatnonzero(np.asarray(lengths.fill_null(0)) > HASHED_BYTES).tolist():
        whole = hashlib.sha256(texts[row].as_buffer()).digest()
        digests[row] = np.frombuffer(whole[:8], np.uint64)[0]
    return digests
