"""Which batches flow first, and which rank gets which lane."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.ledger.schedule import (
    CPU_PER_ROW_S,
    LeastLoaded,
    Plan,
    flow_order,
    lane_cost_s,
    lanes_for,
    lower_bound_s,
    row_time_s,
)
from ddmpi.core.records import Limits
from tests.worlds.at_random import table
from tests.worlds.model import World


def plan(sizes: Mapping[str, int], limits: Mapping[str, Limits] | None = None, ranks: int = 4, most: int = 1) -> Plan:
    """Batches of 10 rows of servers with 10 requests per second each, or ``limits``."""
    world = World(table(dict(sizes), {}, batch_size=10, small_rows=0), {}, limits or {}, Limits(10.0, 4))
    return world.plan(range(ranks), {1: most})


def flow(plan: Plan, open_batches: list[int] | None = None) -> list[str]:
    """Names of the groups of the batches, in the order of flow."""
    chosen = range(len(plan.batch_rows)) if open_batches is None else open_batches
    order = flow_order(plan, np.array(chosen, np.int64))
    return [plan.group_names[int(plan.batch_group[batch_id])] for batch_id in order]


@pytest.mark.parametrize(
    ("sizes", "limits", "expected"),
    [
        pytest.param({}, {}, [], id="nothing flows of nothing"),
        pytest.param({"a": 20, "b": 10}, {}, ["a", "b", "a"], id="every server runs early"),
        pytest.param({"a": 10, "b": 30}, {}, ["b", "a", "b", "b"], id="the one with the most time left comes first"),
        pytest.param({"a": 20, "b": 20}, {"b": Limits(1.0, 1)}, ["b", "a", "a", "b"], id="a slow server is a long one"),
    ],
)
def test_flow_order(sizes: dict[str, int], limits: dict[str, Limits], expected: list[str]) -> None:
    assert flow(plan(sizes, limits)) == expected


def test_servers_of_a_group_take_turns() -> None:
    groups = {"a": "joint", "b": "joint"}
    world = World(table({"a": 30, "b": 20}, groups, batch_size=10, small_rows=0), {}, {}, Limits(10.0, 4))
    made = world.plan(range(4), {1: 1})
    order = flow_order(made, np.arange(5))
    assert [made.ref(int(batch_id)).server_name for batch_id in order] == ["a", "b", "a", "b", "a"]


def test_only_open_batches_flow() -> None:
    assert flow(plan({"a": 20, "b": 10}), [1, 2]) == ["a", "b"]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.data())
def test_flow_order_is_a_permutation_that_keeps_each_servers_batches_in_order(
    sizes: list[int], data: st.DataObject
) -> None:
    made = plan({f"s{number}": rows for number, rows in enumerate(sizes)})
    every = range(len(made.batch_rows))
    chosen = data.draw(st.lists(st.sampled_from(every), unique=True).map(sorted))
    order = flow_order(made, np.array(chosen, np.int64)).tolist()
    assert sorted(order) == chosen
    for group in range(len(made.group_names)):
        own = [batch_id for batch_id in order if made.batch_group[batch_id] == group]
        assert own == sorted(own)


@pytest.mark.parametrize(
    ("limits", "latency_s", "largest", "rows", "expected"),
    [
        pytest.param(Limits(2.0, 8), 0.1, 0, 1, 0.5, id="the rate"),
        pytest.param(Limits(0.0, 4), 0.2, 0, 1, 0.05, id="the latency over all connections"),
        pytest.param(Limits(100.0, 1), 0.2, 0, 1, 0.2, id="the latency where it is slower than the rate"),
        pytest.param(Limits(0.0, 1000), 0.2, 0, 1, CPU_PER_ROW_S, id="a rank's own speed"),
        pytest.param(Limits(2.0, 8), 0.1, 20, 100, 0.1, id="a pack takes as long as its largest server"),
    ],
)
def test_the_slowest_decides_the_time_of_a_row(
    limits: Limits, latency_s: float, largest: int, rows: int, expected: float
) -> None:
    assert row_time_s(limits, latency_s, largest, rows) == pytest.approx(expected)


def test_no_schedule_is_shorter_than_its_slowest_server() -> None:
    made = plan({"a": 100, "b": 50}, {"b": Limits(1.0, 1)})
    bound_s, slowest = lower_bound_s(made, made.batch_rows)
    assert bound_s == pytest.approx(50.0)
    assert made.group_names[slowest] == "b"
    assert lower_bound_s(plan({}), np.zeros(0, np.int64)) == (0.0, -1)


@pytest.mark.parametrize(
    ("group", "limits", "batches", "most", "expected"),
    [
        pytest.param("s", Limits(0.0, 8), 10, 16, 4, id="one lane for each rank"),
        pytest.param("s", Limits(0.0, 8), 10, 2, 2, id="as many as the rules allow"),
        pytest.param("s", Limits(0.0, 8), 3, 16, 3, id="no lane without a batch"),
        pytest.param("s", Limits(0.0, 2), 10, 16, 2, id="no lane without a connection"),
        pytest.param("s", Limits(501.0, 8), 10, 16, 4, id="a rate above what one rank can do"),
        pytest.param("s", Limits(500.0, 8), 10, 16, 1, id="a rate that one rank can do"),
        pytest.param("__many__/0", Limits(0.0, 8), 10, 16, 1, id="a pack is one lane"),
        pytest.param("__invalid__", Limits(0.0, 8), 10, 16, 1, id="refused rows are one lane"),
    ],
)
def test_lanes(group: str, limits: Limits, batches: int, most: int, expected: int) -> None:
    assert lanes_for(plan({"s": 10}, {group: limits}, most=most), group, batches, batches) == expected


def test_a_lane_without_a_rate_costs_its_connections_and_one_with_a_rate_only_those_that_it_keeps_busy() -> None:
    free = lane_cost_s(1000, 10.0, Limits(0.0, 64), 0.01, 256)
    limited = lane_cost_s(1000, 10.0, Limits(1.0, 64), 1.0, 256)
    assert free == pytest.approx(0.3 + 10.0 * 64 / 256)
    assert limited == pytest.approx(0.3 + 10.0 * 0.2 / 256)


def test_the_least_loaded_rank_is_taken_and_charged() -> None:
    ranks = LeastLoaded({1: 0.0, 2: 5.0, 3: 1.0})
    assert [ranks.take(2.0) for _ in range(4)] == [1, 3, 1, 3]
    assert ranks.take(1.0, but_not={1, 3}) == 2
    assert ranks.take(1.0) == 1, "those that were passed over are still there"


def test_no_rank_is_left() -> None:
    with pytest.raises(IndexError):
        LeastLoaded({1: 0.0}).take(1.0, but_not={1})
