"""The report as one HTML page: numbers in, text out.

Decides how the page looks; style, script and template lie beside this file. It must not know where the numbers come
from, where the page goes, or what time it is.

Invariants:

- the page is whole in itself: it loads nothing, and its Content-Security-Policy lets nothing be loaded;
- whatever comes from outside (server names, URLs, paths, messages) is escaped by the template engine, or is JSON that
  the script shows as text; only the page's own script may run (the policy names its digest), and only http and https
  are linked;
- its size does not depend on the rows, nor on the servers beyond ``MOST_SERVERS``: about 100 bytes for each of these.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final
from urllib.parse import quote

import msgspec
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from ddmpi.core.records import INVALID_SERVER
from ddmpi.core.stats.timeline import BINS
from ddmpi.errors import EXIT_DONE
from ddmpi.report.charts import charts
from ddmpi.report.data import (
    Report,
    ServerLine,
    Summary,
    by_count,
    by_rows,
    failure_text,
    failures_by_code,
    failures_by_server,
    waste_text,
)
from ddmpi.report.formats import counted, duration, share, size
from ddmpi.report.pending import MOST_TOLD, clock

MOST_WAITS = 6
"""Servers that are waited for and named at the top; the table has all."""
STATIC_LINES = 50
"""Lines of the table of servers that are there without the script."""

Value = float | str | None


@cache
def _source(name: str) -> str:
    return files("ddmpi.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["path"] = lambda path: "./" + quote(path)
    environment.filters["host"] = _breakable
    environment.filters["count"] = "{:,}".format
    environment.tests["link"] = lambda url: url.lower().startswith(("http://", "https://"))
    return environment.from_string(_source("page.html"))


def prepare() -> None:
    """Load what ``render`` needs, before it is needed."""
    _template()


def _breakable(name: str) -> Markup:
    """Return a host's name, which a narrow column breaks after its dots where it can."""
    return escape(name).replace(".", Markup(".<wbr>"))


def render(report: Report) -> str:
    script = _source("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    summary, columns = report.summary, _used_columns(report)
    first_choice = [column for column in columns if column.view == COLUMNS[0].view]
    return _template().render(
        report=report,
        summary=summary,
        # The two files are ours: nothing from outside is in them.
        style=Markup(_source("page.css")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        verdict=_verdict(report),
        waits=[
            (wait.server, wait.servers, wait.rows, clock(wait.until, report.ended_at) if wait.until else "",
             wait.why, clock(wait.since, report.ended_at) if wait.since else "")
            for wait in report.waiting.listed[:MOST_WAITS]
            if report.waiting.servers > MOST_TOLD  # else the sentence above has them
        ],
        more_waits=report.waiting.servers - sum(wait.servers for wait in report.waiting.listed[:MOST_WAITS]),
        outcomes=_outcomes(summary),
        tiles=_tiles(summary),
        comparison=_comparison(report),
        times=_times(report),
        slowest=_bars(dict(summary.slowest), duration),
        errors=_bars(dict(by_count(summary.kinds)), lambda count: f"{count:,.0f} ({share(count, summary.errors)})"),
        codes=failures_by_code(report.failures),
        failures=failures_by_server(report.failures),
        failure_pairs=len(report.failures),
        failure_text=failure_text,
        charts=charts(report.points, report.breaks_s),
        timelines=_drawn_timelines(report),
        waste=waste_text(summary.waste),
        signals=by_rows(summary.signals),
        heads=first_choice,
        lines=[
            (_name(line), [(_static(column, line), column.form) for column in first_choice])
            for line in report.servers[:STATIC_LINES]
        ],
        servers=_json(_table(report, columns)),
        duration=duration,
        size=size,
    )  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What became of the run, in two words."""

    look: str
    """good, open or bad."""
    title: str


def _verdict(report: Report) -> Verdict:
    summary = report.summary
    if report.damage:
        return Verdict("bad", "Damaged")
    if report.exit_code == EXIT_DONE:
        return Verdict("good", "Done")
    if report.is_failed:
        return Verdict("bad", "Stopped")
    if report.waiting.rows == summary.pending:
        return Verdict("open", f"{counted(summary.pending, 'row')} {'waits' if summary.pending == 1 else 'wait'}")
    return Verdict("open", f"{counted(summary.pending, 'row')} pending")


def _outcomes(summary: Summary) -> list[tuple[str, int, float]]:
    """Return (name, rows, percent) of each way in which rows ended, for one bar; the names are the style's, too."""
    counts = (
        ("successes", summary.successes), ("errors", summary.errors), ("pending", summary.pending),
        ("ignored", summary.ignored),
    )  # fmt: skip
    return [(name, rows, round(100 * rows / max(1, summary.rows), 3)) for name, rows in counts if rows]


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    seconds = max(1e-9, summary.seconds)
    tiles = [
        ("rows", f"{summary.rows:,}", ""),
        ("successes", f"{summary.successes:,}", share(summary.successes, summary.rows)),
        ("errors", f"{summary.errors:,}", share(summary.errors, summary.rows)),
        ("pending", f"{summary.pending:,}", share(summary.pending, summary.rows)),
        ("this run", f"{summary.fetched_rows:,}", f"rows, by {counted(summary.requests, 'request')}"),
        ("received", size(summary.fetched_bytes), f"{size(summary.fetched_bytes / seconds)}/s"),
        ("time", duration(summary.seconds), ""),
        ("throughput", f"{summary.fetched_rows / seconds:,.1f}", "rows/s"),
    ]
    if summary.ignored:
        tiles.insert(4, ("ignored", f"{summary.ignored:,}", share(summary.ignored, summary.rows)))
    return tiles


def _comparison(report: Report) -> str:
    """Compare the prediction with the download: only a run that has fetched all can be measured by it."""
    bound_s, download_s, summary = report.bound_s, report.download_s, report.summary
    if bound_s is None:
        return "The run ended before the download was planned."
    if not bound_s:
        return "Nothing was left to fetch."
    text = f"Predicted is what {report.bound_by} needs for its rows at the rate that was planned for it. "
    if summary.pending:
        verb = "is" if summary.pending == 1 else "are"
        return text + f"{counted(summary.pending, 'row')} {verb} pending, so the run says nothing about it yet."
    if download_s < bound_s:
        return text + "The download took less: servers answered faster, or failed sooner, than planned."
    return text + f"The download took {download_s / bound_s:.2f} times as long."


def _times(report: Report) -> list[tuple[str, float, str]]:
    if not report.bound_s:
        return []
    times = {"download, predicted": report.bound_s, "download": report.download_s, "whole run": report.summary.seconds}
    return _bars(times, duration)


def _bars(values: Mapping[str, float], text: Callable[[float], str]) -> list[tuple[str, float, str]]:
    """Return (name, percent of the longest one, text) of each bar."""
    longest = max(values.values(), default=0.0) or 1.0
    return [(name, round(100 * value / longest, 1), text(value)) for name, value in values.items()]


# ---- the slowest servers


@dataclass(frozen=True)
class DrawnTimeline:
    """A band of ``BINS`` x 20 units: requests above its middle, answers below it."""

    name: str
    summary: str
    """For those who cannot see it."""
    asked: str
    answered: str
    """Paths."""
    waits: list[tuple[float, float, bool]]
    """(x, width, is it parked)."""


def _drawn_timelines(report: Report) -> list[DrawnTimeline]:
    began_at, bin_s = report.timeline_span
    # The last span that has begun is the right end.
    bins = min(BINS, int((report.ended_at - began_at) / bin_s) + 1)
    scale = BINS / bins
    drawn = []
    for line in report.timelines:
        most = max(1, *line.asked, *line.answered)
        waits = [
            (round(scale * (begin - began_at) / bin_s, 2), round(scale * (end - begin) / bin_s, 2), is_parked)
            for begin, end, is_parked in line.waits
        ]
        paused_s, parked_s = (
            sum(end - begin for begin, end, parked in line.waits if parked is it) for it in (False, True)
        )
        told = [counted(sum(line.asked), "request"), f"{sum(line.answered):,} done"]
        told += [f"paused {duration(paused_s)}"] if paused_s else []
        told += [f"parked {duration(parked_s)}"] if parked_s else []
        asked, answered = (
            _steps([10 * count / most for count in counts[:bins]], scale, sign)
            for counts, sign in ((line.asked, -1), (line.answered, 1))
        )
        drawn.append(DrawnTimeline(line.group, ", ".join(told), asked, answered, waits))
    return drawn


def _steps(heights: list[float], width: float, sign: int) -> str:
    """Return the path of bars that stand on (or, downwards, hang from) the middle of the band."""
    return "".join(
        f"M{at * width:.2f} 10h{width:.2f}v{sign * max(height, 0.6):.2f}h-{width:.2f}z"
        for at, height in enumerate(heights)
        if height
    )


# ---- the table of servers


@dataclass(frozen=True)
class Column:
    """A column of the table: ``view`` is the choice of columns that it belongs to, ``form`` how the script shows it."""

    name: str
    view: str
    form: str
    value: Callable[[ServerLine], Value]


def _of_known(name: str) -> Callable[[ServerLine], Value]:
    return lambda line: getattr(line, name) if line.is_known else None


def _audited(name: str) -> Callable[[ServerLine], Value]:
    return lambda line: getattr(line.audited, name) if line.audited else 0


def _milliseconds(name: str) -> Callable[[ServerLine], Value]:
    return lambda line: round(1000 * getattr(line.usage, name)) if line.usage else 0


COLUMNS: Final = (
    Column("rows", "outcomes", "count", lambda line: line.rows),
    Column("successes", "outcomes", "count", _of_known("successes")),
    Column("errors", "outcomes", "count", _of_known("errors")),
    Column("pending", "outcomes", "count", _of_known("pending")),
    Column("ignored", "outcomes", "figure", _of_known("ignored")),
    Column("most errors", "outcomes", "text", lambda line: line.failure),
    Column("waits until", "outcomes", "text", lambda line: line.waits),
    Column("limit /s", "pace", "limit", lambda line: line.limit_per_s),
    Column("reached /s", "pace", "rate", lambda line: round(line.reached_per_s, 2)),
    Column("p50", "pace", "ms", _milliseconds("p50_s")),
    Column("p95", "pace", "ms", _milliseconds("p95_s")),
    Column("429s", "pace", "figure", _audited("throttled")),
    Column("paused or parked", "pace", "duration", lambda line: round(line.paused_s, 1)),
    Column("limits shared with", "pace", "text", lambda line: line.shared_with),
    Column("requests", "politeness", "figure", _audited("requests")),
    Column("busiest second", "politeness", "figure", _audited("highest_1s")),
    Column("busiest minute", "politeness", "figure", _audited("highest_60s")),
    Column("connections", "politeness", "figure", _audited("connections")),
    Column("refused", "politeness", "figure", _audited("refused")),
    Column("received", "bytes", "size", _audited("bytes")),
    Column("kept", "bytes", "size", _audited("kept_bytes")),
    Column("median file", "bytes", "size", lambda line: line.size_bytes),
    Column("received per byte kept", "bytes", "rate", lambda line: round(_ratio(line, "bytes_per_kept_byte"), 2)),
    Column("requests per URL", "bytes", "rate", lambda line: round(_ratio(line, "requests_per_url"), 2)),
)


def _ratio(line: ServerLine, name: str) -> float:
    return float(getattr(line.audited, name)) if line.audited else 0.0


def _name(line: ServerLine) -> str:
    return "refused URLs" if line.name == INVALID_SERVER else line.name


def _used_columns(report: Report) -> list[Column]:
    """Return the columns that say something of at least one server, and those that everybody looks for."""
    return [it for it in COLUMNS if it.form in {"count", "limit"} or any(map(it.value, report.servers))]


def _static(column: Column, line: ServerLine) -> str:
    """Return a cell of the first choice of columns as the script shows it."""
    value = column.value(line)
    if value is None:
        return "?"
    return str(value) if column.form == "text" else f"{value:,}" if value or column.form == "count" else ""


def _table(report: Report, columns: Sequence[Column]) -> dict[str, object]:
    """Return the table for the script."""
    return {
        "names": [_name(line) for line in report.servers],
        "columns": [
            {"name": it.name, "view": it.view, "form": it.form, **_values([it.value(line) for line in report.servers])}
            for it in columns
        ],
    }


def _values(values: list[Value]) -> dict[str, object]:
    """Return a column's values, 0 where all of them are; of texts their places among the different ones."""
    if not any(values):
        return {"values": 0}
    if not any(isinstance(value, str) for value in values):
        return {"values": values}
    places = {text: place for place, text in enumerate(dict.fromkeys(values))}
    return {"values": [places[value] for value in values], "texts": list(places)}


def _json(value: object) -> Markup:
    """Return JSON that no HTML parser reads as anything but text."""
    return Markup(msgspec.json.encode(value).decode().replace("<", "\\u003c"))  # noqa: S704
