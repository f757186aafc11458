"""Whether a server that does not say so is asked for too much: by its errors, time-outs and rising latency. Pure.

Decides from the last answers. It must not know rates or pauses.
"""

from __future__ import annotations

import math
from statistics import median

ANSWERS = 32
"""So many answers are looked at together; fewer would call chance a trend."""
BAD_SHARE = 0.3
"""Errors (5xx, 401 ...) and requests without an answer among them."""
SLOWER = 3.0
"""Times the lowest median of so many answers that was seen."""
SLOWER_BY_S = 0.5
"""And slower by so much at least: a busy rank reads its answers some tens of milliseconds late."""


class OverloadDetector:
    """The answers of one server since it was last found overloaded."""

    __slots__ = ("_bad", "_least_s", "_times_s")

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._bad = 0
        self._least_s = math.inf

    def note(self, ttfb_s: float, *, is_bad: bool) -> bool:
        """Count an answer, with its time to the first byte; whether the last ones together show strain."""
        self._times_s.append(ttfb_s)
        self._bad += is_bad
        if len(self._times_s) < ANSWERS:
            return False
        typical_s = median(self._times_s)
        bad = self._bad
        self.forget()
        self._least_s = min(self._least_s, typical_s)
        is_slow = typical_s > max(SLOWER * self._least_s, self._least_s + SLOWER_BY_S)
        return bad >= BAD_SHARE * ANSWERS or is_slow

    def forget(self) -> None:
        """Something else has happened: the answers before it are about another rate."""
        self._times_s.clear()
        self._bad = 0
