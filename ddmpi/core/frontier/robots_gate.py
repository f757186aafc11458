"""Which rows robots.txt lets through: what this rank knows of the files, and who waits for one. Pure.

Decides, for a row whose turn has come, whether it may start, must not, or has to wait for its origin's file; and
whether that file has to be asked for first. Must not know how a request is made or what becomes of a refused row.

Invariants: of each origin at most one request is under way; a slot that holds rows back for an origin is among those
that wait for it, until ``hand_out``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ddmpi.core.frontier.slot import Slot
from ddmpi.core.records import Failure, Limits, Task
from ddmpi.core.rules.robots_txt import RobotsFile, origin_of, robots_task
from ddmpi.core.rules.usage_signals import Respect

KNOWN_FOR_S: Final = 86_400.0
"""RFC 9309, 2.4: a file should not be used for longer than a day."""
MOST_KNOWN_BYTES: Final = 4 * 1024 * 1024
"""Text of the files that are kept, each counted with ``ENTRY_BYTES`` more. Parsed they take about twelve times that."""
ENTRY_BYTES: Final = 256
IDLE_S: Final = 60.0
"""A file that was needed since is kept in any case: otherwise its server would be asked again for each row."""


@dataclass(slots=True)
class _Entry:
    file: RobotsFile
    valid_until: float
    used_at: float


@dataclass(slots=True)
class Passage:
    """What the gate says when a slot may start a request."""

    task: Task | None = None
    """To be started: a row, or the request for a file."""
    is_new: bool = False
    """The task is a request for a file that no slot has counted yet."""
    refused: dict[Failure, list[Task]] = field(default_factory=dict)
    """Rows that must not be fetched, by why."""


class RobotsGate:
    """What one rank knows of robots.txt files.

    Args:
        respect: what is obeyed of a server's signals.
        limits_for: the limits of a server group as a whole, of which Crawl-delay is one.
    """

    def __init__(self, respect: Callable[[str], Respect], limits_for: Callable[[str], Limits]) -> None:
        self._respect = respect
        self._limits_for = limits_for
        self._known: OrderedDict[str, _Entry] = OrderedDict()
        self._known_bytes = 0
        self._waiting: dict[str, list[Slot]] = {}

    def next_task(self, slot: Slot, now: float) -> Passage:
        """What may start at the slot. Rows that have to wait for a file stay with the slot, out of its queue."""
        passage = Passage()
        while (task := slot.pop(now)) is not None:
            if task.robots_of:
                break
            task.usage_signals = ""
            respect = self._respect(task.server)
            if not respect.asks_robots:
                break
            origin = origin_of(task.url)
            file = self._file(origin, now)
            if file is None:
                slot.hold_back(origin, task)
                if self._is_first(origin, slot):
                    task, passage.is_new = robots_task(origin, task.server), True
                    break
                continue
            task.usage_signals = file.signals(task.url)
            if respect.robots and file.crawl_delay_s > slot.delay_s:
                slot.slow_down(file.crawl_delay_s, self._limits_for(slot.group).connections, now)
            objection = file.objection(task.url, respect)
            if objection is None:
                break
            passage.refused.setdefault(objection, []).append(task)
        passage.task = task
        return passage

    def needs(self, server: str) -> bool:
        """Whether nothing of the server may be fetched without its file."""
        return self._respect(server).robots

    def _file(self, origin: str, now: float) -> RobotsFile | None:
        entry = self._known.get(origin)
        if entry is None or now >= entry.valid_until:
            return None
        if now > entry.used_at:
            entry.used_at = now
            self._known.move_to_end(origin)
        return entry.file

    def _is_first(self, origin: str, slot: Slot) -> bool:
        """Note that the slot waits for the file; whether nobody has asked for it."""
        slots = self._waiting.get(origin)
        if slots is None:
            self._waiting[origin] = [slot]
        elif slot not in slots:
            slots.append(slot)
        return slots is None

    def learn(self, origin: str, file: RobotsFile, now: float) -> None:
        self._drop(origin)
        self._known[origin] = _Entry(file, now + KNOWN_FOR_S, now)
        self._known_bytes += file.size_bytes + ENTRY_BYTES
        while self._known_bytes > MOST_KNOWN_BYTES:
            oldest = next(iter(self._known))
            if self._known[oldest].used_at > now - IDLE_S:
                break
            self._drop(oldest)

    def _drop(self, origin: str) -> None:
        entry = self._known.pop(origin, None)
        if entry is not None:
            self._known_bytes -= entry.file.size_bytes + ENTRY_BYTES

    def hand_out(self, origin: str) -> list[Slot]:
        """The request for the file is over, whatever it has brought; the slots whose rows are queued again."""
        return [slot for slot in self._waiting.pop(origin, []) if slot.release(origin)]
