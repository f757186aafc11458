"""How many bytes a server may send in any window of an hour or a day, and when the next one may come. Pure.

Decides from the bytes that came so far until when a server has to be left alone. It must not know requests or rates.

Invariant: once ``blocked_until`` is in the past, the bytes of the window that ends now are less than the budget. Bytes
are counted by sixtieths of the window and forgotten when the whole sixtieth is outside: never too early, and at most
one sixtieth late. A fixed window that begins anew after an hour would let two budgets through in a little more than
one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

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
        """So many bytes have come."""
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
