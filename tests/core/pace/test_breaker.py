"""When a server that does not answer is parked, probed and given up; what follows: ``test_rate_limiter``."""

from __future__ import annotations

import pytest

from ddmpi.core.pace.breaker import Breaker

FAILURES, PROBES, FORBIDDEN = 3, 2, 6


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(FAILURES, PROBES, FORBIDDEN, 0, 0.0)


def fail(breaker: Breaker, times: int, started_at: float) -> list[bool]:
    return [breaker.unanswered(started_at) for _ in range(times)]


def test_so_many_failures_in_a_row_park_a_server(breaker: Breaker) -> None:
    assert fail(breaker, FAILURES - 1, 1.0) == [False] * (FAILURES - 1)
    breaker.answered(1.0)
    assert fail(breaker, FAILURES, 2.0) == [False] * (FAILURES - 1) + [True]


def test_what_started_before_the_parking_counts_neither_for_nor_against_the_server(breaker: Breaker) -> None:
    assert breaker.park(5.0, 5.0) == 1
    breaker.answered(5.0)
    assert (breaker.open_count, breaker.unanswered(5.0)) == (1, False)


def test_a_probe_that_is_answered_closes_it(breaker: Breaker) -> None:
    breaker.park(5.0, 5.0)
    breaker.answered(5.1)
    assert breaker.open_count == 0


def test_each_probe_that_fails_parks_again_until_the_server_is_dead(breaker: Breaker) -> None:
    breaker.park(5.0, 5.0)
    for probe in range(1, PROBES + 1):
        assert not breaker.tripped
        assert breaker.unanswered(5.0 + probe)
        breaker.park(5.5 + probe, 5.0)
    assert breaker.tripped


def test_many_answers_403_in_a_row_park_a_server_and_a_good_one_between_them_does_not(breaker: Breaker) -> None:
    assert not any(breaker.turned_away(1.0) for _ in range(FORBIDDEN - 1))
    breaker.answered(1.0)
    assert [breaker.turned_away(1.0) for _ in range(FORBIDDEN)] == [False] * (FORBIDDEN - 1) + [True]


def test_answers_403_can_be_left_out() -> None:
    breaker = Breaker(FAILURES, PROBES, 0, 0, 0.0)
    assert not any(breaker.turned_away(1.0) for _ in range(1000))
    breaker.park(2.0, 2.0)
    assert not breaker.turned_away(3.0)
    assert (breaker.open_count, breaker.is_doubted) == (0, False), "a probe that is answered closes it, by 403 too"


def test_a_server_is_doubted_after_half_of_the_answers_403_that_park_it_and_while_it_is_parked(
    breaker: Breaker,
) -> None:
    doubts = []
    for _ in range(FORBIDDEN - 1):
        breaker.turned_away(1.0)
        doubts.append(breaker.is_doubted)
    assert doubts == [False, False, False, True, True]
    breaker.answered(1.0)
    assert not breaker.is_doubted
    breaker.park(2.0, 2.0)
    assert breaker.is_doubted


@pytest.mark.parametrize(("since", "paused_until", "open_count"), [(4.0, 3.0, 0), (6.0, None, 1)])
def test_a_parking_that_was_our_own_networks_fault_is_void(
    breaker: Breaker, since: float, paused_until: float | None, open_count: int
) -> None:
    breaker.park(5.0, 3.0)
    assert (breaker.reset_after_outage(since), breaker.open_count) == (paused_until, open_count)
