"""What people are shown of a run, as data: while it goes on, at its end, and in the report. Pure.

Measurements of all runs become the points of the charts and the lines of the runs here. The charts' time is running
time: between two runs it stands still, and a clock that was set back adds nothing. Nothing here knows how it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from ddmpi.core.records import Picture
from ddmpi.core.stats.audit import Audited
from ddmpi.core.stats.metrics import MOST_POINTS, Measurement, thinned
from ddmpi.core.stats.usage import GroupUsage
from ddmpi.errors import EXIT_DONE

MOST_RUNS = 20
"""Lines of the table of runs: the newest ones."""
MOST_SERVERS = 1_000
"""Lines of the table of servers; the rest is one sentence."""


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
        return self.rows - self.successes - self.errors


@dataclass(frozen=True)
class PlaceholderLine:
    """A picture that a server has in the place of many files."""

    server: str
    urls: int
    size_bytes: int
    url: str
    data_uri: str
    """Empty where the picture cannot be shown."""


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
    """The lines that are listed, largest first."""
    rest: ServerLine | None
    """All others together."""
    runs: Sequence[RunLine] = ()
    """The newest ones, newest first."""
    breaks_s: Sequence[float] = ()
    """Where in the points' time another run begins."""
    changes: Sequence[str] = ()
    """What was changed while the run was on."""
    pictures: Sequence[Picture] = ()
    placeholders: Sequence[PlaceholderLine] = ()
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
    note: str = ""
    """What a person would wonder about: why there is no speed, or why it says little yet."""
    unit: str = "rows"
    durable: int | None = None
    """Rows whose outcome is in a published part, of those that are done; None where that is not counted."""
    rows_waiting: int = 0
    """Rows whose server is waited for, beside others that are fetched."""
    waiting: str = ""
    """Which servers those are, until when and why."""
    slowest: Sequence[tuple[str, float]] = ()
    """Servers with the most time left, and how much at least (s)."""


@dataclass(frozen=True)
class Summary:
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
    placeholders: tuple[int, int] = (0, 0)
    """Pictures that stand in the place of many files, and URLs that led to them."""
    waste: Audited = field(default_factory=lambda: Audited(""))
    """Sums over the servers that were asked in this run."""
    respect: str = ""
    """What of the servers' signals is obeyed."""
    signals: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """What they have said in this run -> rows that it was said of, and how many of them were not stored for it."""
    report: str = ""
    """Path of the report; empty where there is none."""


def by_count(kinds: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the kinds of errors that there are with their counts, the most frequent first."""
    return sorted(((kind, count) for kind, count in kinds.items() if count), key=lambda item: (-item[1], item[0]))


def waste_text(waste: Audited) -> str:
    """Return what was asked for more than once, or came in and was not kept, in this run; empty where nothing was
    done with."""
    told = [f"{waste.requests_per_url:.2f} requests per URL"] if waste.urls else []
    if waste.kept_bytes:
        told.append(f"{waste.bytes_per_kept_byte:.2f} bytes fetched per byte kept")
    return ", ".join([*told, f"{waste.refused:,} answers refused"]) if told else ""


def by_rows(signals: Mapping[str, tuple[int, int]]) -> list[tuple[str, int, int]]:
    """Return what servers have said of their files' use, of the most rows first: text, rows, rows not stored."""
    return sorted(((text, *counts) for text, counts in signals.items()), key=lambda item: (-item[1], item[0]))


def joined(earlier: Sequence[Measurement], current: Sequence[Measurement], run: int) -> list[Measurement]:
    """Join earlier runs from the file and the current one, which was measured more often; few enough for a chart."""
    before = [line for line in earlier if line.run != run]
    while len(before) > MOST_POINTS and len(smaller := thinned(before)) < len(before):
        before = smaller
    return [*before, *current]


def points_of(lines: Sequence[Measurement]) -> tuple[list[Point], list[float]]:
    """Return the points, and where in their time another run begins."""
    points = [Point(0.0, 0, 0)]
    breaks_s = []
    seconds = 0.0
    before: Measurement | None = None
    for line in lines:
        if before is not None and before.run == line.run:
            seconds += max(0.0, line.unix_s - before.unix_s)
        elif before is not None:
            breaks_s.append(seconds)
        points.append(Point(seconds, line.fetched_rows, line.bytes, line.error_kinds))
        before = line
    return points, breaks_s


def runs_of(lines: Sequence[Measurement], run: int) -> list[RunLine]:
    """Return the runs, newest first; ``run`` is the one that ends now."""
    found = []
    rows = requests = size_bytes = 0
    for number, group in groupby(lines, key=attrgetter("run")):
        of_run = list(group)
        first, last = of_run[0], of_run[-1]
        ending = "now" if number == run else _ending(last.exit_code)
        found.append(
            RunLine(
                number, first.time[:16].replace("T", " "), max(0.0, last.unix_s - first.unix_s), last.ranks,
                last.fetched_rows - rows, last.requests - requests, last.bytes - size_bytes, ending,
            )
        )  # fmt: skip
        rows, requests, size_bytes = last.fetched_rows, last.requests, last.bytes
    return found[::-1][:MOST_RUNS]


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "killed"
    return "all rows final" if exit_code == EXIT_DONE else "stopped or rows pending"
