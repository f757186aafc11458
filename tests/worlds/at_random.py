"""Random worlds and clusters for the simulation: the same seed gives the same ones."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

import msgspec

from ddmpi.core.pace.policy import PacePolicy
from ddmpi.core.records import INVALID_SERVER, MANY_SERVERS, Limits
from ddmpi.core.rules.retry import RetryPolicy
from tests.worlds.model import BatchModel, Cluster, RankModel, ServerModel, World

Row = tuple[str, str]
"""URL and server."""
ROBOTS_RULES = (
    "Disallow:",
    "Disallow: /",
    "Disallow: /1",
    "Disallow: /*2$",
    "Disallow: /moved",
    "Crawl-delay: 0.2\nDisallow: /3",
    "Crawl-delay: 3",
)
OUTSIDE = ("outside-a", "outside-b")
"""Servers that only redirects lead to."""


def table(
    sizes: dict[str, int], groups: dict[str, str], *, batch_size: int, small_rows: int, invalid: int = 0
) -> list[BatchModel]:
    """The batches of a table with so many rows per server: those with fewer than ``small_rows`` are packed, with
    servers of their own group only; refused rows come last."""
    batches = []
    packs: dict[str, list[Row]] = {}
    for name, count in sizes.items():
        rows = [(f"http://{name}/{row}", name) for row in range(count)]
        if count < min(small_rows, batch_size + 1):
            packs.setdefault(groups.get(name, ""), []).extend(rows)
        else:
            pieces = _pieces(rows, batch_size)
            batches += [BatchModel(name, groups.get(name, name), number, piece) for number, piece in pieces]
    number = 0
    for group, rows in packs.items():
        for pack in _packs(rows, batch_size):
            batches.append(BatchModel(MANY_SERVERS, group or f"{MANY_SERVERS}/{number}", number, pack))
            number += 1
    refused = _pieces([("bad url", "")] * invalid, batch_size)
    return batches + [BatchModel(INVALID_SERVER, INVALID_SERVER, number, piece) for number, piece in refused]


def _pieces(rows: list[Row], batch_size: int) -> Iterator[tuple[int, list[Row]]]:
    return enumerate(rows[start : start + batch_size] for start in range(0, len(rows), batch_size))


def _packs(rows: list[Row], batch_size: int) -> Iterator[list[Row]]:
    """Rows of whole servers, up to a batch of them."""
    pack: list[Row] = []
    for _, members in groupby(rows, key=itemgetter(1)):
        server_rows = list(members)
        if pack and len(pack) + len(server_rows) > batch_size:
            yield pack
            pack = []
        pack = pack + server_rows
    if pack:
        yield pack


def with_duplicates(batches: list[BatchModel], share: float, rng: random.Random) -> list[BatchModel]:
    """The same batches, in which some rows have the URL of an earlier one of their batch and server."""
    found = []
    for batch in batches:
        rows = list(batch.rows)
        for place, (_, server) in enumerate(rows):
            if server and rng.random() < share:
                rows[place] = rng.choice([row for row in rows[: place + 1] if row[1] == server])
        found.append(replace(batch, rows=rows))
    return found


def random_world(rng: random.Random, *, has_budgets: bool = True) -> World:
    """Some tens of servers, some of them limited, slow, dead, late or joined in a group, and some redirects.

    With ``has_budgets`` some servers allow so few bytes in an hour or a day that a run cannot wait for the rest.
    """
    names = [f"s{number}" for number in range(rng.choice([1, 2, 5, 12, 30]))]
    sizes = {name: rng.choice([1, 2, 3, 8, 20, 60, 120]) for name in names}
    groups = {name: "joint" for name in names if rng.random() < rng.choice([0.0, 0.2, 0.6])}
    servers = {name: _random_server(rng) for name in (*names, *OUTSIDE)}
    if rng.random() < 0.2:  # half of each group is dead
        dead = [name for number, name in enumerate(groups) if number % 2]
        servers.update((name, replace(servers[name], up_from_s=math.inf)) for name in dead)
    batches = table(
        sizes, groups,
        batch_size=rng.choice([5, 20, 100]), small_rows=rng.choice([0, 4, 25]), invalid=rng.choice([0, 0, 7, 30]),
    )  # fmt: skip
    batches = with_duplicates(batches, rng.choice([0.0, 0.0, 0.1, 0.8]), rng)
    urls = [url for batch in batches if batch.server_name != INVALID_SERVER for url, _ in batch.rows]
    share = rng.choice([0.0, 0.0, 0.05, 0.5])
    redirects = {
        url: f"http://{rng.choice([*names, *OUTSIDE])}/moved/{url[7:]}" for url in urls if rng.random() < share
    }
    for location in list(redirects.values()):
        if rng.random() < 0.2:
            redirects[location] = f"http://{rng.choice([*names, *OUTSIDE, 'nowhere'])}/again/{location[7:]}"
    limits = {
        name: _random_limits(rng, has_budgets=has_budgets) for name in [*names, *OUTSIDE, "joint"] if rng.random() < 0.5
    }
    default = _random_limits(rng, has_budgets=has_budgets)
    return World(batches, servers, limits, default, groups, redirects)


def with_robots(world: World, rng: random.Random) -> World:
    """The same world, whose servers have all kinds of robots.txt, some of them elsewhere."""
    names = [name for name in world.servers if rng.random() < 0.8]
    robots = {name: f"User-agent: *\n{rng.choice(ROBOTS_RULES)}" for name in names}
    moved = {
        f"http://{name}/robots.txt": f"http://{rng.choice([*world.servers, 'nowhere'])}/robots.txt"
        for name in world.servers
        if name not in robots and rng.random() < 0.5
    }
    return replace(world, robots=robots, redirects={**world.redirects, **moved})


def with_mirrors(world: World, rng: random.Random) -> World:
    """The same world, some of whose rows may be fetched elsewhere, too: from servers of the table or others, that may
    be the same, dead, redirect or not exist."""
    urls = [url for batch in world.batches if batch.server_name != INVALID_SERVER for url, _ in batch.rows]
    share = rng.choice([0.1, 0.5, 1.0])
    places = [*world.servers, *OUTSIDE, *OUTSIDE, "nowhere"]
    mirrors = {
        url: tuple(f"http://{rng.choice(places)}/mirror{n}/{url[7:]}" for n in range(rng.choice([1, 1, 2, 3])))
        for url in dict.fromkeys(urls)
        if rng.random() < share
    }
    moved = {
        mirror: f"http://{rng.choice(places)}/moved/{mirror[7:]}"
        for found in mirrors.values()
        for mirror in found
        if rng.random() < 0.1
    }
    return replace(world, mirrors=mirrors, redirects={**world.redirects, **moved})


def _random_server(rng: random.Random) -> ServerModel:
    strict = rng.random() < 0.2
    dead = rng.random() < 0.08
    return ServerModel(
        latency_s=rng.choice([0.002, 0.05, 0.3]),
        rate_per_s=rng.choice([2.0, 10.0, 100.0]) if strict else 0.0,
        burst=rng.choice([1.0, 5.0, 20.0]),
        retry_after_s=rng.choice([None, 1, 30]),
        states_limit=rng.random() < 0.3,
        error_share=rng.choice([0.0, 0.0, 0.1, 0.5]),
        missing_share=rng.choice([0.0, 0.1]),
        refused_share=rng.choice([0.0, 0.0, 0.0, 0.02, 0.2]),
        forbidden_share=rng.choice([0.0, 0.0, 0.0, 0.2, 1.0]),
        up_from_s=math.inf if dead else rng.choice([0.0, 0.0, 0.0, 60.0]),
        down_from_s=rng.choice([math.inf, math.inf, math.inf, 3.0]),
    )


def _random_limits(rng: random.Random, *, has_budgets: bool) -> Limits:
    limits = Limits(
        rng.choice([0.0, 0.0, 0.1, 0.5, 5.0, 10.0, 100.0, 800.0, 2000.0]),
        rng.choice([1, 2, 4, 16]),
        bytes_per_s=rng.choice([0.0, 0.0, 0.0, 1e4, 1e6]),
    )
    if not has_budgets:
        return limits
    hour, day = rng.choice([0.0, 0.0, 0.0, 0.0, 2e4]), rng.choice([0.0, 0.0, 0.0, 0.0, 6e4])
    return msgspec.structs.replace(limits, bytes_per_hour=hour, bytes_per_day=day)


def random_cluster(rng: random.Random) -> Cluster:
    """1 to 16 ranks, some of them slow or stalled for a while."""
    ranks = rng.choice([1, 2, 3, 5, 8, 16])
    most_latency_s = rng.choice([0.0002, 0.02, 0.5])
    return Cluster(
        ranks,
        models={rank: _random_rank(rng) for rank in range(ranks) if rng.random() < 0.4},
        most_latency_s=most_latency_s,
        schedule_rules=rng.choice([{1: 1}, {1: 16}, {2: 2, 4: 8}, {1: 1, 3: 16}]),
        connections_per_rank=rng.choice([1, 4, 256]),
        chunk_rows=rng.choice([1, 4, 256]),
        low_water_rows=rng.choice([1, 1, 10, 2000]),
        grace_s=rng.choice([0.0, 8.0]),
        pace=PacePolicy(backoff_base_s=rng.choice([0.5, 5.0]), breaker_failures=3, breaker_probes=3),
        retry=RetryPolicy(rng.choice([1, 3])),
        parked_wait_s=rng.choice([20.0, 300.0]),
        final_wait_s=rng.choice([0.0, 40.0, 21_600.0]),
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
