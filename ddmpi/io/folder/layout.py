"""All paths of the output folder, and the names of parts.

Decides where everything lies; it must not touch the disk, so that any rank (and a test) can compute a path for free.

Invariants:

- two different server names never share a folder, and no server name leads out of its tree;
- a folder name decodes to the server name as hive readers decode it (percent-encoding, as pyarrow's
  ``partitioning="hive"``), except for names that no file system takes, which are shortened with a digest;
- a part's name holds kind, epoch, rank and number: two writers, or two runs, never choose the same one.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Final, Literal, Protocol, cast
from urllib.parse import quote, unquote

from ddmpi.config.config import ConfigLike, reader_of

PartKind = Literal["successes", "errors"]

PART_KINDS: Final[tuple[PartKind, PartKind]] = ("successes", "errors")

SERVER_PREFIX: Final = "server_name="
PARTITION_PREFIX: Final = "partition_id="
COMPLETED_NAME: Final = "completed"

_NAME_MAX_BYTES: Final = 255  # NAME_MAX of Linux file systems; ext4, XFS, Lustre and NFS agree
_SHORTENED_BYTES: Final = 160  # what is kept of a longer name; prefix and digest fit beside it
_HIVE_NULL: Final = "__HIVE_DEFAULT_PARTITION__"  # hive readers decode this value, however it is written, to null
_PART_NAME: Final = re.compile(r"(successes|errors)-e(\d{4,})-r(\d{5,})-(\d{4,})\.parquet", re.ASCII)


class Structure(Protocol):
    """The names that the config's ``output_structure`` sets; read-only here."""

    @property
    def urls_folder(self) -> str: ...
    @property
    def images_folder(self) -> str: ...
    @property
    def errors_folder(self) -> str: ...
    @property
    def batches_folder(self) -> str: ...
    @property
    def logs_folder(self) -> str: ...
    @property
    def schedules_folder(self) -> str: ...
    @property
    def profiles_table(self) -> str: ...
    @property
    def ignored_table(self) -> str: ...
    @property
    def inner_checkpoint_file(self) -> str: ...


@dataclass(frozen=True)
class DefaultStructure:
    """The names of an output folder whose config does not set any."""

    urls_folder: str = "urls"
    images_folder: str = "images"
    errors_folder: str = "errors"
    batches_folder: str = "batches"
    logs_folder: str = "logs"
    schedules_folder: str = "schedules"
    profiles_table: str = "profiles.csv"
    ignored_table: str = "ignored.csv"
    inner_checkpoint_file: str = "checkpoint.json"


@dataclass(frozen=True, order=True)
class PartName:
    """What a part's file name says."""

    kind: PartKind
    epoch: int
    rank: int
    number: int


@dataclass(frozen=True)
class Layout:
    """The output folder ``root``; every path below is absolute if ``root`` is."""

    root: Path
    structure: Structure = field(default_factory=DefaultStructure)

    @property
    def urls(self) -> Path:
        return self.root / self.structure.urls_folder

    @property
    def batches_table(self) -> Path:
        return self.urls / "batches.parquet"

    @property
    def images(self) -> Path:
        return self.root / self.structure.images_folder

    @property
    def errors(self) -> Path:
        return self.root / self.structure.errors_folder

    @property
    def batches(self) -> Path:
        return self.root / self.structure.batches_folder

    @property
    def logs(self) -> Path:
        return self.root / self.structure.logs_folder

    @property
    def profiles(self) -> Path:
        return self.root / self.structure.profiles_table

    @property
    def ignored(self) -> Path:
        return self.root / self.structure.ignored_table

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def control(self) -> Path:
        """What the person who watches a run asks for."""
        return self.root / "control.yaml"

    @property
    def publication(self) -> Path:
        """Where the parts go beside this folder (see ``publishing``)."""
        return self.root / "publication.json"

    @property
    def metrics(self) -> Path:
        """One line per interval, over all runs."""
        return self.logs / "metrics.jsonl"

    @property
    def usage(self) -> Path:
        """How each server was asked, over all runs."""
        return self.logs / "servers.parquet"

    @property
    def audit(self) -> Path:
        """What each server was really sent, over all runs."""
        return self.logs / "politeness.csv"

    @property
    def checkpoint(self) -> Path:
        return self.root / self.structure.inner_checkpoint_file

    @property
    def previous_checkpoint(self) -> Path:
        """The generation before ``checkpoint``, for the day that one is damaged."""
        return self.root / (self.structure.inner_checkpoint_file + ".previous")

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def temporary(self) -> Path:
        """Holds one folder per epoch with parts that are being written; below ``batches`` to keep ``images`` clean."""
        return self.batches / ".tmp"

    def epoch_temporary(self, epoch: int) -> Path:
        """Where the ranks of one run write; it exists only while that run may commit (see ``durable``)."""
        return self.temporary / f"e{epoch:04d}"

    def schedule(self, number: int) -> Path:
        """The folder of one big batch: ``schedule.csv`` and ``verification.csv``."""
        return self.root / self.structure.schedules_folder / f"{number:04d}"

    def parts_tree(self, kind: PartKind) -> Path:
        return self.images if kind == "successes" else self.errors

    def parts_folder(self, kind: PartKind, server_name: str, partition_id: int) -> Path:
        """Where the parts of one batch lie."""
        return self.parts_tree(kind) / batch_folder(server_name, partition_id)

    def completed(self, server_name: str, partition_id: int) -> Path:
        """The marker of a batch whose rows are all final."""
        return self.batches / batch_folder(server_name, partition_id) / COMPLETED_NAME

    def relative(self, path: Path) -> str:
        """``path`` as it stands in messages and in ``BatchRef.parts``: relative to the root, with ``/``."""
        return path.relative_to(self.root).as_posix()


def batch_folder(server_name: str, partition_id: int) -> str:
    """``server_name=S/partition_id=P``, S percent-encoded."""
    return f"{server_folder(server_name)}/{PARTITION_PREFIX}{partition_id}"


def server_folder(server_name: str) -> str:
    """``server_name=S`` with everything but ``A-Za-z0-9._-`` percent-encoded as UTF-8.

    A name that would exceed 255 bytes, or that hive readers take for null, keeps its beginning and ends in ``~``
    and a SHA-256: ``~`` is never left bare in other names, hence no two names meet. Readers get the short form back.
    """
    encoded = _encoded(server_name)
    if len(SERVER_PREFIX) + len(encoded) > _NAME_MAX_BYTES or server_name == _HIVE_NULL:
        digest = hashlib.sha256(server_name.encode()).hexdigest()
        # Whole characters only: of half an escape, or half a character's bytes, readers can make nothing.
        ends = accumulate(len(_encoded(char)) for char in server_name)
        kept = max((end for end in ends if end <= _SHORTENED_BYTES), default=0)
        encoded = f"{encoded[:kept]}~{digest}"
    return SERVER_PREFIX + encoded


def _encoded(text: str) -> str:
    return quote(text, safe="").replace("~", "%7E")


def server_of_folder(folder_name: str) -> str | None:
    """The S of ``server_name=S`` as a hive reader decodes it; None where the folder is no server's."""
    if not folder_name.startswith(SERVER_PREFIX):
        return None
    return unquote(folder_name[len(SERVER_PREFIX) :])


def part_name(kind: PartKind, epoch: int, rank: int, number: int) -> str:
    """``successes-e0001-r00002-0003.parquet``; wider numbers are written in full."""
    return f"{kind}-e{epoch:04d}-r{rank:05d}-{number:04d}.parquet"


def parse_part_name(name: str) -> PartName | None:
    """The inverse of ``part_name``; None for any other file."""
    match = _PART_NAME.fullmatch(name)
    if match is None:
        return None
    kind, epoch, rank, number = match.groups()
    return PartName(cast("PartKind", kind), int(epoch), int(rank), int(number))


def layout_of(results: ConfigLike) -> Layout:
    """Where the results lie, for ``open_results`` and the export.

    Raises:
        ConfigError: ``results`` is a config, and a wrong one.
    """
    if isinstance(results, (str, os.PathLike)) and not Path(results).is_file():
        return Layout(Path(results))
    config = reader_of(results)()
    return Layout(Path(config.path_to_output_folder), config.output_structure)
