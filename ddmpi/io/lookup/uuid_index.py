"""Where the rows of a uuid are: which part, and which of its rows.

The index is one Arrow file beside the results, mapped into memory: a 64-bit digest of each uuid, sorted, with the part
and the row's place in it, 16 bytes a row. It is made when it is first asked for, and what came since is added when a
uuid is not found. It may be wrong, and may be deleted: parts are rewritten where images are withdrawn, and a digest may
be that of two uuids. So whoever reads a row looks whether it has the uuid.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ddmpi.core.arrays import IntArray
from ddmpi.errors import StorageError
from ddmpi.io.folder.durable import write_atomically
from ddmpi.io.folder.layout import ROW_KINDS, Layout
from ddmpi.io.folder.markers import published_parts
from ddmpi.io.results.damage import read_columns

log = logging.getLogger(__name__)

_DIGEST_BYTES: Final = 8
_SCHEMA: Final = pa.schema({"digest": pa.uint64(), "part": pa.dictionary(pa.int32(), pa.string()), "row": pa.uint32()})


_unwritten: Final[dict[Path, UuidIndex]] = {}
"""Those of folders that cannot be written."""


@dataclass(frozen=True)
class UuidIndex:
    """The rows of some parts by their uuids."""

    parts: Sequence[str]
    """Paths relative to the output folder."""
    digests: Any
    """(n,) uint64, sorted; ``numbers`` and ``rows`` likewise."""
    numbers: IntArray
    """(n,) which of the parts."""
    rows: Any
    """(n,) uint32, the place in the part, from 0."""

    @cached_property
    def known_parts(self) -> frozenset[str]:
        return frozenset(self.parts)

    def places(self, uuid: str) -> Iterator[tuple[str, int]]:
        """Yield part and row of each row that may have this uuid."""
        wanted = _digests([uuid])[0]
        first, end = (int(np.searchsorted(self.digests, wanted, side)) for side in ("left", "right"))
        for number, row in zip(self.numbers[first:end].tolist(), self.rows[first:end].tolist(), strict=True):
            yield self.parts[number], row


def known_index(layout: Layout) -> UuidIndex | None:
    """Return the index as it was made last; None where there is none, or none that can be read."""
    # No other error counts: an index that cannot be read is made anew.
    with contextlib.suppress(OSError):
        status = layout.uuid_index.stat()
        return _mapped(layout.uuid_index, status.st_ino, status.st_mtime_ns)
    return _unwritten.get(layout.uuid_index)


@lru_cache(maxsize=4)
def _mapped(path: Path, _inode: int, _mtime_ns: int) -> UuidIndex | None:
    """Return the index in a file; what tells one file of the name from the next one is asked for as well."""
    try:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        if table.schema != _SCHEMA:
            return None
        columns = table.combine_chunks()
        parts: Any = columns.column("part").chunk(0)
        digests, rows = (columns.column(name).chunk(0).to_numpy() for name in ("digest", "row"))
        return UuidIndex(parts.dictionary.to_pylist(), digests, parts.indices.to_numpy(), rows)
    except (OSError, pa.ArrowException, IndexError) as error:
        log.warning("%s cannot be read, and is made anew: %s", path, error)
        return None


def current_index(layout: Layout, known: UuidIndex | None) -> UuidIndex:
    """Return an index of all parts that are there now, and write it: what ``known`` has of them is not read again.

    In a folder that cannot be written the index lasts as long as the process. Raises StorageError: a folder cannot be
    listed, or a part cannot be read.
    """
    parts = [layout.relative(part.path) for kind in ROW_KINDS for part in published_parts(layout, kind)]
    if known is not None and set(parts) == set(known.parts):
        return known
    columns = _columns(layout, parts, known)
    order = np.argsort(columns[0], kind="stable")
    index = UuidIndex(parts, *(column[order] for column in columns))
    try:
        write_atomically(layout.uuid_index, _file_of(index), layout.temporary)
    except StorageError as error:
        log.warning("the index by uuid lasts as long as this process: %s", error)
        _unwritten[layout.uuid_index] = index
    return index


def remove_index(layout: Layout) -> None:
    """Delete the index, if there is one. Raises OSError."""
    layout.uuid_index.unlink(missing_ok=True)


def _columns(layout: Layout, parts: Sequence[str], known: UuidIndex | None) -> tuple[Any, Any, Any]:
    """Return digests, numbers of parts and rows, in any order."""
    numbers = {part: number for number, part in enumerate(parts)}
    found: list[tuple[Any, Any, Any]] = [(np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, np.uint32))]
    if known is not None:
        moved = np.array([numbers.get(part, -1) for part in known.parts], np.int32)[known.numbers]
        there = moved >= 0
        found.append((known.digests[there], moved[there], known.rows[there]))
    for part in parts if known is None else set(parts) - set(known.parts):
        uuids: list[Any] = read_columns(layout, part, ["uuid"]).column("uuid").to_pylist()
        rows = np.arange(len(uuids), dtype=np.uint32)
        found.append((_digests(uuids), np.full(len(uuids), numbers[part], np.int32), rows))
    digests, places, rows = (np.concatenate(each) for each in zip(*found, strict=True))
    return digests, places, rows


def _digests(uuids: Sequence[str]) -> Any:
    joined = b"".join(blake2b(uuid.encode(), digest_size=_DIGEST_BYTES).digest() for uuid in uuids)
    return np.frombuffer(joined, "<u8")


def _file_of(index: UuidIndex) -> bytes:
    parts = pa.DictionaryArray.from_arrays(pa.array(index.numbers, pa.int32()), pa.array(index.parts, pa.string()))
    table = pa.Table.from_arrays([pa.array(index.digests), parts, pa.array(index.rows)], schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, _SCHEMA) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
