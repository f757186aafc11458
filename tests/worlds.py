"""Random worlds and clusters for the simulation: the same seed gives the same ones."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ddmpi.pace import PacePolicy
from ddmpi.partition import ServerRows, cut_batches
from ddmpi.records import INVALID_SERVER, MANY_SERVERS, Limits
from ddmpi.retry import RetryPolicy
from ddmpi.simulated_rank import RankModel
from ddmpi.simulated_world import BatchModel, ServerModel, World
from ddmpi.simulation import Cluster

OUTSIDE = ("outside-a", "outside-b")
"""Servers that only redirects lead to."""


def table(
    sizes: dict[str, int], groups: dict[str, str], *, batch_size: int, small_rows: int, invalid: int = 0
) -> list[BatchModel]:
    """The batches of a table with so many rows per server, cut as ``partition`` does it."""
    names = list(sizes)
    servers = [ServerRows(name, rows, groups.get(name, name)) for name, rows in sizes.items()]
    cut = cut_batches(servers, invalid_rows=invalid, batch_size=batch_size, small_rows=small_rows)
    rows = iter([(f"http://{names[i]}/{k}", names[i]) for i in cut.order for k in range(sizes[names[i]])])
    models = []
    for batch in cut.batches:
        refused = batch.server_name == INVALID_SERVER
        taken = [("bad url", "") if refused else next(rows) for _ in range(batch.rows)]
        models.append(BatchModel(batch.server_name, batch.group, batch.partition_id, taken))
    return models


def random_world(rng: random.Random) -> World:
    """Some tens of servers, some of them limited, slow, dead, late or joined in a group, and some redirects."""
    names = [f"s{number}" for number in range(rng.choice([1, 2, 5, 12, 30]))]
    sizes = {name: rng.choice([1, 2, 3, 8, 20, 60, 150]) for name in names}
    groups = {name: "joint" for name in names if rng.random() < rng.choice([0.0, 0.2])}
    servers = {name: _random_server(rng) for name in (*names, *OUTSIDE)}
    batches = table(
        sizes, groups,
        batch_size=rng.choice([5, 20, 100]), small_rows=rng.choice([0, 4, 25]), invalid=rng.choice([0, 0, 7, 30]),
    )  # fmt: skip
    urls = [url for batch in batches if batch.server_name != INVALID_SERVER for url, _ in batch.rows]
    share = rng.choice([0.0, 0.0, 0.05, 0.5])
    redirects = {
        url: f"http://{rng.choice([*names, *OUTSIDE])}/moved/{url[7:]}" for url in urls if rng.random() < share
    }
    for location in list(redirects.values()):
        if rng.random() < 0.2:
            redirects[location] = f"http://{rng.choice([*names, *OUTSIDE, 'nowhere'])}/again/{location[7:]}"
    limits = {name: _random_limits(rng) for name in [*names, *OUTSIDE, "joint"] if rng.random() < 0.5}
    return World(batches, servers, limits, _random_limits(rng), groups, redirects)


def _random_server(rng: random.Random) -> ServerModel:
    strict = rng.random() < 0.2
    dead = rng.random() < 0.08
    return ServerModel(
        latency_s=rng.choice([0.002, 0.05, 0.3]),
        rate_per_s=rng.choice([2.0, 10.0, 100.0]) if strict else 0.0,
        burst=rng.choice([1.0, 5.0, 20.0]),
        retry_after_s=rng.choice([None, 1, 30]),
        error_share=rng.choice([0.0, 0.0, 0.1, 0.5]),
        missing_share=rng.choice([0.0, 0.1]),
        up_from_s=1e9 if dead else rng.choice([0.0, 0.0, 0.0, 60.0]),
        down_from_s=rng.choice([1e9, 1e9, 1e9, 3.0]),
    )


def _random_limits(rng: random.Random) -> Limits:
    rate_per_s = rng.choice([0.0, 0.0, 0.5, 5.0, 10.0, 100.0, 800.0, 2000.0])
    return Limits(rate_per_s, rng.choice([1, 2, 4, 16]), rng.choice([0.0, 0.0, 1e6]), 0.0)


def random_cluster(rng: random.Random) -> Cluster:
    """1 to 16 ranks, some of them slow or stalled for a while."""
    ranks = rng.choice([1, 2, 3, 5, 8, 16])
    most_latency_s = rng.choice([0.0002, 0.02, 0.5])
    return Cluster(
        ranks,
        models={rank: _random_rank(rng) for rank in range(ranks) if rng.random() < 0.4},
        most_latency_s=most_latency_s,
        schedule_rules=rng.choice([{1: 1}, {1: 16}, {2: 2, 4: 8}]),
        connections_per_rank=rng.choice([1, 4, 256]),
        pace=PacePolicy(backoff_base_s=rng.choice([0.5, 5.0]), breaker_failures=3, breaker_probes=3),
        retry=RetryPolicy(rng.choice([1, 3])),
    )


def _random_rank(rng: random.Random) -> RankModel:
    stall = rng.random() < 0.3
    return RankModel(
        cpu_per_answer_s=rng.choice([0.0003, 0.02, 0.2]),
        load_s=rng.choice([0.001, 0.2, 2.0]),
        commit_s=rng.choice([0.001, 0.2, 2.0]),
        checkpoint_interval_s=rng.choice([1.0, 10.0]),
        stall_at_s=rng.uniform(0, 20) if stall else 1e9,
        stall_s=rng.choice([1.0, 8.0]),
    )
