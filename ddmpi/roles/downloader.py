"""A rank that downloads: messages, frontier, transfers and results, joined in one loop.

Everything is decided elsewhere: when a request starts in ``frontier`` and ``pace``, what an answer means in
``outcome``, how a row becomes durable in ``io.results``. This file moves values between them and reports to rank 0.
The loop waits in one place, ``wait``: for the network, a loaded batch, the writer, a signal or the next admission.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ddmpi.audit import AskedNotes
from ddmpi.config import Config
from ddmpi.control import Control
from ddmpi.errors import StorageError
from ddmpi.events import BatchEnded, LaneEnded, LoadBatch, ReadyToYield, RowRedirected, RowsFailed
from ddmpi.frontier import Fate
from ddmpi.frontier_rules import Rules
from ddmpi.io.expectations import Expectations
from ddmpi.io.layout import Layout
from ddmpi.io.loading import Loaded, Loader, RowReader
from ddmpi.io.memory import resident_bytes
from ddmpi.io.publishing import Publisher
from ddmpi.io.results import PartCommitted, PartsClosed, ResultWriter, WriterFailed
from ddmpi.io.transfers import Transfers
from ddmpi.memory import MemoryBudget
from ddmpi.outcome import Verdict, classify
from ddmpi.pace import Signal
from ddmpi.protocol import (
    Assign,
    Counters,
    Errand,
    Extend,
    Failed,
    Finished,
    LaneReport,
    NoWork,
    PartReport,
    Progress,
    Redirected,
    Release,
    Sample,
    Samples,
    ServersUsed,
    SetControl,
    StealRequest,
    Stop,
    StopReason,
    StopRequested,
    ToCoordinator,
    ToDownloader,
    Yield,
)
from ddmpi.records import Answer, ErrorKind, Failure, Task, error_code
from ddmpi.robots import judge_robots
from ddmpi.roles.download_log import PauseLog, make_frontier
from ddmpi.schedule import REPORT_INTERVAL_S
from ddmpi.usage import UsageCounter
from ddmpi.user_agent import product_token

log = logging.getLogger(__name__)

MEMORY_INTERVAL_S = 5.0
USAGE_INTERVAL_S = 10.0
WRITER_STOP_S = 60.0
RESTRAIN_INTERVAL_S = 0.02
"""How often the bodies in flight are compared with the memory budget: 20 ms of a 10 Gbit/s network are 25 MB."""
RESTRAIN_SHARE_S = 1e-5
"""The same per body in flight, so that many of them do not take all of the time."""


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
        self._restrain_at = now
        self._connections = tools.connections
        # A part may close one interval late (see _free_slots): two of these are what a kill may cost.
        self._close_interval_s = tools.config.checkpoint_interval_s / 2
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
            expectations=Expectations(tools.config.expected.hash_column, tools.config.expected.bytes_column),
            publisher=tools.publisher,
        )
        self._parts: list[PartReport] = []
        self._ended: list[LaneReport] = []
        self._draining: dict[int, LaneEnded] = {}
        self._errands: list[Errand] = []
        self._samples: list[Sample] = []
        self._yields: list[ReadyToYield] = []
        self._counts: Counter[str] = Counter()
        self._usage = UsageCounter()
        self._asked = AskedNotes()
        self._pauses = PauseLog()
        self._group_of = tools.rules.group_of
        self._servers_of: dict[str, set[str]] = {}  # by pace group: those that a connection was opened to
        self._usage_at = now + USAGE_INTERVAL_S
        self._reported: Counters | None = None
        self.report_interval_s = REPORT_INTERVAL_S
        """How often this rank reports when there is nothing urgent."""
        self._memory_bytes = resident_bytes(os.getpid())
        self._memory_at = now + MEMORY_INTERVAL_S
        self._report_at = now
        self._close_at = now + self._close_interval_s
        self._closing: int | None = None  # the ticket of the last closing of all parts, until they are durable
        self._steal_at = float("inf")
        self._request_id = 0
        self._asking = False
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
                self._note_answer(request_id)
                self._frontier.assign(lanes, now)
                if not any(lane.sampling for lane in lanes):
                    self._steal_at = min(self._steal_at, now)
            case NoWork(request_id, wait_s):
                self._note_answer(request_id)
                self._steal_at = now + wait_s
            case SetControl(rules):
                self._frontier.set_control(Control(rules), now)
            case Extend():
                self._frontier.extend(message, now)
            case Release(lane_ids):
                self._frontier.release(lane_ids)
            case Yield():
                self._frontier.yield_lanes(message, now)
            case Stop(reason, grace_s):
                log.info("stopping: %s", reason.value)
                self._frontier.stop()
                self._stop_at = now + grace_s
            case _:
                raise TypeError(f"unknown message {message!r}")

    def _note_answer(self, request_id: int) -> None:
        """A late answer, to a request that was answered before, changes nothing here."""
        if request_id == self._request_id:
            self._asking = False

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
        self._restrain(now)
        now = self._admit()
        self._answer_yields()
        self._report(now)
        if self._stop_at is not None:
            self._try_to_finish(now)

    def wait(self, timeout_s: float) -> None:
        """Wait until something happens, at most so long; take in the answers."""
        self._writer.flush()
        now = time.monotonic()
        if not self._finished:
            timeout_s = min(timeout_s, self._report_at - now)
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
            surplus = self._transfers.has_more_connections(task.server, self._frontier.connection_limit(task))
            impatient = self._frontier.is_sampling(task)
            self._transfers.start(task, last_on_connection=surplus, impatient=impatient)
            self._asked.started(self._frontier.site_key(task), time.time())
            self._counts["requests"] += 1
            free -= 1
            now = time.monotonic()
        return now

    def _free_slots(self, now: float) -> int:
        """Requests that this rank can take on beside those in flight."""
        if self._closing is not None and now >= self._close_at:
            # The disk is an interval behind: a kill would cost more work than the interval allows.
            return 0
        in_flight = self._transfers.in_flight
        return min(self._connections - in_flight, self._budget.may_start(self._writer.buffered_bytes, in_flight))

    def _restrain(self, now: float) -> None:
        """Bodies larger than expected stand still while there is no memory for them."""
        if now >= self._restrain_at:
            in_flight = self._transfers.in_flight
            self._restrain_at = now + max(RESTRAIN_INTERVAL_S, RESTRAIN_SHARE_S * in_flight)
            waiting_bytes = self._writer.buffered_bytes
            self._transfers.restrain(lambda arrivals: self._budget.may_read_on(waiting_bytes, arrivals))

    def _take_answer(self, answer: Answer, now: float) -> None:
        task = answer.task
        if task.robots_of:
            verdict: Verdict = judge_robots(answer, self._robots_token)
        else:
            verdict = classify(answer, self._accept, self._max_redirects)
            if self._frontier.is_sampling(task):
                self._samples.append(_sample(answer, verdict))
        size_bytes = len(answer.body)
        throttled = verdict.signal is Signal.THROTTLED
        self._usage.add(self._frontier.group_of_task(task), task.started_at, now, size_bytes, throttled=throttled)
        key = self._frontier.site_key(task)
        self._counts["bytes"] += size_bytes
        if size_bytes:
            self._budget.learn(size_bytes)
        fate, failure = self._frontier.finished(task, verdict, now, size_bytes, answer.ttfb_s)
        self._note_asked(key, verdict, size_bytes, now)
        if fate is Fate.SUCCESS:
            self._counts["successes"] += 1
            self._writer.success(self._frontier.batch(task.batch_id), task.row, answer)
        elif failure is not None:
            self._counts["errors"] += 1
            self._writer.error(self._frontier.batch(task.batch_id), task.row, failure, answer, task.attempt)

    def _note_asked(self, key: str, verdict: Verdict, size_bytes: int, now: float) -> None:
        """For the audit: what the answer brought, and the pause that follows from it."""
        self._asked.answered(key, size_bytes, throttled=verdict.signal is Signal.THROTTLED)
        if verdict.signal is not Signal.OK and (wait_s := self._frontier.pause_s(key, now)) > 0:
            self._asked.paused(key, time.time(), wait_s)
            self._pauses.note(key, wait_s, now)
        for server in self._transfers.take_opened():
            group = self._group_of(server)
            servers = self._servers_of.setdefault(group, set())
            servers.add(server)
            self._asked.connected(group, sum(self._transfers.connections(it) for it in servers))

    # ---- what others have done

    def _take_loaded(self, now: float) -> None:
        for loaded in self._loader.take_loaded():
            self._record_refused(loaded)
            self._frontier.loaded(loaded.lane_id, loaded.batch, loaded.rows, now)

    def _record_refused(self, loaded: Loaded) -> None:
        kind = ErrorKind.BAD_URL
        for row, reason in loaded.refused:
            self._writer.error(loaded.batch, row, Failure(kind, error_code(kind, 0), reason), None, 0)
        self._counts["errors"] += len(loaded.refused)
        if loaded.refused:
            log.debug("batch %d: %d URLs are refused", loaded.batch.batch_id, len(loaded.refused))

    def _take_writer_events(self, now: float) -> None:
        for event in self._writer.events():
            match event:
                case PartCommitted():
                    log.debug("part %s is committed: %d rows, %d bytes", event.path, event.rows, event.size_bytes)
                    self._parts.append(_part_report(event))
                case PartsClosed(ticket):
                    if ticket == self._closing:
                        self._closing = None
                    ended = self._draining.pop(ticket, None)
                    report = self._frontier.drained(ended, now) if ended is not None else None
                    if report is not None:
                        self._ended.append(report)
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
                    self._writer.close_parts((batch_id,))
                case LaneEnded(lane_id, batch_ids, servers) as ended:
                    self._transfers.close_connections(servers)
                    sampled = self._frontier.sampled(lane_id, now)
                    if sampled is not None:
                        self._ended.append(sampled)
                    self._draining[self._writer.close_parts(batch_ids)] = ended
                case RowsFailed(tasks, failure):
                    self._record_failed(tasks, failure)
                case RowRedirected(errand):
                    self._errands.append(errand)
                case ReadyToYield() as ready:
                    self._yields.append(ready)
                case event:
                    raise TypeError(f"unknown event {event!r}")
        if now >= self._close_at and self._closing is None:
            self._close_at = now + self._close_interval_s
            self._closing = self._writer.close_parts()

    def _record_failed(self, tasks: Iterable[Task], failure: Failure) -> None:
        for task in tasks:
            self._counts["errors"] += 1
            self._writer.error(self._frontier.batch(task.batch_id), task.row, failure, None, task.attempt)

    def _answer_yields(self) -> None:
        """A split is answered when the connections beyond the smaller share are gone."""
        waiting = []
        for ready in self._yields:
            if sum(self._transfers.connections(server) for server in ready.servers) <= ready.connections:
                self._send(ready.answer)
            else:
                waiting.append(ready)
        self._yields = waiting

    # ---- reports

    def _report(self, now: float) -> None:
        """Send what is urgent at once, the rest now and then."""
        if self._errands:
            self._send(Redirected(tuple(self._errands)))
            self._errands.clear()
        if self._parts or self._ended or now >= self._report_at:
            self._send_progress(now)
        if now >= self._usage_at:
            self._send_usage(now)
        if self._frontier.is_hungry and not self._asking and now >= self._steal_at:
            self._request_id += 1
            self._asking = True
            self._send(StealRequest(self._request_id))

    def _send_usage(self, now: float) -> None:
        self._usage_at = now + USAGE_INTERVAL_S
        usages, asked = self._usage.take(now), self._asked.take(time.time())
        if usages or asked:
            self._send(ServersUsed(usages, asked))

    def _send_progress(self, now: float) -> None:
        self._report_at = now + self.report_interval_s
        if now >= self._memory_at:
            self._memory_at = now + MEMORY_INTERVAL_S
            self._memory_bytes = resident_bytes(os.getpid())
        if self._samples:
            self._send(Samples(tuple(self._samples)))
            self._samples.clear()
        lanes = self._frontier.report(now) + self._ended
        counters = self._counters()
        if not self._parts and not lanes and counters == self._reported:
            return
        self._reported = counters
        remaining_s = self._frontier.remaining_s(now)
        message = Progress(tuple(self._parts), tuple(lanes), remaining_s, self._frontier.unstarted, counters)
        self._send(message)
        self._parts.clear()
        self._ended.clear()

    def _counters(self) -> Counters:
        counts = self._counts
        return Counters(
            counts["successes"],
            counts["errors"],
            counts["requests"],
            counts["bytes"],
            self._frontier.in_flight,
            self._frontier.sites_active(),
            self._memory_bytes,
        )

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
        self._send_progress(now)
        self._send_usage(now)
        counts = self._counts
        log.info(
            "finished: %d successes and %d errors by %d requests",
            counts["successes"],
            counts["errors"],
            counts["requests"],
        )
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


def _part_report(part: PartCommitted) -> PartReport:
    return PartReport(part.batch_id, part.path, part.rows, part.kind == "errors", part.size_bytes, dict(part.kinds))


def _sample(answer: Answer, verdict: Verdict) -> Sample:
    return Sample(
        server=answer.task.server,
        success=verdict.failure is None,
        status=answer.status,
        error_kind=verdict.failure.kind.value if verdict.failure else "",
        ip=answer.ip,
        http_version=answer.http_version,
        connect_s=answer.connect_s,
        ttfb_s=answer.ttfb_s,
        total_s=answer.total_s,
        bytes=len(answer.body),
        retry_after_s=verdict.retry_after_s or 0.0,
    )
