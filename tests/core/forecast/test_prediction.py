"""What --plan says of the time: bounds, advice, and large plans in pieces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.core.forecast import prediction
from ddmpi.core.forecast.prediction import MOST_BATCHES, START_AND_END_S, predict
from ddmpi.core.ledger.schedule import CPU_PER_ROW_S, Plan, row_time_s
from ddmpi.core.records import BatchRef, Limits


def large_plan(servers: int, batches_each: int, limits: Limits, most_lanes: int = 1) -> Plan:
    """Servers with batches of 10,000 rows."""
    names = [f"s{number}" for number in range(servers)]
    batch_group = np.repeat(np.arange(servers), batches_each)
    return Plan(
        batch_rows=np.full(len(batch_group), 10_000, np.int64),
        batch_group=batch_group,
        group_names=names,
        limits=lambda _: limits,
        row_times=np.full(servers, row_time_s(limits, 0.2)),
        ref=lambda batch_id: BatchRef(batch_id, names[int(batch_group[batch_id])], batch_id, "", 0, 0, 10_000),
        group_of_server=lambda _server, _group: None,
        max_lanes=lambda _: most_lanes,
        workers=[0],
    )


def test_a_prediction_adds_the_start_and_the_slowest_servers_samples() -> None:
    plan = large_plan(3, 2, Limits(10.0, 8))
    bare = predict(plan, plan.batch_rows, 2)
    assert bare.is_whole
    assert bare.makespan_s == pytest.approx(2000 + START_AND_END_S, abs=0.1)
    profiled = predict(plan, plan.batch_rows, 2, samples_per_server=3)
    assert profiled.makespan_s - bare.makespan_s == pytest.approx(2 / 10 + 0.2)


def test_rows_that_are_final_take_no_time() -> None:
    plan = large_plan(2, 2, Limits(10.0, 8))
    left = plan.batch_rows * np.array([1, 0, 0, 0])
    assert predict(plan, left, 1).makespan_s == pytest.approx(1000 + START_AND_END_S, abs=0.1)
    nothing = predict(plan, left * 0, None)
    assert (nothing.makespan_s, nothing.bound_s, nothing.bound_group) == (0.0, 0.0, 0)


def test_as_many_ranks_are_advised_as_shorten_the_run() -> None:
    plan = replace(large_plan(40, 5, Limits(0.0, 200)), connections_per_rank=4000)
    found = predict(plan, plan.batch_rows, None)
    alone = predict(plan, plan.batch_rows, 1)
    assert alone.makespan_s > 10 * found.makespan_s
    assert found.advised_workers == found.workers
    assert 10 <= found.workers <= 40
    limited = large_plan(40, 5, Limits(1.0, 8))
    assert predict(limited, limited.batch_rows, None).advised_workers == 1


def test_a_large_plan_is_simulated_in_pieces_with_the_same_end() -> None:
    plan = large_plan(100, 300, Limits(10.0, 8))
    assert len(plan.batch_rows) > MOST_BATCHES
    found = predict(plan, plan.batch_rows, 3)
    assert not found.is_whole
    assert found.makespan_s == pytest.approx(found.bound_s, rel=0.01)


def test_no_row_is_left_out_where_batches_are_joined() -> None:
    plan = large_plan(1, 3, Limits(1.0, 8))
    found = predict(plan, np.array([10, 10, 12], np.int64), 1)
    assert found.makespan_s == pytest.approx(32 + START_AND_END_S, abs=0.1)


@pytest.fixture
def few_groups(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many servers are simulated, as if they were very many."""
    monkeypatch.setattr(prediction, "MOST_GROUPS", 5)
    return 5


def test_of_very_many_servers_those_that_take_longest_are_simulated(few_groups: int) -> None:
    plan = large_plan(10 * few_groups, 1, Limits(100.0, 8))
    plan.batch_rows[:] = 100
    plan.batch_rows[-1] = 100_000
    found = predict(plan, plan.batch_rows, 4)
    assert not found.is_whole
    assert found.bound_group == 10 * few_groups - 1
    assert found.makespan_s == pytest.approx(2500 + START_AND_END_S, abs=0.1)


def test_rows_that_are_not_simulated_keep_the_ranks_busy(few_groups: int) -> None:
    plan = large_plan(10 * few_groups, 1, Limits(0.0, 200))
    found = predict(plan, plan.batch_rows, 1)
    assert found.makespan_s == pytest.approx(10 * few_groups * 10_000 * CPU_PER_ROW_S, rel=0.05)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.integers(1, 8),
    st.integers(1, 3),
    st.sampled_from([0.0, 1.0, 50.0]),
    st.integers(1, 5),
    st.integers(0, 3),
    st.data(),
)
def test_no_prediction_is_below_its_bound(
    servers: int, batches: int, rate_per_s: float, workers: int, samples: int, data: st.DataObject
) -> None:
    plan = large_plan(servers, batches, Limits(rate_per_s, 8))
    left = np.array(data.draw(st.lists(st.integers(0, 500), min_size=servers * batches, max_size=servers * batches)))
    found = predict(plan, left, workers, samples_per_server=samples)
    assert found.makespan_s >= found.bound_s
    assert found.workers == workers
    assert found.is_whole
