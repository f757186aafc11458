"""How servers were asked: counts that can be added, and what is kept of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.stats.usage import BUCKETS, GroupUsage, UsageCounter, UsageTable, buckets_of, percentiles
from ddmpi.io.folder.stats_files import read_usage, write_usage


@given(st.floats(0.001, 100.0))
def test_a_percentile_is_right_to_within_a_fifth(latency_s: float) -> None:
    counts = np.zeros(BUCKETS, np.uint32)
    counts[bucket_of(latency_s)] = 3
    p50_s, p95_s = percentiles(counts)
    assert p50_s == pytest.approx(latency_s, rel=0.2)
    assert p95_s == p50_s


def bucket_of(latency_s: float) -> int:
    (bucket,) = buckets_of(np.array([latency_s])).tolist()
    return int(bucket)


def test_percentiles_are_those_of_the_counted_answers() -> None:
    counts = np.zeros(BUCKETS, np.uint32)
    counts[bucket_of(0.05)] = 90
    counts[bucket_of(2.0)] = 10
    p50_s, p95_s = percentiles(counts)
    assert p50_s == pytest.approx(0.05, rel=0.2)
    assert p95_s == pytest.approx(2.0, rel=0.2)
    assert percentiles(np.zeros(BUCKETS, np.uint32)) == (0.0, 0.0)
    assert (bucket_of(0.0), bucket_of(1e9)) == (0, BUCKETS - 1)


def counted(group: str, times: list[tuple[float, float]], now: float, throttled: int = 0) -> UsageTable:
    counter, table = UsageCounter(), UsageTable()
    for number, (started_at, ended_at) in enumerate(times):
        counter.add(group, started_at, ended_at, 1000, throttled=number < throttled)
    table.add(counter.take(now), now)
    assert counter.take(now) == ()
    return table


def test_ranks_add_up_though_their_clocks_differ() -> None:
    """Messages carry durations: the same requests, counted by a rank whose clock is a day ahead."""
    table = counted("a", [(100.0, 100.1), (105.0, 105.2)], now=110.0, throttled=1)
    other = UsageCounter()
    other.add("a", 86_502.0, 86_508.0, 500, throttled=False)
    table.add(other.take(86_510.0), 110.0)
    usage = table.get("a", 110.0)
    assert usage is not None
    assert (usage.requests, usage.throttled, usage.bytes) == (3, 1, 2500)
    assert usage.span_s == pytest.approx(8.0), "from 100.0 to 108.0"
    assert usage.rate_per_s == 0.0, "of less than ten seconds nothing is said"
    assert table.get("b", 110.0) is None


@pytest.mark.parametrize(
    ("requests", "span_s", "rate_per_s"),
    [
        pytest.param(1, 0.0005, 0.0, id="a fraction of a second has no rate"),
        pytest.param(2, 0.9, 0.0, id="nor have two requests"),
        pytest.param(50, 9.9, 0.0, id="nor has a moment of less than ten seconds"),
        pytest.param(101, 10.0, 10.0, id="the first request waits for none"),
    ],
)
def test_the_rate_is_never_that_of_a_moment(requests: int, span_s: float, rate_per_s: float) -> None:
    assert GroupUsage(requests, 0, 0, span_s, 0.0, 0.0, 0.0).rate_per_s == rate_per_s


def test_pauses_that_overlap_count_once_and_end_with_the_run() -> None:
    table = UsageTable()
    table.note_pause("a", 10.0, 100.0)
    table.note_pause("a", 10.0, 105.0)
    table.note_pause("a", 60.0, 200.0)
    early, late = table.get("a", 210.0), table.get("a", 300.0)
    assert early is not None
    assert late is not None
    assert (early.paused_s, late.paused_s) == (25.0, 75.0)


def test_counts_go_on_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "servers.parquet"
    assert len(read_usage(path)) == 0
    table = counted("a", [(0.0, 1.0), (3.0, 4.0)], now=5.0)
    table.note_pause("a", 10.0, 2.0)
    write_usage(path, table, 5.0)
    later = read_usage(path)
    counter = UsageCounter()
    counter.add("a", 1000.0, 1006.0, 7, throttled=True)
    later.add(counter.take(1006.0), 1006.0)
    usage = later.get("a", 1006.0)
    assert usage is not None
    assert (usage.requests, usage.throttled, usage.span_s, usage.paused_s) == (3, 1, 10.0, 3.0)
    path.write_bytes(b"no Parquet")
    assert len(read_usage(path)) == 0


def test_a_hundred_thousand_groups_stay_small() -> None:
    table, counter = UsageTable(), UsageCounter()
    for number in range(100_000):
        counter.add(f"s{number}", 0.0, 0.1, 10, throttled=False)
    table.add(counter.take(1.0), 1.0)
    assert len(table) == 100_000
    assert table.numbers.nbytes + table.latencies.nbytes < 40_000_000
