"""What a rank holds of one server group: its rate limiter, the rows that wait for it, when to look at it. Pure.

A slot never decides whether a row is tried again; it only knows which row is next and when one may start. Every task
of a slot is in its queue, in its retries, held back until a robots.txt is known, or in flight.

``WakeQueue`` is the frontier's timer heap. An entry that has become too early costs one look, after which the slot is
entered anew; one that is too late is stale, because the slot was entered again for an earlier time. So nothing is ever
taken out of the middle of the heap. Invariant: a slot's next look is at ``slot.scheduled_at``, and the heap holds an
entry for that time.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass, field

import msgspec

from ddmpi.core.pace.rate_limiter import RateLimiter
from ddmpi.core.records import Failure, Limits, Task


@dataclass(slots=True, eq=False)
class Slot:
    """The tasks of one server group (in a packed lane: of one server) in one lane."""

    key: str
    lane_id: int
    limiter: RateLimiter
    planned: Limits
    """What the slot may use where no control override says otherwise."""
    was_asked: bool = False
    """Whether another lane, or an earlier run, may have asked the server just now."""
    rng: random.Random = field(default_factory=random.Random)
    """Which row is a probe."""
    queue: deque[Task] = field(default_factory=deque)
    in_flight: int = 0
    is_held: bool = False
    """Whether the operator lets nothing start here."""
    given_up: Failure | None = None
    """What the server's last probe failed with; None while it is not given up."""
    scheduled_at: float = math.inf
    """When the frontier looks at this slot again; inf = at the next event."""
    delay_s: float = 0.0
    """Crawl-delay: seconds between two requests of the whole group; 0 = none is asked for."""
    _whole_connections: int = 1
    _retries: list[tuple[float, int, Task]] = field(default_factory=list)
    _held_back: dict[str, list[Task]] = field(default_factory=dict)
    _sequence: int = 0

    @property
    def waiting(self) -> int:
        """Tasks that are not in flight."""
        held_back = sum(map(len, self._held_back.values())) if self._held_back else 0
        return len(self.queue) + len(self._retries) + held_back

    # ---- limits

    def set_limits(self, limits: Limits | None, now: float) -> None:
        """Use these limits from now on; None: the operator lets nothing start."""
        self.is_held = limits is None
        if limits is not None:
            self.limiter.set_limits(self._slowed(limits), now)

    def slow_down(self, delay_s: float, whole_connections: int, now: float) -> None:
        """Have the group as a whole start at most one request every ``delay_s`` seconds; this slot its part of that.

        The connections of all lanes of a group add up to ``whole_connections``, so the parts add up to one. A delay
        only grows: ``robots_gate`` calls this for longer ones.
        """
        is_first = not self.delay_s
        self.delay_s, self._whole_connections = delay_s, max(1, whole_connections)
        self.limiter.set_limits(self._slowed(self.limiter.limits), now)
        if is_first and self.was_asked:
            self.limiter.await_token(now)

    def _slowed(self, limits: Limits) -> Limits:
        if not self.delay_s:
            return limits
        part = min(1.0, self.planned.connections / self._whole_connections)
        rate_per_s = min(limits.rate_per_s or math.inf, part / self.delay_s)
        return msgspec.structs.replace(limits, rate_per_s=rate_per_s)

    # ---- tasks

    def hold_back(self, origin: str, task: Task) -> None:
        """Keep the task until the origin's robots.txt is known."""
        self._held_back.setdefault(origin, []).append(task)

    def release(self, origin: str) -> bool:
        """Queue the tasks that were held back for the origin, before all others; return whether there were some."""
        tasks = self._held_back.pop(origin, [])
        self.queue.extendleft(reversed(tasks))
        return bool(tasks)

    def retry_at(self, task: Task, at: float) -> None:
        """Keep the task until ``at`` (s, monotonic)."""
        self._sequence += 1
        heapq.heappush(self._retries, (at, self._sequence, task))

    def next_due(self, now: float) -> float:
        """Return when the first task is due: ``now`` if one is queued, inf if there is none."""
        if self.queue:
            return now
        return max(now, self._retries[0][0]) if self._retries else math.inf

    def pop(self, now: float) -> Task | None:
        """Take the next task that is due: retries before fresh rows, so that no old row waits for a long queue. While
        the server is doubted it is any fresh one: the doubt may be owed to neighbors in the table."""
        if self.limiter.is_doubted and len(self.queue) > 1:
            self.queue.rotate(self.rng.randrange(len(self.queue)))
            return self.queue.popleft()
        if self._retries and self._retries[0][0] <= now:
            return heapq.heappop(self._retries)[2]
        return self.queue.popleft() if self.queue else None

    def clear(self) -> list[Task]:
        """Take out every waiting task."""
        tasks = [task for _, _, task in self._retries]
        tasks.extend(self.queue)
        for held_back in self._held_back.values():
            tasks.extend(held_back)
        self._held_back.clear()
        self._retries.clear()
        self.queue.clear()
        return tasks

    def __repr__(self) -> str:
        return f"<Slot {self.key}: {len(self.queue)} queued, {len(self._retries)} to retry, {self.in_flight} in flight>"


class WakeQueue:
    """Slots by the time at which one of their rows may start."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Slot]] = []
        self._sequence = itertools.count()

    def enter(self, slot: Slot, now: float) -> None:
        """Look at the slot again when both a row and its pace are ready."""
        if slot.scheduled_at <= now or slot.given_up is not None or slot.is_held:
            return  # no earlier look is possible, or none is wanted
        at = max(slot.next_due(now), slot.limiter.ready_at(now))
        if at < slot.scheduled_at:
            slot.scheduled_at = at
            heapq.heappush(self._heap, (at, next(self._sequence), slot))

    def pop(self, now: float) -> Slot | None:
        """Take out the next slot whose time has come; None if there is none."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, slot = heapq.heappop(heap)
            if at == slot.scheduled_at:
                slot.scheduled_at = math.inf
                return slot
        return None

    @property
    def next_at(self) -> float:
        """When ``pop`` may have something (s, monotonic); inf = only after another ``enter``."""
        return self._heap[0][0] if self._heap else math.inf
