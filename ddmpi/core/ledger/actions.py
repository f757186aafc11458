"""What the ledger decides: values that ``performer`` performs, one after the other. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ddmpi.core.protocol import Assign, ToDownloader


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message to the rank."""

    rank: int
    message: ToDownloader


@dataclass(frozen=True, slots=True)
class Scatter:
    """Scatter these over all ranks; those without lanes get an empty ``Assign``."""

    assigns: Mapping[int, Assign]


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """One row of schedule.csv."""

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
    """Write the batch's marker, and verify it from the files. ``number`` is its big batch's, 0 if it is in none."""

    batch_id: int
    successes: int
    errors: int
    number: int


@dataclass(frozen=True, slots=True)
class BigBatchEnded:
    """All of these batches are complete: write the big batch's verification.csv once all are verified."""

    number: int
    batch_ids: tuple[int, ...]


Action = Send | Scatter | BigBatchStarted | BatchCompleted | BigBatchEnded
