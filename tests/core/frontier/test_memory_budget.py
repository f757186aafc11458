"""The byte budget of a rank: what it expects of bodies, and that they stay within it."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from ddmpi.core.frontier.memory_budget import FIRST_GUESSES, Arrival, MemoryBudget

MB = 1_000_000


def taught(limit_bytes: int, *sizes_bytes: int) -> MemoryBudget:
    budget = MemoryBudget(limit_bytes)
    for size_bytes in sizes_bytes:
        budget.learn(size_bytes)
    return budget


def test_before_anything_is_known_few_requests_start() -> None:
    assert MemoryBudget(256 * MB).may_start(0, 0) == FIRST_GUESSES
    assert MemoryBudget(256 * MB).may_start(0, FIRST_GUESSES) == 0


def test_small_bodies_hold_up_nothing() -> None:
    assert taught(256 * MB, *[30_000] * 50).may_start(100 * MB, 256) > 1_000


def test_the_usual_size_follows_what_comes() -> None:
    budget = taught(256 * MB, *[30_000] * 100)
    assert 30_000 <= budget.usual_bytes < 35_000
    for _ in range(100):
        budget.learn(5 * MB)
    assert 5 * MB <= budget.usual_bytes < 6 * MB
    assert budget.may_start(0, 0) <= 51


def test_nothing_starts_while_the_writer_holds_all() -> None:
    budget = taught(MB, 10_000)
    assert budget.may_start(MB, 0) == 0
    assert budget.may_start(MB - 1, 0) == 1, "or nobody would ever make room"
    assert budget.may_start(MB - 1, 1) == 0


@pytest.mark.parametrize(
    ("waiting_bytes", "arrivals", "allowed"),
    [
        pytest.param(0, [Arrival(0, 40), Arrival(0, 60)], [True, True], id="what fits is read"),
        pytest.param(0, [Arrival(0, 60), Arrival(0, 60)], [True, False], id="the first is read first"),
        pytest.param(0, [Arrival(0, 60), Arrival(0, 60), Arrival(0, 30)], [True, False, True], id="a small one fits"),
        pytest.param(0, [Arrival(30, 60), Arrival(50, 60)], [True, False], id="what stands still holds its bytes"),
        pytest.param(90, [Arrival(0, 60), Arrival(0, 10)], [True, False], id="the first takes what is left, and more"),
        pytest.param(100, [Arrival(0, 60), Arrival(0, 10)], [True, False], id="one always reads on"),
        pytest.param(0, [Arrival(40, -1), Arrival(0, 50)], [True, False], id="unknown: as much again as has come"),
        pytest.param(0, [Arrival(40, 30)], [True], id="more than was announced"),
        pytest.param(0, [], [], id="nothing in flight"),
    ],
)
def test_who_reads_on(waiting_bytes: int, arrivals: list[Arrival], allowed: list[bool]) -> None:
    assert taught(100, 1).may_read_on(waiting_bytes, arrivals) == allowed


def test_large_bodies_in_flight_hold_up_others() -> None:
    budget = taught(256 * MB, *[30_000] * 50)
    budget.may_read_on(0, [Arrival(0, 5 * MB)] * 60)
    assert budget.may_start(0, 60) == 0
    budget.may_read_on(0, [])
    assert budget.may_start(0, 0) > 1_000


@dataclass
class Download:
    """A body on its way through a rank."""

    size_bytes: int
    received_bytes: int = 0


@pytest.mark.parametrize("seed", range(20))
def test_a_rank_stays_within_its_budget_and_comes_to_an_end(seed: int) -> None:
    """Bodies of all sizes, an erratic network and an erratic writer."""
    rng = random.Random(seed)
    limit_bytes, largest_bytes = 50 * MB, 20 * MB
    budget = MemoryBudget(limit_bytes)
    sizes = [rng.choice([10_000, 200_000, 5 * MB, largest_bytes]) for _ in range(300)]
    flight: list[Download] = []
    waiting_bytes = done = rounds = 0
    while done < len(sizes) or waiting_bytes:
        rounds += 1
        assert rounds < 100_000
        started = len(flight) + done
        free = min(100 - len(flight), budget.may_start(waiting_bytes, len(flight)))
        flight.extend(Download(size_bytes) for size_bytes in sizes[started : started + free])
        announced = [item.size_bytes if item.received_bytes and rng.random() < 0.7 else -1 for item in flight]
        arrivals = [Arrival(item.received_bytes, size) for item, size in zip(flight, announced, strict=True)]
        allowed = budget.may_read_on(waiting_bytes, arrivals)
        for item, reads_on in list(zip(flight, allowed, strict=True)):
            if reads_on:
                item.received_bytes = min(item.size_bytes, item.received_bytes + rng.randint(0, 100_000))
            if item.received_bytes == item.size_bytes:
                flight.remove(item)
                budget.learn(item.size_bytes)
                waiting_bytes += item.size_bytes
                done += 1
        waiting_bytes -= min(waiting_bytes, rng.randint(0, 3 * MB))
        held_bytes = waiting_bytes + sum(item.received_bytes for item in flight)
        slack_bytes = 100 * 100_000  # what came in since the last look
        assert held_bytes <= limit_bytes + largest_bytes + slack_bytes
