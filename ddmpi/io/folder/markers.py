"""What the output folder says of each batch: its marker, its parts, or nothing.

A marker is written when all rows of a batch are final, after their parts, so that a restart need not read those. A
marker that is missing or damaged costs time, and never a row: the parts decide.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ddmpi.core.records import UNDECODABLE, BatchRef
from ddmpi.io.folder import durable
from ddmpi.io.folder.disk_errors import named_disk_errors, names_in, read_bytes
from ddmpi.io.folder.layout import (
    COMPLETED_NAME,
    PART_KINDS,
    PARTITION_PREFIX,
    Layout,
    PartKind,
    PartName,
    parse_part_name,
    server_folder,
    server_of_folder,
)

_READERS: Final = 8
_CHUNK: Final = 250


class Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A marker's content: the outcomes that count, hence ``rows == successes + errors``. An unknown field is damage:
    one flipped bit in ``ignored`` would hide that rows are missing."""

    rows: int
    successes: int
    errors: int
    kinds: dict[str, int] = {}
    """Errors by ``error_kind``."""
    ignored: int = 0
    """Rows beside these whose server was ignored: complete only as long as it is."""


@dataclass(frozen=True, slots=True)
class BatchState:
    """What the disk says of a batch: completed with counts, or open with the parts it has (relative paths)."""

    batch_id: int
    marker: Marker | None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedPart:
    """A part under its final name, and what its path says."""

    path: Path
    server_name: str
    partition_id: int
    name: PartName


def write_completed(layout: Layout, batch: BatchRef, counts: Marker) -> None:
    """Mark a batch whose rows are all final; its parts must have been committed before. The disk is not waited for: a
    table of 10,000 batches has as many markers. Raises StorageError: with path and reason."""
    marker = layout.completed(batch.server_name, batch.partition_id)
    durable.write_whole(marker, msgspec.json.encode(counts), layout.temporary)


def read_completed(layout: Layout, batch: BatchRef) -> Marker | None:
    """Return the marker's counts; None where there is none, or none that can be read: the parts then decide. Raises
    StorageError: the disk fails."""
    return _read_marker(layout.completed(batch.server_name, batch.partition_id))


def remove_completed(layout: Layout, batch: BatchRef) -> None:
    """Take the marker back for good, before rows of the batch are fetched again. Raises StorageError: with path and
    reason."""
    marker = layout.completed(batch.server_name, batch.partition_id)
    with named_disk_errors("cannot remove", marker), contextlib.suppress(FileNotFoundError):
        durable.os_unlink(marker)
        durable.fsync_path(marker.parent)


def parts_of(layout: Layout, batch: BatchRef) -> tuple[str, ...]:
    """Return all parts of a batch, relative to the output folder, oldest epoch first within a kind. Raises
    StorageError: the disk fails."""
    return _parts_in(layout, (layout.parts_folder(kind, batch.server_name, batch.partition_id) for kind in PART_KINDS))


def scan(layout: Layout, batches: Iterable[BatchRef]) -> list[BatchState]:
    """Return the state of all batches at start, in their order; opens markers, but no Parquet file.

    A folder is listed once, not asked for each of its batches: on network file systems a miss costs as much as a hit.
    Raises StorageError: the disk fails.
    """
    places = [
        (batch.batch_id, server_folder(batch.server_name), f"{PARTITION_PREFIX}{batch.partition_id}")
        for batch in batches
    ]
    markers = _Tree(layout.batches)
    trees = [_Tree(layout.parts_tree(kind)) for kind in PART_KINDS]
    marked = [place for place in places if markers.has(place[1], place[2])]
    # Texts, not Paths: these would be half of the time that a restart over 20,000 batches takes.
    root = str(layout.batches)
    paths = [f"{root}/{folder}/{partition}/{COMPLETED_NAME}" for _, folder, partition in marked]
    counts = dict(zip((batch_id for batch_id, _, _ in marked), _read_markers(paths), strict=True))
    states = []
    for batch_id, folder, partition in places:
        marker = counts.get(batch_id)
        searched = trees if marker is None else ()
        folders = (tree.root / folder / partition for tree in searched if tree.has(folder, partition))
        states.append(BatchState(batch_id, marker, _parts_in(layout, folders)))
    return states


def published_parts(layout: Layout, kind: PartKind) -> Iterator[PublishedPart]:
    """Yield the parts of one tree, in the order of their paths. Raises StorageError: a folder cannot be listed."""
    tree = layout.parts_tree(kind)
    for server in sorted(names_in(tree)):
        server_name = server_of_folder(server)
        if server_name is None:
            continue
        for partition in sorted(names_in(tree / server)):
            number = partition.removeprefix(PARTITION_PREFIX)
            if not number.isdigit() or number == partition:
                continue
            folder = tree / server / partition
            for name in sorted(names_in(folder)):
                part = parse_part_name(name)
                if part is not None and part.kind == kind:
                    yield PublishedPart(folder / name, server_name, int(number), part)


def servers_present(layout: Layout) -> set[str]:
    """Return the servers that have a folder among markers or parts, as far as the folders' names tell them in full.
    Raises StorageError: the disk fails."""
    trees = (layout.batches, *map(layout.parts_tree, PART_KINDS))
    servers = (server_of_folder(name) for tree in trees for name in names_in(tree))
    return {server for server in servers if server is not None}


class _Tree:
    """Which partitions a tree of ``server_name=S/partition_id=P`` has; each folder is listed at most once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._servers = frozenset(names_in(root))
        self._partitions: dict[str, frozenset[str]] = {}

    def has(self, folder: str, partition: str) -> bool:
        if folder not in self._servers:
            return False
        if folder not in self._partitions:
            self._partitions[folder] = frozenset(names_in(self.root / folder))
        return partition in self._partitions[folder]


def _parts_in(layout: Layout, folders: Iterable[Path]) -> tuple[str, ...]:
    found: list[str] = []
    for folder in folders:
        named = [(part, name) for name in names_in(folder) if (part := parse_part_name(name))]
        prefix = layout.relative(folder)
        found += [f"{prefix}/{name}" for _, name in sorted(named)]
    return tuple(found)


def _read_markers(paths: Sequence[str]) -> Iterator[Marker | None]:
    """Read several at once and yield them in order: on a network file system nearly all of the time is waiting."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="markers") as pool:
        chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
        for counts in pool.map(lambda chunk: [_read_marker(path) for path in chunk], chunks):
            yield from counts


def _read_marker(path: Path | str) -> Marker | None:
    data = read_bytes(path)
    if data is None:
        return None
    try:
        counts = msgspec.json.decode(data, type=Marker)
    except UNDECODABLE:
        return None
    return counts if counts.rows == counts.successes + counts.errors else None
