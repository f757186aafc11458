"""What a rank holds of one server: its rate limiter, the rows that wait for it, when to look at it. Pure.

A slot never decides whether a row is tried again; it only knows which row is next and when one may start. Every task
of a slot is in its queue, in its retries, held back until a robots.txt is known, or in flight.

What is learned of a server (pauses, its rate, whether it answers) is learned of it alone. Where several servers of a
group have rows in one lane, ``SharedLimits`` bounds them together: a server whose own turn has come stands in line for
the group's.

``WakeQueue`` is the frontier's timer heap. An entry that has become too early costs one look, after which the slot is
entered anew; one that is too late is stale, because the slot was entered again for an earlier time. So nothing is ever
taken out of the middle of the heap. Beside it is a line of servers that may be asked now and were not yet. Where more
servers have begun than connections are kept, those that are due go first: of the others each row would cost a
connection. Invariant: a slot's next look is at ``slot.scheduled_at``, and the heap holds an entry for that time, or the
slot is in the line of new servers, or it stands in that of its group and the same holds for its group.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from dataclasses import dataclass, field

import msgspec

from ddmpi.core.pace.rate_limiter import RateLimiter, Signal
from ddmpi.core.records import Failure, Limits, Task

LETS_OTHERS_FIRST_S = 60.0
"""So long a row that is due and was refused for its URL lets all others of its server go first."""
OTHERS_FIRST = 15
"""After that it lets so many others go first: such rows take a sixteenth of a server's requests while there are others.
Were it none, a run that is stopped would leave all of them to the next one, which would ask for them first and take the
server's refusals for its word."""


@dataclass(slots=True, eq=False)
class Slot:
    """The tasks of one server in one lane."""

    server: str
    group: str
    """Whose limits these are: the server's group, in a packed lane the server itself."""
    lane_id: int
    limiter: RateLimiter
    planned: Limits
    """What the slot may use where no control override says otherwise."""
    shared: SharedLimits | None = None
    """What it shares with other servers; None where the group has no other one in the lane."""
    is_in_line: bool = False
    is_mixed: bool = False
    """Whether its rows come from all over the batches that are here: many in a row were refused."""
    is_begun: bool = False
    """Whether a request has started since it had no rows."""
    was_asked: bool = False
    """Whether another lane, or an earlier run, may have asked the server just now."""
    queue: deque[Task] = field(default_factory=deque)
    in_flight: int = 0
    is_held: bool = False
    """Whether the operator lets nothing start here."""
    given_up: Failure | None = None
    """What rows of a server fail with that is given up; None while it is not."""
    closes_when_idle: bool = False
    """Its connections may be more than are allowed since the operator has changed the limits."""
    unresolved_since: float = math.inf
    """When its name was not found for the first time since it has answered; inf = it was."""
    scheduled_at: float = math.inf
    """When the frontier looks at this slot again; inf = at the next event."""
    moves_at: float = -math.inf
    """When more of its rows may come that move on to their mirrors unasked; those before are still on their way."""
    delay_s: float = 0.0
    """Crawl-delay: seconds between two requests to the server; 0 = none is asked for."""
    _whole_connections: int = 1
    _retries: list[tuple[float, int, Task]] = field(default_factory=list)
    _last: list[tuple[float, int, Task]] = field(default_factory=list)
    _held_back: dict[str, list[Task]] = field(default_factory=dict)
    _sequence: int = 0
    _others_gone: int = 0  # since the last one of _last

    @property
    def waiting(self) -> int:
        """Tasks that are not in flight."""
        held_back = sum(map(len, self._held_back.values())) if self._held_back else 0
        return len(self.queue) + len(self._retries) + len(self._last) + held_back

    @property
    def put_last(self) -> int:
        """Those of them that let others go first."""
        return len(self._last)

    # ---- when a request may start

    @property
    def counter(self) -> RateLimiter:
        """Return the limiter that counts connections and bytes: the group's where servers share it, else its own."""
        return self.limiter if self.shared is None else self.shared.limiter

    def may_start(self, now: float) -> bool:
        """Return whether a request may start as far as this server alone is concerned."""
        return not self.is_held and self.next_due(now) <= now and self.limiter.ready_at(now) <= now

    def start(self, now: float) -> None:
        """Count a request that starts."""
        self.limiter.start(now)
        self.in_flight += 1
        if self.shared is not None:
            self.shared.limiter.start(now)

    def end(self, now: float, started_at: float, body_bytes: int) -> None:
        """Count a request that has ended, as far as it concerns the other servers of the group."""
        self.in_flight -= 1
        if self.shared is not None:
            self.shared.limiter.finish(now, started_at, Signal.LOCAL, body_bytes=body_bytes)

    def wait_s(self, now: float) -> float:
        """Return how long the server is left alone, in seconds, itself or with its group; 0 if not at all."""
        own_s = self.limiter.wait_s(now)
        return own_s if self.shared is None else max(own_s, self.shared.limiter.wait_s(now))

    def is_parked(self, now: float) -> bool:
        """Return whether its rows should be kept for later."""
        return self.limiter.parked(now) or (self.shared is not None and self.shared.limiter.parked(now))

    # ---- limits

    def set_limits(self, limits: Limits | None, now: float) -> None:
        """Use these limits from now on; None: the operator lets nothing start."""
        self.is_held = limits is None
        if limits is not None:
            own = limits if self.shared is None else limits.without_bytes
            self.limiter.set_limits(self._slowed(own), now)

    def slow_down(self, delay_s: float, whole_connections: int, now: float) -> None:
        """Have the server as a whole be asked at most once every ``delay_s`` seconds; this slot its part of that.

        The connections of all lanes of its group add up to ``whole_connections``, so the parts add up to one. A delay
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

    def retry_at(self, task: Task, at: float, *, is_last: bool = False) -> None:
        """Keep the task until ``at`` (s, monotonic), and after that, if it ``is_last``, until no other one is due; see
        ``LETS_OTHERS_FIRST_S``."""
        self._sequence += 1
        heapq.heappush(self._last if is_last else self._retries, (at, self._sequence, task))

    def next_due(self, now: float) -> float:
        """Return when the first task is due: ``now`` if one is queued, inf if there is none."""
        if self.queue:
            return now
        dues = [tasks[0][0] for tasks in (self._retries, self._last) if tasks]
        return max(now, min(dues)) if dues else math.inf

    def pop(self, now: float) -> Task | None:
        """Take the next task that is due: retries before fresh rows, so that no old row waits for a long queue. While
        the server is doubted it is a fresh one, for the doubt may be owed to the others; and a row that was refused has
        to wait until another one was answered well."""
        if self.queue and self.limiter.is_doubted:
            return self.queue.popleft()
        if self._others_gone >= OTHERS_FIRST and self._last and self._last[0][0] + LETS_OTHERS_FIRST_S <= now:
            self._others_gone = 0
            return heapq.heappop(self._last)[2]
        self._others_gone += 1
        due = self._retries[0] if self._retries and self._retries[0][0] <= now else None
        if due is not None and (not self.queue or due[2].refused_at <= self.limiter.good_at):
            return heapq.heappop(self._retries)[2]
        if self.queue:
            return self.queue.popleft()
        return heapq.heappop(self._last)[2] if self._last and self._last[0][0] <= now else None

    def clear(self) -> list[Task]:
        """Take out every waiting task."""
        tasks = [task for _, _, task in (*self._retries, *self._last)]
        tasks.extend(self.queue)
        for held_back in self._held_back.values():
            tasks.extend(held_back)
        self._held_back.clear()
        self._retries.clear()
        self._last.clear()
        self.queue.clear()
        return tasks

    def __repr__(self) -> str:
        waiting = f"{len(self.queue)} queued, {len(self._retries) + len(self._last)} to retry"
        return f"<Slot {self.server}: {waiting}, {self.in_flight} in flight>"


@dataclass(slots=True, eq=False)
class SharedLimits:
    """What the servers of one group in one lane use together, and which of them are ready and wait for it."""

    limiter: RateLimiter
    """The group's requests per second, connections and bytes. It learns nothing: no server is judged by another one."""
    line: deque[Slot] = field(default_factory=deque)
    to_come: int = 0
    """Servers of which only batches are here that were not loaded yet."""
    scheduled_at: float = math.inf
    """As of a slot."""
    _busy: set[Slot] = field(default_factory=set)

    @property
    def busy(self) -> int:
        """Servers that have rows which can be asked for."""
        return len(self._busy)

    def note(self, slot: Slot, now: float) -> None:
        """Note whether the server has rows that can be asked for."""
        if slot.in_flight or (slot.waiting and not slot.limiter.wait_s(now)):
            self._busy.add(slot)
        else:
            self._busy.discard(slot)

    def has_room_for(self, slot: Slot) -> bool:
        """Return whether the server may have one request more in flight: a slow one must leave connections to others
        that have rows."""
        return slot.in_flight < -(-self.limiter.limits.connections // max(1, self.busy + self.to_come))

    def ready_at(self, now: float) -> float:
        """Return when the first one in line may have its turn; inf: not before another event."""
        return self.limiter.ready_at(now) if self.line else math.inf

    def join(self, slot: Slot, now: float) -> None:
        """Have a server share the limits from now on; until now it was the only one of its group."""
        slot.shared = self
        self.limiter.in_flight += slot.in_flight
        slot.limiter.set_limits(slot.limiter.limits.without_bytes, now)


class WakeQueue:
    """Slots by the time at which one of their rows may start.

    Args:
        most_begun: slots may be begun, that is, have been asked and have rows left, before those that are due go first.
            Where none is due, another one is begun all the same.
    """

    def __init__(self, most_begun: float = math.inf) -> None:
        self._most_begun = most_begun
        self._begun = 0
        self._new: deque[Slot] = deque()  # due, and not begun
        self._heap: list[tuple[float, int, Slot | SharedLimits]] = []
        self._sequence = itertools.count()

    def enter(self, slot: Slot, now: float) -> None:
        """Look at the slot again when both a row and its pace are ready; its group may have room for another one."""
        if slot.shared is not None:
            slot.shared.note(slot, now)
            self._schedule(slot.shared, slot.shared.ready_at(now))
        if slot.is_begun and not (slot.in_flight or slot.queue or slot.waiting):
            slot.is_begun = False
            self._begun -= 1
        if slot.scheduled_at <= now or slot.is_held or slot.is_in_line:
            return  # no earlier look is possible, or none is wanted
        if slot.moves_at > now:
            self._schedule(slot, slot.moves_at)
        if slot.given_up is None:
            at = max(slot.next_due(now), slot.limiter.ready_at(now))
            if at <= now and not slot.is_begun and slot.shared is None:
                slot.scheduled_at = at
                self._new.append(slot)
            else:
                self._schedule(slot, at)

    def begin(self, slot: Slot) -> None:
        """Note that the first request to the slot starts."""
        slot.is_begun = True
        self._begun += 1

    def _schedule(self, entry: Slot | SharedLimits, at: float) -> None:
        if at < entry.scheduled_at:
            entry.scheduled_at = at
            heapq.heappush(self._heap, (at, next(self._sequence), entry))

    def pop(self, now: float) -> Slot | None:
        """Take out the next slot whose time has come, and its group's; None if there is none."""
        heap = self._heap
        while True:
            is_due = bool(heap) and heap[0][0] <= now
            if self._new and (self._begun < self._most_begun or not is_due):
                slot = self._new.popleft()
                slot.scheduled_at = math.inf
                if slot.shared is None:
                    return slot
                self.enter(slot, now)  # it shares its group's limits since
                continue
            if not is_due:
                return None
            at, _, entry = heapq.heappop(heap)
            if at != entry.scheduled_at:
                continue
            entry.scheduled_at = math.inf
            shared = entry.shared if isinstance(entry, Slot) else entry
            if isinstance(entry, Slot):
                if shared is None or (at == entry.moves_at and not entry.may_start(now)):
                    return entry
                entry.is_in_line = True
                shared.line.append(entry)
            if shared is not None and (next_one := self._next_in_line(shared, now)) is not None:
                return next_one

    def _next_in_line(self, shared: SharedLimits, now: float) -> Slot | None:
        if shared.limiter.ready_at(now) > now:
            self._schedule(shared, shared.ready_at(now))
            return None
        for _ in range(len(shared.line)):
            slot = shared.line.popleft()
            slot.is_in_line = False
            if not slot.may_start(now):
                self.enter(slot, now)  # something has happened to it while it stood in line
            elif shared.has_room_for(slot):
                return slot
            else:
                slot.is_in_line = True
                shared.line.append(slot)
        return None

    @property
    def has_new(self) -> bool:
        """Whether servers wait that were not asked yet."""
        return bool(self._new)

    @property
    def next_at(self) -> float:
        """When ``pop`` may have something (s, monotonic); inf = only after another ``enter``."""
        if self._new:
            return self._new[0].scheduled_at
        return self._heap[0][0] if self._heap else math.inf
