"""What a rank tells rank 0: gathered here, and told at once where it is urgent, else now and then. Pure.

Urgent is what makes others wait: rows that belong to another rank, parts that are published, lanes that have ended.
"""

from __future__ import annotations

import math
from typing import Final

from ddmpi.core import protocol as msg
from ddmpi.core.frontier.frontier import Frontier
from ddmpi.core.frontier.interface import Disposition, Finished
from ddmpi.core.records import Answer, Task
from ddmpi.core.rules.verdict import Verdict

MOST_NEXT: Final = 3
"""Servers that are told of those that are asked next."""


class ProgressReports:
    """The reports of one rank. All times are seconds, monotonic."""

    def __init__(self, interval_s: float, now: float) -> None:
        self.due_at = now
        """When the next report goes out, urgent or not."""
        self.successes = self.errors = self.requests = self.bytes = 0
        self.parts: list[msg.PartReport] = []
        """Published, and not told yet."""
        self.handoffs: list[msg.Handoff] = []
        """Rows that belong to another rank, not told yet."""
        self._interval_s = interval_s
        self._ended: list[msg.LaneReport] = []
        self._samples: list[msg.Sample] = []
        self._sent: msg.Counters | None = None
        self._told_next: list[tuple[int, str, int]] = []

    def add_lane(self, report: msg.LaneReport | None) -> None:
        """Add one of the last reports on a lane that has ended, if this is one."""
        if report is not None:
            self._ended.append(report)

    def count(self, done: Finished, answer: Answer) -> None:
        """Count a request that has ended; keep the measurement if it was a sample."""
        self.bytes += len(answer.body)
        if done.failure is not None:
            self.count_failed(done.task)
        elif done.disposition is Disposition.SUCCESS:
            self.successes += 1 + len(done.task.others)
        if done.is_sample:
            self._samples.append(_sample(answer, done.verdict))

    def count_failed(self, task: Task) -> None:
        """Count rows that have failed for good. Those that have a file keep it: they are no errors."""
        if task.validators is None:
            self.errors += 1 + len(task.others)
        else:
            self.successes += 1 + len(task.others)

    def is_due(self, now: float) -> bool:
        """Return whether there is something urgent to tell, or it is time to tell the rest."""
        return bool(self.parts or self._ended or self.handoffs) or now >= self.due_at

    def take(self, frontier: Frontier, now: float, memory_bytes: int) -> list[msg.ToCoordinator]:
        """Return the messages that tell everything until now; begin anew. Nothing is told where nothing has changed."""
        messages: list[msg.ToCoordinator] = []
        if self.handoffs:
            messages.append(msg.HandedOff(tuple(self.handoffs)))
            self.handoffs.clear()
        if not (self.parts or self._ended or now >= self.due_at):
            return messages
        self.due_at = now + self._interval_s
        if self._samples:
            messages.append(msg.Samples(tuple(self._samples)))
            self._samples.clear()
        lanes = frontier.updates(now) + self._ended
        counters = msg.Counters(
            self.successes, self.errors, self.requests, self.bytes,
            frontier.in_flight, frontier.take_slots_asked(), memory_bytes,
        )  # fmt: skip
        due = frontier.next_requests(now, MOST_NEXT)
        following = [(round(at), server, rows) for at, server, rows in due if at < math.inf]
        if self.parts or lanes or counters != self._sent or following != self._told_next:
            self._sent, self._told_next = counters, following
            soon = tuple(msg.NextRequest(server, rows, max(0.0, at - now)) for at, server, rows in following)
            held = frontier.lanes
            messages.append(
                msg.Progress(tuple(self.parts), tuple(lanes), held.remaining_s(now), len(held.queued), counters, soon)
            )
            self.parts.clear()
            self._ended.clear()
        return messages


def _sample(answer: Answer, verdict: Verdict) -> msg.Sample:
    return msg.Sample(
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
