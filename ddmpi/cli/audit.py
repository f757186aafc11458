"""``--audit``: what the last run has asked of servers, for whoever runs one of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

from rich.console import Console as RichConsole

from ddmpi.config.config import Config
from ddmpi.core.records import Limits, is_meant
from ddmpi.core.stats.audit import AskedHost, RunAudit
from ddmpi.errors import EXIT_DONE, OutputError
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.stats_files import read_run_audit
from ddmpi.report.data import by_rows
from ddmpi.report.formats import counted, duration, size

MOST_HOSTS = 20
"""Shown where no server is named."""


def show_audit(config: Config, layout: Layout, pattern: str, out: RichConsole) -> int:
    """Print what was asked of the servers (or server groups) that a name or glob means, "" = of the busiest ones;
    returns the exit code. Raises OutputError: no run has left word of it, or none of these was asked."""
    found = read_run_audit(layout.run_audit)
    if found is None:
        raise OutputError(f"{layout.run_audit} is not there: no run has come far enough yet")
    hosts = [host for host in found.hosts if not pattern or is_meant(host.audited.group, pattern)]
    if not hosts:
        raise OutputError(f"the last run (run {found.run}) has asked no server {pattern}")
    shown = hosts if pattern else hosts[:MOST_HOSTS]
    for host in shown:
        out.print(host.audited.group, style="bold", markup=False)
        for name, text in _lines(config, found, host):
            out.print(f"  {name:<10}{text}", markup=False)
    if more := len(hosts) - len(shown) + (0 if pattern else found.left_out):
        out.print(f"{counted(more, 'more server')} were asked for less; --audit NAME or GLOB shows one")
    return EXIT_DONE


def _lines(config: Config, run: RunAudit, host: AskedHost) -> Iterator[tuple[str, str]]:
    it = host.audited
    if it.requests:
        yield "when", f"{_time(host.first_at)} to {_time(host.last_at)}, in run {run.run} of its job"
    ratio = f", {it.requests_per_url:.2f} for each" if it.urls else ""
    asked = f"{counted(it.requests, 'request')} for {counted(it.urls, 'URL')}{ratio}"
    yield "how much", f"{asked}; {size(it.bytes)} received"
    kept = f": {it.bytes_per_kept_byte:.2f} bytes fetched for each" if it.kept_bytes else ""
    yield "kept", f"{size(it.kept_bytes)}{kept}"
    seconds = host.last_at - host.first_at
    mean = f"{(it.requests - 1) / seconds:.2f}/s on average, " if seconds >= 1 else ""
    yield (
        "rate",
        (
            f"{mean}at most {it.highest_1s:,} in a second and {it.highest_60s:,} in a minute, "
            f"{counted(it.connections, 'connection')} of one process"
        ),
    )
    yield "limit", _limit_text(config.limits_for(it.group))
    yield "refused", f"{counted(it.refused, 'answer')} with a status of 400 or more, {it.throttled:,} asked for less"
    if it.pauses:
        yield "paused", f"{it.pauses:,} times, for {duration(it.paused_s)}"
    yield "from", ", ".join(host.nodes) or "?"
    yield "by", f"{run.user_agent} (ddmpi {run.version})"
    yield "obeys", run.respect
    for text, rows, obeyed in by_rows(host.signals):
        what = f"{obeyed:,} not stored for it" if obeyed else "stored all the same"
        yield "heard", f"{text}: {counted(rows, 'file')}, {what}"
    if not host.signals:
        yield "heard", "nothing of how the files may be used"


def _limit_text(limits: Limits) -> str:
    rate = f"{limits.rate_per_s:g}/s" if limits.rate_per_s else "no limit of requests"
    sizes = ((limits.bytes_per_s, "second"), (limits.bytes_per_hour, "hour"), (limits.bytes_per_day, "day"))
    told = [rate, counted(limits.connections, "connection"), *(f"{size(n)} per {unit}" for n, unit in sizes if n)]
    return ", ".join(told)


def _time(unix_s: float) -> str:
    """Return a time as logs have it, in UTC: an operator's machine is elsewhere."""
    return datetime.fromtimestamp(unix_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
