"""What rank 0 tells people of a run: lines and bar while it goes on, the summary and report.html at its end."""

from __future__ import annotations

import logging
import math
import shlex
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from ddmpi._version import __version__
from ddmpi.core.ledger.ledger import Ledger
from ddmpi.core.ledger.rank0_core import Stage
from ddmpi.core.ledger.waiting import Waiting
from ddmpi.core.partition.server_patterns import matching_servers
from ddmpi.core.protocol import Exit
from ddmpi.core.records import INVALID_SERVER
from ddmpi.core.stats.comparison import refreshed_text, total_text
from ddmpi.errors import EXIT_DONE, OutputError, StorageError
from ddmpi.io.folder.disk_errors import named_disk_errors
from ddmpi.io.folder.durable import write_whole
from ddmpi.io.input.table import InputTable
from ddmpi.io.urls.address_grouping import AddressSummary
from ddmpi.io.urls.writer import PartitionProgress, PartitionSummary
from ddmpi.report.console import LOOKING_UP, MOST_SLOWEST, PARTITIONING, Console
from ddmpi.report.data import MOST_SERVERS, Report, Snapshot, Summary, joined, points_of, runs_of
from ddmpi.report.formats import counted, duration
from ddmpi.report.pending import AGAIN, next_text, note_text, order_text, pending_text
from ddmpi.roles.coordinator.coordinator import Coordinator
from ddmpi.roles.coordinator.pictures import prepare_pictures
from ddmpi.roles.coordinator.recorder import Recorder
from ddmpi.roles.coordinator.report_data import (
    OUTCOMES_BUDGET_S,
    file_table,
    pictures,
    placeholder_lines,
    places,
    server_table,
    timelines,
)
from ddmpi.roles.coordinator.run_state import RunState, unix_time

log = logging.getLogger(__name__)

MOST_KNOWN_HOSTS = 10
MOST_GIVEN_UP = 20
MOST_WAYS = 20
"""Of an input whose files are read in different ways so many are told."""
NOTE_INTERVAL_S = 5.0
"""How often it is found out for whom the run waits, and which servers take longest: where there are many of them, that
takes its time."""

NOTE_SHARE = 0.02
"""Of the time, at most."""


class ConsoleReporter:
    """The people's side of one run.

    Args:
        ranks: of the job.
        started_at: when the run began (s, monotonic).
    """

    def __init__(self, console: Console, ranks: int, started_at: float, job: str | None = None) -> None:
        self._console = console
        self._ranks = ranks
        self._started_at = started_at
        self._job = job
        self._recorder: Recorder | None = None
        self._to_prepare = [self._console.prepare, _prepare_page, prepare_pictures]
        """What the end of the run needs and takes its time to load."""
        self._errors_before = 0
        self.changes: Sequence[str] = ()
        """What was changed while the run was on, for the report."""
        self._reported: Path | None = None
        self._input: Sequence[str] = ()
        """How the input is read, for the log, which begins when the output folder is prepared."""
        self._waiting, self._look_at = Waiting(), -math.inf
        self._slowest: Sequence[tuple[str, float]] = ()
        self._slowest_until = -math.inf
        self.unreported: StorageError | OutputError | None = None
        """Why report.html, or what it would show, could not be written."""
        self.compared = ""
        """What has become of the files that the table promises."""
        self.refreshed = ""
        """What the refresh has found."""

    def on_input(self, table: InputTable) -> None:
        """The input is open: say how it is read."""
        self._input = [
            *table.descriptions()[:MOST_WAYS],
            *([f"Warning: {table.passed_over}"] if table.passed_over else []),
        ]
        for line in self._input:
            self._console.say(line)

    def on_rows(self, progress: PartitionProgress) -> None:
        """Show how far the input is clustered."""
        snapshot = Snapshot(PARTITIONING, progress.total or 0, progress.rows, 0, 0, 0)
        self._console.show(snapshot, time.monotonic())

    def on_names(self, done: int, total: int) -> None:
        """Show how many of the servers' names are looked up."""
        self._console.show(Snapshot(LOOKING_UP, total, done, 0, 0, 0, unit="names"), time.monotonic())

    def on_grouped(self, summary: AddressSummary) -> None:
        """It is known which servers share an address."""
        text = (
            f"Addresses: {summary.shared:,} of {counted(summary.servers, 'server')} share one, "
            f"in {counted(summary.groups, 'group')}"
        )
        if summary.unknown:
            text += f"; {summary.unknown:,} have no address that could be found, or may be contacted: on their own"
        self._console.say(text)
        log.info("%s", text)

    def on_partitioned(self, summary: PartitionSummary) -> None:
        """The input is clustered by server."""
        rejected = ", ".join(f"{reason} {count:,}" for reason, count in sorted(summary.rejected.items()))
        largest = ", ".join(f"{name} {rows:,}" for name, rows in summary.largest)
        filtered = f", {summary.dropped:,} more left out by the filter" if summary.dropped else ""
        self._console.say(
            f"Input: {counted(summary.rows, 'row')} on {counted(summary.servers, 'server')} in "
            f"{counted(summary.batches, 'batch')}, "
            f"{sum(summary.rejected.values()):,} refused ({rejected or 'none'}){filtered}; "
            f"{duration(summary.seconds)}"
        )
        self._console.say(f"Largest servers: {largest}")

    def on_ready(self, state: RunState) -> None:
        """The run knows what there is to do."""
        for line in self._input:
            log.info("%s", line)
        self._recorder = Recorder(state, self._ranks, time.monotonic())
        self._errors_before = int(state.counts.errors.sum())
        if state.changed_keys:
            text = f"Changed since the last run, and taken as they are now: {', '.join(state.changed_keys)}"
            self._console.say(text)
            log.info("%s", text)
        if state.stale_before:
            text = _refresh_text(state)
            self._console.say(text)
            log.info("%s", text)
        if state.ignored_rows:
            servers, name = state.table.ignored_server_count, state.layout.ignored_names
            self._console.say(
                f"Ignored: {counted(state.ignored_rows, 'row')} on {counted(servers, 'server')}, by {name}"
            )
        self._console.say(f"Usage signals: {state.config.respect_text}")
        log.info("usage signals: %s", state.config.respect_text)
        if hosts := known_hosts(state):
            named = ", ".join(hosts[:MOST_KNOWN_HOSTS])
            more = f" and {len(hosts) - MOST_KNOWN_HOSTS} more" if len(hosts) > MOST_KNOWN_HOSTS else ""
            self._console.say(f"Limits of known hosts (servers_from) hold for {named}{more}")

    def on_given_up(self, servers: Sequence[str]) -> None:
        """The command line does not want to wait for these."""
        text = "Given up: the last run has waited for no server"
        if servers:
            more = f" and {len(servers) - MOST_GIVEN_UP:,} more" if len(servers) > MOST_GIVEN_UP else ""
            named = ", ".join(servers[:MOST_GIVEN_UP])
            theirs = "it" if len(servers) == 1 else "them"
            text = f"Given up: {named}{more}; rows of {theirs} that are pending become errors (given_up)"
        self._console.say(text)
        log.info("%s", text)

    def watch(self, coordinator: Coordinator) -> None:
        """The run begins; how servers are asked is added to what earlier runs have counted."""
        if self._recorder is not None:
            coordinator.tally.usage = self._recorder.usage
            coordinator.tally.audit = self._recorder.audit

    def on_turn(self, coordinator: Coordinator, now: float) -> None:
        """Called in each turn of the loop; sums are made only when they are shown."""
        if self._to_prepare and coordinator.tally.counters:
            # Ranks have reported of requests: earlier, loading would hold these up, and at the end the exit.
            self._to_prepare.pop()()
        if self._console.is_due(now):
            self._console.show(self._snapshot(coordinator), now)
        if self._recorder is not None:
            self._recorder.on_turn(coordinator, now)

    def _snapshot(self, coordinator: Coordinator) -> Snapshot:
        """Rows that are fetched and not durable yet count as done."""
        core, total = coordinator.core, coordinator.tally.total()
        now = time.monotonic()
        note = ""
        if core.sampling is not None:
            note = "{:,} of {:,} servers profiled".format(*core.sampling.progress)
        elif core.stage is Stage.DOWNLOADING:
            is_parked = core.ledger is not None and core.ledger.is_parked
            self._look_who_waits(coordinator, now)
            if is_parked:
                note = note_text(self._waiting, time.time(), is_all=True)
            elif not total.in_flight:
                note = next_text([it for due in coordinator.tally.next_requests.values() for it in due], now)
        if now >= self._slowest_until:
            self._slowest_until = now + NOTE_INTERVAL_S
            self._slowest = slowest_servers(coordinator.state, core.ledger, MOST_SLOWEST)
        return Snapshot(
            stage=core.stage.value,
            rows=int(core.counts.rows.sum()),
            rows_done=coordinator.rows_done,
            errors=self._errors_before + total.errors,
            bytes=total.bytes,
            servers_active=total.servers_active,
            note=note,
            durable=core.counts.rows_final,
            rows_waiting=self._waiting.rows,
            waiting=note_text(self._waiting, time.time(), is_all=False),
            slowest=self._slowest,
        )

    def _look_who_waits(self, coordinator: Coordinator, now: float) -> None:
        if now >= self._look_at:
            self._waiting = coordinator.state.waiting(
                coordinator.core.paces(now), unix_time(now), coordinator.rows_done
            )
            self._look_at = now + max(NOTE_INTERVAL_S, (time.monotonic() - now) / NOTE_SHARE)

    def compare(self, state: RunState, ending: Exit) -> None:
        """Say what has become of the files that the table promises, once all rows are final. What stood in
        comparison.csv before is no longer true otherwise."""
        if not state.config.expected.marks:
            return
        try:
            if ending.code == EXIT_DONE:
                from ddmpi.roles.coordinator.comparison import compare  # noqa: PLC0415  # few jobs need it

                place = state.layout.relative(state.layout.comparison)
                self.compared = f"{total_text(compare(state).total())}; by server and license: {place}"
            else:
                with named_disk_errors("cannot remove", state.layout.comparison):
                    state.layout.comparison.unlink(missing_ok=True)
        except (StorageError, OutputError) as error:
            log.exception("rank 0 cannot compare the files with the table")
            self.unreported = error

    def refresh(self, state: RunState, ending: Exit) -> None:
        """Say what the refresh has found, once all rows are final. Without one refresh.csv stays as it is."""
        if not state.stale_before or ending.code != EXIT_DONE:
            return
        try:
            from ddmpi.roles.coordinator.comparison import refreshed  # noqa: PLC0415  # few runs need it

            place = state.layout.relative(state.layout.refreshed)
            self.refreshed = f"{refreshed_text(refreshed(state).total())}; by server and license: {place}"
        except (StorageError, OutputError) as error:
            log.exception("rank 0 cannot say what the refresh has found")
            self.unreported = error

    def write_report(self, coordinator: Coordinator, ending: Exit, now: float) -> None:
        """A disk that does not take the report changes nothing about how the run ends: rows count, not pages."""
        state = coordinator.state
        if self._recorder is not None:
            self._recorder.on_end(coordinator, ending.code, now)
        from ddmpi.report.page import render  # noqa: PLC0415  # jinja2; see on_turn

        page = render(self._report(coordinator, ending, now))
        try:
            # A path may hold bytes that are no UTF-8.
            write_whole(state.layout.report, page.encode(errors="replace"), state.layout.temporary)
        except StorageError as error:
            log.exception("rank 0 cannot write the report")
            self.unreported = error
        else:
            self._reported = state.layout.report

    def _report(self, coordinator: Coordinator, ending: Exit, now: float) -> Report:
        state, bound, recorder = coordinator.state, coordinator.core.bound, self._recorder
        lines = [] if recorder is None else joined(recorder.file.read(), recorder.history.lines, state.epoch)
        points, breaks_s = points_of(lines)
        paces, ended_at = coordinator.core.paces(now), unix_time(now)
        waiting = state.waiting(paces, ended_at, most=MOST_SERVERS)
        servers = server_table(state, coordinator.tally, paces, waiting, now, budget_s=OUTCOMES_BUDGET_S)
        slowest, span = timelines(state, coordinator.tally, servers.lines, ended_at)
        return Report(
            summary=self.summary(coordinator, ending, now),
            exit_code=ending.code,
            ended_at=ended_at,
            origin=f"Run {state.epoch} over {state.config.input_name}; ranks: {self._ranks}; "
            f"ended {datetime.now().astimezone().isoformat(' ', 'seconds')}; ddmpi {__version__}",
            places=places(state),
            points=points,
            bound_s=None if bound is None else bound.seconds,
            bound_by="" if bound is None else state.table.shown_group(bound.group),
            download_s=0.0 if bound is None else now - bound.began_at,
            servers=servers.lines,
            rest=servers.rest,
            server_count=servers.count,
            waiting=waiting,
            is_failed=bool(ending.message),
            damage=coordinator.damage,
            failures=servers.failures,
            unread_errors=servers.unread_errors,
            timelines=slowest,
            timeline_span=span,
            runs=runs_of(lines, state.epoch),
            breaks_s=breaks_s,
            changes=self.changes,
            pictures=pictures(state),
            placeholders=placeholder_lines(coordinator.placeholders.found),
            compared=self.compared,
            comparison=file_table(state.layout.comparison) if self.compared else None,
            refreshed=self.refreshed,
            refresh_table=file_table(state.layout.refreshed) if self.refreshed else None,
        )

    def summary(self, coordinator: Coordinator, ending: Exit, now: float) -> Summary:
        """The end of the run in numbers."""
        state, total = coordinator.state, coordinator.tally.total()
        pending, errors = state.counts.pending, int(state.counts.errors.sum())
        waiting = state.waiting(coordinator.core.paces(now), unix_time(now))
        job = shlex.quote(str(state.layout.root)) if self._job == "" else self._job
        return Summary(
            rows=int(state.table.rows.sum()),
            successes=int(state.counts.successes.sum()),
            errors=errors,
            pending=pending,
            ignored=state.ignored_rows,
            placeholders=(len(coordinator.placeholders.found), sum(it.urls for it in coordinator.placeholders.found)),
            kinds=state.counts.error_kinds,
            fetched_bytes=total.bytes,
            fetched_rows=total.successes + total.errors,
            requests=total.requests,
            seconds=now - self._started_at,
            slowest=slowest_servers(state, coordinator.core.ledger, 5),
            output=str(state.layout.root),
            waste=coordinator.tally.audit.total,
            respect=state.config.respect_text,
            signals=dict(coordinator.tally.audit.signals),
            ending=_ending_text(ending, errors, pending_text(pending, waiting, time.time(), job), job),
            report="" if self._reported is None else str(self._reported),
        )


def _prepare_page() -> None:
    from ddmpi.report.page import prepare  # noqa: PLC0415  # jinja2

    prepare()


def _ending_text(ending: Exit, errors: int, pending: str, job: str | None) -> str:
    if ending.message:
        return f"Stopped: {ending.message}. What is committed is kept. {pending or AGAIN.capitalize() + '.'}"
    if ending.code == EXIT_DONE:
        done = "Done: every row is final."
        return f"{done} {order_text('retry-failed', job)} fetches the errors again." if errors else done
    return pending


def _refresh_text(state: RunState) -> str:
    moment = datetime.fromtimestamp(state.stale_before, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    if not state.asked_again:
        return f"Refresh: no file was last asked for before {moment}, so none is asked for again"
    verb = "is" if state.asked_again == 1 else "are"
    return f"Refresh: {counted(state.asked_again, 'file')} last asked for before {moment} {verb} asked for again"


def known_hosts(state: RunState) -> list[str]:
    """The servers and groups of the table whose limits no rule of the user's decides."""
    config, names = state.config, state.table.server_names
    ruled = np.flatnonzero(matching_servers(names.values, config.rules.patterns)).tolist()
    return sorted({config.group_of(names[index]) for index in ruled if config.is_known_host(names[index])})


def slowest_servers(state: RunState, ledger: Ledger | None, most: int) -> list[tuple[str, float]]:
    """Servers with rows left, and the seconds that they need at least, longest first; none before the download."""
    if ledger is None:
        return []
    left = np.bincount(
        state.table.groups,
        weights=state.counts.rows_left(),
        minlength=len(state.table.group_names),
    )
    times = left * ledger.plan.row_times
    order = np.argsort(-times)[:most]
    found = [(state.table.group_names[i], float(times[i])) for i in order if times[i] > 0]
    return [(state.table.shown_group(name), seconds) for name, seconds in found if name != INVALID_SERVER]
