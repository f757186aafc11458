"""What rank 0 tells people of a run: lines and bar while it goes on, the summary and report.html at its end."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow.compute as pc

from ddmpi import __version__
from ddmpi.console import PARTITIONING, Console
from ddmpi.errors import EXIT_DONE, StorageError
from ddmpi.formats import duration
from ddmpi.ignored import matching_servers
from ddmpi.io.batch_table import limits_by_group
from ddmpi.io.durable import write_atomically
from ddmpi.io.urls_writer import PartitionProgress, PartitionSummary
from ddmpi.protocol import Exit
from ddmpi.records import INVALID_SERVER, MANY_SERVERS
from ddmpi.report import MOST_SERVERS, Point, Report, ServerLine, render
from ddmpi.roles.coordinator import Coordinator
from ddmpi.roles.measuring import Recorder
from ddmpi.roles.run_state import RunState
from ddmpi.schedule import PACKED_PREFIX
from ddmpi.summary import Snapshot, Summary

log = logging.getLogger(__name__)

MOST_KNOWN_HOSTS = 10


class Reporter:
    """The people's side of one run.

    Args:
        ranks: of the job.
        started_at: when the run began (s, monotonic).
    """

    def __init__(self, console: Console, ranks: int, started_at: float) -> None:
        self._console = console
        self._ranks = ranks
        self._started_at = started_at
        self._recorder: Recorder | None = None
        self.unreported: StorageError | None = None
        """Why report.html could not be written."""

    def on_rows(self, progress: PartitionProgress) -> None:
        """So far the input is clustered."""
        snapshot = Snapshot(PARTITIONING, progress.total or 0, progress.rows, 0, 0, 0, self._ranks)
        self._console.show(snapshot, time.monotonic())

    def on_partitioned(self, summary: PartitionSummary) -> None:
        """The input is clustered by server."""
        rejected = ", ".join(f"{reason} {count:,}" for reason, count in sorted(summary.rejected.items()))
        largest = ", ".join(f"{name} {rows:,}" for name, rows in summary.largest)
        filtered = f", {summary.dropped:,} more left out by the filter" if summary.dropped else ""
        self._console.say(
            f"Input: {summary.rows:,} rows on {summary.servers:,} servers in {summary.batches:,} batches, "
            f"{sum(summary.rejected.values()):,} refused ({rejected or 'none'}){filtered}; "
            f"{duration(summary.seconds)}"
        )
        self._console.say(f"Largest servers: {largest}")

    def on_ready(self, state: RunState) -> None:
        """The run knows what there is to do."""
        self._recorder = Recorder(state, self._ranks, time.monotonic())
        if state.changed_keys:
            text = f"Changed since the last run, and taken as they are now: {', '.join(state.changed_keys)}"
            self._console.say(text)
            log.info("%s", text)
        if state.ignored_rows:
            servers, name = state.table.ignored_server_count, state.layout.ignored.name
            self._console.say(f"Ignored: {state.ignored_rows:,} rows on {servers:,} servers, by {name}")
        if hosts := known_hosts(state):
            named = ", ".join(hosts[:MOST_KNOWN_HOSTS])
            more = f" and {len(hosts) - MOST_KNOWN_HOSTS} more" if len(hosts) > MOST_KNOWN_HOSTS else ""
            self._console.say(f"Limits of known hosts (servers_from) hold for {named}{more}")

    def watch(self, coordinator: Coordinator) -> None:
        """The run begins; how servers are asked is added to what earlier runs have counted."""
        if self._recorder is not None:
            coordinator.tally.usage = self._recorder.usage
            coordinator.tally.audit = self._recorder.audit

    def on_turn(self, coordinator: Coordinator, now: float) -> None:
        """Called in each turn of the loop; sums are made only when they are shown."""
        if self._console.is_due(now):
            self._console.show(coordinator.snapshot(), now)
        if self._recorder is not None:
            self._recorder.on_turn(coordinator, now)

    def _points(self) -> list[Point]:
        """Of this run, from its first measurement on."""
        lines = [] if self._recorder is None else self._recorder.history.lines
        return [
            Point(line.unix_s - lines[0].unix_s, line.fetched_rows - lines[0].fetched_rows, line.bytes - lines[0].bytes)
            for line in lines
        ]

    def write_report(self, coordinator: Coordinator, ending: Exit, now: float) -> None:
        """A disk that does not take the report changes nothing about how the run ends: rows count, not pages."""
        state, bound = coordinator.state, coordinator.bound
        if self._recorder is not None:
            self._recorder.on_end(coordinator, ending.code, now)
        servers, rest = server_lines(state)
        page = render(
            Report(
                summary=self.summary(coordinator, ending, now),
                exit_code=ending.code,
                origin=f"Run {state.epoch} over {state.config.path_to_input}; ranks: {self._ranks}; "
                f"ended {datetime.now().astimezone().isoformat(' ', 'seconds')}; ddmpi {__version__}",
                places=_places(state),
                points=self._points(),
                bound_s=None if bound is None else bound.seconds,
                bound_by="" if bound is None else bound.group,
                download_s=0.0 if bound is None else now - bound.began_at,
                servers=servers,
                rest=rest,
            )
        )
        try:
            # A path may hold bytes that are no UTF-8.
            write_atomically(state.layout.report, page.encode(errors="replace"), state.layout.temporary)
        except StorageError as error:
            log.exception("rank 0 cannot write the report")
            self.unreported = error

    def summary(self, coordinator: Coordinator, ending: Exit, now: float) -> Summary:
        """The end of the run in numbers."""
        state, total = coordinator.state, coordinator.tally.total()
        pending = state.pending_rows
        return Summary(
            rows=int(state.table.rows.sum()),
            successes=int(state.successes.sum()),
            errors=int(state.errors.sum()),
            pending=pending,
            ignored=state.ignored_rows,
            kinds=state.error_kinds,
            fetched_bytes=total.bytes,
            fetched_rows=total.successes + total.errors,
            requests=total.requests,
            seconds=now - self._started_at,
            slowest=coordinator.slowest_servers(5),
            output=str(state.layout.root),
            ending=_ending_text(ending, pending),
        )


def _ending_text(ending: Exit, pending: int) -> str:
    if ending.message:
        return f"Stopped: {ending.message}. What is committed is kept; run the same command again."
    if ending.code == EXIT_DONE:
        return "Done: every row is final."
    return f"{pending:,} rows are pending; run the same command again to go on."


def _places(state: RunState) -> dict[str, str]:
    """What the output folder holds for people: those parts of it that exist after every run that came so far."""
    layout = state.layout
    places = {"the files": layout.images} if state.successes.any() else {}
    places |= {"rows that failed for good": layout.errors} if state.errors.any() else {}
    places |= {"what was measured of each server": layout.profiles} if state.profiles else {}
    places |= {"one per rank": layout.logs}
    return {what: layout.relative(path) for what, path in places.items()}


def known_hosts(state: RunState) -> list[str]:
    """The servers and groups of the table whose limits no rule of the user's decides."""
    config, names = state.config, state.table.server_names
    ruled = np.flatnonzero(matching_servers(names.values, config.rules.patterns)).tolist()
    return sorted({config.group_of(names[index]) for index in ruled if config.is_known_host(names[index])})


def server_lines(state: RunState) -> tuple[list[ServerLine], ServerLine | None]:
    """The largest pace groups, and all others together.

    Packed batches are one line: their servers have limits of their own, and a batch says nothing about any of them.
    """
    table, names = state.table, state.table.group_names
    packed = np.asarray(pc.starts_with(names.values, pattern=PACKED_PREFIX))
    line_of_group = np.where(packed, len(names), np.arange(len(names)))
    line_of_batch = line_of_group[table.groups]
    servers = np.bincount(line_of_batch[table.server_first_batch], minlength=len(names) + 1)
    rows, successes, errors = (
        np.bincount(line_of_batch, values, minlength=len(names) + 1).astype(np.int64)
        for values in (table.rows, state.successes, state.errors)
    )
    counts = np.stack([servers, rows, successes, errors])
    order = np.argsort(-rows, kind="stable")
    order = order[rows[order] > 0]
    limits = limits_by_group(state.config, state.profiles)
    lines = []
    for index in order[:MOST_SERVERS].tolist():
        name = names[index] if index < len(names) else MANY_SERVERS
        line = ServerLine(name, *counts[:, index].tolist())
        if name not in {MANY_SERVERS, INVALID_SERVER}:
            line = replace(line, limit_per_s=limits(name).rate_per_s)
        if (profile := state.profiles.get(name)) is not None:
            line = replace(line, latency_s=profile.total_s, size_bytes=profile.bytes)
        lines.append(line)
    others = order[MOST_SERVERS:]
    return lines, ServerLine("", *counts[:, others].sum(axis=1).tolist()) if len(others) else None
