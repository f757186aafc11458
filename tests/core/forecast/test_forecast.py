"""Forecasts by the batch: they agree with runs by the row, over real frontiers, and stay quick for large plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from ddmpi.core.forecast.coarse_rank import CoarseModel
from ddmpi.core.forecast.forecast import Forecast, ForecastError, ForecastReport
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


def forecast(world: World, ranks: int, model: CoarseModel | None = None, most_lanes: int = 1) -> ForecastReport:
    plan = world.plan(range(ranks), {1: most_lanes})
    return Forecast(plan, np.zeros_like(plan.batch_rows), model).run()


def by_the_row(world: World, cluster: Cluster) -> float:
    return Simulation(world, cluster, Disk(), Witness(), seed=1).run().ended_at_s


def test_rates_decide_as_in_a_run_by_the_row() -> None:
    sizes = {f"s{number}": 20 + 23 * number for number in range(24)}
    limits = {f"s{number}": Limits(4.0 + number, 8) for number in range(0, 24, 3)}
    it = world(sizes, limits)
    assert forecast(it, 3).makespan_s == pytest.approx(by_the_row(it, Cluster(3)), rel=0.03)


def test_a_ranks_own_speed_decides_as_in_a_run_by_the_row() -> None:
    sizes = {f"s{number}": 200 for number in range(16)}
    it = world(sizes, dict.fromkeys(sizes, Limits(0.0, 8)))
    slow = Cluster(2, model=RankModel(cpu_per_answer_s=0.02), low_water_rows=10)
    expected_s = by_the_row(it, slow)
    assert expected_s >= 3200 / 2 * 0.02
    assert forecast(it, 2, CoarseModel(cpu_per_row_s=0.02)).makespan_s == pytest.approx(expected_s, rel=0.05)


def test_work_flows_away_from_a_slow_rank() -> None:
    it = world({f"s{number}": 100 for number in range(60)}, {})
    plan, none_final = it.plan(range(3), {1: 1}), np.zeros(120, np.int64)
    few = CoarseModel(connections=12)
    slow = {1: replace(few, cpu_per_row_s=0.2)}
    waiting = {rank: replace(slow.get(rank, few), steals=False) for rank in range(3)}
    alone = Forecast(plan, none_final, few, waiting).run()
    shared = Forecast(plan, none_final, few, slow).run()
    assert alone.steals == 0
    assert alone.makespan_s == pytest.approx(20 * 100 * 0.2, rel=0.01)
    assert shared.steals > 0
    assert shared.makespan_s < 0.4 * alone.makespan_s


def test_the_same_plan_gives_the_same_forecast() -> None:
    it = world({f"s{number}": 30 * number for number in range(1, 20)}, {})
    assert forecast(it, 4) == forecast(it, 4)


def test_a_forecast_whose_ranks_say_nothing_ends_with_an_error() -> None:
    plan = world({"s": 10}, {}).plan(range(2), {1: 1})

    class Deaf(Forecast):
        def decide(self, rank: int, message: ToCoordinator) -> list[object]:  # type: ignore[override]  # drops all
            del rank, message
            return []

    with pytest.raises(ForecastError, match="no end after"):
        Deaf(plan, np.zeros_like(plan.batch_rows)).run()
