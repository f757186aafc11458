"""The laws at full size: 1,000 ranks, 100,000 servers, no network. ``python -m benchmarks.simulate_politeness``.

The real ledger and one real frontier per rank, profiling included, joined by ``tests.simulation``, over servers with
limits of 0.5 to 20 requests/s: a tenth take less than their limit and answer 429 (with Retry-After, or without), one in
twenty is dead, one in fifty is out of reach for a minute, and rows are redirected to other servers. Ranks have so few
connections that lanes wait for them, and are stolen. Half-way all ranks are killed, and fewer go on.
``tests.laws.laws`` watches: each request is checked against the limits, leases and pauses of its server, each row
for having one owner or one outcome, and at the end the parts on the disk are counted. (The invariants inside the state
machines, which take time that grows with the number of lanes, are checked once in a while.)

The last line is JSON: ``violations`` (0; the first one ends the program), ``utilisation_median`` (of servers with
limits of their own which had ``ROWS_TO_MEASURE`` rows or more: rows over what the limit allows from the first to the
last request of a run), ``answers_429`` as a share of all, ``pending`` rows (of dead servers), ``steals``, ``requests``,
``simulated_s``, ``seconds`` (of processor time), ``peak_gb``.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ddmpi.core.records import Answer, Limits, Task
from tests.laws.laws import Laws, run
from tests.simulation.disk import Disk
from tests.simulation.simulation import Simulation
from tests.worlds.at_random import table
from tests.worlds.model import Cluster, RunReport, ServerModel, World

SEED: Final = 20_261_125
SHAPE: Final = 1.3
BATCH_ROWS: Final = 200
SMALL_ROWS: Final = 50
MOST_ROWS: Final = 2_000
CONNECTIONS: Final = 4
REDIRECTED_SHARE: Final = 0.02
ROWS_TO_MEASURE: Final = 100
VALIDATE_EVERY: Final = 20_000
"""Steps from one look at the insides of a state machine to the next."""


@dataclass
class Use:
    """What a server with limits of its own was asked in one run."""

    requests: int = 0
    first_at: float = 0.0
    last_at: float = 0.0


@dataclass
class Seen:
    """Sums over all runs."""

    requests: int = 0
    throttled: int = 0
    steals: int = 0
    utilisations: list[float] = field(default_factory=list)


class SampledLaws(Laws):
    """The laws, with invariants of state machines looked at once in a while, and sums for the report."""

    def __init__(self, world: World, disk: Disk) -> None:
        super().__init__(world, disk)
        self.throttled = 0
        self.uses: dict[str, Use] = {}
        self._objected: set[str] = set()
        self._steps = 0

    def stepped(self, rank: int) -> None:
        self._steps += 1
        if self._steps % VALIDATE_EVERY == 0:
            super().stepped(rank)

    def started(self, now: float, rank: int, task: Task, lane_id: int) -> None:
        super().started(now, rank, task, lane_id)
        use = self.uses.setdefault(task.server, Use(first_at=now))
        use.requests += 1
        use.last_at = now

    def answered(self, now: float, rank: int, answer: Answer) -> None:
        super().answered(now, rank, answer)
        if answer.status == 429:
            self.throttled += 1
        if answer.status not in {200, 302, 404}:
            self._objected.add(answer.task.server)

    def utilisations(self) -> list[float]:
        """Of servers that were always up and took what their limit allows."""
        return [
            (use.requests - 1) / ((use.last_at - use.first_at) * self.world.limits_for(server).rate_per_s)
            for server, use in self.uses.items()
            if use.requests >= ROWS_TO_MEASURE and server not in self._objected
        ]


def make_world(servers: int, rng: random.Random) -> World:
    """The table and its servers."""
    names = [f"s{number}" for number in range(servers)]
    sizes = {name: min(MOST_ROWS, max(1, round(rng.paretovariate(SHAPE)))) for name in names}
    limits = {name: Limits(rng.choice((0.5, 1.0, 2.0, 5.0, 10.0, 20.0)), CONNECTIONS) for name in names}
    models = {name: _server(rng, limits[name]) for name in names}
    batches = table(sizes, {}, batch_size=BATCH_ROWS, small_rows=SMALL_ROWS)
    urls = [url for batch in batches for url, _ in batch.rows]
    redirects = {
        url: f"http://{rng.choice(names)}/moved/{number}"
        for number, url in enumerate(urls)
        if rng.random() < REDIRECTED_SHARE
    }
    return World(batches, models, limits, redirects=redirects)


def _server(rng: random.Random, limits: Limits) -> ServerModel:
    model = ServerModel(latency_s=rng.choice((0.02, 0.1, 0.3)), missing_share=0.02)
    kind = rng.random()
    if kind < 0.1:
        return replace(model, rate_per_s=limits.rate_per_s / 2, burst=2.0, retry_after_s=rng.choice((None, 1, 30)))
    if kind < 0.15:
        return replace(model, up_from_s=1e9)
    if kind < 0.17:
        return replace(model, up_from_s=60.0)
    return model


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulate_politeness", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--ranks", type=int, default=1_000)
    parser.add_argument("--servers", type=int, default=100_000)
    parser.add_argument(
        "--kill-at", type=float, default=20.0, metavar="S", help="simulated seconds until all are killed"
    )
    options = parser.parse_args(argv)
    world, disk, seen = make_world(options.servers, random.Random(SEED)), Disk(), Seen()
    print(f"{world.rows} rows in {len(world.batches)} batches", flush=True)
    doomed = Cluster(options.ranks, kill_at_s=options.kill_at, parked_wait_s=20.0, samples=3, connections_per_rank=16)
    before = live(world, doomed, disk, None, seen)
    last = live(world, replace(doomed, ranks=options.ranks * 7 // 10, kill_at_s=float("inf")), disk, before, seen)
    outcomes = Counter((part.batch_id, row) for part in disk.parts.values() for row in part.rows)
    assert max(outcomes.values()) == 1
    figures = {
        "violations": 0,
        "utilisation_median": round(statistics.median(seen.utilisations), 3),
        "answers_429": round(seen.throttled / seen.requests, 4),
        "pending": world.rows - len(outcomes),
        "rows": world.rows,
        "requests": seen.requests,
        "steals": seen.steals,
        "simulated_s": round(last.ended_at_s),
        "seconds": round(time.process_time()),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1),
    }
    print(json.dumps(figures))


def live(world: World, cluster: Cluster, disk: Disk, before: RunReport | None, seen: Seen) -> RunReport:
    """One life of the job under the eyes of the laws. Raises AssertionError where one is broken."""
    laws = SampledLaws(world, disk)
    start_at_s = before.ended_at_s + 5.0 if before is not None else 0.0
    report = run(Simulation(world, cluster, disk, laws, seed=SEED, before=before, start_at_s=start_at_s), laws)
    seen.requests += report.requests
    seen.throttled += laws.throttled
    seen.steals += report.steals
    seen.utilisations += laws.utilisations()
    print(
        f"{cluster.ranks} ranks, {report.ended_at_s - start_at_s:.0f} s: {report.requests} requests, "
        f"{report.steals} steals, {time.process_time():.0f} s of processor time",
        flush=True,
    )
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
