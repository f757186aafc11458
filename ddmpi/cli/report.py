"""``ddmpi report``: report.html anew, from what the output folder holds; also beside a run, or after one was killed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import reduce

from rich.console import Console as RichConsole

from ddmpi.config.config import Config
from ddmpi.core.stats.audit import Audit, Audited, RunAudit, add_signals
from ddmpi.core.stats.metrics import Measurement, Tally
from ddmpi.errors import EXIT_DONE, EXIT_PENDING, OutputError
from ddmpi.io.folder.checkpoint import Checkpoint, load
from ddmpi.io.folder.durable import write_atomically
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.placeholders import read_placeholders
from ddmpi.io.folder.profiles import read_profiles
from ddmpi.io.folder.stats_files import MetricsFile, read_audit, read_run_audit, read_usage
from ddmpi.io.urls.batch_reader import BatchReader
from ddmpi.io.urls.batch_table import BatchTable
from ddmpi.report.data import Report, Summary, joined, points_of, runs_of
from ddmpi.report.pending import pending_text
from ddmpi.roles.coordinator.report_data import (
    OUTCOMES_BUDGET_S,
    file_table,
    pictures,
    placeholder_lines,
    places,
    server_table,
)
from ddmpi.roles.coordinator.run_state import RunState


def write_report(config: Config, layout: Layout, out: RichConsole, job: str | None = None) -> int:
    """Write the report; returns the exit code.

    Args:
        job: how a command of ``ddmpi`` names it; None: it takes options.

    Raises:
        OutputError: no run has come far enough.
        StorageError: the folder cannot be read, or the report not be written.
    """
    from ddmpi.report.page import render  # noqa: PLC0415  # jinja2

    checkpoint, _ = load(layout)
    lines = joined(MetricsFile(layout.metrics).read(), [], 0)
    if checkpoint is None or not lines:
        raise OutputError(f"{layout.root}: no run has come far enough for a report")
    page = render(_report(config, layout, checkpoint, lines, job))
    write_atomically(layout.report, page.encode(errors="replace"), layout.temporary)
    out.print(f"{layout.report} is written", markup=False)
    return EXIT_DONE


def _report(
    config: Config, layout: Layout, checkpoint: Checkpoint, lines: Sequence[Measurement], job: str | None
) -> Report:
    state = RunState(
        config=config,
        layout=layout,
        table=BatchTable(layout),
        reader=BatchReader(layout.urls),
        lock=None,
        epoch=checkpoint.epoch,
        input_fingerprint="",
        input_stamp="",
        stages=dict(checkpoint.stages),
        servers=dict(checkpoint.servers),
        saved_at=checkpoint.saved_at,
        profiles=read_profiles(layout.profiles) if layout.profiles.exists() else {},
    )
    last = lines[-1]
    points, breaks_s = points_of(lines)
    tally = Tally(usage=read_usage(layout.usage), audit=Audit(read_audit(layout.audit)))
    now = time.monotonic()
    servers = server_table(state, tally, {}, checkpoint.waiting, now, budget_s=OUTCOMES_BUDGET_S)
    found = read_placeholders(layout.placeholders)
    began = checkpoint.stages.get("downloading")
    planned = began if isinstance(began, dict) else {}
    pending = state.counts.pending
    return Report(
        summary=_summary(state, checkpoint, lines, job, (len(found), sum(it.urls for it in found))),
        exit_code=last.exit_code if last.exit_code is not None else EXIT_PENDING if pending else EXIT_DONE,
        ended_at=last.unix_s,
        origin=f"Run {last.run} over {config.input_name}; ranks: {last.ranks}; last measured {last.time}",
        places=places(state),
        points=points,
        bound_s=planned.get("bound_s"),
        bound_by=state.table.shown_group(planned.get("bound_by") or "-"),
        download_s=max(0.0, last.unix_s - float(planned.get("began_at", last.unix_s))),
        servers=servers.lines,
        rest=servers.rest,
        server_count=servers.count,
        waiting=checkpoint.waiting,
        failures=servers.failures,
        unread_errors=servers.unread_errors,
        runs=runs_of(lines, 0),
        breaks_s=breaks_s,
        pictures=pictures(state),
        placeholders=placeholder_lines(found),
        comparison=file_table(layout.comparison),
        refresh_table=file_table(layout.refreshed),
    )


def _summary(
    state: RunState,
    checkpoint: Checkpoint,
    lines: Sequence[Measurement],
    job: str | None,
    placeholders: tuple[int, int],
) -> Summary:
    last = lines[-1]
    first = next(line for line in lines if line.run == last.run)
    before = next((line for line in reversed(lines) if line.run != last.run), None)
    asked, pending = read_run_audit(state.layout.run_audit), state.counts.pending
    return Summary(
        rows=int(state.table.rows.sum()),
        successes=int(state.counts.successes.sum()),
        errors=int(state.counts.errors.sum()),
        pending=pending,
        ignored=state.ignored_rows,
        placeholders=placeholders,
        kinds=state.counts.error_kinds,
        fetched_bytes=last.bytes - (before.bytes if before else 0),
        fetched_rows=last.fetched_rows - (before.fetched_rows if before else 0),
        requests=last.requests - (before.requests if before else 0),
        seconds=last.unix_s - first.unix_s,
        slowest=(),
        output=str(state.layout.root),
        ending=pending_text(pending, checkpoint.waiting, time.time(), job) or "Every row is final.",
        waste=_waste(asked),
        respect=state.config.respect_text,
        signals=_signals(asked),
    )


def _waste(asked: RunAudit | None) -> Audited:
    """Return the sums of what is told of requests, over the servers that the last run has told of."""
    return reduce(Audited.joined, () if asked is None else (host.audited for host in asked.hosts), Audited(""))


def _signals(asked: RunAudit | None) -> dict[str, tuple[int, int]]:
    sums: dict[str, tuple[int, int]] = {}
    for host in () if asked is None else asked.hosts:
        add_signals(sums, host.signals)
    return sums
