"""The measurements of one run that a chart needs: a run of any length in at most so many points. Pure."""

from __future__ import annotations

from ddmpi.core.stats.metrics import Measurement

MOST_POINTS = 600
"""Points of a chart: more than a screen has columns for it."""


class History:
    """Whenever the points are too many, every second one goes, and the interval between two doubles.

    Args:
        now: when the run began; seconds, monotonic, as in all methods.
    """

    def __init__(self, now: float) -> None:
        self.lines: list[Measurement] = []
        self.interval_s = 1.0
        self._next_at = now

    def is_due(self, now: float) -> bool:
        """Whether a point at this time is wanted."""
        return now >= self._next_at

    def add(self, now: float, line: Measurement) -> None:
        """Keep a point; times must not go back."""
        if len(self.lines) >= MOST_POINTS:
            self.lines = self.lines[::2]
            self.interval_s *= 2
        self.lines.append(line)
        self._next_at = now + self.interval_s
