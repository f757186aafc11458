"""A rank that downloads: moves values between its core, the network, the disk and rank 0.

Everything is decided in ``core.frontier.rank_core``; this file performs its instructions and tells it what came of
them. The loop waits in one place, ``wait``: for the network, a loaded batch, the writer, a signal or the next request.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from ddmpi.core.frontier import interface as do
from ddmpi.core.frontier.interface import Disposition, FrontierConfig
from ddmpi.core.frontier.memory_budget import MemoryBudget
from ddmpi.core.frontier.rank_core import RankCore
from ddmpi.core.protocol import (
    FINISH_TIMEOUT_S,
    PartReport,
    PicturesRepeated,
    Stop,
    StopReason,
    ToCoordinator,
    ToDownloader,
)
from ddmpi.core.records import MIRRORS, REQUEST_HEADERS, Answer
from ddmpi.errors import StorageError
from ddmpi.io.http.transfers import GroupConnections, Transfers
from ddmpi.io.process import resident_bytes
from ddmpi.io.results.outcomes import EarlierFiles
from ddmpi.io.results.parts import ResultOptions
from ddmpi.io.results.rows import ErrorRow
from ddmpi.io.results.writer import PartsClosed, ResultWriter, Rows, WriterFailed
from ddmpi.io.urls.loader import Loaded, Loader
from ddmpi.report.formats import counted
from ddmpi.roles.downloader.notes import DebugLog, ServerNotes
from ddmpi.roles.downloader.notes import log as notes_log

log = logging.getLogger(__name__)

LAST_WORDS_S = 1.0
"""Of the time that rank 0 waits for a rank that stops, this is for what it says last; the rest is for its files."""
MEMORY_INTERVAL_S = 5.0
RESTRAIN_INTERVAL_S = 0.02
"""How often the bodies in flight are compared with the memory budget: 20 ms of a 10 Gbit/s network are 25 MB."""
RESTRAIN_SHARE_S = 1e-5
"""More of that per body in flight, so that many of them do not take all of the time."""


class Downloader:
    """One downloading rank. ``handle`` takes a message, ``step`` does what is due, ``wait`` waits for more."""

    def __init__(
        self,
        results: ResultOptions,
        frontier: FrontierConfig,
        transfers: Transfers,
        send: Callable[[ToCoordinator], None],
        *,
        rng: random.Random,
        report_interval_s: float,
        now: float,
    ) -> None:
        self._send = send
        self._transfers = transfers
        self._group_of = frontier.group_of
        self._connections = GroupConnections(frontier.group_of, transfers)
        self._core = RankCore(
            frontier,
            MemoryBudget(results.config.downloader_parameters.memory_budget_bytes),
            transfers.connections.count,
            rng=rng,
            now=now,
            report_interval_s=report_interval_s,
        )
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        transfers.events.watch(self._wake_fd, self._on_wake)
        config = results.config
        alike_by = (MIRRORS, *config.expected.columns) if config.has_mirrors else ()
        if config.columns.headers is not None:
            alike_by = (*alike_by, REQUEST_HEADERS)
        earlier = EarlierFiles(results.layout, results.reader)
        self._loader = Loader(
            results.layout, results.reader, results.epoch, self._wake, alike_by, rewrites=config.rewrites,
            earlier=earlier,
        )  # fmt: skip
        self._writer = ResultWriter(results, self._wake, earlier)
        self._looks: list[tuple[Answer, Future[Rows]]] = []
        self._notes = ServerNotes(now)
        self._debug = DebugLog() if notes_log.isEnabledFor(logging.DEBUG) else None
        self._restrain_at = now
        self._memory_bytes = resident_bytes(os.getpid())
        self._memory_at = now + MEMORY_INTERVAL_S
        self._has_failed = False
        self._has_finished = False
        self._files_by = now

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Wake from ``wait`` when ``fd`` is readable."""
        self._transfers.events.watch(fd, callback)

    # ---- what comes in

    def handle(self, message: ToDownloader, now: float) -> None:
        if isinstance(message, Stop):
            self._files_by = time.monotonic() + FINISH_TIMEOUT_S - LAST_WORDS_S
            log.info("stopping: %s", message.reason.value)
        if self._debug is not None:
            self._debug.message(message)
        self._perform(self._core.handle(message, now), now)

    def ask_to_stop(self, reason: StopReason) -> None:
        """Admit nothing more, and ask rank 0 to stop the job: this process got a signal."""
        self._perform(self._core.ask_to_stop(reason), time.monotonic())

    def fail(self, error: Exception) -> None:
        """Stop the job softly: the disk does not take or give more. Raises any ``error`` that is no StorageError: a
        bug."""
        if not isinstance(error, StorageError):
            raise error
        log.error("stopping: %s", error)
        self._has_failed = True
        self._perform(self._core.fail(str(error)), time.monotonic())

    # ---- one turn of the loop

    def step(self, now: float) -> None:
        if self._has_finished:
            return
        self._notes.opened(self._connections.opened())
        self._take_loaded(now)
        self._take_looks(now)
        self._take_writer_events(now)
        self._restrain(now)
        self._perform(self._core.turn(now, self._writer.buffered_bytes, self._measure_memory(now)), now)
        while instructions := self._core.admit(now := time.monotonic()):
            self._perform(instructions, now)
        used = self._notes.take_due(now)
        if used is not None:
            self._send(used)

    def wait(self, timeout_s: float) -> None:
        """Wait until something happens, at most for ``timeout_s``; take in the answers."""
        now = time.monotonic()
        wake_at = self._writer.hand_over(now)
        if not self._has_finished:
            wake_at = min(wake_at, self._core.wake_at())
        timeout_s = min(timeout_s, wake_at - now)
        answers = self._transfers.poll(max(0.0, timeout_s))
        now = time.monotonic()
        for answer in answers:
            if self._writer.may_object and self._core.needs_look(answer):
                self._look(answer)
            else:
                self._perform(self._core.answered(answer, now), now, answer)

    def _look(self, answer: Answer) -> None:
        """Have the body looked into before the core hears of the answer: its row may have to move on to a mirror."""
        looked = self._writer.look(self._core.batch_of(answer.task), answer)
        self._looks.append((answer, looked))
        looked.add_done_callback(lambda _: self._wake())

    def _take_looks(self, now: float) -> None:
        looks, self._looks = self._looks, []
        for answer, looked in looks:
            if not looked.done():
                self._looks.append((answer, looked))
                continue
            try:
                rows = looked.result()
            except StorageError as error:
                self.fail(error)  # the row stays in flight, hence pending
                continue
            answer.objection = next((row.failure for row in rows if isinstance(row, ErrorRow)), None)
            self._perform(self._core.answered(answer, now), now, answer, looked)

    def _perform(
        self,
        instructions: Iterable[do.Instruction],
        now: float,
        answer: Answer | None = None,
        looked: Future[Rows] | None = None,
    ) -> None:
        """Do what the core says, in order. ``answer`` is what ``Finished`` is about; ``looked`` what it would come
        to, if that is known."""
        for instruction in instructions:
            match instruction:
                case do.Start():
                    self._start(instruction)
                case do.Finished() if answer is not None:
                    self._record(instruction, answer, now, looked)
                case do.RowsFailed(batch, tasks, failure):
                    for task in tasks:
                        # It waited for this attempt.
                        self._writer.error(
                            batch, task.rows, failure, None, task.attempts - 1, usage_signals=task.usage_signals
                        )
                        if task.usage_signals:
                            self._notes.heard(self._group_of(task.server), task.usage_signals, len(task.rows), failure)
                case do.LoadBatch(lane_id, batch):
                    self._loader.load(lane_id, batch)
                case do.CloseParts(ticket, batch_ids):
                    self._writer.close_parts(ticket, batch_ids)
                case do.CloseConnections(servers):
                    self._transfers.leave(servers)
                case do.Send(message):
                    self._send(message)
                case do.Finish():
                    self._finish(now)
                case _:
                    raise TypeError(f"unknown instruction {instruction!r}")

    # ---- requests

    def _start(self, start: do.Start) -> None:
        server = start.task.server
        is_last = self._transfers.connections.has_more(server, start.connection_limit)
        self._connections.make_room(start.key, server, start.spare_connections)
        self._transfers.start(start.task, last_on_connection=is_last, impatient=start.is_sampling)
        self._notes.started(start.key)

    def _record(self, done: do.Finished, answer: Answer, now: float, looked: Future[Rows] | None) -> None:
        size_bytes = len(answer.body)
        self._notes.finished(done, answer, now)
        if self._debug is not None:
            self._debug.finished(done, size_bytes, now)
        if done.batch is None:
            return
        if done.disposition is Disposition.SUCCESS:
            self._writer.success(done.batch, done.task.rows, answer, looked)
        elif done.failure is not None:
            self._writer.error(done.batch, done.task.rows, done.failure, answer, done.task.attempts)

    def _restrain(self, now: float) -> None:
        """Have bodies larger than expected stand still while there is no memory for them."""
        if now >= self._restrain_at:
            self._restrain_at = now + max(RESTRAIN_INTERVAL_S, RESTRAIN_SHARE_S * self._transfers.in_flight)
            waiting_bytes, budget = self._writer.buffered_bytes, self._core.budget
            self._transfers.restrain(lambda arrivals: budget.may_read_on(waiting_bytes, arrivals))

    def _measure_memory(self, now: float) -> int:
        if now >= self._memory_at:
            self._memory_at = now + MEMORY_INTERVAL_S
            self._memory_bytes = resident_bytes(os.getpid())
        return self._memory_bytes

    # ---- batches and parts

    def _take_loaded(self, now: float) -> None:
        for loaded in self._loader.take_loaded():
            self._record_refused(loaded)
            if self._debug is not None:
                self._debug.loaded(loaded.lane_id, loaded.batch, loaded.rows.left)
            refused = len(loaded.refused)
            self._perform(self._core.loaded(loaded.lane_id, loaded.batch, loaded.rows, refused, now), now)

    def _record_refused(self, loaded: Loaded) -> None:
        for row, failure in loaded.refused:
            self._writer.error(loaded.batch, (row,), failure, None, 0)
        if loaded.refused:
            log.debug("batch %d: %s not asked for", loaded.batch.batch_id, counted(len(loaded.refused), "row"))

    def _take_writer_events(self, now: float) -> None:
        for event in self._writer.events():
            match event:
                case PartReport():
                    log.debug("part %s is committed: %d rows, %d bytes", event.path, event.rows, event.bytes)
                    self._core.committed(event)
                case PartsClosed(ticket):
                    self._core.closed(ticket, now)
                case PicturesRepeated():
                    self._send(event)
                case WriterFailed(error):
                    self.fail(error)
                case _:
                    raise TypeError(f"unknown event {event!r}")

    # ---- the end

    def _finish(self, now: float) -> None:
        """Cut off what is in flight, commit what there is, and tell rank 0 the last things."""
        self._has_finished = True
        self._transfers.abort()
        self._loader.close()
        if not self._has_failed:
            try:
                self._writer.stop(max(0.0, self._files_by - time.monotonic()))
            except StorageError as error:
                self.fail(error)
        self._take_writer_events(now)
        used = self._notes.take(now)
        if used is not None:
            self._send(used)
        reports = self._core.reports
        log.info(
            "finished: %s and %s by %s",
            counted(reports.successes, "success"), counted(reports.errors, "error"),
            counted(reports.requests, "request"),
        )  # fmt: skip
        self._perform(self._core.finish(now, self._memory_bytes), now)

    def _wake(self) -> None:
        """Called from the writer's and the loader's thread."""
        os.eventfd_write(self._wake_fd, 1)

    def _on_wake(self) -> None:
        os.eventfd_read(self._wake_fd)

    def close(self) -> None:
        """Give back descriptors and connections."""
        self._transfers.close()
        os.close(self._wake_fd)
