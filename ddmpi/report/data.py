"""What the report shows. Data only.

What people are told of a run, as numbers: while it goes on, and at its end. Data only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ddmpi.core.records import Picture
from ddmpi.core.stats.usage import GroupUsage


@dataclass(frozen=True)
class Point:
    """A moment of the job: ``seconds`` of running time since the first run began, and what was fetched until then."""

    seconds: float
    rows: int
    bytes: int
    kinds: Mapping[str, int] = field(default_factory=dict)
    """Durable errors by kind."""


@dataclass(frozen=True)
class RunLine:
    """One run over the output folder."""

    number: int
    began: str
    seconds: float
    ranks: int
    rows: int
    requests: int
    bytes: int
    ending: str


@dataclass(frozen=True)
class ServerLine:
    """A line of the table: what one limit applies to, which may be several servers."""

    name: str
    servers: int
    rows: int
    successes: int
    errors: int
    limit_per_s: float | None = None
    """Requests per second, 0 = no limit; None where no single limit applies."""
    size_bytes: int = 0
    """Median of the profiling requests; 0 = not measured."""
    usage: GroupUsage | None = None

    @property
    def pending(self) -> int:
        """Rows without an outcome."""
        return self.rows - self.successes - self.errors


@dataclass(frozen=True)
class Audit:
    """The politeness audit: a table as it was found."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left_out: int = 0
    """Rows that are only in the file."""


@dataclass(frozen=True)
class Report:
    """All that the page shows."""

    summary: Summary
    exit_code: int
    origin: str
    """Which run this was: its number, ranks, input, end."""
    places: Mapping[str, str]
    """What the output folder holds -> its path relative to the page."""
    points: Sequence[Point]
    """Over all runs."""
    bound_s: float | None
    """``schedule.lower_bound_s`` of the rows that were left when the download began; None if it did not."""
    bound_by: str
    """The server or group that sets the bound."""
    download_s: float
    servers: Sequence[ServerLine]
    """Those that are listed, largest first."""
    rest: ServerLine | None
    """All others together."""
    runs: Sequence[RunLine] = ()
    """The newest ones, newest first."""
    breaks_s: Sequence[float] = ()
    """Where in the points' time another run begins."""
    changes: Sequence[str] = ()
    """What was changed while the run was on."""
    pictures: Sequence[Picture] = ()
    audit: Audit | None = None


@dataclass(frozen=True)
class Snapshot:
    """The state of the run at one moment."""

    stage: str
    rows: int
    rows_done: int
    errors: int
    bytes: int
    servers_active: int
    ranks: int
    note: str = ""
    """What a person would wonder about: why there is no speed, or why it says little yet."""
    unit: str = "rows"


@dataclass(frozen=True)
class Summary:
    """The end of a run."""

    rows: int
    successes: int
    errors: int
    pending: int
    kinds: Mapping[str, int]
    fetched_bytes: int
    fetched_rows: int
    requests: int
    seconds: float
    slowest: Sequence[tuple[str, float]]
    output: str
    ending: str
    ignored: int = 0
    """Rows on servers that the ignored table names: neither successes nor errors nor pending."""
    report: str = ""
    """Path of the report; empty where there is none."""
