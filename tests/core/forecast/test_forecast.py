"""Forecasts by the batch: they agree with runs by the row, over real frontiers, and stay quick for large plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from ddmpi.core.forecast.coarse_rank import CoarseModel
from ddmpi.core.forecast.forecast import Forecast, ForecastError
from ddmpi.core.protocol import ToCoordinator
from ddmpi.core.records import Limits
from tests.laws.witness import Witness
from tests.simulation.disk import Disk
from tests.simulation.simulation import Simulation
from tests.worlds.at_random import table
from tests.worlds.model import Cluster, RankModel, ServerModel, World

LATENCY_S = 0.13
"""Simulated answers take half as long again, on average: the 0.2 s that a plan assumes of an unknown server."""


def world(sizes: Mapping[str, int], limits: Mapping[str, Limits]) -> World:
    servers = {name: ServerModel(latency_s=LATENCY_S) for name in sizes}
    return World(table(dict(sizes), {}, batch_size=50, small_rows=0), servers, limits, Limits(10.0, 8))


def forecast(world: World, ranks: int, model: CoarseModel | None = None, most_lanes: int = 1) -> Forecast:
    """A forecast that has come to its end."""
    plan = world.plan(range(ranks), {1: most_lanes})
    found = Forecast(plan, np.zeros_like(plan.batch_rows), model)
    found.run()
    return found


def by_the_row(world: World, cluster: Cluster) -> float:
    return Simulation(world, cluster, Disk(), Witness(), seed=1).run().ended_at_s


def test_rates_decide_as_in_a_run_by_the_row() -> None:
    sizes = {f"s{number}": 20 + 23 * number for number in range(24)}
    limits = {f"s{number}": Limits(4.0 + number, 8) for number in range(0, 24, 3)}
    it = world(sizes, limits)
    assert forecast(it, 3).now == pytest.approx(by_the_row(it, Cluster(3)), rel=0.03)


def test_a_ranks_own_speed_decides_as_in_a_run_by_the_row() -> None:
    sizes = {f"s{number}": 200 for number in range(16)}
    it = world(sizes, dict.fromkeys(sizes, Limits(0.0, 8)))
    slow = Cluster(2, model=RankModel(cpu_per_answer_s=0.02), low_water_rows=10)
    expected_s = by_the_row(it, slow)
    assert expected_s >= 3200 / 2 * 0.02
    assert forecast(it, 2, CoarseModel(cpu_per_row_s=0.02)).now == pytest.approx(expected_s, rel=0.05)


def test_work_flows_away_from_a_slow_rank() -> None:
    it = world({f"s{number}": 100 for number in range(60)}, {})
    plan, none_final = it.plan(range(3), {1: 1}), np.zeros(120, np.int64)
    few = CoarseModel(connections=12)
    slow = {1: replace(few, cpu_per_row_s=0.2)}
    waiting = {rank: replace(slow.get(rank, few), steals=False) for rank in range(3)}
    alone, shared = Forecast(plan, none_final, few, waiting), Forecast(plan, none_final, few, slow)
    assert alone.run() == pytest.approx(20 * 100 * 0.2, rel=0.01)
    assert alone.ledger.stealing.steals == 0
    assert shared.run() < 0.4 * alone.now
    assert shared.ledger.stealing.steals > 0


def test_the_same_plan_gives_the_same_forecast() -> None:
    it = world({f"s{number}": 30 * number for number in range(1, 20)}, {})
    first, second = (forecast(it, 4) for _ in range(2))
    assert first.now == second.now
    assert first.messages == second.messages
    assert first.ledger.stealing.steals == second.ledger.stealing.steals


def test_a_forecast_whose_ranks_say_nothing_ends_with_an_error() -> None:
    plan = world({"s": 10}, {}).plan(range(2), {1: 1})

    class Deaf(Forecast):
        def decide(self, rank: int, message: ToCoordinator) -> list[object]:  # type: ignore[override]  # drops all
            del rank, message
            return []

    with pytest.raises(ForecastError, match="no end after"):
        Deaf(plan, np.zeros_like(plan.batch_rows)).run()
