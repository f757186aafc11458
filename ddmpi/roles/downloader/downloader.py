"""A rank that downloads: messages, frontier, transfers and results, joined in one loop.

Everything is decided elsewhere: when a request starts in ``frontier`` and ``pace``, what an answer means in
``verdict``, how a row becomes durable in ``io.results``. This file moves values between them and reports to rank 0.
The loop waits in one place, ``wait``: for the network, a loaded batch, the writer, a signal or the next admission.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ddmpi.config.config import Config
from ddmpi.core.frontier.attempts import Disposition
from ddmpi.core.frontier.interface import (
    BatchEnded,
    LaneEnded,
    LoadBatch,
    ReadyToYield,
    RowHandedOff,
    RowsFailed,
    Rules,
)
from ddmpi.core.frontier.memory_budget import MemoryBudget
from ddmpi.core.frontier.stealing import WorkRequests
from ddmpi.core.pace.overrides import Overrides
from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.protocol import (
    Assign,
    Extend,
    Failed,
    Finished,
    NoWork,
    Release,
    SetControl,
    StealRequest,
    Stop,
    StopReason,
    StopRequested,
    ToCoordinator,
    ToDownloader,
)
from ddmpi.core.records import Answer, ErrorKind, Failure, Task, error_code
from ddmpi.core.rules.robots_txt import judge_robots
from ddmpi.core.rules.user_agent import product_token
from ddmpi.core.rules.verdict import Verdict, classify
from ddmpi.errors import StorageError
from ddmpi.io.folder.layout import Layout
from ddmpi.io.http.transfers import Transfers
from ddmpi.io.results.parts import PartCommitted, RowReader
from ddmpi.io.results.publishing import Publisher
from ddmpi.io.results.rows import IntegrityCheck
from ddmpi.io.results.writer import PartsClosed, ResultWriter, WriterFailed
from ddmpi.io.urls.loader import Loaded, Loader
from ddmpi.roles.downloader.capacity import Capacity, GroupConnections
from ddmpi.roles.downloader.debug_log import make_frontier
from ddmpi.roles.downloader.part_closing import PartClosing
from ddmpi.roles.downloader.progress import ProgressSender, ServerNotes

log = logging.getLogger(__name__)

WRITER_STOP_S = 60.0


@dataclass(frozen=True)
class Tools:
    """What a downloader works with, made by ``__main__`` from the config."""

    config: Config
    layout: Layout
    reader: RowReader
    rules: Rules
    transfers: Transfers
    epoch: int
    rank: int
    cores: int
    """Threads that decode images and hash large files."""
    send: Callable[[ToCoordinator], None]
    rng: random.Random
    connections: int
    """Requests in flight at most."""
    publisher: Publisher | None = None


class Downloader:
    """One downloading rank. ``handle`` takes a message, ``step`` does what is due, ``wait`` waits for more."""

    def __init__(self, tools: Tools, now: float) -> None:
        parameters = tools.config.downloader_parameters
        self._send = tools.send
        self._accept = parameters.accept
        self._robots_token = product_token(tools.config.user_agent)
        self._max_redirects = parameters.max_redirects
        self._budget = MemoryBudget(parameters.memory_budget_bytes)
        self._transfers = tools.transfers
        self._frontier = make_frontier(tools.rules, tools.rng)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._transfers.watch(self._wake_fd, self._on_wake)
        self._loader = Loader(tools.layout, tools.reader, tools.epoch, self._wake)
        self._writer = ResultWriter(
            tools.layout,
            tools.reader,
            epoch=tools.epoch,
            rank=tools.rank,
            hash_algorithm=parameters.hash_algorithm,
            image_size=parameters.image_size,
            threads=tools.cores,
            keep_columns=tools.config.keep_columns,
            part_bytes=parameters.part_bytes,
            buffer_bytes=parameters.memory_budget_bytes,
            on_event=self._wake,
            integrity=IntegrityCheck(tools.config.expected.hash_column, tools.config.expected.bytes_column),
            publisher=tools.publisher,
        )
        self._closing = PartClosing(self._writer, tools.config.checkpoint_interval_s, now)
        self._capacity = Capacity(tools.connections, self._budget, self._transfers, self._writer, now)
        self._connections = GroupConnections(tools.rules.group_of, self._transfers)
        self._notes = ServerNotes(self._connections)
        self.reports = ProgressSender(tools.send, self._frontier, self._notes, now)
        self._work_requests = WorkRequests()
        self._yields: list[ReadyToYield] = []
        self._stop_at: float | None = None
        self._failed = False
        self._asked_to_stop = False
        self._finished = False

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Wake from ``wait`` when ``fd`` is readable."""
        self._transfers.watch(fd, callback)

    # ---- messages

    def handle(self, message: ToDownloader, now: float) -> None:
        """Do what the coordinator says."""
        match message:
            case Assign(lanes, request_id):
                self._work_requests.answered(request_id)
                self._frontier.assign(lanes, now)
                if not any(lane.sampling for lane in lanes):
                    self._work_requests.allow(now)
            case NoWork(request_id, wait_s):
                self._work_requests.answered(request_id)
                self._work_requests.refuse_until(now + wait_s)
            case SetControl(rules):
                self._frontier.set_control(Overrides(rules), now)
            case Extend():
                self._frontier.extend(message, now)
            case Release(lane_ids):
                self._frontier.release(lane_ids)
            case StealRequest():
                self._frontier.yield_lanes(message, now)
            case Stop(reason, grace_s):
                log.info("stopping: %s", reason.value)
                self._frontier.stop()
                self._stop_at = now + grace_s
            case _:
                raise TypeError(f"unknown message {message!r}")

    def ask_to_stop(self, reason: StopReason) -> None:
        """This process got a signal: admit nothing more, and tell the coordinator once."""
        if not self._asked_to_stop:
            self._asked_to_stop = True
            self._frontier.stop()
            self._send(StopRequested(reason))

    # ---- one turn of the loop

    def step(self, now: float) -> None:
        """Everything that is due now."""
        if self._finished:
            return
        self._take_loaded(now)
        self._take_writer_events(now)
        # Before requests start: an ended lane's connections are closed, which must not meet those of its extension.
        self._perform_events(now)
        self._capacity.restrain(now)
        now = self._admit()
        self._answer_yields()
        self.reports.send_due(now)
        self._ask_for_work(now)
        if self._stop_at is not None:
            self._try_to_finish(now)

    def wait(self, timeout_s: float) -> None:
        """Wait until something happens, at most so long; take in the answers."""
        self._writer.flush()
        now = time.monotonic()
        if not self._finished:
            timeout_s = min(timeout_s, self.reports.due_at - now)
            if self._free_slots(now) > 0:
                # Otherwise what may start now has to wait for an answer or the writer; both wake this loop.
                timeout_s = min(timeout_s, self._frontier.wake_at() - now)
            if self._frontier.events:
                timeout_s = 0.0
        answers = self._transfers.poll(timeout_s)
        now = time.monotonic()
        for answer in answers:
            self._take_answer(answer, now)

    def _admit(self) -> float:
        """Start what may start now, while there are connections and memory for its bodies; gives the time after it.

        The clock is read for each start: what a turn has done before (loading batches takes milliseconds) must not
        make the time between this start and the next one look longer than the server will see it.
        """
        now = time.monotonic()
        free = self._free_slots(now)
        while free > 0 and (task := self._frontier.next_task(now)) is not None:
            surplus = self._transfers.connections.has_more(task.server, self._frontier.connection_limit(task))
            key, spare = self._frontier.slot_key(task), self._frontier.spare_connections(task)
            self._connections.make_room(key, task.server, spare)
            impatient = self._frontier.is_sampling(task)
            self._transfers.start(task, last_on_connection=surplus, impatient=impatient)
            self._notes.started(key)
            self.reports.requests += 1
            free -= 1
            now = time.monotonic()
        return now

    def _free_slots(self, now: float) -> int:
        """Requests that this rank can take on beside those in flight."""
        return 0 if self._closing.is_behind(now) else self._capacity.free_slots()

    def _take_answer(self, answer: Answer, now: float) -> None:
        task = answer.task
        if task.robots_of:
            verdict: Verdict = judge_robots(answer, self._robots_token)
        else:
            verdict = classify(answer, self._accept, self._max_redirects)
            if self._frontier.is_sampling(task):
                self.reports.add_sample(answer, verdict)
        size_bytes = len(answer.body)
        group, key = self._frontier.group_of_task(task), self._frontier.slot_key(task)
        self.reports.bytes += size_bytes
        if size_bytes:
            self._budget.learn(size_bytes)
        disposition, failure = self._frontier.finished(task, verdict, now, size_bytes, answer.ttfb_s)
        pause_s = 0.0 if verdict.signal is Signal.OK else self._frontier.pause_s(key, now)
        self._notes.answered(task, group, key, verdict, now, size_bytes=size_bytes, pause_s=pause_s)
        if disposition is Disposition.SUCCESS:
            self.reports.successes += 1
            self._writer.success(self._frontier.batch(task.batch_id), task.row, answer)
        elif failure is not None:
            self.reports.errors += 1
            self._writer.error(self._frontier.batch(task.batch_id), task.row, failure, answer, task.attempt)

    # ---- what others have done

    def _take_loaded(self, now: float) -> None:
        for loaded in self._loader.take_loaded():
            self._record_refused(loaded)
            self._frontier.loaded(loaded.lane_id, loaded.batch, loaded.rows, now)

    def _record_refused(self, loaded: Loaded) -> None:
        kind = ErrorKind.BAD_URL
        for row, reason in loaded.refused:
            self._writer.error(loaded.batch, row, Failure(kind, error_code(kind, 0), reason), None, 0)
        self.reports.errors += len(loaded.refused)
        if loaded.refused:
            log.debug("batch %d: %d URLs are refused", loaded.batch.batch_id, len(loaded.refused))

    def _take_writer_events(self, now: float) -> None:
        for event in self._writer.events():
            match event:
                case PartCommitted():
                    log.debug("part %s is committed: %d rows, %d bytes", event.path, event.rows, event.size_bytes)
                    self.reports.add_part(event)
                case PartsClosed(ticket):
                    ended = self._closing.closed(ticket)
                    if ended is not None:
                        self.reports.add_lane(self._frontier.drained(ended, now))
                case WriterFailed(error):
                    self.fail(error)
                case _:
                    raise TypeError(f"unknown event {event!r}")

    def fail(self, error: Exception) -> None:
        """The disk does not take or give more: nothing that is fetched from now on could be kept.

        Raises any ``error`` that is no StorageError: a bug.
        """
        if not isinstance(error, StorageError):
            raise error
        log.error("stopping: %s", error)
        self._failed = True
        self._frontier.stop()
        self._send(Failed(str(error)))

    def _perform_events(self, now: float) -> None:
        events = self._frontier.events
        while events:
            match events.popleft():
                case LoadBatch(lane_id, batch):
                    self._loader.load(lane_id, batch)
                case BatchEnded(batch_id):
                    self._closing.close_batch(batch_id)
                case LaneEnded(lane_id, servers=servers) as ended:
                    self._transfers.leave(servers)
                    self.reports.add_lane(self._frontier.sampled(lane_id, now))
                    self._closing.close_lane(ended)
                case RowsFailed(tasks, failure):
                    self._record_failed(tasks, failure)
                case RowHandedOff(handoff):
                    self.reports.add_handoff(handoff)
                case ReadyToYield() as ready:
                    self._yields.append(ready)
                case event:
                    raise TypeError(f"unknown event {event!r}")
        self._closing.close_all_if_due(now)

    def _record_failed(self, tasks: Iterable[Task], failure: Failure) -> None:
        for task in tasks:
            self.reports.errors += 1
            self._writer.error(self._frontier.batch(task.batch_id), task.row, failure, None, task.attempt)

    def _answer_yields(self) -> None:
        """A split is answered when the connections beyond the smaller share are gone."""
        waiting = []
        for ready in self._yields:
            if sum(self._transfers.connections.count(server) for server in ready.servers) <= ready.connections:
                self._send(ready.answer)
            else:
                waiting.append(ready)
        self._yields = waiting

    def _ask_for_work(self, now: float) -> None:
        if self._frontier.wants_work and now >= self._work_requests.due_at:
            self._send(self._work_requests.make())

    # ---- the end

    def _try_to_finish(self, now: float) -> None:
        """After ``Stop``: wait for what is in flight while there is time, then commit and say so."""
        if self._transfers.in_flight and not self._failed and now < (self._stop_at or now):
            return
        self._frontier.abandon(self._transfers.abort())
        self._loader.close()
        if not self._failed:
            try:
                self._writer.stop(WRITER_STOP_S)
            except StorageError as error:
                self.fail(error)
        self._take_writer_events(now)
        self.reports.send_last(now)
        told = self.reports
        log.info("finished: %d successes, %d errors, %d requests", told.successes, told.errors, told.requests)
        self._send(Finished())
        self._finished = True

    def _wake(self) -> None:
        """Called from the writer's and the loader's thread."""
        os.eventfd_write(self._wake_fd, 1)

    def _on_wake(self) -> None:
        os.eventfd_read(self._wake_fd)

    def close(self) -> None:
        """Give back descriptors and connections."""
        self._transfers.close()
        os.close(self._wake_fd)
