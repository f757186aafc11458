"""Rank 0 measures the run: every second for the report, every ``metrics.interval_s`` into the metrics' files."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

import msgspec

from ddmpi._version import __version__
from ddmpi.core.stats.audit import MOST_HOSTS, Audit, RunAudit
from ddmpi.core.stats.metrics import History, Measurement, continued, with_rates
from ddmpi.io.folder.stats_files import (
    MetricsFile,
    PrometheusFile,
    read_audit,
    read_usage,
    write_audit,
    write_run_audit,
    write_usage,
)
from ddmpi.io.process import resident_bytes
from ddmpi.io.urls.batch_table import limits_by_group
from ddmpi.roles.coordinator.coordinator import Coordinator
from ddmpi.roles.coordinator.run_state import RunState

USAGE_INTERVAL_S = 60.0
"""How often logs/servers.parquet is written: a hundred thousand servers take rank 0 a tenth of a second."""


class Recorder:
    """Measures one run.

    Args:
        ranks: of the job.
        now: seconds, monotonic, as in all methods.
    """

    def __init__(self, state: RunState, ranks: int, now: float) -> None:
        layout, metrics = state.layout, state.config.metrics
        self.file = MetricsFile(layout.metrics)
        self.history = History(now)
        self._prometheus = PrometheusFile(Path(metrics.prometheus_file or layout.logs / "ddmpi.prom"), str(layout.root))
        self._interval_s = metrics.interval_s
        self._ranks = ranks
        self._epoch = state.epoch
        self._before = self.file.last()
        self._last: Measurement | None = None
        self._has_ended = False
        self._write_at = now
        self._began_at = time.time()
        self._usage_path = layout.usage
        self._usage_at = now + USAGE_INTERVAL_S
        self.usage = read_usage(layout.usage)
        self.audit = Audit(read_audit(layout.audit))

    def on_turn(self, coordinator: Coordinator, now: float) -> None:
        """Called in each turn of the loop; measures only what is due. After the end nothing is: the last line of a run
        is the one with its exit code."""
        if self._has_ended:
            return
        if now >= self._usage_at:
            self._usage_at = now + USAGE_INTERVAL_S
            write_usage(self._usage_path, self.usage, now)
            if len(self.audit) <= MOST_HOSTS:  # of more it takes its time, and is written at the end
                self._write_run_audit(coordinator.state)
        writes = now >= self._write_at
        if not writes and not self.history.is_due(now):
            return
        line = self._measure(coordinator)
        if self.history.is_due(now):
            self.history.add(now, line)
        if writes:
            self._write_at = now + self._interval_s
            self._write(line)

    def on_end(self, coordinator: Coordinator, exit_code: int, now: float) -> None:
        """The last line of the run."""
        self._has_ended = True
        line = msgspec.structs.replace(self._measure(coordinator), exit_code=exit_code)
        self.history.add(now, line)
        self._write(line)
        write_usage(self._usage_path, self.usage, now)
        state = coordinator.state
        write_audit(state.layout.audit, self.audit.rows(), limits_by_group(state.config, state.profiles))
        self._write_run_audit(state)

    def _write_run_audit(self, state: RunState) -> None:
        hosts = self.audit.hosts()
        if not hosts:
            return  # what an earlier run has asked is what there is to tell
        config = state.config
        found = RunAudit(
            self._epoch, self._began_at, time.time(), __version__, config.user_agent, config.respect_text, hosts,
            len(self.audit) - len(hosts),
        )  # fmt: skip
        write_run_audit(state.layout.run_audit, found, state.layout.temporary)

    def _write(self, line: Measurement) -> None:
        line = with_rates(line, self._last)
        self._last = line
        self.file.append(line)
        self._prometheus.write(line)

    def _measure(self, coordinator: Coordinator) -> Measurement:
        state, total = coordinator.state, coordinator.tally.total()
        unix_s = time.time()
        # A rank 0 that downloads too has counted itself.
        own_bytes = 0 if 0 in coordinator.tally.counters else resident_bytes(os.getpid())
        line = Measurement(
            time=datetime.fromtimestamp(unix_s).astimezone().isoformat(timespec="seconds"),
            unix_s=round(unix_s, 3),
            run=self._epoch,
            stage=coordinator.core.stage.value,
            ranks=self._ranks,
            rows=int(state.table.rows.sum()),
            successes=int(state.counts.successes.sum()),
            errors=int(state.counts.errors.sum()),
            ignored=state.ignored_rows,
            fetched_rows=total.successes + total.errors,
            requests=total.requests,
            bytes=total.bytes,
            in_flight=total.in_flight,
            servers_active=total.servers_active,
            memory_bytes=total.memory_bytes + own_bytes,
            error_kinds=state.counts.error_kinds,
            urls=self.audit.total.urls,
            refused=self.audit.total.refused,
            kept_bytes=self.audit.total.kept_bytes,
            usage_signals={text: rows for text, (rows, _) in self.audit.signals.items()},
        )
        return continued(line, self._before)
