"""The report as one HTML page: numbers in, text out.

Decides how the page looks; style, script and template lie beside this file. It must not know where the numbers come
from, where the page goes, or what time it is.

Invariants:

- the page is whole in itself: it loads nothing, and its Content-Security-Policy lets nothing be loaded;
- whatever comes from outside (server names, paths, messages) is escaped by the template engine, and only the page's own
  script may run (the policy names its digest);
- its size does not depend on the rows, nor on the servers beyond ``MOST_SERVERS``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Final
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from ddmpi.errors import EXIT_DONE
from ddmpi.report.charts import charts
from ddmpi.report.data import Report, ServerLine, Summary, by_count, by_rows, waste_text
from ddmpi.report.formats import counted, duration, share, size


@cache
def _source(name: str) -> str:
    return files("ddmpi.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["path"] = lambda path: "./" + quote(path)
    environment.filters["host"] = _breakable
    return environment.from_string(_source("page.html"))


def _breakable(name: str) -> Markup:
    """Return a host's name, which a narrow column breaks after its dots where it can."""
    return escape(name).replace(".", Markup(".<wbr>"))


def render(report: Report) -> str:
    script = _source("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    summary = report.summary
    return _template().render(
        report=report,
        summary=summary,
        # The two files are ours: nothing from outside is in them.
        style=Markup(_source("page.css")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        is_good=report.exit_code == EXIT_DONE,
        tiles=_tiles(summary),
        comparison=_comparison(report),
        times=_times(report),
        slowest=_bars(dict(summary.slowest), duration),
        errors=_bars(dict(by_count(summary.kinds)), lambda count: f"{count:,.0f} ({share(count, summary.errors)})"),
        charts=charts(report.points, report.breaks_s),
        columns=COLUMNS,
        waste=waste_text(summary.waste),
        signals=by_rows(summary.signals),
        lines=[(_name(line), _cells(line)) for line in report.servers],
        duration=duration,
        size=size,
    )


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    seconds = max(1e-9, summary.seconds)
    tiles = [
        ("rows", f"{summary.rows:,}", ""),
        ("successes", f"{summary.successes:,}", share(summary.successes, summary.rows)),
        ("errors", f"{summary.errors:,}", share(summary.errors, summary.rows)),
        ("pending", f"{summary.pending:,}", share(summary.pending, summary.rows)),
        ("fetched in this run", f"{summary.fetched_rows:,}", f"rows, in {counted(summary.requests, 'request')}"),
        ("received", size(summary.fetched_bytes), f"{size(summary.fetched_bytes / seconds)}/s"),
        ("time", duration(summary.seconds), ""),
        ("throughput", f"{summary.fetched_rows / seconds:,.1f}", "rows/s"),
    ]
    if summary.ignored:
        tiles.insert(4, ("ignored", f"{summary.ignored:,}", share(summary.ignored, summary.rows)))
    return tiles


def _comparison(report: Report) -> str:
    """Compare the bound with the time of the download: only a run that has fetched all can be measured by it."""
    bound_s, download_s, summary = report.bound_s, report.download_s, report.summary
    if bound_s is None:
        return "The run ended before the download was planned."
    if not bound_s:
        return "Nothing was left to fetch."
    text = f"The least time is what {report.bound_by} needs for its rows at the rate that was planned for it. "
    if summary.pending:
        verb = "is" if summary.pending == 1 else "are"
        return text + f"{counted(summary.pending, 'row')} {verb} pending, so the run says nothing about it yet."
    if download_s < bound_s:
        return text + "The download took less: servers answered faster than planned."
    return text + f"The download took {download_s / bound_s:.2f} times as long."


def _times(report: Report) -> list[tuple[str, float, str]]:
    if not report.bound_s:
        return []
    times = {"least time": report.bound_s, "download": report.download_s, "whole run": report.summary.seconds}
    return _bars(times, duration)


def _bars(values: Mapping[str, float], text: Callable[[float], str]) -> list[tuple[str, float, str]]:
    """Return (name, percent of the longest one, text) of each bar."""
    longest = max(values.values(), default=0.0) or 1.0
    return [(name, round(100 * value / longest, 1), text(value)) for name, value in values.items()]


COLUMNS: Final = (
    "server", "rows", "successes", "errors", "pending", "limit /s", "reached /s", "p50", "p95", "429s", "paused",
    "size",
)  # fmt: skip


def _name(line: ServerLine) -> str:
    return f"{line.name} ({line.servers:,} servers)" if line.servers > 1 else line.name


def _cells(line: ServerLine) -> list[tuple[float, str]]:
    """Return of each number of the table by what it is sorted, and how it is shown."""
    usage = line.usage
    limit = "none" if line.limit_per_s == 0 else f"{line.limit_per_s:g}" if line.limit_per_s else ""
    return [
        *((count, f"{count:,}") for count in (line.rows, line.successes, line.errors, line.pending)),
        (1e18 if line.limit_per_s == 0 else line.limit_per_s or -1.0, limit),
        _cell(usage.rate_per_s if usage else 0.0, "{:,.2f}".format),
        _cell(1000 * usage.p50_s if usage else 0.0, "{:,.0f} ms".format),
        _cell(1000 * usage.p95_s if usage else 0.0, "{:,.0f} ms".format),
        _cell(usage.throttled if usage else 0, "{:,}".format),
        _cell(usage.paused_s if usage else 0.0, duration),
        _cell(line.size_bytes, size),
    ]


def _cell(value: float, text: Callable[[float], str]) -> tuple[float, str]:
    """Return the cell of a value; of 0 (not measured, or did not happen) it is empty."""
    return round(value, 4), text(value) if value else ""
