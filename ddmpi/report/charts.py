"""The geometry of the report's charts: numbers in, points of an SVG out. Pure.

A chart is ``WIDTH`` x ``HEIGHT`` units; labels of values stand on the grid's lines, where a growing total leaves room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ddmpi.report.data import Point, by_count
from ddmpi.report.formats import duration, size

WIDTH, HEIGHT = 360, 190
_TOP, _BOTTOM = 18, 168
RATE_BINS = 120
"""Bars of a chart of rates."""
RATE_WINDOW_S = 10.0
"""Each of them is a mean over at least so long, or over the whole time if that is shorter."""
LEAST_SPAN_S = 0.001
"""A shorter time has no rate: clocks are not that exact."""
LEAST_RATE_STEP = 0.001
"""Rows per second between two lines of the grid: a job of one slow server has less than one."""
MOST_KINDS = 5
"""Kinds of errors with a color of their own; the others are one."""

Text = Callable[[float], str]


@dataclass(frozen=True)
class Layer:
    """An area: its outline, and which color it has."""

    outline: str
    color: int
    name: str = ""
    """In the legend, which has only areas with a name."""


@dataclass(frozen=True)
class Chart:
    """What the template draws."""

    name: str
    summary: str
    """For those who cannot see it."""
    layers: Sequence[Layer]
    line: str
    levels: Sequence[tuple[float, str]]
    """(y, label) of the grid's lines."""
    times: Sequence[tuple[int, str, str]]
    """(x, where the text is anchored, label)."""
    breaks: Sequence[float]
    """x where another run begins."""


def charts(points: Sequence[Point], breaks_s: Sequence[float]) -> list[Chart]:
    """Return charts of rows and bytes over time, throughput, and errors by kind over time."""
    seconds = [point.seconds for point in points]
    rows, received = [float(point.rows) for point in points], [float(point.bytes) for point in points]
    rate_seconds, rates = rates_of(seconds, [float(point.fetched) for point in points])
    return [
        _line_chart("Rows with an outcome", seconds, rows, _count, breaks_s),
        _line_chart("Bytes received", seconds, received, size, breaks_s),
        _line_chart("Rows per second", rate_seconds, rates, _rate, breaks_s, least_step=LEAST_RATE_STEP),
        _stack_chart("Errors over time", points, breaks_s),
    ]


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}/s" if value == int(value) else f"{value:,.1f}/s" if value >= 10 else f"{value:.2g}/s"


def rates_of(seconds: Sequence[float], totals: Sequence[float]) -> tuple[list[float], list[float]]:
    """Turn totals into mean rates in at most ``RATE_BINS`` equal spans: (seconds, per second), as a step line."""
    span_s = seconds[-1] - seconds[0]
    if span_s < LEAST_SPAN_S:
        return [0.0, 0.0], [0.0, 0.0]
    bins = max(1, min(RATE_BINS, len(seconds) - 1, int(span_s / RATE_WINDOW_S)))
    edges = seconds[0] + span_s * np.arange(bins + 1) / bins
    rates = np.maximum(0.0, np.diff(np.interp(edges, seconds, totals))) * bins / span_s
    return np.repeat(edges, 2)[1:-1].tolist(), np.repeat(rates, 2).tolist()


@dataclass(frozen=True)
class _Frame:
    top: float
    step: float
    span_s: float

    @classmethod
    def of(cls, most: float, span_s: float, least_step: float = 1.0) -> _Frame:
        step = tick_step(most, least_step)
        return cls(step * max(1, math.ceil(most / step)), step, max(span_s, 1e-9))

    def x(self, seconds: float) -> float:
        return WIDTH * seconds / self.span_s

    def y(self, value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value / self.top

    def path(self, x: Sequence[float], y: Sequence[float]) -> str:
        return " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(x, y, strict=True))

    def levels(self, text: Text) -> list[tuple[float, str]]:
        values = [self.step * number for number in range(round(self.top / self.step) + 1)]
        return [(round(self.y(value), 1), text(value) if value else "") for value in values]

    def times(self) -> list[tuple[int, str, str]]:
        anchors = ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
        return [(round(WIDTH * part), anchor, duration(self.span_s * part)) for part, anchor in anchors]


def _line_chart(
    name: str, x: Sequence[float], y: Sequence[float], text: Text, breaks_s: Sequence[float], *, least_step: float = 1.0
) -> Chart:
    frame = _Frame.of(max(y), x[-1], least_step)
    line = frame.path(x, y)
    area = f"{frame.x(x[0]):.1f},{_BOTTOM} {line} {frame.x(x[-1]):.1f},{_BOTTOM}"
    summary = f"{name}: {text(y[-1])} after {duration(x[-1])}, at most {text(max(y))}"
    breaks = [round(frame.x(at), 1) for at in breaks_s]
    return Chart(name, summary, [Layer(area, 0)], line, frame.levels(text), frame.times(), breaks)


def _stack_chart(name: str, points: Sequence[Point], breaks_s: Sequence[float]) -> Chart:
    """Return a chart of the most frequent kinds upon each other, the others on top."""
    kinds = [kind for kind, _ in by_count(points[-1].kinds)]
    shown, others = kinds[:MOST_KINDS], kinds[MOST_KINDS:]
    if len(others) == 1:
        shown, others = kinds, []
    series = [(kind, [float(point.kinds.get(kind, 0)) for point in points]) for kind in shown]
    if others:
        series.append(("others", [float(sum(point.kinds.get(kind, 0) for kind in others)) for point in points]))
    seconds = [point.seconds for point in points]
    edges = np.cumsum([[0.0] * len(points), *(values for _, values in series)], axis=0).tolist()
    frame = _Frame.of(max(edges[-1]), seconds[-1])
    layers = [
        Layer(f"{frame.path(seconds, above)} {frame.path(seconds[::-1], below[::-1])}", number, kind)
        for number, ((kind, _), (below, above)) in enumerate(zip(series, pairwise(edges), strict=True), start=1)
    ]
    summary = f"{name}: " + (", ".join(f"{kind} {values[-1]:,.0f}" for kind, values in series) or "none")
    breaks = [round(frame.x(at), 1) for at in breaks_s]
    return Chart(name, summary, layers, "", frame.levels(_count), frame.times(), breaks)


def tick_step(most: float, least: float = 1.0) -> float:
    """Return the largest of 1, 2 or 5 times a power of ten that goes twice into ``most``; at least ``least``."""
    power = 10.0 ** math.floor(math.log10(max(2 * least, most) / 2))
    return next((step for step in (5 * power, 2 * power) if step <= most / 2), power)
