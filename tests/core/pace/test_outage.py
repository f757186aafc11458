"""Our own network fails: noticed by many servers at once, nobody's fault, over by itself."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from ddmpi.core.pace.outage import LONGEST_S, PROBE_MOST_S, WINDOW_S, WITNESSES, Outage
from ddmpi.core.pace.policy import PacePolicy
from ddmpi.core.pace.rate_limiter import RateLimiter, Signal
from ddmpi.core.records import Limits
from ddmpi.core.rules.retry import RetryPolicy
from tests.laws.laws import Laws, run
from tests.simulation.disk import Disk
from tests.simulation.simulation import Simulation
from tests.worlds.at_random import table
from tests.worlds.model import Cluster, ServerModel, World

NAMES = [f"s{number}" for number in range(WITNESSES)]


def seen(names: Sequence[str] = NAMES) -> Outage:
    """All of these have answered before."""
    outage = Outage()
    for name in names:
        outage.answered(name, 0.0)
    return outage


def fail(outage: Outage, names: Sequence[str], now: float, gap_s: float = 0.1) -> bool:
    return any(outage.unreachable(name, now + number * gap_s) for number, name in enumerate(names))


def test_many_servers_that_answered_before_make_an_outage() -> None:
    outage = seen()
    assert fail(outage, NAMES, 100.0)
    assert outage.began_at == 100.0
    assert outage.probe_at > 100.0


@pytest.mark.parametrize(
    ("outage", "names", "gap_s"),
    [
        pytest.param(seen(), NAMES[1:], 0.1, id="few servers are servers that fail"),
        pytest.param(seen(), NAMES[:1] * 20, 0.1, id="one server that fails often is one"),
        pytest.param(Outage(), NAMES, 0.1, id="servers that never answered say nothing about us"),
        pytest.param(seen(), NAMES, WINDOW_S, id="one after the other is not at once"),
    ],
)
def test_what_is_no_outage(outage: Outage, names: Sequence[str], gap_s: float) -> None:
    assert not fail(outage, names, 100.0, gap_s)
    assert not outage.is_on


@pytest.mark.parametrize(("server", "resolves"), [("a.example", True), ("127.0.0.1:80", False), ("[fe80::1]", False)])
def test_a_name_that_answers_has_been_found(server: str, resolves: bool) -> None:
    outage = Outage()
    outage.answered(server, 5.0)
    assert (outage.resolves_names(4.0), outage.resolves_names(5.0)) == (resolves, False)


def test_an_answer_in_between_shows_that_the_network_is_there() -> None:
    outage = seen()
    fail(outage, NAMES[1:], 100.0)
    outage.answered("other", 0.0)
    assert not fail(outage, NAMES[:1], 101.0)


def test_the_first_answer_ends_it() -> None:
    outage = seen()
    fail(outage, NAMES, 100.0)
    outage.answered("other", 0.0)
    assert (outage.is_on, outage.probe_at) == (False, -math.inf)


def test_probes_become_rarer_but_not_rare() -> None:
    outage, now, gaps = seen(), 100.0, []
    fail(outage, NAMES, now, 0.0)
    for _ in range(20):
        gaps.append(outage.probe_at - now)
        now = outage.probe_at
        outage.started(now)
    assert gaps == sorted(gaps)
    assert gaps[-1] == PROBE_MOST_S


def test_after_half_an_hour_the_servers_are_taken_at_their_word_until_one_answers() -> None:
    outage = seen()
    fail(outage, NAMES, 100.0, 0.0)
    outage.unreachable("s0", 101.0 + LONGEST_S)
    assert not outage.is_on
    assert not fail(outage, NAMES, 102.0 + LONGEST_S)
    outage.answered("s1", 0.0)
    assert fail(outage, NAMES, 103.0 + LONGEST_S)


def test_a_parking_is_taken_back_and_what_the_server_asked_for_is_not() -> None:
    pace = RateLimiter(Limits(0.0, 9), PacePolicy(breaker_failures=2, jitter=0.0), None, random.Random(1), 0.0)
    for started_at, signal in ((1.0, Signal.THROTTLED), (2.0, Signal.CONNECT_FAILED), (2.0, Signal.CONNECT_FAILED)):
        pace.in_flight += 1  # as if all had started before the first one ended
        pace.finish(2.0, started_at, signal, 30.0)
    assert pace.parked(3.0)
    pace.reset_after_outage(3.0, since=2.0)
    assert not pace.parked(3.0)
    assert pace.wait_s(3.0) == 29.0


# ---- whole runs


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("offline_s", [5.0, 120.0])
def test_an_outage_burns_no_row_and_costs_hardly_more_than_its_time(seed: int, offline_s: float) -> None:
    sizes = {f"s{number}": 200 for number in range(16)}
    world = World(
        table(sizes, {}, batch_size=50, small_rows=0),
        {name: ServerModel() for name in sizes},
        default_limits=Limits(10.0, 4),
        offline_from_s=6.0,
        offline_s=offline_s,
    )
    disk = Disk()
    laws = Laws(world, disk)
    report = run(Simulation(world, Cluster(2, retry=RetryPolicy(2)), disk, laws, seed=seed), laws)
    assert not report.was_stuck
    assert not any(part.is_errors for part in disk.parts.values())
    assert sum(len(part.rows) for part in disk.parts.values()) == world.rows
    assert report.ended_at_s < 20.0 + offline_s + PROBE_MOST_S + 10.0
    assert report.requests < world.rows * 1.1 + 200
