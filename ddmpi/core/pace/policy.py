"""How long a server is left alone: pauses that grow, capped and jittered. Pure.

Decides lengths only: when a pause begins is ``pace``'s business. It must not know the clock.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final

PROBING_LEAST_S: Final = 180.0
PROBING_SHARE: Final = 0.1
"""A server out of reach is probed for this share of the time that the job has run, and for at least so long."""


@dataclass(frozen=True, slots=True)
class PacePolicy:
    """How to back off. Raises ValueError for values that would pause for no time or for ever."""

    backoff_brief_s: float = 1.0
    """First pause without Retry-After, when the server has answered well: the rate is cut at the same time."""
    backoff_base_s: float = 60.0
    """Pause when throttling goes on in spite of shorter ones, and of a server that cannot be reached."""
    backoff_cap_s: float = 86_400.0
    """Longest pause without Retry-After, before jitter."""
    jitter: float = 0.1
    """A back-off is lengthened by up to this share of itself, so that many lanes do not come back at once."""
    reset_after_s: float = 1_800.0
    """Quiet time, counted from the end of the last pause, after which incidents are forgotten."""
    breaker_failures: int = 5
    """So many requests without an answer in a row, or throttle incidents with no OK in between, park the server."""
    breaker_probes: int = 5
    """After so many failed probes, each after a pause twice as long as the one before, the server is given up."""
    probing_most_s: float = 3_600.0
    """Their pauses take no longer than that, however long the job has run."""
    job_began_at: float = 0.0
    """When the job began, had its runs followed one another without a gap (s, monotonic)."""
    forbidden_in_a_row: int = 20
    """So many answers 403 in a row park the server; 0 = they never do."""

    def __post_init__(self) -> None:
        if not 0 < self.backoff_brief_s < math.inf:
            raise ValueError(f"need 0 < backoff_brief_s < inf, got {self}")
        if not 0 < self.backoff_base_s <= self.backoff_cap_s < math.inf:
            raise ValueError(f"need 0 < backoff_base_s <= backoff_cap_s < inf, got {self}")
        if not 0 <= self.jitter <= 1 or self.reset_after_s < 0:
            raise ValueError(f"need 0 <= jitter <= 1 and reset_after_s >= 0, got {self}")
        if self.breaker_failures < 1 or self.breaker_probes < 1:
            raise ValueError(f"need breaker_failures >= 1 and breaker_probes >= 1, got {self}")
        if not 0 < self.probing_most_s < math.inf:
            raise ValueError(f"need 0 < probing_most_s < inf, got {self}")

    def backoff_s(self, count: int, rng: random.Random) -> float:
        """The ``count``-th back-off (from 1), in seconds: doubled each time, capped, then jittered."""
        doublings = min(count - 1, 64)  # beyond any cap, and far from the range of a float
        return min(self.backoff_cap_s, math.ldexp(self.backoff_base_s, doublings)) * (1 + self.jitter * rng.random())

    def probe_pause_s(self, count: int, now: float, rng: random.Random) -> float:
        """The pause before the ``count``-th probe (from 1) of a server that cannot be reached, in seconds: a back-off,
        or shorter, so that the probes fit into the time that the server is worth to the job."""
        pause_s = self._part_of_probing_s(count, now) * (1 + self.jitter * rng.random())
        return min(self.backoff_s(count, rng), pause_s)

    def probing_left_s(self, count: int, now: float) -> float:
        """About how long the pauses take that follow the ``count``-th one of a server that stays out of reach: after
        them, and after the probes' own time-outs, it is given up."""
        return sum(
            min(self.backoff_cap_s, math.ldexp(self.backoff_base_s, later - 1), self._part_of_probing_s(later, now))
            for later in range(count + 1, self.breaker_probes + 1)
        )

    def _part_of_probing_s(self, count: int, now: float) -> float:
        worth_s = min(max(PROBING_LEAST_S, PROBING_SHARE * (now - self.job_began_at)), self.probing_most_s)
        part = 2.0 ** min(0, count - 1 - self.breaker_probes) / (1 - 2.0**-self.breaker_probes)
        return max(self.backoff_brief_s, worth_s * part)

    def throttle_pause_s(self, count: int, rng: random.Random) -> float:
        """The pause of the ``count``-th incident (from 1) in a row without a good answer, in seconds: brief at first,
        four times as long each time until it is the base, from then on as ``backoff_s``."""
        shorter = max(0, math.ceil(math.log(self.backoff_base_s / self.backoff_brief_s, 4)))
        if count > shorter:
            return self.backoff_s(count - shorter, rng)
        return self.backoff_brief_s * 4.0 ** (count - 1) * (1 + self.jitter * rng.random())
