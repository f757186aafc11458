"""placeholders.parquet: the pictures that servers have in the place of many files, found by all runs over a folder.

It says what a column of the parts cannot: parts are never changed, and some of the rows were written before their
picture was known to be a placeholder. A row is one if its ``hashsum_original`` stands here.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.errors import StorageError
from ddmpi.io.folder.disk_errors import read_bytes
from ddmpi.io.folder.durable import write_atomically

_FIELDS: Final[dict[str, pa.DataType]] = {
    "hashsum_original": pa.string(),
    "server_name": pa.string(),
    "urls": pa.int64(),
    "size_bytes": pa.int64(),
    "url": pa.string(),
    "image": pa.large_binary(),
}
_SCHEMA: Final = pa.schema(_FIELDS)


@dataclass
class Placeholder:
    """A picture, and the server that it was found on."""

    hashsum_original: str
    server_name: str
    urls: int
    """Under how many URLs it was, over all runs."""
    size_bytes: int
    url: str
    """One of them."""
    image: bytes = b""
    """As it is stored in the results; empty where it is not known or large."""


def read_placeholders(path: Path) -> list[Placeholder]:
    """Return those that are known; none without the file. Raises StorageError: it cannot be read."""
    data = read_bytes(path)
    if data is None:
        return []
    try:
        rows = pq.read_table(pa.BufferReader(data)).to_pylist()
        return [Placeholder(**row) for row in rows]
    except (pa.ArrowException, TypeError, OSError) as error:
        raise StorageError(f"{path} is damaged: {error}; without it they are found anew") from error


def write_placeholders(path: Path, found: Iterable[Placeholder], temporary: Path) -> None:
    """Write all of them, whole or not at all. Raises StorageError: the file cannot be written."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(each) for each in found], schema=_SCHEMA), buffer)
    write_atomically(path, buffer.getvalue(), temporary)
