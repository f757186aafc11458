"""A run under MPI: what each rank does between its start and its one exit code."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mpi4py import MPI

from ddmpi.config import Config
from ddmpi.console import Console
from ddmpi.errors import EXIT_PENDING, DdmpiError, StorageError
from ddmpi.io import slurm
from ddmpi.io.cores import share_of_cores
from ddmpi.io.disk_errors import machine_faults
from ddmpi.io.layout import Layout
from ddmpi.io.lock import OutputLock
from ddmpi.io.mailbox import Mailbox, cores_of_downloaders
from ddmpi.io.terminal import terminal_columns
from ddmpi.io.urls_writer import Interrupted
from ddmpi.protocol import Exit
from ddmpi.roles.assembly import check_libraries, make_downloader
from ddmpi.roles.controlling import Controller
from ddmpi.roles.coordinator import Coordinator
from ddmpi.roles.downloader import Downloader
from ddmpi.roles.initialization import Orders, Reporting, describe_environment, initialize, own_output
from ddmpi.roles.loop import Loop, leave
from ddmpi.roles.reporting import Reporter
from ddmpi.roles.signals import Signals

log = logging.getLogger(__name__)

LOG_BYTES = 16 << 20
LOG_FILES = 4


def run(
    comm: MPI.Intracomm,
    read_config: Callable[[], Config],
    orders: Orders,
    environment: Mapping[str, str],
    signals: Signals,
) -> int:
    """Run this rank to its end; gives the exit code, the same on all ranks. ``read_config`` is called on rank 0.

    Raises:
        SetupError: on all ranks alike (a library is too old).
    """
    check_libraries()
    mailbox = Mailbox(comm)
    cores = share_of_cores(os.sched_getaffinity(0), cores_of_downloaders(comm))
    if comm.Get_rank() == 0:
        ending = _Conductor(comm, mailbox, signals, read_config, orders, environment, cores).run()
    else:
        ending = _follow(comm, mailbox, signals, cores)
    if not leave(mailbox, signals):
        sys.stderr.flush()
        comm.Abort(ending.code or EXIT_PENDING)
    mailbox.close()
    return ending.code


def _follow(comm: MPI.Intracomm, mailbox: Mailbox, signals: Signals, cores: int) -> Exit:
    """A rank other than 0: get the config, then do what the coordinator says."""
    data: bytes | None = comm.bcast(None, root=0)
    if data is None:
        return Exit(2)
    config = Config.from_json(data)
    layout = Layout(Path(config.path_to_output_folder), config.output_structure)
    return Loop(mailbox, signals, _downloader_factory(config, layout, mailbox, cores)).run()


def _downloader_factory(config: Config, layout: Layout, mailbox: Mailbox, cores: int) -> Callable[[int], Downloader]:
    def make(epoch: int) -> Downloader:
        _log_to_file(layout, mailbox.rank)
        return make_downloader(
            config,
            layout,
            epoch=epoch,
            rank=mailbox.rank,
            cores=cores,
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
    read_config: Callable[[], Config]
    orders: Orders
    environment: Mapping[str, str]
    cores: int
    console: Console = field(default_factory=lambda: Console(terminal_columns()))
    _lock: OutputLock | None = None
    _started_at: float = field(default_factory=time.monotonic)

    def run(self) -> Exit:
        """From the config to the summary."""
        try:
            with machine_faults():
                config, layout = self._set_up()
        except DdmpiError as error:
            self.comm.bcast(None, root=0)
            self._release()
            return self._refuse(error, workers=[])
        self.comm.bcast(config.to_json(), root=0)
        try:
            with machine_faults():
                ending = self._conduct(config, layout)
        except Interrupted:
            ending = self._dismiss(Exit(EXIT_PENDING))
            self.console.say("Stopped while the input was partitioned; run the same command again.")
        except DdmpiError as error:
            ending = self._refuse(error, self._workers())
        self._release()
        return ending

    def _set_up(self) -> tuple[Config, Layout]:
        config = self.read_config()
        layout = Layout(Path(config.path_to_output_folder), config.output_structure)
        self._own(layout)
        for notice in config.notices:
            self.console.say(f"Notice: {notice}")
        if config.contact_missing:
            self.console.say(
                "Warning: the User-Agent names no contact, no URL and no mail address (those under .example are "
                "nobody's). Set downloader_parameters.header so that the servers' operators can reach you."
            )
        return config, layout

    def _own(self, layout: Layout) -> OutputLock:
        if self._lock is None:
            self._lock = own_output(layout, self.environment)
        return self._lock

    def _workers(self) -> list[int]:
        return list(range(1, self.mailbox.size)) or [0]

    def _conduct(self, config: Config, layout: Layout) -> Exit:
        reporter = Reporter(self.console, self.mailbox.size, self._started_at)
        reporting = Reporting(reporter.on_rows, reporter.on_partitioned, lambda: self.signals.stop is not None)
        state = initialize(config, layout, self._own(layout), self.orders, reporting)
        _log_to_file(layout, 0)
        reporter.on_ready(state)
        log.info("ddmpi run %d on %s, %d ranks", state.epoch, describe_environment(self.environment), self.mailbox.size)
        left_s = slurm.seconds_left(config.walltime.end_time, config.walltime.margin_s, self.environment)
        deadline = None if left_s is None else time.monotonic() + left_s
        controller = Controller(layout, self.console.say)
        coordinator = Coordinator(
            state, self._workers(), self.mailbox.send, self.mailbox.scatter, deadline,
            control=controller.first_rules(),
            on_end=lambda ending: reporter.write_report(coordinator, ending, time.monotonic()),
        )  # fmt: skip
        reporter.watch(coordinator)
        reporter.changes = controller.changes
        factory = _downloader_factory(config, layout, self.mailbox, self.cores)

        def on_turn(now: float) -> None:
            controller.on_turn(coordinator, now)
            reporter.on_turn(coordinator, now)

        ending = Loop(self.mailbox, self.signals, factory, coordinator, on_turn).run()
        self.console.finish(reporter.summary(coordinator, ending, time.monotonic()))
        if reporter.unreported is not None:
            self._complain(reporter.unreported)
        return ending

    # ---- endings

    def _release(self) -> None:
        """A lock that the disk does not let go is found stale by the next run: its owner has ended."""
        try:
            if self._lock is not None:
                self._lock.release()
        except StorageError as error:
            self._complain(error)

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
