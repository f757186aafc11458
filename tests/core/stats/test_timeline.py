"""When servers were asked, as counts in few spans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.protocol import Asked
from ddmpi.core.stats.audit import TICK_S
from ddmpi.core.stats.timeline import BINS, MOST_WAITS, Timelines, Wait


def asked(group: str, starts: Sequence[float], urls: int = 0) -> Asked:
    first_at = min(starts, default=0.0)
    ticks = np.round((np.array(starts) - first_at) / TICK_S).astype("<u4")
    return Asked(group, first_at, ticks.tobytes(), 0, 0, 0, 0, 0.0, urls)


@given(
    st.lists(
        st.tuples(st.floats(0.0, 5000.0), st.lists(st.floats(0.0, 60.0), max_size=20), st.integers(0, 50)), max_size=20
    )
)
def test_nothing_is_lost_however_long_the_run_is(notes: list[tuple[float, list[float], int]]) -> None:
    timelines = Timelines(1_000.0)
    end = 1_000.0
    for at, ages_s, urls in notes:
        now = 1_000.0 + at
        end = max(end, now)
        timelines.add(asked("a", [max(1_000.0, now - age_s) for age_s in ages_s], urls), now)
    # So much later that the group, which is not done, took more than one span.
    (line,) = timelines.slowest(5, 2 * end - 1_000.0 + 2 * BINS, {"a"}) or (None,)
    requests, urls = sum(len(ages_s) for _, ages_s, _ in notes), sum(urls for *_, urls in notes)
    if line is None:
        assert requests + urls == 0
    else:
        assert (sum(line.asked), sum(line.answered), len(line.asked)) == (requests, urls, BINS)


def test_requests_are_counted_when_they_started_and_answers_when_they_were_told() -> None:
    timelines = Timelines(0.0)
    timelines.add(asked("a", [0.5, 3.2, 3.9], urls=3), 10.0)
    timelines.add(asked("a", [], urls=11), 20.0)
    (line,) = timelines.slowest(1, 30.0, ())
    assert [(at, count) for at, count in enumerate(line.asked) if count] == [(0, 1), (3, 2)]
    assert line.answered[:4] == (1, 0, 0, 2), "with the requests"
    assert line.answered[10:21] == (1,) * 11, "or some time since the rank last told of some"
    assert sum(line.answered) == 14
    timelines.add(asked("a", [70.0]), 70.0)
    (line,) = timelines.slowest(1, 80.0, ())
    assert timelines.bin_s == 2.0
    assert [(at, count) for at, count in enumerate(line.asked) if count] == [(0, 1), (1, 2), (35, 1)]


def test_the_slowest_are_those_that_took_longest_or_are_not_done() -> None:
    timelines = Timelines(0.0)
    for group, starts in (("long", [0.0, 40.0]), ("late", [38.0, 41.0]), ("waits", [5.0]), ("short", [0.0, 0.9])):
        timelines.add(asked(group, starts), 41.0)
    assert [it.group for it in timelines.slowest(2, 59.0, {"waits", "never asked"})] == ["waits", "long"]
    assert [it.group for it in timelines.slowest(9, 59.0, {"waits"})] == ["waits", "long", "late"]
    assert Timelines(0.0).slowest(3, 59.0, ()) == []


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param([(10.0, 5.0, False)], [Wait(10.0, 15.0, False)], id="one"),
        pytest.param([(10.0, 5.0, False), (12.0, 9.0, False)], [Wait(10.0, 21.0, False)], id="it is asked for longer"),
        pytest.param([(10.0, 9.0, False), (12.0, 1.0, False)], [Wait(10.0, 19.0, False)], id="never for less"),
        pytest.param([(10.0, 50.0, True), (22.0, 0.0, False)], [Wait(10.0, 22.0, True)], id="it answers again"),
        pytest.param(
            [(10.0, 5.0, False), (12.0, 9.0, True)], [Wait(10.0, 12.0, False), Wait(12.0, 21.0, True)], id="then parked"
        ),
        pytest.param([(10.0, 500.0, True)], [Wait(10.0, 30.0, True)], id="not beyond the run"),
        pytest.param([(10.0, 0.0, False)], [], id="none"),
    ],
)
def test_waits(told: list[tuple[float, float, bool]], expected: list[Wait]) -> None:
    timelines = Timelines(0.0)
    timelines.add(asked("a", [1.0]), 1.0)
    for at, wait_s, is_parked in told:
        timelines.wait("a", at, wait_s, is_parked=is_parked)
    (line,) = timelines.slowest(1, 30.0, {"a"})
    assert list(line.waits) == expected


def test_the_latest_waits_are_kept() -> None:
    timelines = Timelines(0.0)
    timelines.add(asked("a", [1.0]), 1.0)
    for number in range(2 * MOST_WAITS):
        timelines.wait("a", 10.0 * number, 1.0, is_parked=False)
    (line,) = timelines.slowest(1, 1e6, {"a"})
    assert [it.begin for it in line.waits] == [10.0 * number for number in range(MOST_WAITS, 2 * MOST_WAITS)]
