"""When a server that does not answer is parked, probed and given up: its circuit breaker. Pure.

Decides from how requests ended. It must not know pauses' lengths, rates or rows.

    closed -> (failures in a row) -> open, for a pause -> half-open: one request, a probe -> closed, or open again
                                                                                 -> tripped, after the last one

Invariants: requests that started before the last parking say nothing about the time after it, for or against the
server; only an answer to a probe closes the breaker.
"""

from __future__ import annotations

import math


class Breaker:
    """The breaker of one server, as held by one lane. All times are seconds, monotonic.

    Args:
        most_failures: so many requests without an answer in a row open it.
        most_probes: after so many failed probes it has tripped for good: the server is given up.
        most_forbidden: so many answers 403 in a row open it, as a server that will not have us; 0 = they never do.
        open_count: how often an earlier holder has parked the server in a row; 0 = the breaker is closed.
    """

    __slots__ = (
        "_before", "_forbidden", "_most_failures", "_most_forbidden", "_most_probes", "_parked_at", "failures",
        "open_count",
    )  # fmt: skip

    def __init__(self, most_failures: int, most_probes: int, most_forbidden: int, open_count: int, now: float) -> None:
        self.open_count = open_count
        """> 0: the breaker is open or half-open."""
        self._most_failures = most_failures
        self._most_probes = most_probes
        self._most_forbidden = most_forbidden
        self.failures = 0
        """Requests that got no answer since the last one that did."""
        self._forbidden = 0  # answers 403 in a row
        self._parked_at = -math.inf
        self._before = (0, now)  # open_count and end of the pause as they were before the last parking

    def __repr__(self) -> str:
        return f"{self.failures} failures, {self.open_count} times open{', tripped' if self.tripped else ''}"

    @property
    def tripped(self) -> bool:
        """Every probe failed."""
        return self.open_count > self._most_probes

    @property
    def is_doubted(self) -> bool:
        """Whether the last requests have ended badly, which may be for their rows alone: others are to be asked for."""
        return self.open_count > 0 or self._forbidden > self._most_forbidden // 2 > 0

    def most_in_flight(self, connections: int) -> int:
        """Requests that the server may have at once, of so many connections: where it has left some without an answer,
        as many as open the breaker. More could only keep the first probe waiting: a time-out is long."""
        if self.open_count:
            return 1
        return min(connections, max(1, self._most_failures - self.failures)) if self.failures else connections

    # ---- how a request that started at started_at has ended

    def answered(self, started_at: float) -> None:
        """Any HTTP answer but a 403 closes the breaker, unless its request is older than the parking: only a probe
        tells."""
        self._forbidden = 0
        self._close(started_at)

    def _close(self, started_at: float) -> None:
        if started_at > self._parked_at:
            self.failures = 0
            self.open_count = 0

    def turned_away(self, started_at: float) -> bool:
        """One 403 is an answer; many of them in a row are none. Whether the server is to be parked."""
        self._forbidden += 1
        if self._most_forbidden > 0 and (self.open_count or self._forbidden >= self._most_forbidden):
            return started_at > self._parked_at
        self._close(started_at)
        return False

    def unanswered(self, started_at: float) -> bool:
        """No HTTP answer came. Whether the server is to be parked."""
        if started_at <= self._parked_at:
            return False
        self.failures += 1
        return self.open_count > 0 or self.failures >= self._most_failures

    # ---- parking

    def park(self, now: float, paused_until: float) -> int:
        """Open, or open again after a probe; how many open_count in a row that makes. ``paused_until`` is the end of
        the pause so far."""
        self._before = (self.open_count, paused_until)
        self.open_count += 1
        self._parked_at = now
        return self.open_count

    def reset_after_outage(self, since: float) -> float | None:
        """The requests without an answer are not the server's fault, and a parking since then is void: the end of the
        pause before it, None where there was none."""
        self.failures = 0
        if self._parked_at < since:
            return None
        self.open_count, paused_until = self._before
        self._parked_at = -math.inf
        return paused_until
