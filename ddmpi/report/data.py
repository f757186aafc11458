"""What people are shown of a run, as data: while it goes on, at its end, and in the report. Pure.

Measurements of all runs become the points of the charts and the lines of the runs here. The charts' time is running
time: between two runs it stands still, and a clock that was set back adds nothing. Nothing here knows how it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from ddmpi.core.ledger.waiting import Waiting
from ddmpi.core.records import Picture
from ddmpi.core.stats.audit import Audited
from ddmpi.core.stats.metrics import MOST_POINTS, Measurement, thinned
from ddmpi.core.stats.timeline import Timeline
from ddmpi.core.stats.usage import GroupUsage
from ddmpi.errors import EXIT_DONE
from ddmpi.report.formats import counted

MOST_RUNS = 20
"""Lines of the table of runs: the newest ones."""
MOST_SERVERS = 100_000
"""Lines of the table of servers, about 100 bytes each; the rest is one sentence."""
MOST_SLOW = 20
"""Servers with a timeline."""
MOST_EXAMPLES = 3
"""URLs of one kind of error."""
MOST_FAILURES = 200
"""Lines of the table of errors by server."""

FailureKey = tuple[str, str, int]
"""Server, kind and code of an error."""


@dataclass(frozen=True)
class Point:
    """A moment of the job: ``seconds`` of running time since the first run began, and what was there at that time."""

    seconds: float
    rows: int
    """With an outcome: never more than the table has."""
    bytes: int
    kinds: Mapping[str, int] = field(default_factory=dict)
    """Durable errors by kind."""
    fetched: int = 0
    """Rows fetched by all runs: more than ``rows`` where a kill has cost some."""


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
class Failures:
    """Errors of one server, kind and code."""

    rows: int
    urls: tuple[str, ...]
    """Some of them."""

    def joined(self, other: Failures) -> Failures:
        return Failures(self.rows + other.rows, (self.urls + other.urls)[:MOST_EXAMPLES])


@dataclass(frozen=True)
class FailureLine:
    """A line of a table of errors: of one code, or of one code on one server."""

    kind: str
    code: int
    rows: int
    server: str
    """The one with the most of them."""
    servers: int
    urls: Sequence[str]


@dataclass(frozen=True)
class ServerLine:
    """A line of the table of servers."""

    name: str
    rows: int
    successes: int
    errors: int
    ignored: int = 0
    is_known: bool = True
    """Whether it was found out how its rows ended."""
    failure: str = ""
    """Kind and code of most of its errors."""
    waits: str = ""
    """Until when its pending rows wait, and why."""
    shared_with: str = ""
    """The group of servers with which it shares its limits, and what was measured."""
    limit_per_s: float = 0.0
    """Requests per second, 0 = no limit."""
    size_bytes: int = 0
    """Median of the profiling requests; 0 = not measured."""
    reached_per_s: float = 0.0
    """Requests per second over all of the time in which it was asked; 0 = too short to tell."""
    usage: GroupUsage | None = None
    """None: not measured, as for small servers that share a batch."""
    audited: Audited | None = None

    @property
    def pending(self) -> int:
        """Rows that are to become final and are not."""
        return self.rows - self.successes - self.errors - self.ignored if self.is_known else 0

    @property
    def paused_s(self) -> float:
        """For how long it was not asked: it wanted a pause, or did not answer."""
        return self.usage.paused_s if self.usage else self.audited.paused_s if self.audited else 0.0


@dataclass(frozen=True)
class Rest:
    """The servers that are not listed, together."""

    servers: int
    rows: int
    successes: int
    errors: int
    ignored: int

    @property
    def pending(self) -> int:
        return self.rows - self.successes - self.errors - self.ignored


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
class FileTable:
    """A table as it was found in a file."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left_out: int = 0
    """Rows that are only in the file."""


@dataclass(frozen=True)
class Report:
    """All that the page shows."""

    summary: Summary
    exit_code: int
    ended_at: float
    """Seconds since 1970."""
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
    rest: Rest | None
    """All other servers."""
    server_count: int
    waiting: Waiting = field(default_factory=Waiting)
    """Who is waited for."""
    is_failed: bool = False
    """A failure has ended the run; ``summary.ending`` says which."""
    damage: str = ""
    """What the verification has found and nothing can mend."""
    failures: Mapping[FailureKey, Failures] = field(default_factory=dict)
    unread_errors: int = 0
    """Errors that are not among ``failures``: looking at all of them would have taken too long."""
    timelines: Sequence[Timeline] = ()
    """Of the slowest servers."""
    timeline_span: tuple[float, float] = (0.0, 1.0)
    """When the first span of the timelines begins, and how long (s) one is."""
    runs: Sequence[RunLine] = ()
    """The newest ones, newest first."""
    breaks_s: Sequence[float] = ()
    """Where in the points' time another run begins."""
    changes: Sequence[str] = ()
    """What was changed while the run was on."""
    pictures: Sequence[Picture] = ()
    placeholders: Sequence[PlaceholderLine] = ()
    compared: str = ""
    """What has become of the files that the table promises; empty where it promises none, or rows are pending."""
    comparison: FileTable | None = None
    refreshed: str = ""
    """What a refresh has found; empty where the run was none, or rows are pending."""
    refresh_table: FileTable | None = None


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
    return ", ".join([*told, f"{counted(waste.refused, 'answer')} refused"]) if told else ""


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
    """Return the points, and where in their time another run begins.

    Rows that a run has fetched count at once; what a kill has cost is gone when the next run begins.
    """
    points = [Point(0.0, 0, 0)]
    breaks_s = []
    seconds = 0.0
    before: Measurement | None = None
    final = fetched = 0
    for line in lines:
        if before is not None and before.run == line.run:
            seconds += max(0.0, line.unix_s - before.unix_s)
        elif before is not None:
            breaks_s.append(seconds)
        if before is None or before.run != line.run:
            final, fetched = line.successes + line.errors, line.fetched_rows
        rows = min(line.rows - line.ignored, final + line.fetched_rows - fetched)
        points.append(Point(seconds, rows, line.bytes, line.error_kinds, line.fetched_rows))
        before = line
    return points, breaks_s


def failures_by_code(failures: Mapping[FailureKey, Failures]) -> list[FailureLine]:
    """Return a line for each kind and code, most rows first, with a URL of each of the servers with the most."""
    ordered = sorted(failures.items(), key=lambda item: (-item[1].rows, item[0]))
    by_code: dict[tuple[str, int], list[tuple[str, Failures]]] = {}
    for (server, kind, code), found in ordered:
        by_code.setdefault((kind, code), []).append((server, found))
    lines = []
    for (kind, code), of_code in by_code.items():
        urls = _in_turn([found.urls for _, found in of_code[:MOST_EXAMPLES]])
        lines.append(
            FailureLine(kind, code, sum(found.rows for _, found in of_code), of_code[0][0], len(of_code), urls)
        )
    return sorted(lines, key=lambda line: (-line.rows, line.kind, line.code))


def _in_turn(urls: Sequence[Sequence[str]]) -> list[str]:
    """Return some of the URLs: the first one of each, then the second ones."""
    found = [of_one[turn] for turn in range(MOST_EXAMPLES) for of_one in urls if turn < len(of_one)]
    return found[:MOST_EXAMPLES]


def failures_by_server(failures: Mapping[FailureKey, Failures]) -> list[FailureLine]:
    """Return a line for each server, kind and code, most rows first: ``MOST_FAILURES`` of them."""
    ordered = sorted(failures.items(), key=lambda item: (-item[1].rows, item[0]))[:MOST_FAILURES]
    return [FailureLine(kind, code, it.rows, server, 1, it.urls) for (server, kind, code), it in ordered]


def failure_text(kind: str, code: int) -> str:
    """Return a text such as ``http_status 404``; negative codes are in the kind already."""
    return f"{kind} {code}" if code > 0 else kind


def runs_of(lines: Sequence[Measurement], run: int) -> list[RunLine]:
    """Return the runs, newest first; ``run`` is the one that ends now."""
    found = []
    rows = requests = size_bytes = 0
    for number, group in groupby(lines, key=attrgetter("run")):
        of_run = list(group)
        first, last = of_run[0], of_run[-1]
        codes = [line.exit_code for line in of_run if line.exit_code is not None]
        ending = "now" if number == run else _ending(codes[-1] if codes else None)
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
