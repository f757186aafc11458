"""What a run leaves for the next one: the checkpoint, the markers of completed batches, and the look at what is there.

The parts are the truth, the checkpoint only spares work and keeps politeness (learned rates, not-before times, byte
ledgers): a lost or damaged one never loses a row. It is saved as JSON with a CRC32 over its body, and the generation
before it is kept, since a disk that damages one file seldom damages both. File system assumptions: see ``durable``.

Order of a commit: part, marker, checkpoint, message. A kill between two of them repeats work and loses none.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from ddmpi.errors import StorageError
from ddmpi.io.durable import write_atomically
from ddmpi.io.layout import (
    COMPLETED_NAME,
    PART_KINDS,
    PARTITION_PREFIX,
    SERVER_PREFIX,
    Layout,
    PartKind,
    parse_part_name,
    server_folder,
    server_of_folder,
)
from ddmpi.records import UNDECODABLE

VERSION: Final = 1
_EPOCH_FOLDER: Final = re.compile(r"e(\d{4,})", re.ASCII)


class ServerState(msgspec.Struct, frozen=True):
    """What was learned of a pace group. ``not_before`` is wall clock, seconds since 1970: it outlives the machine."""

    rate_per_s: float = 0.0
    not_before: float = 0.0
    incidents: int = 0
    parkings: int = 0
    bytes_today: float = 0.0


class Checkpoint(msgspec.Struct, frozen=True):
    """The state between two runs. ``stages`` maps a stage's name to what it left (times, counts)."""

    epoch: int
    version: int = VERSION
    saved_at: float = 0.0
    """Wall clock, seconds since 1970: which day ``bytes_today`` is about."""
    stages: dict[str, Any] = {}
    input_fingerprint: str = ""
    config_hash: str = ""
    config_semantic: dict[str, Any] = {}
    servers: dict[str, ServerState] = {}
    counters: dict[str, int] = {}


class BatchCounts(msgspec.Struct, frozen=True):
    """A marker's content: the outcomes that count, hence ``rows == successes + errors``."""

    rows: int
    successes: int
    errors: int
    kinds: dict[str, int] = {}
    """Errors by ``error_kind``."""
    ignored: int = 0
    """Rows beside these whose server was ignored: complete only as long as it is."""


class BatchLike(Protocol):
    """What the layout needs to know of a batch."""

    @property
    def batch_id(self) -> int: ...
    @property
    def server_name(self) -> str: ...
    @property
    def partition_id(self) -> int: ...


@dataclass(frozen=True, slots=True)
class BatchState:
    """What the disk says of a batch: completed with counts, or open with the parts it has (relative paths)."""

    batch_id: int
    counts: BatchCounts | None
    parts: tuple[str, ...] = ()


class _Envelope(msgspec.Struct):
    crc32: str
    checkpoint: msgspec.Raw


def save(layout: Layout, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint; the one that was there becomes the previous generation, unless it is damaged.

    Raises:
        StorageError: with path and reason; the generation that was there is still there.
    """
    current, _ = _read(layout.checkpoint)
    if current is not None:
        write_atomically(layout.previous_checkpoint, _encode(current))
    write_atomically(layout.checkpoint, _encode(checkpoint))


def load(layout: Layout) -> tuple[Checkpoint | None, list[str]]:
    """The newest usable generation, and warnings for the person who runs the program.

    None without warnings: the folder is new. None with warnings: no generation is usable; the caller rebuilds from
    the parts, and takes the epoch from ``highest_epoch``.
    """
    warnings: list[str] = []
    for path in (layout.checkpoint, layout.previous_checkpoint):
        checkpoint, problem = _read(path)
        if checkpoint is not None:
            if warnings:
                warnings.append(f"going on from the previous generation, {path.name}: rates may be learned anew")
            return checkpoint, warnings
        if problem:
            warnings.append(f"checkpoint {path} is not usable: {problem}")
    if warnings:
        warnings.append("no generation of the checkpoint is usable: what is done is read from the parts")
    return None, warnings


def highest_epoch(layout: Layout) -> int:
    """The highest epoch that any run of this folder may have written under; 0 for a new folder.

    ``durable.open_epoch`` leaves a folder that says so. Without one (somebody cleaned up) all part names are read.
    """
    epochs = [int(match[1]) for name in _names(layout.temporary) if (match := _EPOCH_FOLDER.fullmatch(name))]
    return max(epochs) if epochs else max(_part_epochs(layout), default=0)


def write_completed(layout: Layout, batch: BatchLike, counts: BatchCounts) -> None:
    """Mark a batch whose rows are all final; its parts must have been committed before.

    Raises:
        StorageError: with path and reason.
    """
    write_atomically(layout.completed(batch.server_name, batch.partition_id), msgspec.json.encode(counts))


def read_completed(layout: Layout, batch: BatchLike) -> BatchCounts | None:
    """The marker's counts; None where there is none, or none that can be read: the parts then decide.

    Raises:
        StorageError: the disk fails.
    """
    return _read_marker(layout.completed(batch.server_name, batch.partition_id))


def remove_completed(layout: Layout, batch: BatchLike) -> None:
    """Take the marker back, before rows of the batch are fetched again.

    Raises:
        StorageError: with path and reason.
    """
    marker = layout.completed(batch.server_name, batch.partition_id)
    try:
        marker.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove {marker}: {error}") from error


def parts_of(layout: Layout, batch: BatchLike) -> tuple[str, ...]:
    """All parts of a batch, relative to the output folder, oldest epoch first within a kind.

    Raises:
        StorageError: the disk fails.
    """
    return tuple(
        part
        for kind in PART_KINDS
        for part in _parts_in(layout, layout.parts_folder(kind, batch.server_name, batch.partition_id))
    )


def scan(layout: Layout, batches: Iterable[BatchLike]) -> list[BatchState]:
    """The state of all batches at start, in their order; opens markers, but no Parquet file.

    A folder is listed once, not asked for each of its batches: on network file systems a miss costs as much as a hit.

    Raises:
        StorageError: the disk fails.
    """
    markers = _Tree(layout.batches)
    trees = {kind: _Tree(layout.parts_tree(kind)) for kind in PART_KINDS}
    return [_state(layout, batch, markers, trees) for batch in batches]


def servers_present(layout: Layout) -> set[str]:
    """Names of servers that have a folder among markers or parts, as far as the folders' names tell them in full.

    Raises:
        StorageError: the disk fails.
    """
    trees = (layout.batches, *map(layout.parts_tree, PART_KINDS))
    servers = (server_of_folder(name) for tree in trees for name in _names(tree))
    return {server for server in servers if server is not None}


def _state(layout: Layout, batch: BatchLike, markers: _Tree, trees: dict[PartKind, _Tree]) -> BatchState:
    folder = server_folder(batch.server_name)
    if markers.has(folder, batch.partition_id):
        counts = _read_marker(layout.batches / folder / f"{PARTITION_PREFIX}{batch.partition_id}" / COMPLETED_NAME)
        if counts is not None:
            return BatchState(batch.batch_id, counts)
    parts = tuple(
        part
        for tree in trees.values()
        if tree.has(folder, batch.partition_id)
        for part in _parts_in(layout, tree.root / folder / f"{PARTITION_PREFIX}{batch.partition_id}")
    )
    return BatchState(batch.batch_id, None, parts)


class _Tree:
    """Which partitions a tree of ``server_name=S/partition_id=P`` has; each folder is listed at most once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._servers = frozenset(_names(root))
        self._partitions: dict[str, frozenset[str]] = {}

    def has(self, folder: str, partition_id: int) -> bool:
        if folder not in self._servers:
            return False
        if folder not in self._partitions:
            self._partitions[folder] = frozenset(_names(self.root / folder))
        return f"{PARTITION_PREFIX}{partition_id}" in self._partitions[folder]


def _parts_in(layout: Layout, folder: Path) -> list[str]:
    named = [(part, name) for name in _names(folder) if (part := parse_part_name(name))]
    prefix = layout.relative(folder)
    return [f"{prefix}/{name}" for _, name in sorted(named)]


def _part_epochs(layout: Layout) -> Iterator[int]:
    for kind in PART_KINDS:
        tree = layout.parts_tree(kind)
        for server in _names(tree):
            if not server.startswith(SERVER_PREFIX):
                continue
            for partition in _names(tree / server):
                names = _names(tree / server / partition) if partition.startswith(PARTITION_PREFIX) else []
                yield from (part.epoch for name in names if (part := parse_part_name(name)))


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(f"cannot list {folder}: {error}") from error


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from error


def _read_marker(path: Path) -> BatchCounts | None:
    data = _read_bytes(path)
    if data is None:
        return None
    try:
        counts = msgspec.json.decode(data, type=BatchCounts)
    except UNDECODABLE:
        return None
    return counts if counts.rows == counts.successes + counts.errors else None


def _encode(checkpoint: Checkpoint) -> bytes:
    body = msgspec.json.encode(checkpoint)
    return msgspec.json.encode(_Envelope(_crc32(body), msgspec.Raw(body)))


def _read(path: Path) -> tuple[Checkpoint | None, str]:
    """The checkpoint, or what is wrong with it ("" where there is none)."""
    data = _read_bytes(path)
    if data is None:
        return None, ""
    if not data:
        return None, "it is empty"
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
        if _crc32(bytes(envelope.checkpoint)) != envelope.crc32:
            return None, "its checksum is wrong"
        version = msgspec.json.decode(envelope.checkpoint, type=_Versioned).version
        if version != VERSION:
            return None, f"its version is {version}, this program knows {VERSION}"
        return msgspec.json.decode(envelope.checkpoint, type=Checkpoint), ""
    except UNDECODABLE as error:
        return None, f"it cannot be decoded: {error}"


class _Versioned(msgspec.Struct):
    version: int


def _crc32(body: bytes) -> str:
    return f"{zlib.crc32(body):08x}"
