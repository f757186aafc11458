"""The pace of one server, driven by a fake clock."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.core.pace.adaptive_rate import BACK_SHARE
from ddmpi.core.pace.byte_limits import DAY_S, HOUR_S, SLOTS
from ddmpi.core.pace.overload import ANSWERS
from ddmpi.core.pace.policy import PROBING_LEAST_S, PacePolicy
from ddmpi.core.pace.rate_limiter import BURST_S, CATCH_UP_S, RateLimiter, Signal
from ddmpi.core.records import Limits, PaceState, Quota
from ddmpi.errors import TransitionError

UNLIMITED = Limits(rate_per_s=0, connections=0)
TOOK_S = 0.1
"""A request without an answer counts as pause."""
PLAIN = PacePolicy(jitter=0.0, job_began_at=-1e6)


def new_pace(limits: Limits = UNLIMITED, state: PaceState | None = None, policy: PacePolicy = PLAIN) -> RateLimiter:
    return RateLimiter(limits, policy, state, random.Random(1), now=0.0)


def request(
    pace: RateLimiter, at: float, signal: Signal, took_s: float = TOOK_S, retry_after_s: float | None = None
) -> float:
    """One whole request that starts at ``at`` or as soon as the pace lets it; returns when it ended."""
    started_at = pace.ready_at(at)
    pace.start(started_at)
    pace.finish(started_at + took_s, started_at, signal, retry_after_s)
    return started_at + took_s


def requests(pace: RateLimiter, at: float, *signals: Signal) -> float:
    for signal in signals:
        at = request(pace, at, signal)
    return at


def starts_until(pace: RateLimiter, now: float, until: float) -> int:
    """How many requests an eager caller can start before ``until``, each of which ends well at once."""
    count = 0
    while (now := pace.ready_at(now)) < until:
        pace.start(now)
        pace.finish(now, now, Signal.OK)
        count += 1
    return count


# ---- rate


def test_the_first_request_to_a_new_server_starts_at_once_and_the_next_waits_for_its_token() -> None:
    pace = new_pace(Limits(rate_per_s=4))
    assert pace.ready_at(0.0) == 0.0
    pace.start(0.0)
    assert pace.ready_at(0.0) == 0.25


def test_a_pace_that_continues_another_starts_with_an_empty_bucket() -> None:
    assert new_pace(Limits(rate_per_s=4), PaceState()).ready_at(0.0) == 0.25


def test_no_limit_means_no_waiting() -> None:
    pace = new_pace()
    for _ in range(10_000):
        pace.start(0.0)
    assert (pace.ready_at(0.0), pace.in_flight, pace.rate_per_s) == (0.0, 10_000, 0.0)


@pytest.mark.parametrize("rate_per_s", [0.01, 1.0, 10.0, 33.0, 200.0, 1000.0])
def test_an_eager_caller_reaches_the_limit_and_no_more(rate_per_s: float) -> None:
    span_s = 200 / rate_per_s
    count = starts_until(new_pace(Limits(rate_per_s=rate_per_s)), 0.0, until=span_s)
    assert 199 <= count <= 200 + max(1.0, rate_per_s * BURST_S)


def test_time_that_was_not_used_is_caught_up_for_a_part_of_the_burst_only() -> None:
    pace = new_pace(Limits(rate_per_s=100, connections=0))
    now = 50.0
    while pace.ready_at(now) == now:
        pace.start(now)
    assert pace.in_flight == 100 * CATCH_UP_S < 100 * BURST_S / 2


def test_a_request_that_is_not_due_is_a_bug_of_the_caller() -> None:
    pace = new_pace(Limits(rate_per_s=1))
    pace.start(0.0)
    with pytest.raises(TransitionError, match="allowed at 1"):
        pace.start(0.5)


def test_an_end_without_a_start_is_a_bug_of_the_caller() -> None:
    with pytest.raises(TransitionError, match="never started"):
        new_pace().finish(1.0, 0.0, Signal.OK)


def test_connections_in_use_make_the_next_request_wait_for_an_end() -> None:
    pace = new_pace(Limits(connections=2))
    pace.start(0.0)
    pace.start(0.0)
    assert pace.ready_at(1.0) == math.inf
    pace.finish(2.0, 0.0, Signal.OK)
    assert pace.ready_at(2.0) == 2.0


# ---- bytes


def test_a_body_is_paid_back_before_the_next_request() -> None:
    pace = new_pace(Limits(bytes_per_s=1000))
    pace.start(0.0)
    pace.finish(2.0, 0.0, Signal.OK, body_bytes=5000)
    assert (pace.ready_at(2.0), pace.wait_s(2.0), pace.parked(2.0)) == (5.0, 3.0, False)


def test_the_time_in_which_a_body_came_in_has_paid_for_it() -> None:
    pace = new_pace(Limits(bytes_per_s=1000))
    pace.start(0.0)
    pace.finish(6.0, 0.0, Signal.OK, body_bytes=5000)
    assert pace.ready_at(6.0) == 6.0


def test_until_a_body_has_told_what_one_takes_they_come_one_by_one() -> None:
    pace = new_pace(Limits(bytes_per_s=1000))
    pace.start(0.0)
    assert pace.ready_at(5.0) == math.inf
    pace.finish(6.0, 0.0, Signal.OK)
    pace.start(6.0)
    assert pace.ready_at(6.0) == math.inf, "an empty body tells nothing"
    pace.finish(6.0, 6.0, Signal.OK, body_bytes=500)
    assert pace.ready_at(6.0) == 6.5


def test_a_request_is_charged_what_a_body_is_likely_to_take() -> None:
    pace = pace_that_knows_bodies(5000)
    pace.start(5.0)
    assert pace.ready_at(5.0) == 10.0, "not before it is paid for, although nothing has come yet"
    pace.start(10.0)
    pace.finish(11.0, 10.0, Signal.OK, body_bytes=1000)
    assert pace.ready_at(11.0) == pytest.approx(11.0), "and what it did not take is given back"
    pace.finish(11.0, 5.0, Signal.OK, body_bytes=9000)
    assert pace.ready_at(11.0) > 14.0, "as what it took beyond is charged"


def test_the_next_holder_waits_for_one_body_more_than_it_knows_of() -> None:
    state = pace_that_knows_bodies(5000).snapshot(5.0)
    assert (state.debt_s, state.wait_s, state.body_bytes) == (0.0, 0.0, 5000.0)
    assert new_pace(Limits(bytes_per_s=1000), state).ready_at(0.0) == 5.0
    owing = msgspec.structs.replace(state, debt_s=60.0)
    assert new_pace(Limits(bytes_per_s=1000), owing).ready_at(0.0) == 60.0


def pace_that_knows_bodies(body_bytes: int) -> RateLimiter:
    """At 1000 bytes per second, with nothing to pay at 5 s."""
    pace = new_pace(Limits(bytes_per_s=1000))
    pace.start(0.0)
    pace.finish(0.0, 0.0, Signal.OK, body_bytes=body_bytes)
    return pace


@pytest.mark.parametrize(
    ("limits", "window_s"),
    [
        pytest.param(Limits(bytes_per_hour=100), HOUR_S, id="an hour"),
        pytest.param(Limits(bytes_per_day=100), DAY_S, id="a day"),
        pytest.param(Limits(bytes_per_hour=100, bytes_per_day=100), DAY_S, id="the longer one of both"),
    ],
)
def test_a_spent_byte_budget_parks_the_server_until_bytes_are_out_of_the_window(
    limits: Limits, window_s: float
) -> None:
    pace = new_pace(limits)
    pace.start(10.0)
    pace.finish(11.0, 10.0, Signal.OK, body_bytes=60)
    assert not pace.parked(11.0)
    pace.start(12.0)
    pace.finish(13.0, 12.0, Signal.OK, body_bytes=60)
    assert pace.parked(13.0)
    free_at = pace.ready_at(13.0)
    assert 11.0 + window_s <= free_at <= 11.0 + window_s * (1 + 1 / SLOTS)
    assert not pace.parked(free_at)


def test_a_spent_budget_is_spent_for_the_next_holder_too() -> None:
    limits = Limits(bytes_per_day=100)
    pace = new_pace(limits)
    pace.start(0.0)
    pace.finish(1.0, 0.0, Signal.OK, body_bytes=100)
    free_at = pace.ready_at(400.0)
    heir = RateLimiter(limits, PLAIN, pace.snapshot(400.0), random.Random(1), now=0.0)
    assert heir.parked(0.0)
    assert heir.ready_at(0.0) == pytest.approx(free_at - 400)
    heir.start(free_at - 400)
    assert heir.snapshot(free_at - 400).spent_day == ()


def test_a_larger_budget_ends_the_parking() -> None:
    pace = new_pace(Limits(bytes_per_day=100))
    pace.start(0.0)
    pace.finish(1.0, 0.0, Signal.OK, body_bytes=100)
    pace.set_limits(Limits(bytes_per_day=200), 2.0)
    assert pace.ready_at(2.0) == 2.0
    assert pace.snapshot(2.0).spent_day[0][1] == 100


# ---- throttling


def test_retry_after_stops_the_server_for_that_long() -> None:
    pace = new_pace(Limits(rate_per_s=10))
    end = request(pace, 0.0, Signal.THROTTLED, retry_after_s=17.0)
    assert pace.ready_at(end) == end + 17
    assert pace.wait_s(end) == 17
    assert not pace.parked(end)


@pytest.mark.parametrize(
    ("retry_after_s", "pause_s"),
    [
        pytest.param(None, 1.0, id="without Retry-After briefly at first"),
        pytest.param(-5.0, 1.0, id="a negative one is as good as none"),
        pytest.param(math.nan, 1.0, id="not a number is as good as none"),
        pytest.param(0.0, 0.0, id="zero is taken at its word"),
        pytest.param(1e12, DAY_S, id="a huge one is a day"),
        pytest.param(math.inf, DAY_S, id="for ever is a day"),
    ],
)
def test_how_long_a_throttled_server_is_left_alone(retry_after_s: float | None, pause_s: float) -> None:
    pace = new_pace()
    end = request(pace, 0.0, Signal.THROTTLED, retry_after_s=retry_after_s)
    assert pace.wait_s(end) == pytest.approx(pause_s)


def test_a_short_cap_of_ours_does_not_shorten_what_the_server_asked_for() -> None:
    pace = new_pace(policy=PacePolicy(backoff_base_s=1, backoff_cap_s=5))
    end = request(pace, 0.0, Signal.THROTTLED, retry_after_s=30.0)
    assert pace.wait_s(end) == 30


def test_answers_of_one_incident_are_one_step() -> None:
    pace = new_pace(Limits(rate_per_s=200, connections=6))
    for _ in range(6):
        pace.start(1.0)
    for number in range(6):
        pace.finish(1.1 + number / 100, 1.0, Signal.THROTTLED)
    assert pace.rate_per_s == 100 * BACK_SHARE
    assert pace.snapshot(2.0).incidents == 1
    assert pace.wait_s(1.1) == pytest.approx(1)


def test_a_late_answer_of_an_incident_still_has_its_retry_after_honored() -> None:
    pace = new_pace(Limits(rate_per_s=100, connections=2))
    pace.start(1.0)
    pace.start(1.0)
    pace.finish(2.0, 1.0, Signal.THROTTLED, 5.0)
    pace.finish(3.0, 1.0, Signal.THROTTLED, 100.0)
    assert (pace.wait_s(3.0), pace.rate_per_s) == (100, 50 * BACK_SHARE)


def test_a_later_and_shorter_retry_after_does_not_shorten_the_pause() -> None:
    pace = new_pace(Limits(connections=2))
    pace.start(0.0)
    pace.start(0.0)
    pace.finish(1.0, 0.0, Signal.THROTTLED, 500.0)
    pace.finish(2.0, 0.0, Signal.THROTTLED, 1.0)
    assert (pace.ready_at(2.0), pace.wait_s(2.0)) == (501, 499)


@pytest.mark.parametrize("signal", [Signal.OK, Signal.SERVER_ERROR, Signal.FORBIDDEN])
def test_any_answer_may_ask_for_a_pause(signal: Signal) -> None:
    pace = new_pace(Limits(rate_per_s=10))
    end = request(pace, 0.0, signal, retry_after_s=17.0)
    assert (pace.wait_s(end), pace.rate_per_s, pace.snapshot(end).incidents) == (17, 10, 0)
    assert request(pace, end, signal, retry_after_s=1e12) > 0
    assert pace.wait_s(end + 17.1) == pytest.approx(DAY_S)


# ---- what the server states


def test_what_of_a_pause_was_asked_for_is_known() -> None:
    pace = new_pace(Limits(rate_per_s=10))
    pace.start(0.0)
    pace.finish(0.1, 0.0, Signal.THROTTLED)
    assert (pace.snapshot(0.1).asked_s, pace.snapshot(0.1).wait_s > 0) == (0.0, True)
    later = pace.ready_at(0.1)
    pace.start(later)
    pace.finish(later, later, Signal.OK, 30.0)
    assert pace.snapshot(later + 10.0).asked_s == pytest.approx(20.0)
    assert new_pace(Limits(rate_per_s=10), pace.snapshot(later + 10.0)).snapshot(5.0).asked_s == pytest.approx(15.0)
    assert pace.snapshot(later + 60.0).asked_s == 0.0


def test_a_server_is_asked_at_the_rate_that_it_states_where_that_is_lower() -> None:
    pace = new_pace(Limits(rate_per_s=50))
    pace.heed(Quota(20.0), 1.0, 0.0)
    assert starts_until(pace, 0.0, until=10.0) == pytest.approx(200, abs=1)
    pace.heed(Quota(20.0), 0.25, 10.0)
    assert pace.rate_per_s == 5.0
    pace.heed(Quota(1_000.0), 1.0, 10.0)
    assert pace.rate_per_s == 50.0


def test_what_is_left_is_spread_over_its_time_and_then_the_rate_is_what_it_was() -> None:
    pace = new_pace(UNLIMITED)
    pace.heed(Quota(left=10, left_s=20), 1.0, 0.0)
    assert starts_until(pace, 0.0, until=20.0) == pytest.approx(10, abs=1)
    pace.start(pace.ready_at(20.0))
    assert pace.rate_per_s == 0.0


def test_the_last_second_is_not_waited_for_where_the_rate_is_known() -> None:
    pace = new_pace(UNLIMITED)
    pace.heed(Quota(19.0, left=3, left_s=1), 1.0, 0.0)
    assert pace.rate_per_s == 19.0
    pace.heed(Quota(1.65, left=2, left_s=41), 1.0, 0.0)
    assert pace.rate_per_s == 2 / 40


@pytest.mark.parametrize(("left", "part"), [(0, 1.0), (3, 0.25)])
def test_a_server_that_has_nothing_left_for_us_is_left_alone_for_so_long(left: int, part: float) -> None:
    pace = new_pace(Limits(rate_per_s=10))
    pace.heed(Quota(left=left, left_s=30), part, 5.0)
    assert (pace.wait_s(5.0), pace.parked(5.0), pace.ready_at(5.0)) == (30, False, 35)
    assert pace.rate_per_s == 10
    pace.heed(Quota(left=100, left_s=29), part, 6.0)
    assert pace.ready_at(6.0) == 35, "a pause is never shortened"


def test_a_quota_of_a_day_is_used_at_once_and_never_beyond_what_is_left() -> None:
    pace = new_pace(Limits(connections=4))
    for _ in range(4):
        pace.start(0.0)
    pace.finish(1.0, 0.0, Signal.OK)
    pace.heed(Quota(left=4, left_s=DAY_S / 2), 1.0, 1.0)
    assert (pace.ready_at(1.0), pace.rate_per_s) == (1.0, 0.0)
    pace.heed(Quota(left=3, left_s=DAY_S / 2), 1.0, 1.0)
    assert pace.wait_s(1.0) == DAY_S / 2, "the three that are left are on their way"


def test_what_a_server_states_is_passed_on_and_neither_objection_nor_quiet_time_lifts_it() -> None:
    pace = new_pace(Limits(rate_per_s=100))
    pace.heed(Quota(20.0), 1.0, 0.0)
    assert pace.snapshot(0.0).rate_per_s == 20.0
    assert new_pace(Limits(rate_per_s=100), pace.snapshot(0.0)).rate_per_s == 20.0
    end = request(pace, 0.0, Signal.THROTTLED, retry_after_s=0.0)
    assert pace.rate_per_s == 10 * BACK_SHARE
    for _ in range(10_000):
        end = request(pace, end, Signal.OK)
        assert pace.rate_per_s <= 20.0
    assert pace.rate_per_s == 20.0
    request(pace, end + PLAIN.reset_after_s, Signal.OK)
    assert pace.rate_per_s == 20.0
    pace.heed(Quota(200.0), 1.0, end)
    assert pace.snapshot(end).rate_per_s == 0.0, "the limit is lower"


# ---- throttling that goes on


def test_throttling_that_goes_on_makes_the_pauses_longer_up_to_the_cap() -> None:
    pace = new_pace(Limits(rate_per_s=10))
    now, pauses = 0.0, []
    for _ in range(15):
        now = request(pace, now, Signal.THROTTLED)
        pauses.append(round(pace.wait_s(now)))
    assert pauses == [1, 4, 16] + [60 * 2**n for n in range(11)] + [86_400]


def test_a_server_that_answers_well_in_between_is_left_alone_briefly_each_time() -> None:
    pace = new_pace(Limits(rate_per_s=10))
    now = 0.0
    for _ in range(5):
        now = requests(pace, now, Signal.OK, Signal.THROTTLED)
        assert pace.wait_s(now) == pytest.approx(1)


def test_jitter_only_lengthens() -> None:
    waits = set()
    for seed in range(50):
        pace = RateLimiter(UNLIMITED, PacePolicy(jitter=0.1), None, random.Random(seed), now=0.0)
        waits.add(pace.wait_s(request(pace, 0.0, Signal.THROTTLED)))
    assert len(waits) > 40
    assert all(1 <= wait_s <= 1.1 for wait_s in waits)


def test_incidents_are_forgiven_after_quiet_time_and_a_pause_is_not_quiet_time() -> None:
    pace = new_pace(Limits(rate_per_s=10))
    now = 0.0
    for _ in range(10):
        now = request(pace, now, Signal.THROTTLED)
    assert pace.wait_s(now) > 1800
    pause_end = now + pace.wait_s(now)
    assert pace.snapshot(pause_end).incidents == 10
    assert pace.snapshot(pause_end + 1799).incidents == 10
    assert pace.snapshot(pause_end + 1800).incidents == 0
    assert pace.rate_per_s == 10


def test_an_incident_after_quiet_time_backs_off_like_the_first_one() -> None:
    pace = new_pace()
    end = requests(pace, 0.0, *[Signal.THROTTLED] * 3)
    end = request(pace, end + pace.wait_s(end) + 1800, Signal.THROTTLED)
    assert pace.wait_s(end) == pytest.approx(1)


def test_requests_that_started_before_a_step_do_not_raise_the_rate() -> None:
    pace = new_pace(Limits(rate_per_s=100, connections=2))
    pace.start(1.0)
    pace.start(1.0)
    pace.finish(2.0, 1.0, Signal.THROTTLED)
    pace.finish(9.0, 1.0, Signal.OK)
    assert pace.rate_per_s == 50 * BACK_SHARE


def test_errors_slow_a_server_down_to_an_eighth_and_no_further() -> None:
    pace, now = new_pace(Limits(rate_per_s=80)), 0.0
    now = requests(pace, now, *[Signal.SERVER_ERROR] * ANSWERS)
    assert pace.rate_per_s == pytest.approx(64)
    assert pace.wait_s(now) == 0
    requests(pace, now, *[Signal.SERVER_ERROR] * ANSWERS * 20)
    assert pace.rate_per_s == pytest.approx(10)


def test_slow_answers_slow_the_server_down() -> None:
    pace, now = new_pace(Limits(rate_per_s=80, connections=50)), 0.0
    for latency_s in [0.1] * ANSWERS + [0.4] * ANSWERS + [2.0] * ANSWERS:
        assert pace.rate_per_s == 80
        now = pace.ready_at(now)
        pace.start(now)
        pace.finish(now, now, Signal.OK, ttfb_s=latency_s)
    assert pace.rate_per_s == pytest.approx(64)


def test_errors_that_are_few_change_nothing() -> None:
    pace = new_pace(Limits(rate_per_s=80))
    requests(pace, 0.0, *[Signal.OK, Signal.OK, Signal.OK, Signal.SERVER_ERROR] * ANSWERS)
    assert pace.rate_per_s == 80


@pytest.mark.parametrize("signal", [Signal.SERVER_ERROR, Signal.FAILED, Signal.CONNECT_FAILED, Signal.LOCAL])
def test_other_ends_do_not_raise_the_rate(signal: Signal) -> None:
    pace = new_pace(Limits(rate_per_s=20))
    now = request(pace, 0.0, Signal.THROTTLED, retry_after_s=0.0)
    rate_per_s = pace.rate_per_s
    requests(pace, now, signal, signal, signal, signal)
    assert pace.rate_per_s == rate_per_s


def test_throttling_without_end_parks_the_server_while_the_pause_lasts_and_never_kills_it() -> None:
    pace = new_pace()
    end = requests(pace, 0.0, *[Signal.THROTTLED] * 4)
    assert not pace.parked(end)
    end = request(pace, end, Signal.THROTTLED)
    assert pace.parked(end)
    assert not pace.parked(end + pace.wait_s(end))
    requests(pace, end, *[Signal.THROTTLED] * 50)
    assert not pace.tripped


def test_throttling_without_end_is_handed_on() -> None:
    pace = new_pace()
    end = requests(pace, 0.0, *[Signal.THROTTLED] * 5)
    assert new_pace(state=pace.snapshot(end)).parked(0.0)


def test_one_good_answer_in_between_is_not_throttling_without_end() -> None:
    pace = new_pace()
    end = requests(pace, 0.0, *[Signal.THROTTLED] * 4, Signal.OK, *[Signal.THROTTLED] * 4)
    assert pace.wait_s(end) > 0
    assert not pace.parked(end)


# ---- breaker


@pytest.mark.parametrize("signal", [Signal.CONNECT_FAILED, Signal.FAILED])
def test_requests_without_an_answer_park_the_server(signal: Signal) -> None:
    pace = new_pace()
    end = requests(pace, 0.0, *[signal] * 4)
    assert not pace.parked(end)
    end = request(pace, end, signal)
    assert pace.parked(end)
    assert pace.wait_s(end) == pytest.approx(60 - TOOK_S)
    assert pace.snapshot(end).open_count == 1


@pytest.mark.parametrize("signal", [Signal.OK, Signal.SERVER_ERROR, Signal.THROTTLED])
def test_any_answer_starts_the_count_of_failures_anew(signal: Signal) -> None:
    pace = new_pace()
    requests(pace, 0.0, *[Signal.CONNECT_FAILED] * 4, signal, *[Signal.CONNECT_FAILED] * 4)
    assert pace.snapshot(1e4).open_count == 0


def test_requests_that_were_in_flight_when_the_server_was_parked_do_not_park_it_again() -> None:
    pace = new_pace(Limits(connections=8))
    for _ in range(8):
        pace.start(0.0)
    for number in range(8):
        pace.finish(10.0 + number, 0.0, Signal.CONNECT_FAILED)
    assert pace.snapshot(17.0).open_count == 1
    assert pace.ready_at(17.0) == 60.0, "counted from when they started"


def test_a_late_answer_from_before_the_parking_does_not_end_it() -> None:
    pace = new_pace(Limits(connections=6))
    for _ in range(6):
        pace.start(0.0)
    for _ in range(5):
        pace.finish(10.0, 0.0, Signal.CONNECT_FAILED)
    pace.finish(11.0, 0.0, Signal.OK)
    assert pace.parked(11.0)


def start_all(pace: RateLimiter, now: float) -> int:
    """Start what may start now; return how many are in flight."""
    while pace.ready_at(now) <= now:
        pace.start(now)
    return pace.in_flight


def test_a_server_that_leaves_requests_without_an_answer_has_no_more_of_them_than_park_it() -> None:
    pace = new_pace(Limits(connections=8))
    in_flight = [start_all(pace, 0.0)]
    for number in range(4):
        pace.finish(20.0 + number, 0.0, Signal.FAILED)
        in_flight.append(start_all(pace, 20.0 + number))
    assert in_flight == [8, 7, 6, 5, 4]
    for number in range(4):
        pace.finish(24.0 + number, 0.0, Signal.FAILED)
    assert start_all(pace, 27.0) == 0, "it is parked, and nothing keeps its first probe waiting"


def test_an_answer_gives_a_server_all_of_its_connections_back() -> None:
    pace = new_pace(Limits(connections=8))
    for _ in range(6):
        pace.start(0.0)
    pace.finish(1.0, 0.0, Signal.FAILED)
    pace.finish(1.0, 0.0, Signal.FAILED)
    assert start_all(pace, 1.0) == 4
    pace.finish(2.0, 0.0, Signal.SERVER_ERROR)
    assert start_all(pace, 2.0) == 8


def test_a_server_that_takes_connections_and_says_nothing_is_given_up_after_its_three_minutes_and_few_requests() -> (
    None
):
    stall_s, policy = 20.0, PacePolicy(jitter=0.0)
    pace = new_pace(Limits(rate_per_s=10, connections=8), policy=policy)
    started: list[float] = []
    ended, now = 0, 0.0
    while not pace.tripped:
        now = min(pace.ready_at(now), started[ended] + stall_s if pace.in_flight else math.inf)
        if pace.in_flight and now >= started[ended] + stall_s:
            pace.finish(now, started[ended], Signal.FAILED)
            ended += 1
        else:
            pace.start(now)
            started.append(now)
    assert len(started) == 8 + policy.breaker_probes
    assert PROBING_LEAST_S < started[-1] - started[7] < PROBING_LEAST_S + 2 * stall_s


def half_open() -> tuple[RateLimiter, float]:
    pace = new_pace(Limits(connections=8))
    end = requests(pace, 0.0, *[Signal.CONNECT_FAILED] * 5)
    return pace, pace.ready_at(end)


def test_after_the_pause_one_probe_at_a_time_is_let_through() -> None:
    pace, now = half_open()
    assert not pace.parked(now)
    pace.start(now)
    assert pace.ready_at(now) == math.inf


@pytest.mark.parametrize("signal", [Signal.OK, Signal.SERVER_ERROR])
def test_a_probe_that_is_answered_closes_the_breaker(signal: Signal) -> None:
    pace, now = half_open()
    end = request(pace, now, signal)
    pace.start(end)
    assert pace.ready_at(end) == end
    assert pace.snapshot(end).open_count == 0


def test_a_probe_that_ended_for_reasons_of_our_own_says_nothing() -> None:
    pace, now = half_open()
    end = request(pace, now, Signal.LOCAL)
    assert pace.ready_at(end) == end
    assert pace.snapshot(end).open_count == 1


def test_failed_probes_double_the_pause_and_the_last_one_kills() -> None:
    pace, now = half_open()
    pauses = []
    while not pace.tripped:
        now = request(pace, now, Signal.CONNECT_FAILED)
        pauses.append(round(pace.wait_s(now)))
    assert pauses == [120, 240, 480, 960, 1920]
    assert pace.ready_at(now + DAY_S) == math.inf
    with pytest.raises(TransitionError, match="tripped"):
        pace.start(now + DAY_S)


def test_who_takes_over_a_dead_server_may_probe_it_once() -> None:
    pace, now = half_open()
    while not pace.tripped:
        now = request(pace, now, Signal.CONNECT_FAILED)
    heir = new_pace(state=pace.snapshot(now))
    assert not heir.tripped
    request(heir, 0.0, Signal.CONNECT_FAILED)
    assert heir.tripped


FORBIDDEN = PacePolicy().forbidden_in_a_row


@pytest.mark.parametrize(
    ("bad", "most"), [(Signal.FORBIDDEN, FORBIDDEN), (Signal.CONNECT_FAILED, 5), (Signal.FAILED, 5)]
)
@pytest.mark.parametrize("between", [Signal.OK, Signal.SERVER_ERROR, Signal.THROTTLED, Signal.FORBIDDEN])
def test_an_answer_of_another_kind_ends_a_row_of_bad_ones(bad: Signal, most: int, between: Signal) -> None:
    pace, others = new_pace(), [between] if between is not bad else [Signal.OK]
    now = requests(pace, 0.0, *[bad] * (most - 1), *others, *[bad] * (most - 1))
    assert pace.snapshot(now).open_count == 0
    assert pace.snapshot(request(pace, now, bad)).open_count == 1


def test_one_403_is_an_answer_and_many_in_a_row_park_the_server() -> None:
    pace = new_pace()
    now = requests(pace, 0.0, *[Signal.FORBIDDEN] * (FORBIDDEN - 1))
    now = requests(pace, now, Signal.OK, *[Signal.FORBIDDEN] * (FORBIDDEN - 1))
    assert not pace.parked(now)
    now = request(pace, now, Signal.FORBIDDEN)
    assert pace.parked(now)
    assert pace.wait_s(now) == pytest.approx(60 - TOOK_S)
    now = request(pace, now, Signal.FORBIDDEN)
    assert pace.wait_s(now) == pytest.approx(120 - TOOK_S), "a probe that is turned away has failed"
    now = request(pace, now, Signal.OK)
    assert pace.snapshot(now).open_count == 0


# ---- hand-over and shares


def test_a_snapshot_keeps_everything_that_the_next_holder_needs() -> None:
    limits = Limits(rate_per_s=10, bytes_per_day=1e9)
    state = PaceState(rate_per_s=2.5, wait_s=40.0, incidents=3, open_count=2, throttles=1, spent_day=((50.0, 1e6),))
    assert new_pace(limits, state).snapshot(0.0) == state
    assert new_pace(limits, state).snapshot(10.0).wait_s == 30.0


def test_a_pause_goes_on_at_the_next_holder() -> None:
    pace = new_pace(Limits(rate_per_s=10))
    end = requests(pace, 0.0, *[Signal.CONNECT_FAILED] * 5)
    heir = new_pace(Limits(rate_per_s=10), pace.snapshot(end + 20))
    assert heir.parked(0.0)
    assert heir.ready_at(0.0) == pytest.approx(40.1 - TOOK_S)
    heir.start(41.0)
    assert heir.ready_at(41.0) == math.inf


def test_half_of_a_share_is_half_of_what_was_learned() -> None:
    pace = new_pace(Limits(rate_per_s=10, connections=4))
    end = request(pace, 0.0, Signal.THROTTLED, retry_after_s=0.0)
    learned_per_s = pace.rate_per_s
    pace.set_limits(Limits(rate_per_s=5, connections=2), end)
    assert pace.rate_per_s == learned_per_s / 2
    pace.set_limits(Limits(rate_per_s=20, connections=2), end)
    assert pace.rate_per_s == learned_per_s * 2


def test_what_was_learned_outlives_the_limit() -> None:
    pace = new_pace(Limits(rate_per_s=20))
    now = request(pace, 0.0, Signal.THROTTLED, retry_after_s=0.0)
    pace.set_limits(UNLIMITED, now)
    assert pace.rate_per_s == 10 * BACK_SHARE


@pytest.mark.parametrize(
    ("before", "after", "rate_per_s"),
    [
        pytest.param(10.0, 7.0, 7.0, id="a smaller limit counts at once"),
        pytest.param(49.0, 1.0, 1.0, id="nothing learned: the new limit, to the last bit"),
        pytest.param(0.0, 4.0, 4.0, id="a limit where there was none"),
        pytest.param(4.0, 0.0, 0.0, id="no limit any more"),
    ],
)
def test_a_changed_limit_of_a_server_that_never_complained(before: float, after: float, rate_per_s: float) -> None:
    pace = new_pace(Limits(rate_per_s=before))
    pace.set_limits(Limits(rate_per_s=after), 1.0)
    assert pace.rate_per_s == rate_per_s


def test_the_missing_part_of_a_token_is_waited_for_at_the_new_rate() -> None:
    pace = new_pace(Limits(rate_per_s=1))
    pace.start(0.0)
    pace.set_limits(Limits(rate_per_s=0.5), 0.5)
    assert pace.ready_at(0.5) == 1.5
    pace.set_limits(Limits(rate_per_s=2), 0.5)
    assert pace.ready_at(0.5) == 0.75


def test_a_pause_is_not_changed_by_a_new_limit() -> None:
    pace = new_pace(Limits(rate_per_s=1))
    end = request(pace, 0.0, Signal.THROTTLED, retry_after_s=100.0)
    pace.set_limits(Limits(rate_per_s=0.1), end)
    assert pace.ready_at(end) == end + 100


def test_fewer_connections_let_nothing_start_until_enough_have_ended() -> None:
    pace = new_pace(Limits(connections=4))
    for _ in range(4):
        pace.start(0.0)
    pace.set_limits(Limits(connections=2), 1.0)
    for now in (2.0, 3.0):
        pace.finish(now, 0.0, Signal.OK)
        assert pace.ready_at(now) == math.inf
    pace.finish(4.0, 0.0, Signal.OK)
    assert pace.ready_at(4.0) == 4.0


def test_a_byte_debt_is_paid_back_at_the_new_rate() -> None:
    pace = new_pace(Limits(bytes_per_s=100))
    pace.start(0.0)
    pace.finish(0.0, 0.0, Signal.OK, body_bytes=1000)
    pace.set_limits(Limits(bytes_per_s=50), 5.0)
    assert pace.ready_at(5.0) == 15.0
    pace.set_limits(Limits(), 5.0)
    assert pace.ready_at(5.0) == 5.0


def test_the_text_of_a_pace_has_its_counts() -> None:
    pace, now = half_open()
    pace.start(now)
    assert repr(pace) == "<RateLimiter 1 in flight, no limit, 0 incidents, 5 failures, 1 times open>"


# ---- the promises, whatever happens

SHORT = PacePolicy(
    backoff_brief_s=0.01, backoff_base_s=0.05, backoff_cap_s=0.4, jitter=0.1, reset_after_s=2.0, breaker_probes=1_000
)
MAX_BODY_BYTES = 1_000


@dataclass
class Driver:
    """An eager caller that keeps a pace as busy as it lets itself be kept, and writes down what started when."""

    limits: Limits
    pace: RateLimiter
    now: float = 0.0
    starts: list[float] = field(default_factory=list)
    bodies_bytes: list[int] = field(default_factory=list)
    in_flight: list[tuple[int, float]] = field(default_factory=list)
    told_until: float = 0.0
    parked: bool = False

    def start(self) -> None:
        at = self.pace.ready_at(self.now)
        if at == math.inf:
            assert self.in_flight, "nothing may start, and nothing can end"
            return
        assert at >= self.told_until, "the server asked for more time"
        self.now = at
        self.pace.start(at)
        self.in_flight.append((len(self.starts), at))
        self.starts.append(at)
        self.bodies_bytes.append(0)
        connections = 1 if self.parked else self.limits.connections or math.inf
        assert len(self.in_flight) == self.pace.in_flight <= connections

    def finish(self, choice: int, signal: Signal, retry_after_s: float | None, body_bytes: int) -> None:
        if not self.in_flight:
            return
        index, started_at = self.in_flight.pop(choice % len(self.in_flight))
        before = self.pause_s
        self.pace.finish(self.now, started_at, signal, retry_after_s, body_bytes=body_bytes)
        self.bodies_bytes[index] = body_bytes
        assert self.pause_s >= before, "a pause was shortened"
        if signal is not Signal.LOCAL and retry_after_s is not None:
            self.told_until = max(self.told_until, self.now + retry_after_s)
        self.parked = self.pace.snapshot(self.now).open_count > 0

    @property
    def pause_s(self) -> float:
        return self.pace.snapshot(self.now).wait_s

    def heed(self, quota: Quota) -> None:
        before = self.pause_s
        self.pace.heed(quota, 0.5, self.now)
        assert self.pause_s >= before, "a pause was shortened"

    def hand_over(self) -> None:
        """The lane moves; its next holder has another clock, but here time just goes on."""
        if not self.in_flight:
            state = self.pace.snapshot(self.now)
            self.pace = RateLimiter(self.limits, SHORT, state, random.Random(2), self.now)

    def check(self) -> None:
        limit_per_s = self.limits.rate_per_s
        capacity = max(1.0, limit_per_s * BURST_S)
        for first in range(len(self.starts)):
            body_bytes = 0
            for last in range(first, len(self.starts)):
                window_s = self.starts[last] - self.starts[first]
                if limit_per_s:
                    assert last - first + 1 <= limit_per_s * window_s + capacity + 1e-6
                if self.limits.bytes_per_s and self.limits.connections:
                    body_bytes += self.bodies_bytes[last]
                    allowance_bytes = self.limits.connections * MAX_BODY_BYTES
                    assert body_bytes <= self.limits.bytes_per_s * window_s + allowance_bytes + 1e-6


limits_strategy = st.builds(
    Limits,
    rate_per_s=st.sampled_from([0.0, 0.5, 3.0, 20.0, 100.0, 500.0]),
    connections=st.sampled_from([0, 1, 3, 8]),
    bytes_per_s=st.sampled_from([0.0, 500.0, 20_000.0]),
)
finish_strategy = st.tuples(
    st.integers(0, 7),
    st.sampled_from(list(Signal)),
    st.none() | st.floats(0, 0.5),
    st.integers(0, MAX_BODY_BYTES),
)
quota_strategy = st.builds(
    Quota,
    per_s=st.sampled_from([math.inf, 0.4, 7.0, 1e9]),
    left=st.sampled_from([math.inf, 0, 1, 5, 10_000]),
    left_s=st.sampled_from([0, 1, 2, 60]),
)
step_strategy = st.one_of(
    st.just("start"),
    st.just("start"),
    finish_strategy,
    st.sampled_from([1e-4, 0.01, 0.1, 1.0, 5.0]),
    st.just("hand over"),
    quota_strategy,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(limits=limits_strategy, steps=st.lists(step_strategy, max_size=80))
def test_no_window_has_more_starts_or_bytes_than_promised(
    limits: Limits, steps: list[str | float | Quota | tuple[int, Signal, float | None, int]]
) -> None:
    driver = Driver(limits, RateLimiter(limits, SHORT, None, random.Random(1), 0.0))
    for step in steps:
        if step == "start":
            driver.start()
        elif step == "hand over":
            driver.hand_over()
        elif isinstance(step, float):
            driver.now += step
        elif isinstance(step, Quota):
            driver.heed(step)
        elif isinstance(step, tuple):
            driver.finish(*step)
    driver.check()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    rates=st.lists(st.sampled_from([0.5, 2.0, 7.0, 10.0, 100.0, 400.0]), min_size=2, max_size=12),
    gaps_s=st.lists(st.floats(0, 2), min_size=12, max_size=12),
)
def test_a_changed_share_counts_from_the_moment_of_the_change(rates: list[float], gaps_s: list[float]) -> None:
    pace, now = new_pace(Limits(rate_per_s=rates[0], connections=0)), 0.0
    tokens = max(1.0, rates[0] * BURST_S)  # a bucket of tokens as an outsider would keep it
    for rate_per_s, gap_s in zip(rates, gaps_s, strict=False):
        pace.set_limits(Limits(rate_per_s=rate_per_s, connections=0), now)
        capacity = max(1.0, rate_per_s * BURST_S)
        tokens = min(tokens, capacity)
        until, seen = now + gap_s, now
        while (at := pace.ready_at(seen)) <= until:
            pace.start(at)
            tokens = min(capacity, tokens + (at - seen) * rate_per_s) - 1
            seen = at
            assert tokens >= -1e-6
        tokens = min(capacity, tokens + (until - seen) * rate_per_s)
        now = until


# ---- refusals of single URLs


def test_refusals_of_single_urls_cost_the_server_nothing_once_they_are_known_for_that() -> None:
    pace = new_pace(Limits(rate_per_s=100.0, connections=8))
    at, found = request(pace, 0.0, Signal.THROTTLED), []
    assert pace.rate_per_s < 100.0
    for _ in range(4):
        at = requests(pace, at, Signal.OK)
        started_at = pace.ready_at(at)
        pace.start(started_at)
        at = started_at + 0.1
        found.append(pace.finish(at, started_at, Signal.THROTTLED, 5.0, refused_at=started_at - 1.0))
    assert found == [False, True, True, True], "a pause that is asked for is kept until two rows were refused again"
    assert pace.rate_per_s == 100.0, "what the first refusal has cost is given back"
    assert pace.wait_s(at) == 0.0
    assert pace.in_flight == 0


def test_a_server_that_forbids_a_third_of_its_files_is_not_asked_for_too_much() -> None:
    pace = new_pace(Limits(rate_per_s=50.0, connections=8))
    at = 0.0
    for number in range(300):
        at = request(pace, at, Signal.OK if number % 3 else Signal.FORBIDDEN)
    assert pace.rate_per_s == 50.0


@pytest.mark.parametrize("signal", [Signal.THROTTLED, Signal.SERVER_ERROR, Signal.FORBIDDEN])
def test_what_a_server_waits_for_is_kept_whatever_status_has_asked_for_it(signal: Signal) -> None:
    pace = new_pace()
    at = request(pace, 0.0, signal, retry_after_s=40.0)
    assert (pace.snapshot(at).wait_s, pace.snapshot(at).why) == (40.0, "Retry-After 40 s")


@pytest.mark.parametrize(
    ("signal", "said", "told"),
    [
        (Signal.THROTTLED, "429", "429, it throttles"),
        (Signal.CONNECT_FAILED, "timeout", "timeout, out of reach"),
        (Signal.SERVER_ERROR, "503", "503, Retry-After 40 s"),
    ],
)
def test_what_a_server_has_said_is_told(signal: Signal, said: str, told: str) -> None:
    pace = new_pace()
    at = 0.0
    for _ in range(PacePolicy().breaker_failures):
        at = max(at, pace.ready_at(at))
        pace.start(at)
        pace.finish(at, at, signal, 40.0 if signal is Signal.SERVER_ERROR else None, said=said)
    assert pace.snapshot(at).why == told
