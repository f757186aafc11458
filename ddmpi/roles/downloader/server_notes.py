"""What a downloading rank notes of the servers that it asks: what it sent them, how they answered, their long pauses.

For people and for the audit. Nothing here decides anything.
"""

from __future__ import annotations

import time

from ddmpi.core.pace.pace import Signal
from ddmpi.core.protocol import ServersUsed
from ddmpi.core.records import Task
from ddmpi.core.rules.verdict import Verdict
from ddmpi.core.stats.audit import AskedNotes
from ddmpi.core.stats.usage import UsageCounter
from ddmpi.roles.downloader.debug_log import PauseLog
from ddmpi.roles.downloader.group_connections import GroupConnections


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
