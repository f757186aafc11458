"""forgotten.parquet: what was withdrawn from the results, and is never fetched again.

It has each name that was given (a uuid or a URL), and each row that was found by one, with all of its URLs: a row may
be known by where a redirect led, which is known no more once its row is gone, and the URL of a withdrawn uuid is not
fetched for another row either.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddmpi.core.records import ERROR_CODE_LOCAL, MIRRORS, REQUESTED, ErrorKind, Failure
from ddmpi.errors import StorageError
from ddmpi.io.folder.disk_errors import read_bytes
from ddmpi.io.folder.durable import write_atomically

FAILURE: Final = Failure(ErrorKind.FORGOTTEN, ERROR_CODE_LOCAL, "withdrawn: see forgotten.parquet")
URL_COLUMNS: Final = ("identifier", REQUESTED, "final_url")
_FIELDS: Final[dict[str, pa.DataType]] = {"name": pa.string(), "row_number": pa.int64(), "url": pa.string()}
_SCHEMA: Final = pa.schema(_FIELDS)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Forgotten:
    """What was withdrawn so far."""

    names: frozenset[str] = frozenset()
    """As they were given."""
    rows: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """The URLs of the rows that were found, by row number."""

    def __bool__(self) -> bool:
        return bool(self.names or self.rows)

    def plus(self, names: Iterable[str], rows: Mapping[int, frozenset[str]]) -> Forgotten:
        """Return all of it together."""
        both = {row: self.rows.get(row, frozenset()) | urls for row, urls in rows.items()}
        return Forgotten(self.names | frozenset(names), {**self.rows, **both})

    def withdrawn(self, rows: pa.Table) -> tuple[Mask, set[str]]:
        """Return (n,) which of these rows are withdrawn themselves, and the names that say so. A row that was found
        before is known again by its number together with its URL, as another table may have other rows.

        Args:
            rows: with ``row_number``, ``uuid``, ``identifier``, and what else of URLs there is.
        """
        mask, found = _having(rows, self._names)
        if self.rows:
            numbers: list[Any] = rows.column("row_number").to_pylist()
            urls: list[Any] = rows.column("identifier").to_pylist()
            mask |= np.array(
                [url in self.rows.get(number, ()) for number, url in zip(numbers, urls, strict=True)], np.bool_
            )
        return mask, found

    def may_not_be_fetched(self, rows: pa.Table) -> Mask:
        """Return (n,) which of these rows are withdrawn, or have a URL that a withdrawn one has; ``rows`` as above,
        without row numbers."""
        return _having(rows, self._unwanted)[0]

    @cached_property
    def _names(self) -> pa.Array[Any]:
        return pa.array(sorted(self.names), pa.string())

    @cached_property
    def _unwanted(self) -> pa.Array[Any]:
        return pa.array(sorted(self.names.union(*self.rows.values())), pa.string())


def read_forgotten(path: Path) -> Forgotten:
    """Return what was withdrawn; nothing without the file. Raises StorageError: it cannot be read."""
    data = read_bytes(path)
    if data is None:
        return Forgotten()
    try:
        table = pq.read_table(pa.BufferReader(data), schema=_SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{path} is damaged: {error}; it says what must not be fetched again") from error
    names = frozenset(name for name in table.column("name").to_pylist() if name is not None)
    rows: dict[int, set[str]] = {}
    pairs: list[list[Any]] = [table.column(name).to_pylist() for name in ("row_number", "url")]
    for number, url in zip(*pairs, strict=True):
        if number is not None:
            rows.setdefault(number, set()).add(url)
    return Forgotten(names, {number: frozenset(urls) for number, urls in rows.items()})


def write_forgotten(path: Path, forgotten: Forgotten, temporary: Path) -> None:
    """Write all of it, whole or not at all. Raises StorageError: the file cannot be written."""
    names = sorted(forgotten.names)
    pairs = [(number, url) for number, urls in sorted(forgotten.rows.items()) for url in sorted(urls)]
    columns: list[list[Any]] = [
        [*names, *[None] * len(pairs)],
        [*[None] * len(names), *(number for number, _ in pairs)],
        [*[None] * len(names), *(url for _, url in pairs)],
    ]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, _SCHEMA.types, strict=True)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA), buffer)
    write_atomically(path, buffer.getvalue(), temporary)


def _having(rows: pa.Table, values: pa.Array[Any]) -> tuple[Mask, set[str]]:
    """Return (n,) which rows have one of these as their uuid or a URL, and which of these."""
    mask, found = np.zeros(len(rows), np.bool_), set[str]()
    for name in _present(("uuid", *URL_COLUMNS, MIRRORS), rows):
        column: Any = rows.column(name).combine_chunks()
        places = None
        if name == MIRRORS:
            places, column = pc.list_parent_indices(column).to_numpy(), pc.list_flatten(column)
        has = pc.is_in(column, value_set=values)
        found.update(column.filter(has).to_pylist())
        chosen = has.to_numpy(zero_copy_only=False)
        mask[chosen if places is None else places[chosen]] = True
    return mask, found


def _present(names: Collection[str], rows: pa.Table) -> list[str]:
    return [name for name in names if name in rows.column_names]
