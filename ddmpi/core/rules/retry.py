"""Whether a row is tried again, and after how long.

Decides: from how one try of a row ended, and how many there were, the delay until the next one. Must not know: what
the server as a whole is going through (``pace``), why a try counts as failed (``verdict``), the clock.

Why the kinds of failure have different bounds:

- A *throttled* row waits for 0 s here, because the pace stops its whole server. It may be tried at least
  ``THROTTLED_TRIES`` times: that a server wants to be asked more slowly is no fault of the row. Where the refusal is
  for its URL alone, it is tried as after other failures, and later if the server says so, but not later than
  ``LONGEST_WAIT_S``: then it is an error at once.
- A *connection failure* says nothing about the row either. While the breaker parks the server the caller keeps the
  rows, and all of them are errors once it gives the server up. A row that is alone on its server sees that after
  ``breaker_failures + breaker_probes`` tries; ``connect_attempts`` is above that sum, so that it decides only where
  the breaker cannot: one dead host in a server group whose other hosts answer.
- A failed *name look-up* is confirmed once, later than libcurl forgets a failed look-up: an earlier try would be
  answered from its cache. Names that do not exist are too common for more (5 % of the rows of a web crawl). Where
  other names are found, the server's other rows are not tried (``core.frontier.attempts``).
- All *other* transient failures are tried ``max_attempts`` times with doubling waits.

Invariant: every row ends. ``decide`` is None for permanent failures, and for all others from some attempt on.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.records import ErrorKind
from ddmpi.core.rules.verdict import Verdict

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
JITTER = 0.1
"""A wait is lengthened by up to this share of itself, so that rows that failed together do not come back together."""
THROTTLED_TRIES = 10
DNS_TRIES = 2
DNS_WAIT_S = 35.0
"""Longer than libcurl keeps a failed look-up: half of ``io.easy_handle.DNS_RETRY_CACHE_S``."""
CONNECT_TRIES = 20


@dataclass(frozen=True, slots=True)
class _Rule:
    tries: int
    first_wait_s: float

    def delay_s(self, attempt: int, rng: random.Random) -> float | None:
        if attempt >= self.tries:
            return None
        doublings = min(attempt - 1, 16)  # beyond the cap, and far from the range of a float
        return min(LONGEST_WAIT_S, self.first_wait_s * 2.0**doublings) * (1 + JITTER * rng.random())


class RetryPolicy:
    """How often and how soon rows are tried again.

    Args:
        max_attempts: tries of a row, the first one included; at least 1.
        connect_attempts: the same for rows that found no connection; has to be more than the breaker's failures and
            probes together.

    Raises ValueError for less than one try.
    """

    def __init__(self, max_attempts: int, connect_attempts: int = CONNECT_TRIES) -> None:
        if max_attempts < 1 or connect_attempts < 1:
            raise ValueError(f"at least one try each, got {max_attempts} and {connect_attempts}")
        self._otherwise = _Rule(max_attempts, FIRST_WAIT_S)
        self._by_kind = {ErrorKind.DNS: _Rule(DNS_TRIES, DNS_WAIT_S)}
        self._by_signal = {
            Signal.THROTTLED: _Rule(max(max_attempts, THROTTLED_TRIES), 0.0),
            Signal.CONNECT_FAILED: _Rule(max(max_attempts, connect_attempts), FIRST_WAIT_S),
        }

    def decide_for_server(
        self, verdict: Verdict, attempt: int, rng: random.Random, *, is_of_url: bool = False
    ) -> float | None:
        """The same for a request on which all rows of a server depend, its robots.txt: they are not to become errors
        before the breaker has had its say, but for a name that does not exist."""
        if verdict.failure is None or not verdict.transient:
            return None
        rule = self._by_kind.get(verdict.failure.kind, self._by_signal[Signal.CONNECT_FAILED])
        delay_s = rule.delay_s(attempt, rng)
        if delay_s is None or verdict.signal is not Signal.THROTTLED:
            return delay_s
        return max(delay_s, verdict.retry_after_s or 0.0) if is_of_url else 0.0

    def decide(self, verdict: Verdict, attempt: int, rng: random.Random, *, is_of_url: bool = False) -> float | None:
        """The delay in seconds until the row's next try, 0 where only its server's pace counts; None: it is an error.

        ``attempt`` counts from 1 and is the one that ``verdict`` is about; ``is_of_url`` says of a refusal that it is
        for the row's URL alone. Raises ValueError for a verdict that is no failure.
        """
        if verdict.failure is None:
            raise ValueError(f"nothing to retry: {verdict}")
        if not verdict.transient:
            return None
        if is_of_url:
            asked_s = max(0.0, verdict.retry_after_s or 0.0)
            delay_s = self._otherwise.delay_s(attempt, rng)
            return None if delay_s is None or asked_s > LONGEST_WAIT_S else max(delay_s, asked_s)
        rule = self._by_kind.get(verdict.failure.kind) or self._by_signal.get(verdict.signal, self._otherwise)
        return rule.delay_s(attempt, rng)
