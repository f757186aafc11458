"""The measurements of all runs as the report's points and lines: the time that they show, and how many there are."""

from __future__ import annotations

import msgspec

from ddmpi.core.stats.metrics import MOST_POINTS, Measurement
from ddmpi.report.data import (
    MOST_FAILURES,
    MOST_RUNS,
    FailureLine,
    Failures,
    Point,
    failure_text,
    failures_by_code,
    failures_by_server,
    joined,
    points_of,
    runs_of,
)


def line(unix_s: float, run: int, fetched_rows: int, exit_code: int | None = None) -> Measurement:
    base = Measurement("2030-01-01T10:20:30+00:00", unix_s, run, "downloading", 4, 100, 0, 0, 0, fetched_rows, 0, 0)
    return msgspec.structs.replace(base, exit_code=exit_code)


LINES = [
    line(100.0, 1, 0), line(110.0, 1, 50), line(500.0, 2, 50), line(490.0, 2, 60), line(520.0, 2, 90, 75),
    line(900.0, 3, 90), line(905.0, 3, 100, 0),
]  # fmt: skip


def test_time_stands_still_between_runs_and_never_goes_back() -> None:
    points, breaks_s = points_of(LINES)
    assert [point.seconds for point in points] == [0.0, 0.0, 10.0, 10.0, 10.0, 40.0, 40.0, 45.0]
    assert breaks_s == [10.0, 40.0]
    assert points_of([])[0] == [Point(0.0, 0, 0)]


def test_runs_are_told_by_what_each_has_added() -> None:
    found = runs_of(LINES, run=3)
    assert [(run.number, run.rows, run.seconds, run.ending) for run in found] == [
        (3, 10, 5.0, "now"), (2, 40, 20.0, "stopped or rows pending"), (1, 50, 10.0, "killed"),
    ]  # fmt: skip
    assert found[0].began == "2030-01-01 10:20"
    assert len(runs_of([line(float(run), run, run) for run in range(100)], run=99)) == MOST_RUNS


def test_a_long_history_is_thinned_and_the_current_run_is_not() -> None:
    earlier = [line(float(second), 1 + second // 2000, second) for second in range(6000)]
    current = [line(1e5 + second, 4, 6000 + second) for second in range(50)]
    lines = joined([*earlier, line(1e5, 4, 6000)], current, run=4)
    assert lines[-50:] == current
    assert len(lines) <= MOST_POINTS + 50
    assert {it.run for it in lines} == {1, 2, 3, 4}
    many_runs = [line(float(run), run, run) for run in range(5000)]
    assert joined(many_runs, [], run=9999) == many_runs, "the first and last line of each run is never given up"


def test_a_kill_costs_rows_and_never_makes_more_than_there_are() -> None:
    """Three runs fetch the same rows: two are killed before they are durable."""
    base = msgspec.structs.replace(line(0.0, 1, 0), rows=1_500, ignored=100)
    lines = [
        msgspec.structs.replace(base, unix_s=at, run=run, fetched_rows=fetched, successes=durable)
        for at, run, fetched, durable in (
            (0.0, 1, 0, 0), (10.0, 1, 1_000, 200), (20.0, 2, 1_000, 200), (30.0, 2, 2_000, 300),
            (40.0, 3, 2_000, 300), (50.0, 3, 3_100, 1_400),
        )
    ]  # fmt: skip
    points, _ = points_of(lines)
    assert [point.rows for point in points] == [0, 0, 1_000, 200, 1_200, 300, 1_400]
    assert [point.fetched for point in points[1:]] == [0, 1_000, 1_000, 2_000, 2_000, 3_100]


def test_a_run_that_ended_was_not_killed_whatever_came_after_its_last_line() -> None:
    lines = [line(0.0, 1, 0), line(10.0, 1, 100, 0), line(11.0, 1, 100, None), line(20.0, 2, 100)]
    assert [run.ending for run in runs_of(lines, run=2)] == ["now", "all rows final"]


FAILURES = {
    ("a.org", "http_status", 404): Failures(5, ("https://a.org/1", "https://a.org/2", "https://a.org/3")),
    ("b.org", "http_status", 404): Failures(9, ("https://b.org/1",)),
    ("b.org", "http_status", 500): Failures(2, ()),
    ("a.org", "dns", -1): Failures(20, ("https://a.org/4",)),
}


def test_errors_by_code_have_examples_of_several_servers() -> None:
    assert failures_by_code(FAILURES) == [
        FailureLine("dns", -1, 20, "a.org", 1, ["https://a.org/4"]),
        FailureLine("http_status", 404, 14, "b.org", 2, ["https://b.org/1", "https://a.org/1", "https://a.org/2"]),
        FailureLine("http_status", 500, 2, "b.org", 1, []),
    ]
    assert [failure_text(it.kind, it.code) for it in failures_by_code(FAILURES)] == [
        "dns", "http_status 404", "http_status 500",
    ]  # fmt: skip


def test_errors_by_server_begin_with_the_most() -> None:
    assert [(it.server, it.code, it.rows) for it in failures_by_server(FAILURES)] == [
        ("a.org", -1, 20), ("b.org", 404, 9), ("a.org", 404, 5), ("b.org", 500, 2),
    ]  # fmt: skip
    many = {(f"{number}.org", "dns", -1): Failures(1, ()) for number in range(2 * MOST_FAILURES)}
    assert len(failures_by_server(many)) == MOST_FAILURES
