"""schedules/NNNN/: what each big batch was planned as, and what verification found in the files of its batches."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass

from ddmpi.core.ledger.actions import ScheduleRow
from ddmpi.io.folder.durable import csv_bytes, write_whole
from ddmpi.io.folder.layout import Layout

_SCHEDULE = ("rank", "server_name", "partition_id_from", "partition_id_to", "rate_limit")
_VERIFICATION = ("server_name", "partition_id", "status", "rows", "successes", "errors", "pending")


@dataclass(frozen=True, slots=True)
class VerificationRow:
    """One batch in verification.csv. ``status`` is completed, pending or damaged."""

    server_name: str
    partition_id: int
    status: str
    rows: int
    successes: int
    errors: int
    pending: int


def write_schedule(layout: Layout, number: int, rows: Iterable[ScheduleRow]) -> None:
    """Write schedule.csv of a big batch. Raises StorageError: the file cannot be written."""
    data = csv_bytes(_SCHEDULE, map(astuple, rows))
    write_whole(layout.schedule(number) / "schedule.csv", data, layout.temporary)


def write_verification(layout: Layout, number: int, rows: Iterable[VerificationRow]) -> None:
    """Write verification.csv of a big batch. Raises StorageError: the file cannot be written."""
    data = csv_bytes(_VERIFICATION, map(astuple, rows))
    write_whole(layout.schedule(number) / "verification.csv", data, layout.temporary)


def last_number(layout: Layout) -> int:
    """Return the highest number of a big batch so far, 0 if there is none."""
    if not layout.schedules.is_dir():
        return 0
    return max((int(path.name) for path in layout.schedules.iterdir() if path.name.isdigit()), default=0)


def verified_batches(layout: Layout) -> set[tuple[str, int]]:
    """Return (server_name, partition_id) of every batch that an earlier run has found complete."""
    found: set[tuple[str, int]] = set()
    for number in range(1, last_number(layout) + 1):
        path = layout.schedule(number) / "verification.csv"
        if path.exists():
            with path.open(newline="") as file:
                completed = [row for row in csv.DictReader(file) if row["status"] == "completed"]
            found |= {(row["server_name"], int(row["partition_id"])) for row in completed}
    return found
