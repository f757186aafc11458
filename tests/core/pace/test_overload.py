"""When a server that does not say so is asked for too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.pace.overload import ANSWERS, BAD_SHARE, SLOWER, SLOWER_BY_S, OverloadDetector

MOST_BAD = int(BAD_SHARE * ANSWERS)
"""Errors among as many answers as are looked at together, that are still no sign."""


def found(detector: OverloadDetector, times_s: list[float], bad: int = 0) -> list[bool]:
    """What the detector says to answers with these times, the first ``bad`` of which are errors."""
    return [detector.note(time_s, is_bad=number < bad) for number, time_s in enumerate(times_s)]


@pytest.mark.parametrize(
    ("bad", "overloaded"),
    [
        pytest.param(0, False, id="no error"),
        pytest.param(MOST_BAD, False, id="errors below the share"),
        pytest.param(MOST_BAD + 1, True, id="errors of the share"),
        pytest.param(ANSWERS, True, id="errors alone"),
    ],
)
def test_errors(bad: int, overloaded: bool) -> None:
    assert found(OverloadDetector(), [0.1] * ANSWERS, bad) == [False] * (ANSWERS - 1) + [overloaded]


@pytest.mark.parametrize(
    ("before_s", "after_s", "overloaded"),
    [
        pytest.param(1.0, 1.0 * SLOWER + 0.1, True, id="slower by the factor and by more than half a second"),
        pytest.param(1.0, 1.0 * SLOWER - 0.1, False, id="slower by much, but not by the factor"),
        pytest.param(0.01, 0.01 + SLOWER_BY_S + 0.01, True, id="slower by many times and by half a second"),
        pytest.param(0.01, 0.01 + SLOWER_BY_S - 0.01, False, id="slower by many times, but a busy rank does that too"),
        pytest.param(5.0, 0.1, False, id="faster"),
    ],
)
def test_latency(before_s: float, after_s: float, overloaded: bool) -> None:
    detector = OverloadDetector()
    assert not any(found(detector, [before_s] * ANSWERS))
    assert found(detector, [after_s] * ANSWERS)[-1] is overloaded


def test_a_server_that_was_always_slow_is_not_overloaded() -> None:
    assert not any(found(OverloadDetector(), [30.0] * ANSWERS * 3))


def test_less_than_half_of_the_answers_being_slow_is_no_sign() -> None:
    detector = OverloadDetector()
    found(detector, [0.1] * ANSWERS)
    assert not any(found(detector, [60.0] * (ANSWERS // 2 - 1) + [0.1] * (ANSWERS // 2 + 1)))
    assert any(found(detector, [60.0] * (ANSWERS // 2 + 1) + [0.1] * (ANSWERS // 2 - 1)))


def test_the_fastest_time_ever_is_the_measure() -> None:
    detector = OverloadDetector()
    assert [any(found(detector, [time_s] * ANSWERS)) for time_s in (2.0, 0.1, 0.4, 2.0)] == [False, False, False, True]


def test_answers_are_looked_at_once() -> None:
    detector = OverloadDetector()
    assert any(found(detector, [0.1] * ANSWERS, bad=ANSWERS))
    assert not any(found(detector, [0.1] * ANSWERS, bad=MOST_BAD))


def test_what_came_before_another_event_does_not_count_and_the_fastest_time_stays() -> None:
    detector = OverloadDetector()
    found(detector, [0.1] * ANSWERS)
    found(detector, [0.1] * (ANSWERS - 1), bad=ANSWERS - 1)
    detector.forget()
    assert not any(found(detector, [0.1] * ANSWERS, bad=MOST_BAD))
    detector.forget()
    assert found(detector, [2.0] * ANSWERS)[-1]


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=4 * ANSWERS))
def test_only_whole_groups_of_answers_are_judged(answers: list[tuple[float, bool]]) -> None:
    detector = OverloadDetector()
    said = [detector.note(ttfb_s, is_bad=is_bad) for ttfb_s, is_bad in answers]
    judged = [said[end - 1] for end in range(ANSWERS, len(said) + 1, ANSWERS)]
    assert sum(said) == sum(judged)
    for number, verdict in enumerate(judged):
        group = answers[number * ANSWERS : (number + 1) * ANSWERS]
        assert verdict or sum(is_bad for _, is_bad in group) <= MOST_BAD
