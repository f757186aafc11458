"""What a tormented job has left, held against what its fleet has served: the fleet here is healthy, so each row is
served and must be stored, once, as it was served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fleet.images import body_of
from tests.fleet.log import NOTE_WHOLE, Event, EventKind
from tests.fleet.process import RunningFleet
from tests.fleet.table import path_of, row_of
from tests.whole.job import Job, parts

_COLUMNS = ["row_number", "final_url", "image"]


@dataclass
class Evidence:
    """The rows of all readable parts, and what is wrong with the others."""

    outcomes: Counter[int] = field(default_factory=Counter)
    """How many outcomes each row has, errors included."""
    failed: set[int] = field(default_factory=set)
    """Rows with an error as outcome."""
    unreadable: list[str] = field(default_factory=list)
    """Parts that cannot be read, and what is in the parts' folders beside them."""
    wrong: list[str] = field(default_factory=list)
    """Rows whose stored body is not what was served."""

    def lost(self, rows: int) -> int:
        """Rows of a finished job that are not stored: without an outcome, or an error although a server has them."""
        return rows - len(self.outcomes.keys() - self.failed)

    @property
    def doubled(self) -> int:
        """Outcomes beyond each row's first."""
        return sum(count - 1 for count in self.outcomes.values())

    @property
    def is_sound(self) -> bool:
        """Nothing contradicts; rows may still be missing."""
        return not (self.doubled or self.unreadable or self.wrong or self.failed)


def examine(job: Job, fleet: RunningFleet, seen: Iterable[Path] = ()) -> Evidence:
    """Read all parts of a job but those in ``seen``."""
    evidence = Evidence()
    by_address = {spec.address: spec for spec in fleet.specs}
    for part in sorted(set(parts(job)) - set(seen)):
        try:
            table = pq.read_table(part, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            evidence.unreadable.append(f"{part}: {error}")
            continue
        rows = table.column("row_number").to_numpy().tolist()
        evidence.outcomes.update(rows)
        if part.name.startswith("errors"):
            evidence.failed.update(rows)
            continue
        for row, url, image in zip(*(table.column(name).to_pylist() for name in _COLUMNS), strict=True):
            if image != body_of(by_address[url.split("/")[2].partition(":")[0]], path_of(row)):
                evidence.wrong.append(f"{part}: row {row} is not what {url} serves")
    for folder in (job.output / "images", job.output / "errors"):
        strange = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".parquet"]
        evidence.unreadable += [f"{path}: not a part" for path in strange]
    return evidence


def served_rows(log: Sequence[Event]) -> Counter[int]:
    """How often each row's file was sent whole."""
    return Counter(
        row_of(event.path)
        for event in log
        if event.kind is EventKind.ANSWER and event.status == 200 and event.note == NOTE_WHOLE
    )


def repeated_requests(log: Sequence[Event]) -> int:
    """Files that were sent beyond each row's first."""
    return sum(count - 1 for count in served_rows(log).values())
