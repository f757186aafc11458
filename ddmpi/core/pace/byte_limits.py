"""The limits of one holder on bytes: per second, per hour and per day. Pure.

Decides from the bodies so far until when the next request has to wait. It must not know requests per second, or pauses
that a server asks for. A body's size is known only at its end. At the limit per second it is paid for by time
(``paid_at``): at the start as much as bodies of the server are likely to take, at the end the rest. So a holder never
owes much more than one body, and one that takes over without knowing what the last one owed waits for one. From the
budgets of an hour and a day (``ByteBudget``) it is taken at the end.

Invariant: once ``blocked_until`` is in the past, the bytes of the window that ends now are less than the budget. Bytes
are counted by sixtieths of the window and forgotten when the whole sixtieth is outside: never too early, and at most
one sixtieth late. A fixed window that begins anew after an hour would let two budgets through in a little more than
one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from ddmpi.core.records import Limits, PaceState


class ByteLimits:
    """The byte limits of one holder. All times are seconds, monotonic.

    Args:
        known: what earlier holders have spent and owe, with durations from ``now``.
    """

    __slots__ = ("_body_bytes", "_budgets", "_bytes_per_s", "budget_until", "paid_at")

    def __init__(self, limits: Limits, known: PaceState, now: float) -> None:
        self._body_bytes = known.body_bytes
        self.paid_at = now
        """When the bodies so far are paid for, at the limit per second."""
        if limits.bytes_per_s:
            self.paid_at += max(known.debt_s, known.body_bytes / limits.bytes_per_s)
        self.budget_until = -math.inf
        """When the budgets of an hour and a day have room again; -inf = they have."""
        self._bytes_per_s = limits.bytes_per_s
        self._budgets: tuple[ByteBudget, ByteBudget] | None = None
        if limits.has_byte_budget:
            self._open(limits, known.spent_hour, known.spent_day, now)

    @property
    def body_bytes(self) -> float:
        """What a body is likely to take at most; 0 = no idea."""
        return self._body_bytes

    @property
    def is_blind(self) -> bool:
        """Whether bytes per second are limited and no body has told how many one takes: they come one by one."""
        return self._bytes_per_s > 0 and not self._body_bytes

    def start(self, now: float, in_flight: int) -> None:
        """A request starts beside ``in_flight`` others: time that their bodies may turn out not to need is used."""
        if self._bytes_per_s:
            body_s = self._body_bytes / self._bytes_per_s
            self.paid_at = max(self.paid_at, now - in_flight * body_s) + body_s

    def charge(self, now: float, body_bytes: int, in_flight: int) -> None:
        """A body has come in, be it empty; ``in_flight`` requests go on, and are charged what is likely from now on."""
        if self._bytes_per_s:
            before = self._body_bytes
            self._body_bytes = max(float(body_bytes), before + LIKELY_WEIGHT * (body_bytes - before))
            self.paid_at += (body_bytes - before + in_flight * (self._body_bytes - before)) / self._bytes_per_s
        if body_bytes and self._budgets is not None:
            for budget in self._budgets:
                budget.charge(now, body_bytes)
            self._check(now, self._budgets)

    def set_limits(self, limits: Limits, now: float) -> None:
        """Other limits hold from now on; what is owed and what is spent stays so."""
        if self.paid_at > now and self._bytes_per_s != limits.bytes_per_s:
            debt_bytes = (self.paid_at - now) * self._bytes_per_s
            self.paid_at = now + (debt_bytes / limits.bytes_per_s if limits.bytes_per_s else 0.0)
        self._bytes_per_s = limits.bytes_per_s
        if self._budgets is not None or limits.has_byte_budget:
            self._open(limits, *self.spent(now), now)

    def spent(self, now: float) -> tuple[Spent, Spent]:
        """What the next holder has to know, of the hour and of the day."""
        if self._budgets is None:
            return (), ()
        hour, day = self._budgets
        return hour.spent(now), day.spent(now)

    def _open(self, limits: Limits, spent_hour: Spent, spent_day: Spent, now: float) -> None:
        """Begin to count bytes by hour and day, or go on with other limits."""
        hour = ByteBudget(limits.bytes_per_hour, HOUR_S, spent_hour, now)
        day = ByteBudget(limits.bytes_per_day, DAY_S, spent_day, now)
        self._budgets = (hour, day)
        self._check(now, self._budgets)

    def _check(self, now: float, budgets: tuple[ByteBudget, ByteBudget]) -> None:
        self.budget_until = max(budget.blocked_until(now) for budget in budgets)


LIKELY_WEIGHT = 0.1
"""How far one body that is smaller than what was likely brings that down; a larger one counts at once."""
HOUR_S = 3_600.0
DAY_S = 86_400.0
SLOTS = 60

Spent = tuple[tuple[float, float], ...]
"""Bytes that count for so many seconds more: (seconds left, bytes), the oldest first."""


class ByteBudget:
    """At most ``budget_bytes`` (0: any number) in each window of ``window_s``.

    Args:
        spent: what earlier holders have spent, with durations from ``now``.
    """

    __slots__ = ("_slots", "_total_bytes", "_window_s", "budget_bytes")

    def __init__(self, budget_bytes: float, window_s: float, spent: Iterable[tuple[float, float]], now: float) -> None:
        self.budget_bytes = budget_bytes
        self._window_s = window_s
        self._slots = deque([now + left_s, size_bytes] for left_s, size_bytes in spent if left_s > 0)
        self._total_bytes = sum(size_bytes for _, size_bytes in self._slots)

    def charge(self, now: float, size_bytes: float) -> None:
        """Charge ``size_bytes`` to the current slot."""
        if not self.budget_bytes:
            return
        self._forget(now)
        slot_s = self._window_s / SLOTS
        if not self._slots or now > self._slots[-1][0] - self._window_s:
            self._slots.append([now + slot_s + self._window_s, 0.0])
        self._slots[-1][1] += size_bytes
        self._total_bytes += size_bytes

    def blocked_until(self, now: float) -> float:
        """When the budget has room again; -inf if it has now."""
        self._forget(now)
        if not 0 < self.budget_bytes <= self._total_bytes:
            return -math.inf
        left_bytes = self._total_bytes
        for ends_at, size_bytes in self._slots:
            left_bytes -= size_bytes
            if left_bytes < self.budget_bytes:
                return ends_at
        return self._slots[-1][0]

    def spent(self, now: float) -> Spent:
        """What the next holder has to know."""
        self._forget(now)
        return tuple((ends_at - now, size_bytes) for ends_at, size_bytes in self._slots)

    def _forget(self, now: float) -> None:
        while self._slots and self._slots[0][0] <= now:
            self._total_bytes -= self._slots.popleft()[1]
        if not self._slots:
            self._total_bytes = 0.0  # also what rounding has left
