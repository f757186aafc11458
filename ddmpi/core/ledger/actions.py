"""What rank 0's state machines decide: instructions that their shell carries out, one after the other. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ddmpi.core.protocol import Assign, Exit, StopReason, ToDownloader


@dataclass(frozen=True, slots=True)
class Send:
    rank: int
    message: ToDownloader


@dataclass(frozen=True, slots=True)
class Scatter:
    """Scatter these over all ranks; those without lanes get an empty ``Assign``."""

    assigns: Mapping[int, Assign]


# ---- files


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    rank: int
    server_name: str
    partition_from: int
    partition_to: int
    rate_per_s: float


@dataclass(frozen=True, slots=True)
class BigBatchStarted:
    """Write the big batch's schedule.csv."""

    number: int
    rows: tuple[ScheduleRow, ...]


@dataclass(frozen=True, slots=True)
class BatchCompleted:
    """Write the batch's marker, and verify it from the files. ``number`` is its big batch's."""

    batch_id: int
    number: int


@dataclass(frozen=True, slots=True)
class BigBatchEnded:
    """All of these batches are complete: write the big batch's verification.csv once all are verified."""

    number: int
    batch_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProfilingEnded:
    """All servers are profiled, and their samples are durable: write profiles.csv."""


@dataclass(frozen=True, slots=True)
class SaveCheckpoint:
    """Write the checkpoint: ``soon``, because a server has asked for a long pause, or now."""

    soon: bool = False


@dataclass(frozen=True, slots=True)
class VerifyRest:
    """Verify the batches of big batches (number, batches) that did not end, and write their verification.csv."""

    big_batches: tuple[tuple[int, tuple[int, ...]], ...]


# ---- for people


@dataclass(frozen=True, slots=True)
class Bound:
    """The least time of the download, as planned when it began (``schedule.lower_bound_s``)."""

    seconds: float
    group: str
    """The group that sets it."""
    began_at: float
    """Seconds, monotonic."""


@dataclass(frozen=True, slots=True)
class DownloadBegan:
    """The first big batch flows out: note when."""


@dataclass(frozen=True, slots=True)
class GroupPaused:
    """A server group is left alone for ``wait_s``: count it."""

    group: str
    wait_s: float


# ---- the end


@dataclass(frozen=True, slots=True)
class StopBegan:
    """All ranks are told to stop. ``is_stuck``: because only parked servers are left."""

    reason: StopReason
    is_stuck: bool = False


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over: report it. ``unfinished`` ranks did not finish in time. The ranks are told afterwards."""

    exit: Exit
    unfinished: tuple[int, ...] = ()


FileAction = BigBatchStarted | BatchCompleted | BigBatchEnded | ProfilingEnded | SaveCheckpoint | VerifyRest
Action = Send | Scatter | FileAction | DownloadBegan | StopBegan | GroupPaused | RunEnded
