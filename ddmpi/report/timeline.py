"""From measurements of all runs to the points of the charts and the lines of the runs. Pure.

The charts' time is running time: between two runs it stands still, and a clock that was set back adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

from ddmpi.core.stats.metrics import MOST_POINTS, Measurement, thinned
from ddmpi.errors import EXIT_DONE
from ddmpi.report.data import Point, RunLine

MOST_RUNS = 20


def joined(earlier: Sequence[Measurement], current: Sequence[Measurement], run: int) -> list[Measurement]:
    """Earlier runs from the file, the current one as it was measured more often; few enough for a chart."""
    before = [line for line in earlier if line.run != run]
    while len(before) > MOST_POINTS and len(smaller := thinned(before)) < len(before):
        before = smaller
    return [*before, *current]


def points_of(lines: Sequence[Measurement]) -> tuple[list[Point], list[float]]:
    """The points, and where in their time another run begins."""
    points = [Point(0.0, 0, 0)]
    breaks_s = []
    seconds = 0.0
    before: Measurement | None = None
    for line in lines:
        if before is not None and before.run == line.run:
            seconds += max(0.0, line.unix_s - before.unix_s)
        elif before is not None:
            breaks_s.append(seconds)
        points.append(Point(seconds, line.fetched_rows, line.bytes, line.error_kinds))
        before = line
    return points, breaks_s


def runs_of(lines: Sequence[Measurement], run: int) -> list[RunLine]:
    """The runs, newest first; ``run`` is the one that ends now."""
    found = []
    rows = requests = size_bytes = 0
    for number, group in groupby(lines, key=attrgetter("run")):
        of_run = list(group)
        first, last = of_run[0], of_run[-1]
        ending = "now" if number == run else _ending(last.exit_code)
        found.append(
            RunLine(
                number, first.time[:16].replace("T", " "), max(0.0, last.unix_s - first.unix_s), last.ranks,
                last.fetched_rows - rows, last.requests - requests, last.bytes - size_bytes, ending,
            )
        )  # fmt: skip
        rows, requests, size_bytes = last.fetched_rows, last.requests, last.bytes
    return found[::-1][:MOST_RUNS]


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "killed"
    return "all rows final" if exit_code == EXIT_DONE else "stopped or rows pending"
