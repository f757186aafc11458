"""The end of a run as one HTML page: numbers in, text out. Pure.

Decides what the page shows and how it looks. It must not know where the numbers come from, where the page goes, or
what time it is.

Invariants:

- the page is whole in itself: it loads nothing, and its Content-Security-Policy lets nothing be loaded;
- whatever comes from outside (server names, paths, messages) passes ``html.escape``, and only the page's own script
  may run (the policy names its digest);
- its size does not depend on the rows, nor on the servers beyond ``MOST_SERVERS``.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final
from urllib.parse import quote

from ddmpi.errors import EXIT_DONE
from ddmpi.formats import duration, size
from ddmpi.summary import Summary

_STYLE: Final = """
:root{color-scheme:light dark;--page:#f7f6f3;--card:#fff;--ink:#1c1c1a;--dim:#65645e;--rule:#e3e1da;
--main:#2a6fdb;--good:#1a7a49;--open:#a34e08;--bad:#c23b2e}
@media(prefers-color-scheme:dark){:root{--page:#151514;--card:#1f1f1e;--ink:#ecebe6;--dim:#a3a199;--rule:#373633;
--main:#6ea8fe;--good:#4cc38a;--open:#f0a35e;--bad:#ff8177}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:16px/1.45 system-ui,sans-serif}
main{max-width:70rem;margin:auto;padding:1rem;display:grid;gap:1rem;grid-template-columns:minmax(0,1fr)}
section,.tiles div{background:var(--card);border:1px solid var(--rule);border-radius:.5rem;padding:.75rem 1rem}
h1,h2,h3{font-size:1rem;margin:0 0 .5rem}h1{font-size:1.3rem}h3{font-size:.9rem;margin-top:.75rem}
p{margin:.3rem 0;overflow-wrap:anywhere}a{color:var(--main)}small,dt,.places span{color:var(--dim);font-size:.85rem}
.ending{font-size:1.15rem;font-weight:600}.good{color:var(--good)}.open{color:var(--open)}
ul{margin:0;padding:0;list-style:none}.places{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem}
.tiles{margin:0;display:grid;gap:.75rem;grid-template-columns:repeat(4,minmax(0,1fr))}
.tiles div{padding:.6rem .75rem}dd{margin:0;font-size:clamp(1rem,4vw,1.35rem);font-weight:600}
dd small{display:block;font-weight:400}@media(max-width:45rem){.tiles{grid-template-columns:repeat(2,minmax(0,1fr))}}
.pair{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr))}
svg{display:block;width:100%}svg text{font-size:12px;fill:var(--dim)}.grid{stroke:var(--rule)}
polyline{fill:none;stroke:var(--main);stroke-width:2;stroke-linejoin:round}polygon{fill:var(--main);opacity:.12}
.bars li{display:grid;gap:0 .75rem;grid-template-columns:1fr auto;margin-bottom:.4rem}.bar{grid-area:2/1/3/3}
.bars span{overflow-wrap:anywhere}.bar i{display:block;height:.8rem;min-width:2px;border-radius:.2rem}
.bar i{background:var(--main)}.bad i{background:var(--bad)}.scroll{overflow:auto;max-height:80vh}
table{border-collapse:collapse;width:100%;font-size:.9rem}thead th:first-child{z-index:2}
th,td{padding:.25rem .6rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
td{font-variant-numeric:tabular-nums}th{position:sticky;background:var(--card)}thead th{top:0;z-index:1}
th:first-child{text-align:left;left:0;min-width:min(46vw,24rem);white-space:normal;overflow-wrap:anywhere;font-weight:400}
th button{all:unset;cursor:pointer;font-weight:600}th button:focus-visible{outline:2px solid var(--main)}
[aria-sort=descending] button::after{content:" \\25be"}[aria-sort=ascending] button::after{content:" \\25b4"}
"""
_SCRIPT: Final = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentNode, body = head.closest("table").tBodies[0], column = head.cellIndex;
  const down = column ? head.ariaSort !== "descending" : head.ariaSort === "ascending";
  const value = row => column ? +row.cells[column].dataset.v : row.cells[0].textContent;
  const order = (a, b) => column ? value(a) - value(b) : value(a).localeCompare(value(b), "en", {numeric: true});
  for (const other of head.parentNode.cells) other.ariaSort = null;
  head.ariaSort = down ? "descending" : "ascending";
  body.append(...[...body.rows].sort((a, b) => down ? order(b, a) : order(a, b)));
};
"""
MOST_SERVERS: Final = 1_000
"""Lines of the table of servers; the rest is one sentence."""


@dataclass(frozen=True)
class Point:
    """What this run had fetched ``seconds`` after its start."""

    seconds: float
    rows: int
    bytes: int


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
    latency_s: float = 0.0
    """Median of the profiling requests; 0 = not measured, and so for ``size_bytes``."""
    size_bytes: int = 0

    @property
    def pending(self) -> int:
        """Rows without an outcome."""
        return self.rows - self.successes - self.errors


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
    bound_s: float | None
    """``schedule.lower_bound_s`` of the rows that were left when the download began; None if it did not."""
    bound_by: str
    """The server or group that sets the bound."""
    download_s: float
    servers: Sequence[ServerLine]
    """The largest ones, largest first."""
    rest: ServerLine | None
    """All others together."""


def render(report: Report) -> str:
    """The page."""
    script_digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script_digest}'"
    pairs = _compare(report) + _errors(report.summary), _charts(report.points)
    sections = _head(report) + _tiles(report.summary)
    sections += "".join(f'<div class="pair">{pair}</div>' for pair in pairs) + _servers(report)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>ddmpi: {escape(report.summary.output)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>{sections}</main><script>{_SCRIPT}</script></body></html>\n"
    )


def _head(report: Report) -> str:
    summary = report.summary
    state = "good" if report.exit_code == EXIT_DONE else "open"
    links = "".join(
        f'<li><a href="./{quote(path)}">{escape(path)}</a> <span>{escape(what)}</span></li>'
        for what, path in report.places.items()
    )
    return (
        f'<header><h1>ddmpi</h1><p class="ending {state}">{escape(summary.ending)}</p>'
        f"<p>{escape(report.origin)}</p><p>Results: <code>{escape(summary.output)}</code></p>"
        f'<ul class="places">{links}</ul></header>'
    )


def _tiles(summary: Summary) -> str:
    seconds = max(1e-9, summary.seconds)
    tiles = (
        ("rows", f"{summary.rows:,}", ""),
        ("successes", f"{summary.successes:,}", _share(summary.successes, summary.rows)),
        ("errors", f"{summary.errors:,}", _share(summary.errors, summary.rows)),
        ("pending", f"{summary.pending:,}", _share(summary.pending, summary.rows)),
        ("fetched in this run", f"{summary.fetched_rows:,}", f"rows, by {summary.requests:,} requests"),
        ("received", size(summary.fetched_bytes), f"{size(summary.fetched_bytes / seconds)}/s"),
        ("time", duration(summary.seconds), ""),
        ("throughput", f"{summary.fetched_rows / seconds:,.1f}", "rows/s"),
    )
    shown = (f"<div><dt>{name}</dt><dd>{value} <small>{note}</small></dd></div>" for name, value, note in tiles)
    return f'<dl class="tiles">{"".join(shown)}</dl>'


def _share(part: float, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else ""


def _compare(report: Report) -> str:
    """The bound beside the time of the download: only a run that has fetched all can be measured by it."""
    bound_s, download_s, summary = report.bound_s, report.download_s, report.summary
    bars = ""
    if bound_s is None:
        text = "The run ended before the download was planned."
    elif not bound_s:
        text = "Nothing was left to fetch."
    else:
        text = f"The least time is that of {escape(report.bound_by)}: its rows at its pace, as planned. "
        if summary.pending:
            text += f"{summary.pending:,} rows are pending: the download's time cannot be compared with it."
        elif download_s < bound_s:
            text += "The download took less: servers answered faster than the plan assumed."
        else:
            text += f"The download took {download_s / bound_s:.2f} times as long."
        times = {"least time": bound_s, "download": download_s, "whole run": summary.seconds}
        bars = _bars(times, duration, "time")
    left = _bars(dict(summary.slowest), duration, "time")
    more = f"<h3>Servers with the most time left</h3>{left}" if left else ""
    return f"<section><h2>Plan and run</h2>{bars}<p>{text}</p>{more}</section>"


def _errors(summary: Summary) -> str:
    ordered = sorted((-count, kind) for kind, count in summary.kinds.items() if count)
    counts = {kind: -count for count, kind in ordered}
    body = _bars(counts, lambda count: f"{count:,.0f} <small>{_share(count, summary.errors)}</small>", "bad")
    return f"<section><h2>Errors by kind</h2>{body or '<p>None.</p>'}</section>"


def _bars(values: Mapping[str, float], text: Callable[[float], str], look: str) -> str:
    longest = max(values.values(), default=0.0) or 1.0
    lines = (
        f'<li><span>{escape(name)}</span><span class="bar"><i style="width:{100 * value / longest:.1f}%"></i></span>'
        f"<span>{text(value)}</span></li>"
        for name, value in values.items()
    )
    return f'<ul class="bars {look}">{"".join(lines)}</ul>' if values else ""


_WIDTH, _HEIGHT, _TOP, _BOTTOM = 360, 190, 18, 168
_COLUMNS: Final = ("server", "rows", "successes", "errors", "pending", "limit /s", "latency", "size")


def _charts(points: Sequence[Point]) -> str:
    seconds = [point.seconds for point in points]
    rows = _chart("Rows fetched", seconds, [point.rows for point in points], lambda value: f"{value:,.0f}")
    received = _chart("Bytes received", seconds, [point.bytes for point in points], size)
    return rows + received


def _chart(name: str, x: Sequence[float], y: Sequence[float], text: Callable[[float], str]) -> str:
    """A line over the run's time; labels stand on the grid's lines, where a growing total leaves room."""
    step = _tick_step(max(y))
    top = step * max(1, math.ceil(max(y) / step))
    width, height = max(x[-1], 1e-9), _BOTTOM - _TOP
    at = [(_WIDTH * a / width, _BOTTOM - height * b / top) for a, b in zip(x, y, strict=True)]
    line = " ".join(f"{across:.1f},{down:.1f}" for across, down in at)
    levels = [(step * i, _BOTTOM - height * step * i / top) for i in range(round(top / step) + 1)]
    grid = "".join(f'<path class="grid" d="M0 {at:.1f}H{_WIDTH}"/>' for _, at in levels)
    labels = "".join(f'<text x="0" y="{at - 4:.1f}">{text(value)}</text>' for value, at in levels[1:])
    times = "".join(
        f'<text x="{_WIDTH * part:.0f}" y="{_HEIGHT - 4}" text-anchor="{anchor}">{duration(width * part)}</text>'
        for part, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    return (
        f'<section><h2>{name}</h2><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{name}: {text(y[-1])} in {duration(x[-1])}">{grid}'
        f'<polygon points="0,{_BOTTOM} {line} {_WIDTH},{_BOTTOM}"/><polyline points="{line}"/>{labels}{times}</svg>'
        "</section>"
    )


def _tick_step(most: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten, at least 1, that goes twice into ``most``."""
    power = 10.0 ** math.floor(math.log10(max(2.0, most) / 2))
    return next((step for step in (5 * power, 2 * power) if step <= most / 2), power)


def _servers(report: Report) -> str:
    sorts = {"rows": ' aria-sort="descending"'}
    heads = "".join(f'<th scope="col"{sorts.get(name, "")}><button>{name}</button></th>' for name in _COLUMNS)
    rest, more = report.rest, ""
    if rest is not None:
        more = (
            f"<p>The {len(report.servers):,} largest are listed. {rest.servers:,} more servers have {rest.rows:,} "
            f"rows: {rest.successes:,} successes, {rest.errors:,} errors, {rest.pending:,} pending.</p>"
        )
    lines = "\n".join(map(_server, report.servers))
    return (
        f'<section><h2>Servers</h2>{more}<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div></section>"
    )


def _server(line: ServerLine) -> str:
    joined = f" ({line.servers:,} servers)" if line.servers > 1 else ""
    limit = "none" if line.limit_per_s == 0 else f"{line.limit_per_s:g}" if line.limit_per_s else ""
    counts = (line.rows, line.successes, line.errors, line.pending)
    cells: list[tuple[float, str]] = [(count, f"{count:,}") for count in counts]
    cells.append((1e18 if line.limit_per_s == 0 else line.limit_per_s or -1.0, limit))
    cells.append((line.latency_s, f"{1000 * line.latency_s:,.0f} ms" if line.latency_s else ""))
    cells.append((line.size_bytes, size(line.size_bytes) if line.size_bytes else ""))
    name = escape(line.name + joined)
    numbers = "".join(f'<td data-v="{value}">{text}</td>' for value, text in cells)
    return f'<tr><th scope="row">{name}</th>{numbers}</tr>'
