"""What a downloading rank tells rank 0: gathered here, and sent at once where it is urgent, else now and then.

Urgent is what makes others wait: rows that belong to another rank, parts that are published, lanes that have ended.

What a downloading rank notes of the servers that it asks: what it sent them, how they answered, their long pauses.

For people and for the audit. Nothing here decides anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from ddmpi.core.frontier.frontier import Frontier
from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.protocol import (
    REPORT_INTERVAL_S,
    Counters,
    HandedOff,
    Handoff,
    LaneReport,
    PartReport,
    Progress,
    Sample,
    Samples,
    ServersUsed,
    ToCoordinator,
)
from ddmpi.core.records import Answer, Task
from ddmpi.core.rules.verdict import Verdict
from ddmpi.core.stats.audit import AskedNotes
from ddmpi.core.stats.usage import UsageCounter
from ddmpi.io.process import resident_bytes
from ddmpi.io.results.parts import PartCommitted
from ddmpi.roles.downloader.capacity import GroupConnections
from ddmpi.roles.downloader.debug_log import PauseLog

MEMORY_INTERVAL_S = 5.0
USAGE_INTERVAL_S = 10.0


class ProgressSender:
    """The reports of one rank.

    Args:
        send: sends a message to rank 0.
        frontier: knows the lanes.
        notes: of the servers that were asked.
        now: seconds, monotonic, as in all methods.
    """

    def __init__(
        self, send: Callable[[ToCoordinator], None], frontier: Frontier, notes: ServerNotes, now: float
    ) -> None:
        self.interval_s = REPORT_INTERVAL_S
        """How often this rank reports when there is nothing urgent."""
        self.successes = self.errors = self.requests = self.bytes = 0
        self.due_at = now
        """When the next report goes out, urgent or not."""
        self._send = send
        self._frontier = frontier
        self._notes = notes
        self._parts: list[PartReport] = []
        self._ended: list[LaneReport] = []
        self._handoffs: list[Handoff] = []
        self._samples: list[Sample] = []
        self._sent: Counters | None = None
        self._usage_at = now + USAGE_INTERVAL_S
        self._memory_bytes = resident_bytes(os.getpid())
        self._memory_at = now + MEMORY_INTERVAL_S

    # ---- what there is to tell

    def add_part(self, part: PartCommitted) -> None:
        """A part is published."""
        is_errors = part.kind == "errors"
        report = PartReport(part.batch_id, part.path, part.rows, is_errors, part.size_bytes, dict(part.kinds))
        self._parts.append(report)

    def add_lane(self, report: LaneReport | None) -> None:
        """A lane has ended, where this is one of its last reports."""
        if report is not None:
            self._ended.append(report)

    def add_handoff(self, handoff: Handoff) -> None:
        """A row belongs to another rank."""
        self._handoffs.append(handoff)

    def add_sample(self, answer: Answer, verdict: Verdict) -> None:
        """A server that is being profiled has answered, or not."""
        self._samples.append(_sample(answer, verdict))

    # ---- telling it

    def send_due(self, now: float) -> None:
        """Send what is urgent at once, the rest now and then."""
        if self._handoffs:
            self._send(HandedOff(tuple(self._handoffs)))
            self._handoffs.clear()
        if self._parts or self._ended or now >= self.due_at:
            self._send_progress(now)
        if now >= self._usage_at:
            self._send_usage(now)

    def send_last(self, now: float) -> None:
        """Nothing more will happen here."""
        self._send_progress(now)
        self._send_usage(now)

    def _send_usage(self, now: float) -> None:
        self._usage_at = now + USAGE_INTERVAL_S
        used = self._notes.take(now)
        if used is not None:
            self._send(used)

    def _send_progress(self, now: float) -> None:
        self.due_at = now + self.interval_s
        if self._samples:
            self._send(Samples(tuple(self._samples)))
            self._samples.clear()
        lanes = self._frontier.report(now) + self._ended
        counters = self._counters(now)
        if not self._parts and not lanes and counters == self._sent:
            return
        self._sent = counters
        remaining_s = self._frontier.remaining_s(now)
        self._send(Progress(tuple(self._parts), tuple(lanes), remaining_s, self._frontier.unstarted, counters))
        self._parts.clear()
        self._ended.clear()

    def _counters(self, now: float) -> Counters:
        if now >= self._memory_at:
            self._memory_at = now + MEMORY_INTERVAL_S
            self._memory_bytes = resident_bytes(os.getpid())
        in_flight, active = self._frontier.in_flight, self._frontier.slots_active()
        return Counters(
            self.successes, self.errors, self.requests, self.bytes, in_flight, active, self._memory_bytes
        )  # fmt: skip


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


class ServerNotes:
    """The notes of one rank since they were last taken. ``now`` is seconds, monotonic.

    Args:
        connections: the rank's open ones.
    """

    def __init__(self, connections: GroupConnections) -> None:
        self._connections = connections
        self._usage = UsageCounter()
        self._asked = AskedNotes()
        self._pauses = PauseLog()

    def started(self, key: str) -> None:
        """A request to the pace group starts."""
        self._asked.started(key, time.time())

    def answered(
        self, task: Task, group: str, key: str, verdict: Verdict, now: float, *, size_bytes: int, pause_s: float
    ) -> None:
        """An answer has come, and the pause that follows from it.

        Args:
            group: under whose limits the request was; all packed servers together are one.
            key: the pace group itself.
        """
        throttled = verdict.signal is Signal.THROTTLED
        self._usage.add(group, task.started_at, now, size_bytes, throttled=throttled)
        self._asked.answered(key, size_bytes, throttled=throttled)
        if pause_s > 0:
            self._asked.paused(key, time.time(), pause_s)
            self._pauses.note(key, pause_s, now)
        for opened_to, connections in self._connections.opened():
            self._asked.connected(opened_to, connections)

    def take(self, now: float) -> ServersUsed | None:
        """All notes, which begin anew; None if there are none."""
        usages, asked = self._usage.take(now), self._asked.take(time.time())
        return ServersUsed(usages, asked) if usages or asked else None
