"""The report's charts: what is drawn where."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.report.charts import HEIGHT, RATE_BINS, WIDTH, charts, rates_of, tick_step
from ddmpi.report.data import Point


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.integers(0, 1000)), min_size=1, max_size=300))
def test_rates_hold_what_the_totals_hold(gaps: list[tuple[float, int]]) -> None:
    seconds, totals = [0.0], [0.0]
    for gap_s, rows in gaps:
        seconds.append(seconds[-1] + gap_s)
        totals.append(totals[-1] + (rows if gap_s > 0.001 else 0))
    x, rates = rates_of(seconds, totals)
    assert len(x) == len(rates) <= 2 * RATE_BINS
    assert min(rates) >= 0.0
    area = sum((later - earlier) * rate for (earlier, later), rate in zip(pairwise(x), rates[:-1], strict=True))
    if seconds[-1] > 0.001:
        assert area == pytest.approx(totals[-1], rel=1e-6, abs=1e-6)


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 1e6),
            st.integers(0, 10**12),
            st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 10**6)),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_everything_is_drawn_within_the_chart(steps: list[tuple[float, int, dict[str, int]]]) -> None:
    points, seconds, rows = [Point(0.0, 0, 0)], 0.0, 0
    for gap_s, more, kinds in steps:
        seconds, rows = seconds + gap_s, rows + more
        points.append(Point(seconds, rows, 3 * rows, kinds, rows))
    for chart in charts(points, [seconds / 2]):
        drawn = [chart.line, *(layer.outline for layer in chart.layers)]
        pairs = [tuple(map(float, pair.split(","))) for path in drawn for pair in path.split()]
        assert all(0 <= x <= WIDTH + 0.1 and 0 <= y <= HEIGHT for x, y in pairs)


def test_frequent_kinds_have_colors_and_the_others_share_one() -> None:
    kinds = {name: 100 - number for number, name in enumerate("abcdefgh")}
    stack = charts([Point(0.0, 0, 0), Point(10.0, 10, 10, kinds)], [])[3]
    named = [(layer.color, layer.name) for layer in stack.layers]
    assert named == [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e"), (6, "others")]
    assert "others 282" in stack.summary
    six = charts([Point(0.0, 0, 0), Point(10.0, 10, 10, dict.fromkeys("abcdef", 1))], [])[3]
    assert [layer.name for layer in six.layers] == list("abcdef"), "one kind more needs no word of its own"


@pytest.mark.parametrize(("most", "step"), [(0.0, 1.0), (1.0, 1.0), (9.0, 2.0), (10.0, 5.0), (99.0, 20.0), (4e9, 2e9)])
def test_ticks_are_round(most: float, step: float) -> None:
    assert tick_step(most) == step


def test_less_than_a_row_per_second_has_a_scale_of_its_own() -> None:
    rates = charts([Point(0.0, 0, 0), Point(100.0, 15, 10, fetched=15)], [])[2]
    assert [text for _, text in rates.levels] == ["", "0.05/s", "0.1/s", "0.15/s"]
    assert rates.summary == "Rows per second: 0.15/s after 1 min 40 s, at most 0.15/s"
    idle = charts([Point(0.0, 0, 0), Point(100.0, 0, 0)], [])[2]
    assert [text for _, text in idle.levels] == ["", "0.001/s"]


def test_a_burst_is_no_rate() -> None:
    """A hundred rows in a tenth of a second, and then one a second: bars are means over ten seconds."""
    seconds = [0.0, 0.1, *(0.1 + number for number in range(1, 41))]
    rates = rates_of(seconds, [0.0, 100.0, *(100.0 + number for number in range(1, 41))])[1]
    assert len(rates) == 2 * 4
    assert max(rates) == pytest.approx(11.0, rel=0.05)
