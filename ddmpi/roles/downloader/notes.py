"""What a downloading rank notes of the servers that it asks: for the audit on rank 0, and in its log.

Nothing here decides anything. In the log, at the level "info" long pauses. At "debug" also each message about lanes,
each batch and each attempt, and each step of a server's rate; where the log says no more than usual nothing of that is
computed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator

from ddmpi.core.frontier.held_lane import LONG_PAUSE_S
from ddmpi.core.frontier.interface import Disposition, Finished
from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.protocol import Assign, Extend, Lane, Release, ServersUsed, StealRequest, ToDownloader
from ddmpi.core.records import Answer, BatchRef, ErrorKind, Failure, Limits
from ddmpi.core.rules.verdict import NOT_MODIFIED, Outcome, Verdict
from ddmpi.core.stats.audit import AskedNotes
from ddmpi.core.stats.usage import UsageCounter
from ddmpi.report.formats import duration

log = logging.getLogger(__name__)

RATE_STEP = 0.05
"""Changes of a rate are told when they add up to this share of it."""
PAUSE_STEP_S = 1.0
"""A pause is told again when it has become longer by this: each request in flight may hear of it."""
SHORT_PAUSE_S = 0.1
"""At "debug" shorter steps are told."""
MOST_PAUSES = 65_536
"""Pauses that are remembered for that."""


USAGE_INTERVAL_S = 10.0
"""How often rank 0 hears of the servers that were asked."""


class ServerNotes:
    """What this rank has asked of servers since rank 0 last heard of it. ``now`` is seconds, monotonic."""

    def __init__(self, now: float) -> None:
        self._usage = UsageCounter()
        self._asked = AskedNotes()
        self._node = os.uname().nodename
        self._pauses = PauseLog()
        self._due_at = now + USAGE_INTERVAL_S

    def started(self, key: str) -> None:
        """Note a request to the server group that starts."""
        self._asked.started(key, time.time())

    def finished(self, done: Finished, answer: Answer, now: float) -> None:
        """Note an answer, and the pause that follows from it."""
        task, size_bytes = done.task, len(answer.body)
        throttled = done.verdict.signal is Signal.THROTTLED
        self._usage.add(done.group, task.started_at, now, size_bytes, throttled=throttled)
        self._asked.answered(
            done.key,
            size_bytes,
            throttled=throttled,
            refused=answer.status >= 400 and not task.robots_of,
            is_done=done.disposition is not Disposition.OPEN or task.url != done.url,
        )
        if answer.usage_signals and done.disposition is not Disposition.OPEN:
            self.heard(done.key, answer.usage_signals, len(task.rows), done.failure)
        if done.pause_s > 0:
            self._asked.paused(done.key, time.time(), done.pause_s)
            self._pauses.note(done.server, done.pause_s, now)

    def heard(self, key: str, signals: str, rows: int, failure: Failure | None) -> None:
        """Note what was said of the use of a file, for so many rows, which have this failure."""
        self._asked.heard(key, signals, rows, is_obeyed=failure is not None and failure.kind is ErrorKind.ROBOTS)

    def opened(self, connections: Iterator[tuple[str, int]]) -> None:
        """Note how many connections server groups have after some were opened."""
        for group, count in connections:
            self._asked.connected(group, count)

    def take_due(self, now: float) -> ServersUsed | None:
        """Return all notes if it is time to tell them, and begin anew."""
        return self.take(now) if now >= self._due_at else None

    def take(self, now: float) -> ServersUsed | None:
        """Return all notes, and begin anew; None if there are none."""
        self._due_at = now + USAGE_INTERVAL_S
        usages, asked = self._usage.take(now), self._asked.take(time.time())
        return ServersUsed(usages, asked, self._node) if usages or asked else None


class PauseLog:
    """A line for each long pause of a server.

    Args:
        step_s: a pause is told again when its end moves by more than this.
    """

    def __init__(self, step_s: float = PAUSE_STEP_S) -> None:
        self._step_s = step_s
        self._until: dict[str, float] = {}

    def note(self, key: str, wait_s: float, now: float) -> None:
        """Tell that the server is paused or parked for ``wait_s``, if that is long and news."""
        if wait_s >= LONG_PAUSE_S and self.is_news(key, now + wait_s):
            log.info("%s is paused for %s", key, duration(wait_s))

    def is_news(self, key: str, until: float) -> bool:
        """Remember the end of a pause; return whether it is later than what was told."""
        if until <= self._until.get(key, 0.0) + self._step_s:
            return False
        if len(self._until) >= MOST_PAUSES:
            self._until.clear()
        self._until[key] = until
        return True


class DebugLog:
    """A line for each lane, batch, attempt, pause and change of a rate."""

    def __init__(self) -> None:
        self._pauses = PauseLog(SHORT_PAUSE_S)
        self._rates: dict[str, float] = {}

    def message(self, message: ToDownloader) -> None:
        """Tell what rank 0 has said about lanes."""
        match message:
            case Assign(lanes):
                for lane in lanes:
                    self._assigned(lane)
            case Extend():
                log.debug("lane %d gets more: %d batches", message.lane_id, len(message.batches))
            case Release(lane_ids):
                log.debug("the lanes %s, which had ended, are released", lane_ids)
            case StealRequest(_, time_s, split_lane_id):
                log.debug("was asked for %.1f s of work, or half of lane %d", time_s, split_lane_id)
            case _:
                pass  # the mailbox's log has each message

    @staticmethod
    def _assigned(lane: Lane) -> None:
        kind = "sampling lane" if lane.sampling else "lane"
        rows = sum(batch.rows for batch in lane.batches)
        log.debug(
            "takes %s %d of %s: %d rows of batches %s, %d handoffs, %s",
            kind, lane.lane_id, lane.group, rows, [it.batch_id for it in lane.batches], len(lane.handoffs),
            _share(lane.share),
        )  # fmt: skip

    def loaded(self, lane_id: int, batch: BatchRef, rows: int) -> None:
        """Tell how many rows of a batch are to be fetched."""
        log.debug("batch %d has %d rows to fetch, in lane %d", batch.batch_id, rows, lane_id)

    def finished(self, done: Finished, size_bytes: int, now: float) -> None:
        """Tell what came of an attempt, and what follows from it for its server."""
        task = done.task
        log.debug(
            "%s %d of batch %d, %s: %s, attempt %d, %.0f ms, %d bytes, lane %d, %s",
            "robots.txt for row" if task.robots_of else "row", task.row, task.batch_id, done.url,
            _what_came(done.verdict), done.attempt, 1000 * (now - task.started_at), size_bytes, done.lane_id,
            "open" if done.disposition is Disposition.OPEN else "final",
        )  # fmt: skip
        if done.pause_s > 0 and self._pauses.is_news(done.server, now + done.pause_s):
            log.debug("%s is paused for %.1f s", done.server, done.pause_s)
        before_per_s = self._rates.setdefault(done.server, done.rate_per_s)
        if abs(done.rate_per_s - before_per_s) > RATE_STEP * max(done.rate_per_s, before_per_s):
            log.debug("%s is asked at %s instead of %s", done.server, _rate(done.rate_per_s), _rate(before_per_s))
            self._rates[done.server] = done.rate_per_s


def _what_came(verdict: Verdict) -> str:
    """Texts of servers are shown without control characters, which may mean something to a terminal."""
    if verdict.failure is not None:
        failure = verdict.failure
        return f"{failure.kind.value} {failure.code} {failure.message!a}"
    if verdict.outcome is Outcome.REDIRECT:
        return "redirect"
    return "304" if verdict is NOT_MODIFIED else "200"


def _rate(per_s: float) -> str:
    return f"{per_s:.4g} requests/s" if per_s else "full speed"


def _share(share: Limits) -> str:
    return f"{_rate(share.rate_per_s)}, {share.connections} connections"
