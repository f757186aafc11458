"""Metrics: what a line says, what stays of a long history, what Prometheus reads, what damage costs."""

from __future__ import annotations

import logging
import os
import re
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.stats.metrics import (
    MOST_POINTS,
    History,
    Measurement,
    continued,
    prometheus_text,
    thinned,
    with_rates,
)
from ddmpi.io.folder import stats_files
from ddmpi.io.folder.stats_files import MetricsFile, PrometheusFile
from ddmpi.io.process import resident_bytes
from tests.whole.faults import Faults


def line(unix_s: float, run: int = 1, fetched_rows: int = 0, **changes: object) -> Measurement:
    base = Measurement(
        "2030-01-01T00:00:00+00:00", unix_s, run, "downloading", 4, 100, 60, 10, 5, fetched_rows, 2 * fetched_rows,
        1000 * fetched_rows, error_kinds={"dns": 4, "http_status": 6},
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def test_pending_rows_are_those_without_an_outcome_and_not_ignored() -> None:
    assert line(0.0).pending == 25


def test_rates_are_means_since_the_line_before() -> None:
    found = with_rates(line(110.0, fetched_rows=70), line(100.0, fetched_rows=20))
    assert (found.rows_per_s, found.requests_per_s, found.bytes_per_s) == (5.0, 10.0, 5000.0)
    assert with_rates(line(110.0, fetched_rows=70), None).rows_per_s == 0.0
    assert with_rates(line(110.0, fetched_rows=70), line(110.0)).rows_per_s == 0.0, "a clock that was set back"


def test_totals_continue_where_the_last_run_ended() -> None:
    now = msgspec.structs.replace(line(10.0), fetched_rows=1, requests=2, bytes=3, urls=4, refused=5, kept_bytes=6)
    assert continued(now, None) == now
    found = continued(now, line(0.0, fetched_rows=7, urls=10, refused=20, kept_bytes=30))
    assert (found.unix_s, found.fetched_rows, found.requests, found.bytes) == (10.0, 8, 16, 7003)
    assert (found.urls, found.refused, found.kept_bytes) == (14, 25, 36)


@given(st.lists(st.integers(1, 4), max_size=60).map(sorted))
def test_thinning_keeps_the_ends_of_each_run_and_the_order(runs: list[int]) -> None:
    lines = [line(float(number), run) for number, run in enumerate(runs)]
    kept = thinned(lines)
    assert kept == sorted(kept, key=lambda it: it.unix_s)
    assert {it.unix_s for it in kept} >= {
        ends for run in set(runs) for ends in (runs.index(run), len(runs) - 1 - runs[::-1].index(run))
    }
    assert len(kept) <= len(lines) / 2 + 2 * len(set(runs))


# ---- the file


def test_the_history_goes_on_over_runs_and_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "logs" / "metrics.jsonl")
    assert file.last() is None
    assert file.read() == []
    file.append(line(1.0))
    with file.path.open("ab") as torn:
        torn.write(b'{"time": "2030')
    later = MetricsFile(file.path)
    assert later.last() == line(1.0)
    later.append(line(2.0, run=2))
    with file.path.open("ab") as torn:
        torn.write(b"\xff\xfe\n")
    assert later.read() == [line(1.0), line(2.0, run=2)]
    assert later.last() == line(2.0, run=2)


def test_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats_files, "MOST_BYTES", 20_000)
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for second in range(1000):
        file.append(line(float(second)))
    lines = file.read()
    assert file.path.stat().st_size < 21_000
    assert (lines[0].unix_s, lines[-1].unix_s) == (0.0, 999.0)
    assert len(lines) > 10


def test_a_disk_that_takes_no_metrics_is_told_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    faults = Faults(monkeypatch, fail_at=1, lasting=True)
    file = MetricsFile(tmp_path / "logs" / "metrics.jsonl")
    prometheus = PrometheusFile(tmp_path / "ddmpi.prom", "out")
    with caplog.at_level(logging.WARNING):
        for second in range(3):
            file.append(line(float(second)))
            prometheus.write(line(float(second)))
    assert faults.fired
    assert len(caplog.records) == 2


# ---- Prometheus

SAMPLE = re.compile(r'ddmpi_[a-z_]+\{(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+\} [0-9.e+-]+')
"""A sample with labels, by the text format 0.0.4."""


def test_prometheus_gets_every_family_once_with_its_type(tmp_path: Path) -> None:
    path = tmp_path / "ddmpi.prom"
    PrometheusFile(path, 'a "strange"\n\\name').write(
        line(5.0, fetched_rows=3, exit_code=75, kept_bytes=9, usage_signals={"x-robots-tag: noai": 2})
    )
    lines = path.read_text().splitlines()
    samples = [text for text in lines if not text.startswith("#")]
    assert all(SAMPLE.fullmatch(sample) for sample in samples), samples
    types = [text.split()[2] for text in lines if text.startswith("# TYPE")]
    assert len(set(types)) == len(types)
    assert {sample.partition("{")[0] for sample in samples} == set(types)
    label = r'output="a \"strange\"\n\\name"'
    assert f'ddmpi_rows_final{{{label},outcome="success"}} 60' in samples
    assert f'ddmpi_errors{{{label},kind="dns"}} 4' in samples
    assert f"ddmpi_fetched_rows_total{{{label}}} 3" in samples
    assert f"ddmpi_exit_code{{{label}}} 75" in samples
    assert f"ddmpi_kept_bytes_total{{{label}}} 9" in samples
    assert f'ddmpi_usage_signal_rows{{{label},signals="x-robots-tag: noai"}} 2' in samples
    assert "ddmpi_exit_code" not in prometheus_text(line(5.0), "out")


# ---- what a chart needs


def test_a_history_stays_small_and_even() -> None:
    history = History(0.0)
    for second in range(86_400):
        if history.is_due(second):
            history.add(second, line(float(second)))
    times = [it.unix_s for it in history.lines]
    assert MOST_POINTS / 2 <= len(times) <= MOST_POINTS
    assert {later - earlier for earlier, later in pairwise(times)} == {history.interval_s}
    assert times[0] == 0.0
    assert times[-1] > 86_400 - history.interval_s - 1


def test_a_short_run_keeps_a_point_per_second() -> None:
    history = History(0.0)
    for tenth in range(5_000):
        if history.is_due(tenth / 10):
            history.add(tenth / 10, line(tenth / 10))
    assert [it.unix_s for it in history.lines] == list(range(500))


def test_memory_is_what_the_process_holds() -> None:
    assert 1 << 20 < resident_bytes(os.getpid()) < 1 << 40
    assert resident_bytes(0) == 0
