"""When a rank that runs low asks rank 0 for work. Pure.

Decides from the answers so far. It must not know why the rank is hungry, or what work is.

Invariants: at most one request is without an answer, and none is made before the time that a refusal named. A late
answer, to a request that was answered before, opens no new one.
"""

from __future__ import annotations

import math

from ddmpi.core.protocol import StealRequest


class WorkRequests:
    """The requests of one rank. All times are seconds, monotonic."""

    def __init__(self) -> None:
        self._may_ask_at = math.inf  # until the first lanes have come, work is on its way
        self._last_id = 0
        self._is_asking = False

    @property
    def due_at(self) -> float:
        """When a hungry rank may ask; inf = not before another message."""
        return math.inf if self._is_asking else self._may_ask_at

    def answered(self, request_id: int) -> None:
        """An answer to this request has come; 0 is that of none."""
        if request_id == self._last_id:
            self._is_asking = False

    def allow(self, now: float) -> None:
        """Work has come: the rank may ask for more from now on."""
        self._may_ask_at = min(self._may_ask_at, now)

    def refuse_until(self, at: float) -> None:
        """There is nothing to be had: the rank may not ask before ``at``."""
        self._may_ask_at = at

    def make(self) -> StealRequest:
        """Ask."""
        self._last_id += 1
        self._is_asking = True
        return StealRequest(self._last_id)
