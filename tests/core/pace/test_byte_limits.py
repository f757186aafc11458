"""Bytes of an hour, of a day: sliding windows over random traffic, beside a count that keeps every byte."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.core.pace.byte_limits import HOUR_S, SLOTS, ByteBudget

BUDGET_BYTES = 1000.0


def test_without_a_budget_nothing_is_counted() -> None:
    budget = ByteBudget(0.0, HOUR_S, (), now=0.0)
    budget.charge(1.0, 1e12)
    assert budget.blocked_until(1.0) == -math.inf
    assert budget.spent(1.0) == ()


def test_bytes_that_came_together_are_forgotten_together() -> None:
    budget = ByteBudget(BUDGET_BYTES, HOUR_S, (), now=0.0)
    for second in range(10):
        budget.charge(float(second), 150)
    assert budget.blocked_until(9.0) == pytest.approx(HOUR_S + HOUR_S / SLOTS)
    assert budget.blocked_until(HOUR_S + HOUR_S / SLOTS) == -math.inf


def test_of_a_budget_that_is_far_exceeded_as_many_slots_have_to_go_as_it_takes() -> None:
    budget = ByteBudget(BUDGET_BYTES, HOUR_S, [(60.0, 500.0), (120.0, 500.0), (180.0, 900.0)], now=0.0)
    assert budget.blocked_until(0.0) == 120.0


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, 59.0, 61.0, 700.0, 3000.0]), st.integers(1, 300)), max_size=120
    ),
    hand_over_each=st.integers(2, 9),
)
def test_no_window_has_more_than_the_budget_and_one_body(steps: list[tuple[float, int]], hand_over_each: int) -> None:
    """An eager caller waits as long as it is told, and no longer; now and then another holder takes over."""
    budget, now = ByteBudget(BUDGET_BYTES, HOUR_S, (), now=0.0), 0.0
    came: list[tuple[float, int]] = []
    for number, (gap_s, size_bytes) in enumerate(steps):
        now = max(now + gap_s, budget.blocked_until(now + gap_s))
        before = sum(size for at, size in came if at > now - HOUR_S)
        assert before < BUDGET_BYTES
        late = sum(size for at, size in came if at > now - HOUR_S * (1 + 1 / SLOTS))
        if late < BUDGET_BYTES:
            assert budget.blocked_until(now) == -math.inf
        budget.charge(now, size_bytes)
        came.append((now, size_bytes))
        if number % hand_over_each == 0:
            budget = ByteBudget(BUDGET_BYTES, HOUR_S, budget.spent(now), now)
