"""At which rate a server is asked: the limit until it objects, from then on just below what it was seen to take. Pure.

Decides the rate from when requests started and how they ended. It must not know tokens, pauses or connections.

An *incident* is a throttled request, or a spell of errors, time-outs or slow answers; requests that started before it
belong to it. After one, the rate follows a curve over the seconds of well-answered traffic since then, for a target
``T``:

    T * (BACK_SHARE + (1 - BACK_SHARE) * (1 - (1 - s/b)^3))    s <= b: back to the target, fast at first
    T                                                          s <= h: holding it
    T * exp(((s - h) / climb_s)^2)                             s > h: probing above it, slowly at first

The shape is that of TCP's CUBIC (RFC 9438): most of the time is spent just below what the server takes, yet a server
that takes eight times as much is found within a minute. The hold ``h`` grows with what the incident has cost, so that
pauses take up a tenth of the time at most, and with what a low rate means for the share of throttled answers.

The target is what the server took between two incidents in a row, by starts: a server that counts with a token bucket
had none left at both of them, so this is its own rate, however large its bucket is; of a pause in between, its bucket
holds no more than fits in. Where nothing can be said yet, the rate is halved.

Invariant: the rate is never above the limit, nor above what the server itself has stated.
"""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass

BACK_SHARE = 0.85
"""Of the target, right after an incident."""
TARGET_SHARE = 0.97
"""Of what the server took, as the target."""
NEAR_SHARE = 0.4
"""Of the way from the target to where a probe ended: it had gone on, until the server's answer was there."""
FAR_SHARE = 0.5
"""The same where it had climbed to ``FAR`` times the target: then the server takes more than before."""
FAR = 1.35
STEADY_SHARE = 0.97
"""A rate that was taken for as long as ``HOLD_S`` and then was not is too high by no more than this."""
HOLD_S = 10.0
"""``b``, and the least ``h``."""
HOLD_REQUESTS = 75.0
"""Fewer requests than these between two probes would make throttled answers more than 2 % of all."""
HOLD_PER_PAUSE = 10.0
HOLD_MAX_S = 1_800.0
CLIMB_S = 10.0
"""A target eight times as high is reached ``1.44 * CLIMB_S`` after the hold."""
ENOUGH_STARTS = 4
"""Fewer starts between two incidents say nothing about a rate."""
LEAST_S = 0.5
"""Nor do starts in less time than this."""
UNTHROTTLED_LEAST_S = 5.0
"""The same where the first of them found a rested server, which takes more at once than it does for long."""
RESTED_S = 0.5
"""After a pause a server takes as many requests at once as in this time: some a second's worth, some hardly any."""
RECENT_S = 30.0
"""Older starts than these do not count for what a server takes now."""
FLOOR_PER_S = 0.05
"""However often it throttles, a server is asked every 20 s (or at its limit, where that is less)."""
STRAIN_SHARE = 0.8
"""Of the rate, after errors, time-outs or slow answers, whose limit nobody knows."""
STRAIN_FLOOR_SHARE = 0.125
"""Of the limit (or of the first rate that was too much): errors alone do not slow a server down below this."""
MEASURE_S = 2.0
"""Time constant of the estimate of how fast a server without a limit is being asked."""


@dataclass(slots=True, eq=False)
class AdaptiveRate:
    """The rate of one holder. 0 stands for no limit, and nothing learned."""

    limit_per_s: float
    """Never exceeded; 0 = none."""
    before_per_s: InitVar[float]
    """What an earlier holder was holding at, 0 if it had no reason to."""
    now: InitVar[float]
    per_s: float = 0.0
    stated_per_s: float = math.inf
    """What the server has said that it takes; inf = it has not."""
    _target_per_s: float = 0.0  # 0: nothing learned
    _too_much_per_s: float = 0.0  # the first rate that the server objected to
    _hold_s: float = HOLD_S
    _rest_s: float = 0.0  # of the pause at the last incident, what the server had no use for
    _climbed_s: float = 0.0  # seconds of well-answered traffic since the last incident
    _climbed_at: float = 0.0  # until when traffic has been credited
    _stepped_at: float = -math.inf
    _starts: int = 0  # since _starts_since: the last incident, or up to RECENT_S ago
    _starts_since: float = 0.0
    _half_starts: int = 0  # the newer ones of them, since _half_at
    _half_at: float = 0.0
    _first_start_at: float = math.inf
    _recent_starts: float = 0.0  # decaying count of starts, as of _started_at
    _started_at: float = 0.0

    def __post_init__(self, before_per_s: float, now: float) -> None:
        self.per_s = self.limit_per_s
        self._climbed_at = self._starts_since = self._half_at = self._started_at = now
        if before_per_s > 0 and not 0 < self.limit_per_s <= before_per_s:
            self._target_per_s = self._too_much_per_s = self.per_s = before_per_s
            self._climbed_s = self._hold_s

    @property
    def is_learned(self) -> bool:
        """Whether the server has objected to a rate, or stated the one at which it is asked."""
        return self._target_per_s > 0 or self.per_s == self.stated_per_s

    @property
    def learned_per_s(self) -> float:
        """What the next holder should hold at; 0 if the server has not objected."""
        return min(self._target_per_s, self.per_s)

    def started(self, now: float) -> None:
        self._first_start_at = min(self._first_start_at, now)
        self._recent_starts = self._recent_starts * math.exp((self._started_at - now) / MEASURE_S) + 1
        self._started_at = now
        if now - self._half_at >= RECENT_S / 2:
            self._starts, self._starts_since = self._half_starts, self._half_at
            self._half_starts, self._half_at = 0, now
        self._starts += 1
        self._half_starts += 1

    # ---- what the server says

    def good(self, now: float, started_at: float) -> None:
        """A good answer to a request of that start."""
        if not self._target_per_s or started_at <= self._stepped_at:
            return
        # A gap between answers of more than a second (or two tokens) counts as no more traffic than that.
        credit_s = min(now - self._climbed_at, max(1.0, 2 / self.per_s))
        self._climbed_at = now
        if self._climbed_s > self._hold_s and not self.limit_per_s and self.per_s > 2 * self.measured_per_s():
            return  # a rate that is not used proves nothing
        self._climbed_s += credit_s
        self._follow_curve()

    def not_good(self, now: float) -> None:
        """Something came that is no reason to go faster: the time until now is no well-answered traffic."""
        self._climbed_at = now

    def throttled(self, now: float, started_at: float, pause_s: float, *, in_a_row: bool) -> None:
        """An incident: the server asked for fewer requests, and is left alone for ``pause_s``. ``in_a_row``: no good
        answer has come since the incident before, so that one was not over."""
        before_per_s = self.per_s or self.measured_per_s()
        taken_per_s = 0.0 if in_a_row else self._least_taken_per_s(now, started_at, before_per_s)
        target_per_s = TARGET_SHARE * taken_per_s if taken_per_s else before_per_s / 2
        self._step(now, before_per_s, target_per_s, started_at)
        self._rest_s = max(0.0, pause_s - RESTED_S)
        self._hold_s = max(self._hold_s if in_a_row else 0.0, HOLD_PER_PAUSE * pause_s)
        self._hold_s = min(HOLD_MAX_S, max(self._hold_s, HOLD_S, HOLD_REQUESTS / self._target_per_s))
        self._follow_curve()

    def _least_taken_per_s(self, now: float, started_at: float, before_per_s: float) -> float:
        """What the server takes for sure, 0 if nothing can be said. ``before_per_s``, the rate so far, was too much."""
        taken_per_s, target_per_s = min(self._taken_per_s(now, started_at), before_per_s), self._target_per_s
        if target_per_s and self._climbed_s > self._hold_s:
            # The target was fine, the rate was not: between them, unless more than that was taken all the time.
            share = NEAR_SHARE if before_per_s < FAR * target_per_s else FAR_SHARE
            return max(taken_per_s, target_per_s + share * (before_per_s - target_per_s))
        if taken_per_s and target_per_s and self._climbed_s >= HOLD_S:
            return max(taken_per_s, STEADY_SHARE * target_per_s)
        return taken_per_s

    def _taken_per_s(self, now: float, started_at: float) -> float:
        """What the server took up to the request that it did not take; 0 if nothing can be said. Those that started
        while that one was on its way were hardly taken either."""
        since_incident = self._starts_since <= self._stepped_at
        elapsed_s = started_at - self._starts_since - (self._rest_s if since_incident else 0.0)
        taken = self._starts - 1 - self.measured_per_s() * (now - started_at)
        enough_s = LEAST_S if since_incident else UNTHROTTLED_LEAST_S
        return taken / elapsed_s if taken >= ENOUGH_STARTS and elapsed_s >= enough_s else 0.0

    def overloaded(self, now: float) -> None:
        """An incident: too many errors, or slow answers. How much less would do, nobody says."""
        before_per_s = self.per_s or self.measured_per_s()
        floor_per_s = STRAIN_FLOOR_SHARE * (self.limit_per_s or self._too_much_per_s or before_per_s)
        target_per_s = max(STRAIN_SHARE * before_per_s, min(floor_per_s, before_per_s))
        self._step(now, before_per_s, target_per_s, now)
        self._hold_s = HOLD_S
        self.per_s = self._target_per_s

    def _step(self, now: float, before_per_s: float, target_per_s: float, stepped_at: float) -> None:
        floor_per_s = min(FLOOR_PER_S, self.limit_per_s or math.inf)
        self._too_much_per_s = self._too_much_per_s or before_per_s
        self._target_per_s = max(floor_per_s, target_per_s)
        self._climbed_s = 0.0
        self._climbed_at = self._stepped_at = now
        self._starts = self._half_starts = 0
        self._starts_since = self._half_at = stepped_at

    def reset_incidents(self) -> None:
        """Long ago: what the server took then says nothing about now, where a limit says what is asked for."""
        if self.limit_per_s:
            self._target_per_s = self._too_much_per_s = 0.0
            self._follow_curve()

    def _follow_curve(self) -> None:
        most_per_s = min(self.limit_per_s or math.inf, self.stated_per_s)
        if not self._target_per_s:
            self.per_s = most_per_s if most_per_s < math.inf else 0.0
            return
        if self._climbed_s <= self._hold_s:
            left = max(0.0, 1 - self._climbed_s / HOLD_S)
            factor = BACK_SHARE + (1 - BACK_SHARE) * (1 - left**3)
        else:
            factor = math.exp(min(16.0, ((self._climbed_s - self._hold_s) / CLIMB_S) ** 2))
        rate_per_s = max(self._target_per_s * factor, min(FLOOR_PER_S, self.limit_per_s or math.inf))
        self.per_s = min(rate_per_s, most_per_s)

    # ---- other limits

    def set_limit(self, limit_per_s: float) -> None:
        """What was learned keeps its proportion to the limit."""
        old_per_s, self.limit_per_s = self.limit_per_s, limit_per_s
        if old_per_s and limit_per_s:
            self._target_per_s *= limit_per_s / old_per_s
            self._too_much_per_s *= limit_per_s / old_per_s
        self._follow_curve()

    def set_stated(self, stated_per_s: float) -> None:
        """Keep to what the server says that it takes, requests per second; inf = it does not say."""
        self.stated_per_s = stated_per_s
        self._follow_curve()

    def measured_per_s(self) -> float:
        """Starts per second up to the last start; not decayed since, as a slow answer would make it vanish. A count
        that decays with time constant M and began T ago has seen M * (1 - exp(-T / M)) seconds."""
        elapsed_s = max(MEASURE_S / 8, self._started_at - self._first_start_at)
        return self._recent_starts / (MEASURE_S * (1 - math.exp(-elapsed_s / MEASURE_S)))
