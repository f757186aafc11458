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
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final, Literal, cast
from urllib.parse import quote, unquote

from ddmpi.config.config import Config, ConfigLike, reader_of
from ddmpi.config.sections import OutputStructure
from ddmpi.errors import StorageError

PartKind = Literal["successes", "errors", "checks"]

PART_KINDS: Final[tuple[PartKind, ...]] = ("successes", "errors", "checks")
ROW_KINDS: Final[tuple[PartKind, ...]] = ("successes", "errors")
"""Those whose rows are the rows of the results; a check says that a success is as it was."""

SERVER_PREFIX: Final = "server_name="
PARTITION_PREFIX: Final = "partition_id="
COMPLETED_NAME: Final = "completed"

_NAME_MAX_BYTES: Final = 255  # NAME_MAX of Linux file systems; ext4, XFS, Lustre and NFS agree
_SHORTENED_BYTES: Final = 160  # what is kept of a longer name; prefix and digest fit beside it
_HIVE_NULL: Final = "__HIVE_DEFAULT_PARTITION__"  # hive readers decode this value, however it is written, to null
_DEFAULT_STRUCTURE: Final = OutputStructure()
_PART_NAME: Final = re.compile(r"(successes|errors|checks)-e(\d{4,})-r(\d{5,})-(\d{4,})\.parquet", re.ASCII)


@dataclass(frozen=True, order=True)
class PartName:
    kind: PartKind
    epoch: int
    rank: int
    number: int


class Layout:
    """The paths of the output folder ``root``, absolute if ``root`` is; ``structure`` names what the user may name, and
    ``excluded`` a table like the ignored one, which may be anywhere."""

    def __init__(
        self, root: Path, structure: OutputStructure = _DEFAULT_STRUCTURE, excluded: Path | None = None
    ) -> None:
        self.root = root
        self.query = root / "query.parquet"
        """What the query of ``input.sql`` has answered."""
        self.urls = root / structure.urls_folder
        self.batches_table = self.urls / "batches.parquet"
        self.images = root / structure.images_folder
        self.errors = root / structure.errors_folder
        self.checks = root / structure.checks_folder
        self.batches = root / structure.batches_folder
        self.logs = root / structure.logs_folder
        self.schedules = root / structure.schedules_folder
        self.profiles = root / structure.profiles_table
        self.ignored = root / structure.ignored_table
        self.excluded = excluded
        self.damaged = root / "damaged"
        """Parts that could not be read, below their own paths; no reader of results looks here."""
        self.report = root / "report.html"
        self.comparison = root / "comparison.csv"
        """What has become of the files that the table promises, by server and license."""
        self.refreshed = root / "refresh.csv"
        """What a refresh has found, by server and license."""
        self.control = root / "control.yaml"
        """What the person who watches a run asks for."""
        self.publication = root / "publication.json"
        """Where the parts go beside this folder (see ``publishing``)."""
        self.placeholders = root / "placeholders.parquet"
        """Pictures that servers have in the place of many files."""
        self.uuid_index = root / "uuids.arrow"
        """Where the rows of each uuid are (see ``lookup``); may be lost."""
        self.forgotten = root / "forgotten.parquet"
        """What was withdrawn, and is never fetched again."""
        self.metrics = self.logs / "metrics.jsonl"
        """One line per interval, over all runs."""
        self.usage = self.logs / "servers.parquet"
        """How each server was asked, over all runs."""
        self.audit = self.logs / "politeness.csv"
        self.run_audit = self.logs / "last-run.json"
        """What each server was really sent, over all runs."""
        self.checkpoint = root / structure.inner_checkpoint_file
        self.previous_checkpoint = root / f"{structure.inner_checkpoint_file}.previous"
        """The generation before ``checkpoint``, for the day that one is damaged."""
        self.lock = root / ".lock"
        self.temporary = self.batches / ".tmp"
        """Holds one folder per epoch with parts that are being written; below ``batches`` to keep ``images`` clean."""

    @property
    def ignored_names(self) -> str:
        """The files that name ignored servers, for messages."""
        return self.ignored.name if self.excluded is None else f"{self.ignored.name} or {self.excluded.name}"

    def epoch_temporary(self, epoch: int) -> Path:
        """Return where the ranks of one run write; it exists only while that run may commit (see ``durable``)."""
        return self.temporary / f"e{epoch:04d}"

    def schedule(self, number: int) -> Path:
        """Return the folder of one big batch: ``schedule.csv`` and ``verification.csv``."""
        return self.schedules / f"{number:04d}"

    def parts_tree(self, kind: PartKind) -> Path:
        match kind:
            case "successes":
                return self.images
            case "errors":
                return self.errors
            case "checks":
                return self.checks

    def parts_folder(self, kind: PartKind, server_name: str, partition_id: int) -> Path:
        """Return where the parts of one batch lie."""
        return self.parts_tree(kind) / batch_folder(server_name, partition_id)

    def completed(self, server_name: str, partition_id: int) -> Path:
        """Return the marker of a batch whose rows are all final."""
        return self.batches / batch_folder(server_name, partition_id) / COMPLETED_NAME

    def relative(self, path: Path) -> str:
        """Return ``path`` as it stands in messages and in ``BatchRef.parts``: relative to the root, with ``/``."""
        return path.relative_to(self.root).as_posix()


def batch_folder(server_name: str, partition_id: int) -> str:
    """Return ``server_name=S/partition_id=P``, S percent-encoded."""
    return f"{server_folder(server_name)}/{PARTITION_PREFIX}{partition_id}"


def server_folder(server_name: str) -> str:
    """Return ``server_name=S`` with everything but ``A-Za-z0-9._-`` percent-encoded as UTF-8.

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
    """Return the S of ``server_name=S`` as a hive reader decodes it; None where the folder is no server's."""
    if not folder_name.startswith(SERVER_PREFIX):
        return None
    return unquote(folder_name[len(SERVER_PREFIX) :])


def part_name(kind: PartKind, epoch: int, rank: int, number: int) -> str:
    """Return ``successes-e0001-r00002-0003.parquet``; wider numbers are written in full."""
    return f"{kind}-e{epoch:04d}-r{rank:05d}-{number:04d}.parquet"


def part_of(path: str) -> PartName:
    """Return what a part's relative path says. Raises StorageError: the path is no part's."""
    name = parse_part_name(path.rpartition("/")[2])
    if name is None:
        raise StorageError(f"{path} is not the name of a part")
    return name


def parse_part_name(name: str) -> PartName | None:
    """Read what ``part_name`` wrote; None for any other file."""
    match = _PART_NAME.fullmatch(name)
    if match is None:
        return None
    kind, epoch, rank, number = match.groups()
    return PartName(cast("PartKind", kind), int(epoch), int(rank), int(number))


def layout_of(results: ConfigLike) -> Layout:
    """Return where the results lie, for ``open_results`` and the export. Raises ConfigError: ``results`` is a config,
    and a wrong one."""
    if isinstance(results, (str, os.PathLike)) and not Path(results).is_file():
        return Layout(Path(results))
    return configured_layout(reader_of(results)())


def configured_layout(config: Config) -> Layout:
    """Return the layout of the config's output folder."""
    excluded = config.excluded_servers_path
    root = Path(config.path_to_output_folder)
    return Layout(root, config.output_structure, None if excluded is None else Path(excluded))
