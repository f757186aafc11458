"""When a server's bodies are paid for: its limits on bytes per second, per hour and per day. Pure.

Decides from the bodies so far until when the next one has to wait. It must not know requests per second, or pauses that
a server asks for. A body's size is known only at its end, so it is paid for afterwards.
"""

from __future__ import annotations

import math

from ddmpi.core.pace.byte_budget import DAY_S, HOUR_S, ByteBudget, Spent
from ddmpi.core.records import Limits


class ByteLimits:
    """The byte limits of one holder. All times are seconds, monotonic.

    Args:
        spent_hour, spent_day: what earlier holders have spent, with durations from ``now``.
    """

    __slots__ = ("_budgets", "_bytes_per_s", "budget_until", "paid_at")

    def __init__(self, limits: Limits, spent_hour: Spent, spent_day: Spent, now: float) -> None:
        self.paid_at = now
        """When the bodies so far are paid for, at the limit per second."""
        self.budget_until = -math.inf
        """When the budgets of an hour and a day have room again; -inf = they have."""
        self._bytes_per_s = limits.bytes_per_s
        self._budgets: tuple[ByteBudget, ByteBudget] | None = None
        if limits.has_byte_budget:
            self._open(limits, spent_hour, spent_day, now)

    def charge(self, now: float, started_at: float, body_bytes: int) -> None:
        """A body has come in, for the request that started at ``started_at``."""
        if self._bytes_per_s:
            # From its start: the time in which a body came in has paid for it already.
            self.paid_at = max(self.paid_at, started_at) + body_bytes / self._bytes_per_s
        if self._budgets is not None:
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
