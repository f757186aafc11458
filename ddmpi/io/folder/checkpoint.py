"""What a run leaves for the next one and no result file says: learned rates, pauses, byte ledgers, finished stages.

The parts are the truth, the checkpoint only spares work and keeps politeness: a lost or damaged one never loses a row.
It is saved as JSON with a CRC32 over its body, and the generation before it is kept, since a disk that damages one
file seldom damages both. File system assumptions: see ``durable``.

Order of a commit: part, marker, checkpoint, message. A kill between two of them repeats work and loses none.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, Final

import msgspec

from ddmpi.core.ledger.waiting import Waiting
from ddmpi.core.records import UNDECODABLE
from ddmpi.io.folder.disk_errors import read_bytes
from ddmpi.io.folder.durable import write_atomically
from ddmpi.io.folder.layout import Layout

VERSION: Final = 1


class ServerState(msgspec.Struct, frozen=True):
    """What was learned of a server group. ``not_before`` is wall clock, seconds since 1970: it outlives the machine."""

    rate_per_s: float = 0.0
    not_before: float = 0.0
    incidents: int = 0
    open_count: int = 0
    throttles: int = 0
    bytes_of_hour: tuple[tuple[float, float], ...] = ()
    bytes_of_day: tuple[tuple[float, float], ...] = ()
    """Bytes that count against a budget until a time (seconds since 1970): (time, bytes)."""
    why: str = ""
    silent_since: float = 0.0
    """Since when it has not answered (seconds since 1970), if ``open_count`` > 0."""
    paid_at: float = 0.0
    """When its bodies are paid for (seconds since 1970), at the limit per second."""
    body_bytes: float = 0.0


class Checkpoint(msgspec.Struct, frozen=True):
    """The state between two runs. ``stages`` maps a stage's name to what it left (times, counts)."""

    epoch: int
    version: int = VERSION
    saved_at: float = 0.0
    """Wall clock, seconds since 1970."""
    stages: dict[str, Any] = {}
    input_fingerprint: str = ""
    input_stamp: str = ""
    """A digest of what can be told of the input's files without opening them."""
    config_hash: str = ""
    config_semantic: dict[str, Any] = {}
    config_digests: dict[str, str] = {}
    """A digest of each key's value: a value may hold a password."""
    servers: dict[str, ServerState] = {}
    counters: dict[str, int] = {}
    ran_s: float = 0.0
    """How long the job's runs have lasted, seconds."""
    waiting: Waiting = Waiting()
    """Who is waited for; times are seconds since 1970."""


class _Envelope(msgspec.Struct):
    crc32: str
    checkpoint: msgspec.Raw


def save(layout: Layout, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint; the one that was there becomes the previous generation, unless it is damaged. Raises
    StorageError: with path and reason; the generation that was there is still there."""
    current, _ = _read(layout.checkpoint)
    if current is not None:
        write_atomically(layout.previous_checkpoint, _encode(current), layout.temporary)
    write_atomically(layout.checkpoint, _encode(checkpoint), layout.temporary)


def load(layout: Layout) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest usable generation, and warnings for the person who runs the program.

    None without warnings: the folder is new. None with warnings: no generation is usable; the caller rebuilds from
    the parts, and takes the epoch from ``fence.highest_epoch``.
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


def _encode(checkpoint: Checkpoint) -> bytes:
    body = msgspec.json.encode(checkpoint)
    return msgspec.json.encode(_Envelope(_crc32(body), msgspec.Raw(body)))


def _read(path: Path) -> tuple[Checkpoint | None, str]:
    """Return the checkpoint, or what is wrong with it ("" where there is none)."""
    data = read_bytes(path)
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
