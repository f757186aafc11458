"""Rank 0 of a run: it owns the output folder, initializes it, coordinates the ranks and says how the run ended.

No other rank has been told to begin before initialization is done: whatever is wrong with config, input or folder ends
the run with one message.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ddmpi.config.config import Config
from ddmpi.config.secrets import Variables, read_variables
from ddmpi.core.protocol import Begin, Exit
from ddmpi.core.records import Orders
from ddmpi.errors import EXIT_DONE, EXIT_PENDING, DdmpiError, Interrupted, StorageError
from ddmpi.io.folder.disk_errors import machine_faults
from ddmpi.io.folder.layout import Layout, configured_layout
from ddmpi.io.folder.lock import OutputLock
from ddmpi.io.folder.rank_log import RunLog, log_to_file
from ddmpi.io.mpi.launcher import complain
from ddmpi.io.mpi.mailbox import Mailbox
from ddmpi.io.process import terminal_columns
from ddmpi.io.schedulers.detection import job_of, seconds_left
from ddmpi.io.urls.batch_table import excluded_patterns
from ddmpi.report.console import Console
from ddmpi.roles.coordinator.coordinator import Coordinator
from ddmpi.roles.coordinator.forecast import forecast_of_trial
from ddmpi.roles.coordinator.initialization import InitCallbacks, check_contact, initialize, own_output
from ddmpi.roles.coordinator.live_control import Controller, doubt_about
from ddmpi.roles.coordinator.reporter import ConsoleReporter
from ddmpi.roles.downloader.build import check_authorities
from ddmpi.roles.downloader.downloader import Downloader
from ddmpi.roles.loop import Loop
from ddmpi.roles.signals import Signals

log = logging.getLogger(__name__)


@dataclass
class Rank0:
    """Rank 0 of a run.

    Args:
        make_downloader: makes this process's own downloader, where it is the only rank.
    """

    mailbox: Mailbox
    signals: Signals
    read_config: Callable[[], Config]
    orders: Orders
    environment: Mapping[str, str]
    make_downloader: Callable[[Begin], Downloader]
    console: Console = field(default_factory=lambda: Console(terminal_columns()))
    _lock: OutputLock | None = None
    _run_log: RunLog | None = None
    _variables: Variables = field(default_factory=Variables)
    _started_at: float = field(default_factory=time.monotonic)

    def run(self) -> Exit:
        """From the config to the summary."""
        try:
            with machine_faults():
                ending = self._conduct(*self._set_up())
        except Interrupted:
            ending = self._dismiss(Exit(EXIT_PENDING))
            self.console.say("Stopped while the input was partitioned; run the same command again.")
        except DdmpiError as error:
            ending = self._refuse(error)
        self._release()
        return ending

    def _set_up(self) -> tuple[Config, Layout, OutputLock]:
        config = self.read_config()
        self._variables = read_variables(config.variable_uses(), self.environment)
        check_authorities(config)
        layout = configured_layout(config)
        excluded_patterns(layout)
        self._lock = lock = own_output(layout, self.environment)
        if layout.logs.is_dir():  # also of what ends the run before it begins
            self._keep_log(layout, config)
        for notice in config.notices:
            self.console.say(f"Notice: {notice}")
        if config.contact_missing:
            self.console.say(
                "Warning: the User-Agent names no contact, no URL and no mail address (those under .example are "
                f"nobody's), so that operators can only block you. Write: {config.contact_line}"
            )
        return config, layout, lock

    def _keep_log(self, layout: Layout, config: Config) -> None:
        if self._run_log is None:
            self._run_log = RunLog(layout, config.logging)
            self.console.log_to(self._run_log.add)

    def _workers(self) -> list[int]:
        return list(range(1, self.mailbox.size)) or [0]

    def _conduct(self, config: Config, layout: Layout, lock: OutputLock) -> Exit:
        reporter = ConsoleReporter(self.console, self.mailbox.size, self._started_at, self.orders.job)
        callbacks = InitCallbacks(
            reporter.on_rows, reporter.on_partitioned, lambda: self.signals.stop is not None,
            reporter.on_names, reporter.on_grouped, reporter.on_input, self.console.say,
        )  # fmt: skip
        state = initialize(config, layout, lock, self.orders, callbacks)
        check_contact(config, state.table.open_servers(config.rules.contact_patterns, state.counts.rows_left()))
        log_to_file(layout, 0, config.logging)
        self._keep_log(layout, config)
        reporter.on_ready(state)
        log.info(
            "ddmpi run %d on host %s, pid %d, job %s, %d ranks",
            state.epoch, os.uname().nodename, os.getpid(), job_of(self.environment) or "-", self.mailbox.size,
        )  # fmt: skip
        left_s = seconds_left(config.walltime.end_time, config.walltime.margin_s, self.environment, self.console.say)
        deadline = math.inf if left_s is None else time.monotonic() + left_s
        given_up = [] if self.orders.give_up is None else state.give_up(self.orders.give_up)
        if self.orders.give_up is not None:
            reporter.on_given_up(given_up)
        controller = Controller(
            layout, self.console.say, lambda match: doubt_about(match, state.table, state.config), given_up
        )
        whole = ""

        def on_end(ending: Exit) -> None:
            nonlocal whole
            reporter.compare(state, ending)
            reporter.refresh(state, ending)
            reporter.write_report(coordinator, ending, time.monotonic())
            if config.trial and ending.code == EXIT_DONE:
                whole = forecast_of_trial(
                    state, coordinator.tally.usage, len(self._workers()), time.monotonic(),
                    lambda: self.signals.stop is not None,
                )  # fmt: skip

        coordinator = Coordinator(
            state, self._workers(), self.mailbox.send, self.mailbox.scatter, deadline,
            overrides=controller.first_rules(),
            variables=self._variables,
            on_end=on_end,
        )  # fmt: skip
        reporter.watch(coordinator)
        reporter.changes = controller.changes

        def on_turn(now: float) -> None:
            controller.on_turn(coordinator, now)
            reporter.on_turn(coordinator, now)

        ending = Loop(self.mailbox, self.signals, self.make_downloader, coordinator, on_turn).run()
        self.console.finish(reporter.summary(coordinator, ending, time.monotonic()))
        if reporter.compared:
            self.console.say(f"Compared with the table: {reporter.compared}")
        if reporter.refreshed:
            self.console.say(f"Refreshed: {reporter.refreshed}")
        if whole:
            self.console.say(whole)
        if reporter.unreported is not None:
            complain(str(reporter.unreported))
            self.console.keep(str(reporter.unreported))
        return ending

    # ---- endings

    def _release(self) -> None:
        """Give back what is open. A lock that the disk does not let go is found stale by the next run: its owner has
        ended."""
        if self._run_log is not None:
            self._run_log.close()
        try:
            if self._lock is not None:
                self._lock.release()
        except StorageError as error:
            complain(str(error))

    def _refuse(self, error: DdmpiError) -> Exit:
        complain(str(error))
        self.console.keep(str(error))
        return self._dismiss(Exit(error.exit_code, str(error)))

    def _dismiss(self, ending: Exit) -> Exit:
        """End the other ranks, which have not been told to begin."""
        for rank in self._workers():
            if rank != 0:
                self.mailbox.send(rank, ending)
        while self.mailbox.unsent:
            self.mailbox.poll()
            self.signals.wait(0.001)
        return ending
