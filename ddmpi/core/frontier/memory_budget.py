"""How many bodies a rank may take in at the same time: its byte budget. Pure.

Decides: how many requests may start, and which of those in flight have to wait before they read on. Must not know:
what a body is, who sent it, why the writer is slow, the clock.

A body counts from its request's start, with what it is expected to become, until its bytes are in a file. Two rules
keep the sum within the budget:

- a request starts only if there is room for a body of the usual size beside all that is expected already;
- bodies that turn out larger are read to their end only as far as there is room, those that started first before the
  others. The rest stand still, and hold what they have read.

Invariant: among the bodies in flight at least one may always read on, or nobody would ever make room. It alone can
exceed the budget, by its own size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

FIRST_GUESSES: Final = 64
"""Before any body has come in, each is expected to take this part of the budget."""
_WEIGHT: Final = 1 / 16
"""Of one body in the means: a change of the usual size is noticed within some twenty bodies."""
_DEVIATIONS: Final = 4
"""A usual body is at most so many mean deviations above the mean (as RFC 6298 expects round trips)."""


class Arrival(NamedTuple):
    """A body in flight: bytes that have come in, and how many were announced (-1: not said, or not yet)."""

    received_bytes: int
    announced_bytes: int


class MemoryBudget:
    """The budget of one rank. ``waiting_bytes``, an argument of its questions, are bodies that came in whole and are
    not in a file yet."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._mean_bytes = limit_bytes / FIRST_GUESSES
        self._deviation_bytes = 0.0
        self._learned = False
        self._excess_bytes = 0
        """By how much the bodies in flight are larger than usual, as of the last look at them."""

    @property
    def usual_bytes(self) -> float:
        """What a body is expected to take at most, before anything is known of it."""
        return min(self._mean_bytes + _DEVIATIONS * self._deviation_bytes, float(self._limit_bytes))

    def learn(self, size_bytes: int) -> None:
        """A body came in whole."""
        if not self._learned:
            self._learned = True
            self._mean_bytes, self._deviation_bytes = float(size_bytes), size_bytes / 2
            return
        difference = size_bytes - self._mean_bytes
        self._mean_bytes += _WEIGHT * difference
        self._deviation_bytes += _WEIGHT * (abs(difference) - self._deviation_bytes)

    def may_start(self, waiting_bytes: int, in_flight: int) -> int:
        """So many more requests."""
        if waiting_bytes >= self._limit_bytes:
            return 0
        room_bytes = self._limit_bytes - waiting_bytes - self._excess_bytes
        fitting = int(room_bytes / max(1.0, self.usual_bytes)) - in_flight
        return max(fitting, 0 if in_flight else 1)

    def may_read_on(self, waiting_bytes: int, arrivals: Sequence[Arrival]) -> list[bool]:
        """For each of the bodies in flight, in the order of their starts."""
        room_bytes = self._limit_bytes - waiting_bytes - sum(arrival.received_bytes for arrival in arrivals)
        usual_bytes = int(self.usual_bytes)
        self._excess_bytes = 0
        allowed = []
        for position, (received_bytes, announced_bytes) in enumerate(arrivals):
            if announced_bytes >= 0:
                size_bytes = max(announced_bytes, received_bytes)
            else:
                size_bytes = max(usual_bytes, 2 * received_bytes)
            rest_bytes = size_bytes - received_bytes
            fits = rest_bytes <= room_bytes or position == 0
            if fits:
                room_bytes -= rest_bytes
            allowed.append(fits)
            self._excess_bytes += max(0, size_bytes - usual_bytes)
        return allowed
