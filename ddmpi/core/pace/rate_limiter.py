"""One server's pace: when its next request may start, learned from how the ones before it ended.

Decides: admission (requests per second, connections, bytes) and pauses. The rate itself comes from ``adaptive_rate``,
whether a server is parked or given up from ``breaker``, until when its bodies are paid for from ``byte_limits``, how
long pauses are from ``policy``. Must not know: URLs, rows, retries of a row, other lanes, the clock. A server here is a
server group or the share of it that one lane holds; every time is monotonic seconds of one process and comes in as
``now``.

Invariants, whatever the order of calls:

1. In every window of ``w`` seconds at most ``rate * w + capacity`` requests start, where ``rate`` is the limit and
   ``capacity = max(1, rate * BURST_S)``. A pace made from a state starts with nothing to spend, so this holds for the
   sum of two holders in succession as well.
2. At most ``connections`` requests are in flight, fewer after some without an answer, and at most one while the breaker
   is half-open.
3. The bodies of the requests that start within ``w`` seconds are at most ``bytes_per_s * w`` bytes, plus one body for
   each connection: a body's size is known only at its end. The same holds for the budgets of an hour and of a day.
4. A pause is never shortened, and jitter only lengthens it.
5. One incident is one step: answers to requests that started before the last step belong to that incident.

The bucket is kept as the time at which the next token is whole (the generic cell rate algorithm, ITU-T I.371), not as
a count: nothing needs refilling, and a change of the learned rate cannot create tokens.
"""

from __future__ import annotations

import math
import random
import sys
from enum import Enum

from ddmpi.core.pace.adaptive_rate import AdaptiveRate
from ddmpi.core.pace.breaker import Breaker
from ddmpi.core.pace.byte_limits import DAY_S, ByteLimits
from ddmpi.core.pace.overload import OverloadDetector
from ddmpi.core.pace.policy import PacePolicy
from ddmpi.core.pace.refusals import RefusalJudge
from ddmpi.core.records import NOTHING_LEARNED, Limits, PaceState, Quota
from ddmpi.errors import TransitionError

BURST_S = 0.1
"""At most so much of the rate is asked for at once, as a server sees it."""
CATCH_UP_S = 0.03
"""Requests that were not used may be caught up for so long: a loop that polls every 10 ms still reaches the rate. It is
not all of the burst: a busy rank sends late, and what is on its way is pushed together, which a server counts too.
(Where 50 ms were caught up, one server in 61 saw windows above its limit in some runs of ``benchmarks.politeness``.)"""
LEARNED_CATCH_UP_S = 0.05
LEARNED_BURST_S = 0.01
"""A rate that was learned is caught up by so much less: a server that counts strictly must not see a faster one."""
LONGEST_RATE_S = 3_600.0
"""A quota of an hour or less is spread over its time, so that it lasts; of a longer one, as of a day, what is needed is
used at once: few tables are so long that it would not do."""
RETRY_AFTER_MAX_S = DAY_S
"""A server that asks for more is asked again after a day. Not the policy's cap: that one is for pauses of our own."""


class Signal(Enum):
    """What the end of one request says about its server."""

    OK = "ok"
    """The server answered as a healthy one does; a 404 is such an answer."""
    THROTTLED = "throttled"
    """The server asks for fewer requests: 429, 420, an error with Retry-After, or S3's SlowDown."""
    SERVER_ERROR = "server_error"
    """It answered, but that is no reason to go faster: 5xx, 401, an answer that was cut off."""
    FORBIDDEN = "forbidden"
    """403: one file that nobody may have, or, many in a row, a server that will not have us."""
    CONNECT_FAILED = "connect_failed"
    """No connection: name, connect or TLS handshake failed, or took too long."""
    FAILED = "failed"
    """Connected, but no HTTP answer came. Counts for the breaker as well: a server that takes connections and says
    nothing costs a stall timeout for each try of each row, and would keep a run busy for weeks."""
    LOCAL = "local"
    """Ended by us (refused address, soft stop, out of memory): says nothing about the server."""


_NO_STRAIN = (Signal.OK, Signal.FORBIDDEN)
"""A server that forbids many files is not asked for too much; one that forbids all of them is parked."""


class RateLimiter:
    """The pace of one server, as held by one lane.

    Args:
        limits: what this holder may use; 0 means no limit.
        state: what an earlier holder knew, or None for a server that nobody has asked before. Only then may the first
            request start at once: with a state the bucket is empty, and the first token comes after ``1 / rate``.
        rng: jitter of the back-off.
        now: monotonic seconds, as in all methods; must not run backwards.
    """

    __slots__ = (
        "_asked_until",
        "_breaker",
        "_bytes",
        "_incidents",
        "_left_until",
        "_open_since",
        "_overload",
        "_paused_until",
        "_policy",
        "_rate",
        "_refusals",
        "_rng",
        "_slots",
        "_stated_per_s",
        "_stepped_at",
        "_throttles",
        "_token_at",
        "_why",
        "in_flight",
        "limits",
    )

    def __init__(
        self, limits: Limits, policy: PacePolicy, state: PaceState | None, rng: random.Random, now: float
    ) -> None:
        self.limits = limits
        self._policy = policy
        self._rng = rng
        self._slots = limits.connections or sys.maxsize
        self.in_flight = 0

        known = state or NOTHING_LEARNED
        self._rate = AdaptiveRate(limits.rate_per_s, known.rate_per_s, now)
        self._stated_per_s = math.inf  # what the server has said that it takes at any time
        self._left_until = math.inf  # until when it has said that it takes less
        self._overload = OverloadDetector()
        self._refusals = RefusalJudge()
        self._bytes = ByteLimits(limits, known, now)
        # One probe more, also for a server that was given up: whoever starts it again wants to know.
        open_count = min(known.open_count, policy.breaker_probes)
        self._breaker = Breaker(
            policy.breaker_failures, policy.breaker_probes, policy.forbidden_in_a_row, open_count, now
        )

        self._paused_until = now + max(known.wait_s, 0.0)
        self._asked_until = now + known.asked_s  # of that, what the server itself has asked for
        self._token_at = self._paused_until  # when the next token is whole; never before the end of a pause
        if state is not None:
            self.await_token(self._paused_until)
        self._incidents = known.incidents  # throttle incidents that are not forgiven
        self._throttles = known.throttles  # those since the last good answer: the exponent of the back-off
        self._stepped_at = -math.inf
        self._why = known.why  # the last pause
        self._open_since = now - known.since_s  # when the breaker has opened, if it is open

    def __repr__(self) -> str:
        rate = f"{self.rate_per_s:g}/s" if self.rate_per_s else "no limit"
        return f"<RateLimiter {self.in_flight} in flight, {rate}, {self._incidents} incidents, {self._breaker!r}>"

    # ---- what the caller asks

    def ready_at(self, now: float) -> float:
        """When a request may start: ``now``, a later time, or ``math.inf``: not before another one has ended, or
        never because the server is given up."""
        breaker, paid = self._breaker, self._bytes
        if self.in_flight >= self._slots:
            return math.inf
        is_doubtful = breaker.failures or breaker.open_count
        if is_doubtful and (self.in_flight >= breaker.most_in_flight(self._slots) or breaker.tripped):
            return math.inf
        if self.in_flight and paid.is_blind:
            return math.inf
        return max(now, self._token_at, paid.paid_at, paid.budget_until)

    def wait_s(self, now: float) -> float:
        """How long the server is left alone: pause, parking, byte debt or byte budget, in seconds; 0 if not at all."""
        return max(self._paused_until - now, self._bytes.paid_at - now, self._bytes.budget_until - now, 0.0)

    def parked(self, now: float) -> bool:
        """Whether the rows should be kept for later: the breaker, throttling without end, or the day's bytes."""
        if now < self._bytes.budget_until:
            return True
        return self.is_failing and now < self._paused_until

    @property
    def is_failing(self) -> bool:
        """Whether the breaker is open, or throttling goes on without a good answer: a pause may not be the last one."""
        return self._breaker.open_count > 0 or self.throttles_on

    @property
    def throttles_on(self) -> bool:
        """Whether throttling goes on without a good answer."""
        return not self._breaker.open_count and self._throttles >= self._policy.breaker_failures

    @property
    def tripped(self) -> bool:
        """Every probe failed: the server will not be asked again, and its rows are errors."""
        return self._breaker.tripped

    @property
    def is_doubted(self) -> bool:
        """Whether other rows are to be tried: the last ones have ended badly, which may be for them alone."""
        return self._breaker.is_doubted or self._throttles > 1

    @property
    def good_at(self) -> float:
        """When the last request started that was answered well (s, monotonic); -inf: never."""
        return self._refusals.good_at

    @property
    def is_probing(self) -> bool:
        """Whether the only request in flight asks if the server answers again."""
        return self._breaker.open_count > 0 and self.in_flight == 1

    @property
    def rate_per_s(self) -> float:
        """The learned rate; 0 means no limit, and none learned."""
        return self._rate.per_s

    def snapshot(self, now: float) -> PaceState:
        """What the next holder has to know; times become durations from ``now``."""
        self._reset_incidents(now)
        spent_hour, spent_day = self._bytes.spent(now)
        rate_per_s = self._rate.learned_per_s
        if self._stated_per_s < (self.limits.rate_per_s or math.inf):
            rate_per_s = min(rate_per_s or math.inf, self._stated_per_s)
        open_count, paused_s, debt_s = self._breaker.open_count, self._paused_until - now, self._bytes.paid_at - now
        return PaceState(
            rate_per_s=rate_per_s,
            wait_s=max(paused_s, 0.0),
            incidents=self._incidents,
            throttles=self._throttles,
            open_count=open_count,
            spent_hour=spent_hour,
            spent_day=spent_day,
            why=self._why if open_count or paused_s > 0 else "",
            since_s=now - self._open_since if open_count else 0.0,
            debt_s=max(debt_s, 0.0),
            body_bytes=self._bytes.body_bytes,
            asked_s=max(self._asked_until - now, 0.0),
        )

    # ---- what the caller reports

    def start(self, now: float) -> None:
        """A request starts. Raises TransitionError unless ``ready_at(now) <= now``."""
        ready_at = self.ready_at(now)
        if ready_at > now:
            raise TransitionError(f"request started at {now}, allowed at {ready_at}: {self!r}")
        self._bytes.start(now, self.in_flight)
        self.in_flight += 1
        if now >= self._left_until:
            self._left_until = math.inf
            self._rate.set_stated(self._stated_per_s)
        self._rate.started(now)
        if self._rate.per_s:
            interval_s = 1 / self._rate.per_s
            if self._rate.is_learned:
                unused_s = min(max(0.0, LEARNED_CATCH_UP_S - interval_s), LEARNED_BURST_S)
            else:
                unused_s = max(0.0, CATCH_UP_S - interval_s)
            self._token_at = max(self._token_at, now - unused_s) + interval_s

    def finish(
        self,
        now: float,
        started_at: float,
        signal: Signal,
        retry_after_s: float | None = None,
        *,
        body_bytes: int = 0,
        ttfb_s: float = 0.0,
        refused_at: float = -math.inf,
        said: str = "",
    ) -> bool:
        """The request that started at ``started_at`` has ended, and took ``body_bytes`` from the server, of which the
        first came after ``ttfb_s``. Its row was THROTTLED before at ``refused_at``, or never: -inf.

        ``retry_after_s`` is what the server has asked for; None, negative or NaN means that it did not say; ``said`` is
        what it has answered, or how it failed, in a word for people. Raises
        TransitionError when nothing is in flight.

        Returns:
            Whether it was THROTTLED for its URL alone, which says nothing about the server.
        """
        if self.in_flight == 0:
            raise TransitionError(f"request finished that never started: {self!r}")
        self.in_flight -= 1
        self._bytes.charge(now, body_bytes, self.in_flight)
        if signal is Signal.THROTTLED and self._is_of_url(started_at, refused_at, is_told=retry_after_s is not None):
            return True
        if signal is not Signal.LOCAL:
            before_per_s = self._rate.per_s
            if signal is Signal.OK:
                self._refusals.good(started_at, refused_at)
                self._good(now, started_at)
            else:
                self._learn(now, started_at, signal, retry_after_s, said)
            if retry_after_s is not None and retry_after_s > 0:
                why = _joined(said, f"Retry-After {retry_after_s:g} s")
                self._pause_as_asked(why, now, retry_after_s)
            if signal is not Signal.THROTTLED and started_at > self._stepped_at:
                self._look_for_overload(now, ttfb_s, is_bad=signal not in _NO_STRAIN)
            if self._rate.per_s != before_per_s:
                self._wait_anew(now, before_per_s)
        return False

    def _is_of_url(self, started_at: float, refused_at: float, *, is_told: bool) -> bool:
        """What such refusals have cost the server's rate is given back as soon as it is known for them. Before that a
        pause that it asks for is kept."""
        if not self._refusals.refused(refused_at) or (is_told and not self._refusals.is_sure):
            return False
        self._breaker.answered(started_at)
        if self._incidents and self._refusals.is_sure:
            self._incidents = self._throttles = 0
            self._rate.reset_incidents()
        return True

    def heed(self, quota: Quota, part: float, now: float) -> None:
        """Ask for no more than what the server says that it takes, of which ``part`` is this holder's. It lifts no
        limit; a part of less than one request is waited for."""
        before_per_s = self._rate.per_s
        self._stated_per_s = quota.per_s * part
        is_spread = quota.left_s <= LONGEST_RATE_S
        # Nothing but this count keeps what is on its way below what is left of a long quota.
        left = quota.left * part - (0 if is_spread else self.in_flight)
        left_per_s = math.inf
        if left < 1:
            self._pause_as_asked("its quota is used up", now, quota.left_s)
        elif is_spread:
            # They are whole seconds, rounded up: where the rate is known, the last one need not be waited for.
            spread_s = quota.left_s - (quota.per_s < math.inf)
            left_per_s = left / spread_s if spread_s > 0 else math.inf
        self._left_until = now + quota.left_s
        self._rate.set_stated(min(self._stated_per_s, left_per_s))
        self._wait_anew(now, before_per_s)

    def _learn(self, now: float, started_at: float, signal: Signal, retry_after_s: float | None, said: str) -> None:
        """Take in what was no good answer."""
        self._rate.not_good(now)
        if signal is Signal.THROTTLED:
            self._breaker.answered(started_at)
            self._throttled(now, started_at, retry_after_s, said)
        elif signal is Signal.SERVER_ERROR:
            self._breaker.answered(started_at)
        elif signal is Signal.FORBIDDEN:
            if self._breaker.turned_away(started_at):
                self._park(now, started_at, "answers 403 to everything")
        elif self._breaker.unanswered(started_at):
            self._park(now, started_at, _joined(said, "out of reach"))

    def _good(self, now: float, started_at: float) -> None:
        self._breaker.answered(started_at)
        if started_at > self._stepped_at:
            self._throttles = 0
            self._reset_incidents(now)
            self._rate.good(now, started_at)

    def reset_after_outage(self, now: float, since: float) -> None:
        """Requests that found no connection since then did so for reasons of our own: they do not count, and neither
        does a parking. The only case in which a pause becomes shorter: it was not asked for by anybody."""
        paused_until = self._breaker.reset_after_outage(since)
        if paused_until is not None:
            self._paused_until = paused_until
            self._token_at = max(paused_until, now + (1 / self.rate_per_s if self.rate_per_s else 0.0))

    def set_limits(self, limits: Limits, now: float) -> None:
        """The holder's share changed. What was learned keeps its proportion to the limit; more requests in flight
        than the new number of connections just means that none is admitted until there are fewer."""
        old, self.limits = self.limits, limits
        self._slots = limits.connections or sys.maxsize
        if old.rate_per_s != limits.rate_per_s:
            before_per_s = self._rate.per_s
            self._rate.set_limit(limits.rate_per_s)
            self._wait_anew(now, before_per_s)
        self._bytes.set_limits(limits, now)

    # ---- rate

    def _wait_anew(self, now: float, before_per_s: float) -> None:
        """The rate has changed: the missing part of the next token is waited for at the new one."""
        free_at = max(now, self._paused_until)
        if self._token_at > free_at and self._rate.per_s != before_per_s:
            scale = before_per_s / self._rate.per_s if self._rate.per_s else 0.0
            self._token_at = free_at + (self._token_at - free_at) * scale

    def _look_for_overload(self, now: float, ttfb_s: float, *, is_bad: bool) -> None:
        if self._overload.note(ttfb_s, is_bad=is_bad) and not self._breaker.open_count:
            self._rate.overloaded(now)
            self._stepped_at = now

    # ---- throttling

    def _throttled(self, now: float, started_at: float, retry_after_s: float | None, said: str) -> None:
        is_told = retry_after_s is not None and retry_after_s >= 0
        pause_s = min(retry_after_s or 0.0, RETRY_AFTER_MAX_S) if is_told else 0.0
        if started_at > self._stepped_at:
            self._reset_incidents(now)
            self._incidents += 1
            self._throttles += 1
            if not is_told:
                pause_s = self._policy.throttle_pause_s(self._throttles, self._rng)
            self._rate.throttled(now, started_at, pause_s, in_a_row=self._throttles > 1)
            self._stepped_at = now
            self._overload.forget()
        if not is_told:
            self._pause_for(_joined(said, "it throttles"), now, pause_s)

    def _reset_incidents(self, now: float) -> None:
        """Forget incidents after quiet time. A pause is not quiet time: it may be longer than that itself."""
        if self._incidents and now - max(self._stepped_at, self._paused_until) >= self._policy.reset_after_s:
            self._incidents = self._throttles = 0
            self._rate.reset_incidents()

    def await_token(self, now: float) -> None:
        """Have the next request wait for a whole token: what was spent before now is not known."""
        if self.rate_per_s:
            self._token_at = max(self._token_at, now + 1 / self.rate_per_s)

    def pause(self, now: float, pause_s: float) -> None:
        """Keep a pause of ``pause_s`` seconds, at least, that the server asked this holder or another one for."""
        self._paused_until = max(self._paused_until, now + pause_s)
        self._token_at = max(self._token_at, self._paused_until)

    def _pause_as_asked(self, why: str, now: float, pause_s: float) -> None:
        pause_s = min(pause_s, RETRY_AFTER_MAX_S)
        self._asked_until = max(self._asked_until, now + pause_s)
        self._pause_for(why, now, pause_s)

    def _pause_for(self, why: str, now: float, pause_s: float) -> None:
        if now + pause_s > self._paused_until:
            self._why = why
        self.pause(now, pause_s)

    def _park(self, now: float, started_at: float, why: str) -> None:
        """The breaker opens, or a probe has failed. The time that a request took without an answer counts as pause."""
        open_count = self._breaker.park(now, self._paused_until)
        self._open_since = now if open_count == 1 else self._open_since
        self._why = why
        pause_s = self._policy.probe_pause_s(open_count, now, self._rng)
        self.pause(now, max(min(self._policy.backoff_brief_s, pause_s), pause_s - (now - started_at)))


def _joined(said: str, why: str) -> str:
    return f"{said}, {why}" if said else why
