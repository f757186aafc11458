"""Whole paces against modeled servers that do not state their limit: what they settle at, and how soon they follow."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest

from ddmpi.core.pace.adaptive_rate import CLIMB_S, FLOOR_PER_S, HOLD_S, AdaptiveRate
from ddmpi.core.pace.policy import PacePolicy
from ddmpi.core.pace.rate_limiter import RateLimiter, Signal
from ddmpi.core.records import Limits, PaceState

PHASES = ((120.0, 20.0), (120.0, 5.0), (120.0, 40.0))
"""(seconds, requests per second that the server allows)."""
CONNECTIONS = 8
LATE_S = 0.003
"""How late the rank's loop wakes at most."""

Admit = Callable[[float, float], bool]
"""(time, allowed rate) -> whether a request passes."""


def token_bucket(burst: float, burst_s: float = 0.0) -> Admit:
    """As nginx counts: ``burst`` requests at once, or those of ``burst_s`` seconds."""
    tokens, filled_at = math.inf, 0.0

    def admit(now: float, rate_per_s: float) -> bool:
        nonlocal tokens, filled_at
        tokens = min(max(burst, burst_s * rate_per_s), tokens + (now - filled_at) * rate_per_s)
        filled_at = now
        if tokens < 1:
            return False
        tokens -= 1
        return True

    return admit


def windows(window_s: float) -> Admit:
    """So many requests in each second of the clock."""
    window, count = -1, 0

    def admit(now: float, rate_per_s: float) -> bool:
        nonlocal window, count
        if int(now / window_s) != window:
            window, count = int(now / window_s), 0
        count += 1
        return count <= rate_per_s * window_s

    return admit


def allowed_at(now: float) -> float:
    for duration_s, rate_per_s in PHASES:
        if now < duration_s:
            return rate_per_s
        now -= duration_s
    return PHASES[-1][1]


@dataclass(frozen=True)
class Seen:
    """What the server has seen in a span of time."""

    taken_per_s: float
    throttled_share: float


def drive(
    admit: Admit, latency_s: float, seed: int, retry_after_s: float | None = None
) -> Callable[[float, float], Seen]:
    """Keep one pace without a limit busy through all phases; answers what was seen between two times."""
    rng, now, sequence = random.Random(seed), 0.0, 0
    pace = RateLimiter(Limits(0.0, CONNECTIONS), PacePolicy(), None, rng, now)
    under_way: list[tuple[float, int, float, bool]] = []
    log: list[tuple[float, bool]] = []
    while now < sum(duration_s for duration_s, _ in PHASES):
        start_at = pace.ready_at(now) + LATE_S * rng.random()
        if under_way and under_way[0][0] <= start_at:
            now, _, started_at, passed = heapq.heappop(under_way)
            signal = Signal.OK if passed else Signal.THROTTLED
            told_s = retry_after_s if signal is Signal.THROTTLED else None
            pace.finish(now, started_at, signal, told_s, ttfb_s=now - started_at)
            continue
        now = start_at
        pace.start(now)
        passed = admit(now, allowed_at(now))
        log.append((now, passed))
        sequence += 1
        heapq.heappush(under_way, (now + latency_s * rng.uniform(0.8, 1.5), sequence, now, passed))

    def seen(begin: float, end: float) -> Seen:
        passed = [ok for at, ok in log if begin <= at < end]
        return Seen(sum(passed) / (end - begin), 1 - sum(passed) / len(passed))

    return seen


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("latency_s", [0.005, 0.05, 0.15])
@pytest.mark.parametrize(
    ("make", "least_share"),
    [
        pytest.param(lambda: token_bucket(1, burst_s=1.0), 0.85, id="a bucket of a second"),
        pytest.param(lambda: token_bucket(5), 0.85, id="a bucket of five"),
        pytest.param(lambda: token_bucket(2), 0.75, id="hardly any burst"),
        pytest.param(lambda: windows(1.0), 0.75, id="seconds of the clock"),
    ],
)
def test_an_unstated_limit_is_found_and_followed_within_a_minute(
    make: Callable[[], Admit], least_share: float, latency_s: float, seed: int
) -> None:
    seen = drive(make(), latency_s, seed)
    begin = 0.0
    for duration_s, allowed_per_s in PHASES:
        settled = seen(begin + 60, begin + duration_s)
        assert least_share * allowed_per_s <= settled.taken_per_s <= 1.02 * allowed_per_s
        assert settled.throttled_share < 0.02
        begin += duration_s


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("latency_s", [0.02, 0.15])
@pytest.mark.parametrize("burst_s", [0.15, 1.0])
def test_a_server_that_asks_for_pauses_is_asked_for_nearly_its_limit(
    burst_s: float, latency_s: float, seed: int
) -> None:
    """In its pauses a bucket overflows, the smaller it is the more."""
    seen = drive(token_bucket(2, burst_s), latency_s, seed, retry_after_s=2.0)
    for begin, allowed_per_s in ((60.0, 20.0), (180.0, 5.0), (300.0, 40.0)):
        settled = seen(begin, begin + 60)
        assert 0.8 * allowed_per_s <= settled.taken_per_s <= 1.02 * allowed_per_s
        assert settled.throttled_share < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_counts_by_long_windows_is_asked_for_no_more_but_less(seed: int) -> None:
    """Such a server shows its limit late: pauses escalate, and probing becomes rare."""
    seen = drive(windows(10.0), 0.05, seed)
    for begin, allowed_per_s in ((60.0, 20.0), (180.0, 5.0), (300.0, 40.0)):
        settled = seen(begin, begin + 60)
        assert 0.1 * allowed_per_s <= settled.taken_per_s <= allowed_per_s
        assert settled.throttled_share < 0.06


# ---- single steps


def good_until(rate: AdaptiveRate, now: float, until: float) -> float:
    while now < until:
        now += 1 / rate.per_s
        rate.started(now)
        rate.good(now, now)
    return now


def test_after_an_incident_the_rate_returns_to_the_target_and_then_probes_above_it() -> None:
    rate = AdaptiveRate(0.0, 0.0, 0.0)
    for number in range(400):
        rate.started(number / 40)
    rate.throttled(10.0, 10.0, 1.0, in_a_row=False)
    target_per_s = rate.learned_per_s / 0.85
    assert 38 < target_per_s < 40
    now = good_until(rate, 10.0, 10.0 + HOLD_S)
    assert rate.per_s == pytest.approx(target_per_s, rel=0.01)
    good_until(rate, now, now + CLIMB_S)
    assert rate.per_s == pytest.approx(target_per_s * math.e, rel=0.1)


def test_a_rate_that_is_not_used_does_not_climb_above_its_target() -> None:
    rate = AdaptiveRate(0.0, 100.0, 0.0)
    for second in range(200):
        rate.started(float(second))
        rate.good(float(second), float(second))
    assert rate.per_s == pytest.approx(100.0, rel=0.02)


def test_the_limit_is_never_exceeded_however_well_the_server_answers() -> None:
    rate = AdaptiveRate(20.0, 0.0, 0.0)
    rate.throttled(0.0, 0.0, 0.0, in_a_row=False)
    good_until(rate, 0.0, 100.0)
    assert rate.per_s == 20.0


def test_throttling_in_a_row_halves_the_rate_down_to_the_floor() -> None:
    rate, rates = AdaptiveRate(10.0, 0.0, 0.0), []
    for second in range(12):
        rate.throttled(float(second), float(second), 0.0, in_a_row=second > 0)
        rates.append(rate.per_s)
    assert all(later <= 0.5 * earlier or later == FLOOR_PER_S for earlier, later in pairwise(rates))
    assert rates[-1] == FLOOR_PER_S


def test_a_limit_below_the_floor_is_its_own_floor() -> None:
    rate = AdaptiveRate(0.01, 0.0, 0.0)
    rate.throttled(0.0, 0.0, 0.0, in_a_row=False)
    assert rate.per_s == 0.01


def test_a_probe_that_cost_a_long_pause_is_not_repeated_soon() -> None:
    cheap, dear = AdaptiveRate(0.0, 10.0, 0.0), AdaptiveRate(0.0, 10.0, 0.0)
    cheap.throttled(0.0, 0.0, 1.0, in_a_row=False)
    dear.throttled(0.0, 0.0, 60.0, in_a_row=False)
    for rate in (cheap, dear):
        good_until(rate, 0.0, 20.0)
    assert cheap.per_s > 5.0, "above its target"
    assert dear.per_s == 5.0, "its target"


def test_who_takes_over_holds_what_was_learned() -> None:
    state = PaceState(rate_per_s=7.0, incidents=1)
    assert RateLimiter(Limits(20.0, 2), PacePolicy(), state, random.Random(1), 0.0).rate_per_s == 7.0
    assert RateLimiter(Limits(0.0, 2), PacePolicy(), state, random.Random(1), 0.0).rate_per_s == 7.0
    assert RateLimiter(Limits(5.0, 2), PacePolicy(), state, random.Random(1), 0.0).rate_per_s == 5.0
