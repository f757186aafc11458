"""A run under MPI: what each rank does between its start and its one exit code."""

from __future__ import annotations

import logging
import logging.handlers
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from mpi4py import MPI

from ddmpi import __version__
from ddmpi import config as config_module
from ddmpi.arguments import Arguments
from ddmpi.config import Config
from ddmpi.console import Console, Snapshot, Summary, duration
from ddmpi.errors import EXIT_DONE, EXIT_PENDING, DdmpiError, StorageError
from ddmpi.io import slurm
from ddmpi.io.batch_table import limits_by_group
from ddmpi.io.durable import write_atomically
from ddmpi.io.layout import Layout
from ddmpi.io.lock import OutputLock
from ddmpi.io.mailbox import Mailbox
from ddmpi.io.terminal import terminal_columns
from ddmpi.io.urls_writer import Interrupted, PartitionSummary
from ddmpi.protocol import Exit
from ddmpi.records import INVALID_SERVER, MANY_SERVERS
from ddmpi.report import MOST_SERVERS, Point, Report, ServerLine, Timeline, render
from ddmpi.roles.assembly import check_libraries, make_downloader
from ddmpi.roles.coordinator import Coordinator
from ddmpi.roles.downloader import Downloader
from ddmpi.roles.initialization import Orders, Reporting, describe_environment, initialize, own_output
from ddmpi.roles.loop import Loop, leave
from ddmpi.roles.run_state import RunState
from ddmpi.roles.signals import Signals, die_with_parent
from ddmpi.schedule import is_packed

log = logging.getLogger(__name__)

LOG_BYTES = 16 << 20
LOG_FILES = 4
LAUNCHED_BY = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_STEP_ID")


def run(comm: MPI.Intracomm, arguments: Arguments, environment: Mapping[str, str], parent: int) -> int:
    """Run this rank to its end. ``parent`` is the pid of the process that started it.

    Raises:
        SetupError: on all ranks alike (a library is too old).
    """
    if any(name in environment for name in LAUNCHED_BY):
        die_with_parent(parent)
    check_libraries()
    signals = Signals()
    mailbox = Mailbox(comm)
    if comm.Get_rank() == 0:
        ending = _Conductor(comm, mailbox, signals, arguments, environment).run()
    else:
        ending = _follow(comm, mailbox, signals)
    if not leave(mailbox, signals):
        sys.stderr.flush()
        comm.Abort(ending.code or EXIT_PENDING)
    return ending.code


def _follow(comm: MPI.Intracomm, mailbox: Mailbox, signals: Signals) -> Exit:
    """A rank other than 0: get the config, then do what the coordinator says."""
    data: bytes | None = comm.bcast(None, root=0)
    if data is None:
        return Exit(2)
    config = Config.from_json(data)
    layout = Layout(Path(config.path_to_output_folder), config.output_structure)
    return Loop(mailbox, signals, _downloader_factory(config, layout, mailbox)).run()


def _downloader_factory(config: Config, layout: Layout, mailbox: Mailbox) -> Callable[[int], Downloader]:
    def make(epoch: int) -> Downloader:
        _log_to_file(layout, mailbox.rank)
        return make_downloader(
            config,
            layout,
            epoch=epoch,
            rank=mailbox.rank,
            send=lambda message: mailbox.send(0, message),
            now=time.monotonic(),
        )

    return make


def _log_to_file(layout: Layout, rank: int) -> None:
    """Each rank has its own log; a disk that takes no more log does not stop the run."""
    root = logging.getLogger()
    if any(isinstance(handler, logging.handlers.RotatingFileHandler) for handler in root.handlers):
        return
    logging.raiseExceptions = False
    path = layout.logs / f"rank-{rank:05d}.log"
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, delay=True)
    handler.setFormatter(logging.Formatter(f"%(asctime)s rank {rank} %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)


@dataclass
class _Conductor:
    """Rank 0 of a run."""

    comm: MPI.Intracomm
    mailbox: Mailbox
    signals: Signals
    arguments: Arguments
    environment: Mapping[str, str]
    console: Console = field(default_factory=lambda: Console(terminal_columns()))
    _lock: OutputLock | None = None
    _coordinator: Coordinator | None = None
    _started_at: float = field(default_factory=time.monotonic)
    _timeline: Timeline = field(default_factory=Timeline)
    _unreported: StorageError | None = None

    def run(self) -> Exit:
        """From the config to the summary."""
        try:
            config, layout = self._set_up()
        except DdmpiError as error:
            self.comm.bcast(None, root=0)
            return self._refuse(error, workers=[])
        self.comm.bcast(config.to_json(), root=0)
        try:
            ending = self._conduct(config, layout)
        except Interrupted:
            ending = self._dismiss(Exit(EXIT_PENDING))
            self.console.say("Stopped while the input was partitioned; run the same command again.")
        except DdmpiError as error:
            ending = self._refuse(error, self._workers())
        if self._lock is not None:
            self._lock.release()
        return ending

    def _set_up(self) -> tuple[Config, Layout]:
        config = config_module.load(self.arguments.config)
        layout = Layout(Path(config.path_to_output_folder), config.output_structure)
        self._own(layout)
        for notice in config.notices:
            self.console.say(f"Notice: {notice}")
        if config.contact_missing:
            self.console.say(
                "Warning: the User-Agent names no contact; set downloader_parameters.header so that the servers' "
                "operators can reach you."
            )
        return config, layout

    def _own(self, layout: Layout) -> OutputLock:
        if self._lock is None:
            self._lock = own_output(layout, self.environment)
        return self._lock

    def _workers(self) -> list[int]:
        return list(range(1, self.mailbox.size)) or [0]

    def _conduct(self, config: Config, layout: Layout) -> Exit:
        arguments = self.arguments
        orders = Orders(
            arguments.reset_profiled, arguments.reset_batched, arguments.delete_results, arguments.retry_failed or ()
        )
        reporting = Reporting(self._on_rows, self._on_partitioned, lambda: self.signals.stop is not None)
        state = initialize(config, layout, self._own(layout), orders, reporting)
        _log_to_file(layout, 0)
        log.info("ddmpi run %d on %s, %d ranks", state.epoch, describe_environment(self.environment), self.mailbox.size)
        left_s = slurm.seconds_left(config.walltime.end_time, config.walltime.margin_s, self.environment)
        deadline = None if left_s is None else time.monotonic() + left_s
        coordinator = Coordinator(
            state, self._workers(), self.mailbox.send, self.mailbox.scatter, deadline,
            on_end=lambda ending: self._write_report(coordinator, ending),
        )  # fmt: skip
        self._coordinator = coordinator
        factory = _downloader_factory(config, layout, self.mailbox)
        ending = Loop(self.mailbox, self.signals, factory, coordinator, self._on_turn).run()
        self.console.finish(self._summary(coordinator, ending))
        if self._unreported is not None:
            self._complain(self._unreported)
        return ending

    # ---- what a person sees

    def _on_rows(self, rows: int) -> None:
        self.console.show(Snapshot("reading the table", 0, rows, 0, 0, 0, self.mailbox.size), time.monotonic())

    def _on_partitioned(self, summary: PartitionSummary) -> None:
        rejected = ", ".join(f"{reason} {count:,}" for reason, count in sorted(summary.rejected.items()))
        largest = ", ".join(f"{name} {rows:,}" for name, rows in summary.largest[:5])
        self.console.say(
            f"Input: {summary.rows:,} rows on {summary.servers:,} servers in {summary.batches:,} batches, "
            f"{sum(summary.rejected.values()):,} refused ({rejected or 'none'}), {summary.ignored_rows:,} ignored; "
            f"{duration(summary.seconds)}"
        )
        self.console.say(f"Largest servers: {largest}")

    def _on_turn(self, now: float) -> None:
        coordinator = self._coordinator
        if coordinator is None:
            return
        self.console.show(coordinator.snapshot(), now)
        if self._timeline.is_due(now - self._started_at):
            self._timeline.add(self._point(coordinator, now))

    def _point(self, coordinator: Coordinator, now: float) -> Point:
        total = coordinator.tally.total()
        return Point(now - self._started_at, total.successes + total.errors, total.bytes)

    def _write_report(self, coordinator: Coordinator, ending: Exit) -> None:
        """A disk that does not take the report changes nothing about how the run ends: rows count, not pages."""
        now, state, bound = time.monotonic(), coordinator.state, coordinator.bound
        self._timeline.add(self._point(coordinator, now))
        servers, rest = server_lines(state)
        page = render(
            Report(
                summary=self._summary(coordinator, ending),
                exit_code=ending.code,
                origin=f"Run {state.epoch} over {state.config.path_to_input}; ranks: {self.mailbox.size}; "
                f"ended {datetime.now().astimezone().isoformat(' ', 'seconds')}; ddmpi {__version__}",
                places=_places(state),
                points=self._timeline.points,
                bound_s=None if bound is None else bound.seconds,
                bound_by="" if bound is None else bound.group,
                download_s=0.0 if bound is None else now - bound.began_at,
                servers=servers,
                rest=rest,
            )
        )
        try:
            # A path may hold bytes that are no UTF-8.
            write_atomically(state.layout.report, page.encode(errors="replace"))
        except StorageError as error:
            log.exception("rank 0 cannot write the report")
            self._unreported = error

    def _summary(self, coordinator: Coordinator, ending: Exit) -> Summary:
        state, total = coordinator.state, coordinator.tally.total()
        pending = state.pending_rows
        return Summary(
            rows=int(state.table.rows.sum()),
            successes=int(state.successes.sum()),
            errors=int(state.errors.sum()),
            pending=pending,
            kinds=state.error_kinds,
            fetched_bytes=total.bytes,
            fetched_rows=total.successes + total.errors,
            requests=total.requests,
            seconds=time.monotonic() - self._started_at,
            slowest=coordinator.slowest_servers(5),
            output=str(state.layout.root),
            ending=_ending_text(ending, pending),
        )

    # ---- endings

    def _refuse(self, error: DdmpiError, workers: list[int]) -> Exit:
        self._complain(error)
        ending = Exit(error.exit_code, str(error))
        return self._dismiss(ending) if workers else ending

    @staticmethod
    def _complain(error: DdmpiError) -> None:
        sys.stderr.write(f"ddmpi: {error}\n")
        sys.stderr.flush()

    def _dismiss(self, ending: Exit) -> Exit:
        """End the other ranks, which have not been told to begin."""
        for rank in self._workers():
            if rank != 0:
                self.mailbox.send(rank, ending)
        while self.mailbox.unsent:
            self.mailbox.poll()
            self.signals.wait(0.001)
        return ending


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


def server_lines(state: RunState) -> tuple[list[ServerLine], ServerLine | None]:
    """The largest pace groups, and all others together.

    Packed batches are one line: their servers have limits of their own, and a batch says nothing about any of them.
    """
    table, names = state.table, state.table.group_names
    packed = np.fromiter(map(is_packed, names), np.bool_, len(names))
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
