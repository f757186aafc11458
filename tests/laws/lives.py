"""The lives of a random job: the same seed gives the same ones. Each is a world, some runs that are killed or stopped,
with other numbers of ranks, and a last one that is left alone."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from ddmpi.core.protocol import ControlOverride
from tests.laws.laws import Laws, run
from tests.simulation.disk import Disk
from tests.simulation.simulation import Simulation
from tests.worlds.at_random import random_cluster, random_world, with_mirrors, with_robots
from tests.worlds.model import Cluster, RunReport, World

RANKS = (1, 2, 3, 5, 8, 16)
SOON_S = (0.5, 5.0)
LATER_S = 4000.0
"""Time between two runs; the longest one lets the bytes of an hour be forgotten."""
LONGEST_S = 500.0
"""The last run is stopped then: slow servers are no news after so long."""


def play(seed: int) -> list[RunReport]:
    """Live through the job of this seed under the eyes of the laws.

    Raises:
        AssertionError: a law is broken, or rows are missing at the end.
        Exception: a bug of a core.
    """
    rng = random.Random(seed)
    world, cluster = random_world(rng), random_cluster(rng)
    if rng.random() < 0.25:
        world = with_robots(world, rng)
    if rng.random() < 0.4:
        world = with_mirrors(world, rng)
    cluster = replace(cluster, samples=rng.choice([0, 0, 1, 3]))
    disk = Disk()
    reports: list[RunReport] = []
    laws = Laws(world, disk)
    start_at_s = 0.0
    for life in range(rng.choice([1, 1, 2, 3, 5])):
        ends_at_s = start_at_s + rng.choice([0.1, 2.0, 20.0, 200.0]) * rng.random()
        is_kill = rng.random() < 0.6
        doomed = replace(
            _controlled(cluster, world, rng, start_at_s),
            ranks=rng.choice(RANKS),
            kill_at_s=ends_at_s if is_kill else math.inf,
            stop_at_s=math.inf if is_kill else ends_at_s,
        )
        reports.append(_live(world, doomed, disk, laws, seed + 1000 * life, reports, start_at_s))
        start_at_s = reports[-1].ended_at_s + rng.choice([*SOON_S, LATER_S])
    bounded = replace(_controlled(cluster, world, rng, start_at_s), stop_at_s=start_at_s + LONGEST_S)
    last = _live(world, bounded, disk, laws, seed, reports, start_at_s)
    rows = sum(len(part.rows) for part in disk.parts.values())
    had_time = last.ended_at_s < bounded.stop_at_s and not last.was_stuck and not last.unfinished
    assert rows == world.rows or not had_time, f"{world.rows - rows} rows are missing"
    return [*reports, last]


def _live(
    world: World, cluster: Cluster, disk: Disk, laws: Laws, seed: int, before: list[RunReport], start_at_s: float
) -> RunReport:
    last = before[-1] if before else None
    return run(Simulation(world, cluster, disk, laws, seed=seed, before=last, start_at_s=start_at_s), laws)


def _controlled(cluster: Cluster, world: World, rng: random.Random, start_at_s: float) -> Cluster:
    """The same cluster, where the operator changes limits while it runs, now and then."""
    if rng.random() < 0.7:
        return cluster
    names = [*world.servers, "joint"]
    controls = []
    at_s = start_at_s
    for _ in range(rng.choice([1, 2, 4])):
        at_s += rng.choice([0.5, 5.0, 30.0]) * rng.random()
        overrides = tuple(
            ControlOverride(
                name,
                pause=rng.random() < 0.1,
                rate_per_s=rng.choice([None, 1.0, 20.0]),
                connections=rng.choice([None, 1, 2, 16]),
                bytes_per_s=rng.choice([None, None, 1e4]),
                bytes_per_hour=rng.choice([None, None, None, 2e4]),
                give_up=rng.random() < 0.1,
            )
            for name in names
            if rng.random() < 0.2
        )
        controls.append((at_s, overrides))
    controls.append((at_s + 60.0, ()))
    return replace(cluster, controls=controls)
