"""How often and how soon a row is tried again."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.core.pace.policy import PacePolicy
from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.records import ErrorKind, Failure
from ddmpi.core.rules.retry import CONNECT_TRIES, DNS_WAIT_S, FIRST_WAIT_S, JITTER, LONGEST_WAIT_S, RetryPolicy
from ddmpi.core.rules.verdict import SUCCESS, Outcome, Verdict


class NoJitter(random.Random):
    def random(self) -> float:
        return 0.0


def verdict_of(kind: ErrorKind, signal: Signal, *, transient: bool = True) -> Verdict:
    return Verdict(Outcome.FAILURE, signal, Failure(kind, -1, "as tested"), transient)


def delays_s(policy: RetryPolicy, verdict: Verdict) -> list[float]:
    """The waits of a row that fails in the same way each time, until it is given up."""
    found: list[float] = []
    while (delay_s := policy.decide(verdict, len(found) + 1, NoJitter())) is not None:
        found.append(delay_s)
    return found


RESET = verdict_of(ErrorKind.NETWORK, Signal.FAILED)
REFUSED = verdict_of(ErrorKind.CONNECT, Signal.CONNECT_FAILED)
UNKNOWN_HOST = verdict_of(ErrorKind.DNS, Signal.CONNECT_FAILED)
THROTTLED = verdict_of(ErrorKind.HTTP_STATUS, Signal.THROTTLED)
BROKEN = verdict_of(ErrorKind.HTTP_STATUS, Signal.SERVER_ERROR)
MISSING = verdict_of(ErrorKind.HTTP_STATUS, Signal.OK, transient=False)
EXPIRED = verdict_of(ErrorKind.TLS, Signal.CONNECT_FAILED, transient=False)


@pytest.mark.parametrize(
    ("verdict", "max_attempts", "expected_s"),
    [
        pytest.param(RESET, 5, [1, 2, 4, 8], id="transient failures wait longer each time"),
        pytest.param(BROKEN, 9, [1, 2, 4, 8, 16, 32, 60, 60], id="but not longer than a minute"),
        pytest.param(RESET, 1, [], id="one attempt is one attempt"),
        pytest.param(MISSING, 5, [], id="what will not change is not tried again"),
        pytest.param(EXPIRED, 5, [], id="nor is a certificate that expired"),
        pytest.param(
            THROTTLED, 3, [0] * 9, id="throttled rows have ten tries, and their server's pace does the waiting"
        ),
        pytest.param(THROTTLED, 15, [0] * 14, id="or more, when all rows have"),
        pytest.param(UNKNOWN_HOST, 5, [DNS_WAIT_S], id="an unknown host is confirmed once"),
        pytest.param(UNKNOWN_HOST, 1, [DNS_WAIT_S], id="even when other failures are not"),
        pytest.param(
            REFUSED,
            5,
            [1, 2, 4, 8, 16, 32] + [60] * (CONNECT_TRIES - 7),
            id="rows are not burnt on a server that is down",
        ),
    ],
)
def test_delays_until_a_row_is_given_up(verdict: Verdict, max_attempts: int, expected_s: list[float]) -> None:
    assert delays_s(RetryPolicy(max_attempts), verdict) == expected_s


@pytest.mark.parametrize(
    ("verdict", "attempt", "delay_s"),
    [
        pytest.param(RESET, 1, 1, id="a failed robots.txt waits as a row does"),
        pytest.param(RESET, CONNECT_TRIES - 1, LONGEST_WAIT_S, id="and has as many tries as a connection"),
        pytest.param(RESET, CONNECT_TRIES, None, id="but no more"),
        pytest.param(UNKNOWN_HOST, 1, DNS_WAIT_S, id="a name that does not exist is confirmed once"),
        pytest.param(UNKNOWN_HOST, 2, None, id="and then all rows of it fail"),
        pytest.param(THROTTLED, 7, 0, id="a throttled one waits for its server's pace"),
        pytest.param(MISSING, 1, None, id="what will not change is not asked again"),
        pytest.param(SUCCESS, 1, None, id="nor is an answer"),
    ],
)
def test_tries_of_a_request_on_which_all_rows_of_a_server_depend(
    verdict: Verdict, attempt: int, delay_s: float | None
) -> None:
    assert RetryPolicy(1).decide_for_server(verdict, attempt, NoJitter()) == delay_s


def test_a_request_that_is_refused_for_its_url_alone_waits_as_long_as_it_was_asked_to() -> None:
    policy, asked = RetryPolicy(1), replace(THROTTLED, retry_after_s=30.0)
    assert policy.decide_for_server(THROTTLED, 1, NoJitter(), is_of_url=True) == FIRST_WAIT_S
    assert policy.decide_for_server(asked, 1, NoJitter(), is_of_url=True) == 30.0
    assert policy.decide_for_server(asked, CONNECT_TRIES, NoJitter(), is_of_url=True) is None


def test_the_breaker_gives_up_a_server_before_its_last_row_is_given_up() -> None:
    policy = PacePolicy()
    assert policy.breaker_failures + policy.breaker_probes < CONNECT_TRIES
    assert len(delays_s(RetryPolicy(5, connect_attempts=31), REFUSED)) == 30


def test_a_failed_look_up_is_confirmed_after_libcurl_has_forgotten_it() -> None:
    half_of_dns_cache_timeout_s = 60 / 2
    assert min(delays_s(RetryPolicy(5), UNKNOWN_HOST)) > half_of_dns_cache_timeout_s


@settings(deadline=None, derandomize=True)
@given(
    st.sampled_from([RESET, REFUSED, UNKNOWN_HOST, THROTTLED, BROKEN, MISSING]),
    st.integers(1, 100),
    st.integers(1, 10**6),
    st.integers(),
)
def test_waits_are_bounded_and_every_row_ends(verdict: Verdict, max_attempts: int, attempt: int, seed: int) -> None:
    delay_s = RetryPolicy(max_attempts).decide(verdict, attempt, random.Random(seed))
    if attempt >= max(max_attempts, CONNECT_TRIES):
        assert delay_s is None
    if delay_s is not None:
        assert 0 <= delay_s <= LONGEST_WAIT_S * (1 + JITTER)


def test_rows_that_failed_together_do_not_come_back_together() -> None:
    rng = random.Random(1)
    delays = [RetryPolicy(5).decide(RESET, 3, rng) for _ in range(20)]
    assert len(set(delays)) == 20
    assert all(delay_s is not None and 4 <= delay_s <= 4.4 for delay_s in delays)


def test_a_success_cannot_be_retried() -> None:
    with pytest.raises(ValueError, match="nothing to retry"):
        RetryPolicy(5).decide(SUCCESS, 1, random.Random(1))


@pytest.mark.parametrize(("max_attempts", "connect_attempts"), [(0, 20), (5, 0)])
def test_less_than_one_try_is_refused(max_attempts: int, connect_attempts: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        RetryPolicy(max_attempts, connect_attempts)


@pytest.mark.parametrize(
    ("retry_after_s", "attempt", "least_s"),
    [
        pytest.param(None, 1, 1.0, id="as after other failures"),
        pytest.param(None, 2, 2.0, id="later and later"),
        pytest.param(20.0, 1, 20.0, id="not before the server says"),
        pytest.param(None, 3, None, id="so many times"),
        pytest.param(LONGEST_WAIT_S + 1, 1, None, id="a row does not wait for an hour"),
    ],
)
def test_a_row_that_is_refused_for_its_url_is_judged_alone(
    retry_after_s: float | None, attempt: int, least_s: float | None
) -> None:
    failure = Failure(ErrorKind.HTTP_STATUS, 429, "HTTP status 429")
    verdict = Verdict(Outcome.FAILURE, Signal.THROTTLED, failure, transient=True, retry_after_s=retry_after_s)
    delay_s = RetryPolicy(3).decide(verdict, attempt, random.Random(1), is_of_url=True)
    assert delay_s is None if least_s is None else delay_s is not None and least_s <= delay_s <= least_s * (1 + JITTER)
