"""All of GBIF: 200 million rows on 545 servers, weeks of it, no network. ``python -m benchmarks.simulate_gbif``.

The real ``Rank0Core`` and one real ``RankCore`` per rank, joined by ``tests.simulation``, live through walltimes of 12
hours until every row is final. Limits, groups, retries, breaker and waits are those of a ``Config`` with nothing but
its required keys and a contact: what is simulated is what ships. No server is left out by hand.

Of the servers 165 have limits in ``known-hosts.yaml``, as 166 of the 531 hosts in TreeOfLife-200M's published lists
have (nodes of the Internet Archive, farms of Flickr, buckets and others, here by name); the others have the default
limits. How many rows each has is not published. They are by Zipf's law (exponent 1) over operators, in random order but
for iNaturalist's bucket, the largest; those of an operator (122 nodes of the Internet Archive, the farms of Flickr) are
spread evenly over its hosts. Of every twenty servers, in order of their rows, the fifth refuses one URL in a hundred
with 429 for ever; the tenth asks for two minutes' pause every hour, by 429 with Retry-After; the fifteenth is dead, in
turn from the start and from some moment of the first ten days. Bodies have 1 MB, which matters where bytes are limited.

Rows are sampled: one simulated row stands for so many of its server group that the group is asked ``MOST_PER_S`` times
a second at most, which is often enough to learn from single answers what there is to learn. Its requests per second and
its batches are divided by that number, and its bodies multiplied. Times (latencies, pauses, walltimes, windows of byte
budgets) are as they are. So it is not simulated what a rank's CPU and connections can do; ``capacity_ratio`` is about
that. (The coarse rank of ``core.forecast`` knows no answers: it could not say what refusals, pauses and deaths cost.)
Reports, rank 0's turns and checkpoints come ``RARELY`` times as rarely as they do, and parts close every hour.

The least time is that of the slowest group: rows / rate, or bytes over what is allowed of them. Rows of servers that
are dead or die do not count in it, and neither do pauses that servers ask for. The last line is JSON: ``days``,
``bound_days``, ``ratio``, ``bound_group``, ``lives``, ``worst_ratios`` (by what is wrong with a server of the group:
its last row over its own least time, of groups that take half a day or more), ``dead_servers`` (that were asked after
their death), ``given_up_s`` (from then to their last row, the longest), ``dead_but_not_unreachable`` (rows of these
servers that are errors of another kind), ``pending`` rows, ``capacity_ratio`` (as ``--plan`` has it, by
``core.forecast`` with all rows, every server sound, and as many ranks), ``requests`` (simulated), ``steals``,
``seconds`` of processor time.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from ddmpi.config.config import Config, parse
from ddmpi.core.forecast.prediction import predict
from ddmpi.core.ledger.schedule import DEFAULT_LATENCY_S, row_time_s
from ddmpi.core.ledger.waiting import waiting
from ddmpi.core.pace.byte_limits import DAY_S, HOUR_S
from ddmpi.core.records import Failure, Limits, Task
from ddmpi.roles.downloader.build import frontier_config
from tests.laws.witness import Witness
from tests.simulation.disk import Disk
from tests.simulation.simulation import Simulation
from tests.worlds.model import BatchModel, Cluster, RankModel, RunReport, ServerModel, World

SEED: Final = 20_261_129
SERVERS: Final = 545
ROWS: Final = 200_000_000
BATCH_ROWS: Final = 10_000
BODY_BYTES: Final = 1_000_000
ONE_IN: Final = 20
REFUSED_SHARE: Final = 0.01
REST_S: Final = 120.0
DEATHS_UNTIL_S: Final = 10 * DAY_S
WALLTIME_S: Final = 12 * HOUR_S
AGAIN_S: Final = 60.0
"""From the end of a run that has rows pending to the next one, at least, where its walltime was not over."""
LEAST_MEASURED_S: Final = DAY_S / 2
MOST_LIVES: Final = 1_000
MOST_PER_S: Final = {"sound": 0.01, "dead": 0.1, "dying": 0.1, "refusing": 0.5, "resting": 0.5}
"""Requests of a simulated server, by its kind: enough to learn from single answers what there is to learn."""
RARELY: Final = 60.0
RANKS: Final = 8
LARGEST: Final = "inaturalist-open-data.s3.amazonaws.com"
OPERATORS: Final = {
    "internet-archive": tuple(f"ia{600_300 + node}.us.archive.org" for node in range(122)),
    "flickr": (
        "www.flickr.com",
        "live.staticflickr.com",
        *(f"farm{number}.staticflickr.com" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 66)),
        *(f"c{number}.staticflickr.com" for number in range(1, 9)),
        *(f"ycpi-farm{number}.staticflickr.com" for number in (4, 6, 8)),
    ),
    "bold": ("www.boldsystems.org", "v3.boldsystems.org"),
    "idigbio": ("api.idigbio.org", "storage.idigbio.org"),
}
BUCKETS: Final = ("jbrj-public", "image-server-ala", "ncmns-cams", "odu-herbarium-project")
ALONE: Final = (
    "upload.wikimedia.org",
    "static.inaturalist.org",
    "zenodo.org",
    "storage.googleapis.com",
    "arpoprodmediasto.blob.core.windows.net",
    "earthcape-heliconius.s3-eu-west-1.amazonaws.com",
    "s3.amazonaws.com",
    "s3.us-east-2.amazonaws.com",
    "s3.eu-central-1.amazonaws.com",
    "s3-eu-west-1.amazonaws.com",
    "jbrj-public-img.s3-sa-east-1.amazonaws.com",
    *(f"{bucket}.s3.amazonaws.com" for bucket in BUCKETS),
)
"""Hosts with limits of their own, each its own operator."""


@dataclass(frozen=True)
class Host:
    """A server as it is, before rows are sampled."""

    rows: int
    kind: str
    """``dead``, ``dying``, ``refusing``, ``resting`` or ``sound``."""
    down_from_s: float = math.inf


def make_hosts(servers: int, rows: int, rng: random.Random) -> dict[str, Host]:
    """The servers of the table, by name."""
    named = [*OPERATORS.values(), *((name,) for name in ALONE)]
    numbered = servers - 1 - sum(map(len, named))
    named += [(f"media{number}.example.org",) for number in range(numbered)]
    rng.shuffle(named)
    operators = [(LARGEST,), *named]
    whole = sum(1 / (rank + 1) for rank in range(len(operators)))
    sizes = {
        name: round(rows / whole / (rank + 1) / len(names)) for rank, names in enumerate(operators) for name in names
    }
    by_size = sorted(sizes, key=lambda name: (-sizes[name], name))
    refusing, resting, dead = (by_size[place - 1 :: ONE_IN] for place in (5, 10, 15))
    kinds = dict.fromkeys(sizes, "sound") | dict.fromkeys(refusing, "refusing") | dict.fromkeys(resting, "resting")
    kinds |= dict.fromkeys(dead[::2], "dead") | dict.fromkeys(dead[1::2], "dying")
    down = {"dead": lambda: 0.0, "dying": lambda: rng.uniform(0, DEATHS_UNTIL_S)}
    return {
        name: Host(size, kinds[name], down[kinds[name]]() if kinds[name] in down else math.inf)
        for name, size in sizes.items()
    }


def seconds_per_row(limits: Limits) -> float:
    """Seconds per row that the limits of a group ask for."""
    by_bytes = [
        window_s / size_bytes
        for window_s, size_bytes in (
            (1.0, limits.bytes_per_s),
            (HOUR_S, limits.bytes_per_hour),
            (DAY_S, limits.bytes_per_day),
        )
        if size_bytes
    ]
    return max([1 / limits.rate_per_s, *(BODY_BYTES * each for each in by_bytes)])


@dataclass
class Table:
    """The sampled table: its world, and how it stands for the whole one."""

    hosts: Mapping[str, Host]
    config: Config
    members: dict[str, list[str]] = field(default_factory=dict)
    """Servers by group."""
    rows_each: dict[str, int] = field(default_factory=dict)
    """How many rows one simulated row of a group stands for."""

    def __post_init__(self) -> None:
        for name in self.hosts:
            self.members.setdefault(self.config.group_of(name), []).append(name)
        for group, names in self.members.items():
            most_per_s = max(MOST_PER_S[self.hosts[name].kind] for name in names)
            self.rows_each[group] = max(1, round(1 / seconds_per_row(self._limits(names[0])) / most_per_s))

    def _limits(self, server: str) -> Limits:
        return self.config.limits_for(server)

    def least_time_s(self, group: str) -> float:
        """What the group's limits allow, for the rows of its servers that live. What fits into a budget of bytes may be
        fetched at once, and the rest as its window moves on."""
        limits = self._limits(self.members[group][0])
        rows = sum(self.hosts[name].rows for name in self.living(group))
        size_bytes = rows * BODY_BYTES
        times = [rows / limits.rate_per_s]
        if limits.bytes_per_s:
            times.append(size_bytes / limits.bytes_per_s)
        for budget_bytes, window_s in ((limits.bytes_per_hour, HOUR_S), (limits.bytes_per_day, DAY_S)):
            if budget_bytes:
                times.append((size_bytes / budget_bytes - 1) * window_s)
        return max(times)

    def capacity_ratio(self, world: World) -> float:
        """How many times the least time the ranks take that ``--plan`` simulates by the batch, with all rows and sound
        servers: above 1 where there are too few of them."""
        sampled = world.plan(range(1, RANKS + 1), self.config.schedule_rules)
        each = np.array([self.rows_each[group] for group in sampled.group_names])
        limits = {group: self._limits(names[0]) for group, names in self.members.items()}
        times = [row_time_s(limits[group], DEFAULT_LATENCY_S) for group in sampled.group_names]
        rows = sampled.batch_rows * each[sampled.batch_group]
        plan = replace(sampled, batch_rows=rows, limits=limits.__getitem__, row_times=np.array(times))
        found = predict(plan, rows, RANKS, self.config.profiling.samples_per_server)
        return found.makespan_s / found.bound_s

    def living(self, group: str) -> list[str]:
        """The servers of the group that never die."""
        return [name for name in self.members[group] if self.hosts[name].down_from_s == math.inf]

    def world(self) -> World:
        """What is simulated."""
        batches = [batch for group in self.members for batch in self._batches(group)]
        servers = {name: self._server(name) for names in self.members.values() for name in names}
        limits = {
            group: self._sampled(self._limits(names[0]), self.rows_each[group]) for group, names in self.members.items()
        }
        groups = {name: group for group, names in self.members.items() for name in names if name != group}
        return World(batches, servers, limits, groups=groups)

    def _batches(self, group: str) -> Iterator[BatchModel]:
        each = self.rows_each[group]
        in_batch = max(1, BATCH_ROWS // each)
        for name in self.members[group]:
            rows = max(1, round(self.hosts[name].rows / each))
            for partition, start in enumerate(range(0, rows, in_batch)):
                urls = [(f"http://{name}/{row}", name) for row in range(start, min(rows, start + in_batch))]
                yield BatchModel(name, group, partition, urls)

    def _server(self, name: str) -> ServerModel:
        host = self.hosts[name]
        limits = self._limits(name)
        counts_bytes = limits.has_byte_budget or limits.bytes_per_s > 0
        model = ServerModel(
            latency_s=0.2,
            down_from_s=host.down_from_s,
            body_bytes=BODY_BYTES * self.rows_each[self.config.group_of(name)] if counts_bytes else 1,
        )
        if host.kind == "refusing":
            return replace(model, refused_share=REFUSED_SHARE)
        return replace(model, rests_every_s=HOUR_S, rests_s=REST_S) if host.kind == "resting" else model

    @staticmethod
    def _sampled(limits: Limits, each: int) -> Limits:
        """The limits of a group in simulated rows; bytes are as they are."""
        return Limits(
            limits.rate_per_s / each,
            limits.connections,
            limits.bytes_per_s,
            limits.bytes_per_day,
            limits.bytes_per_hour,
        )


class Watch(Witness):
    """When the rows of each server were decided, and how."""

    def __init__(self, world: World) -> None:
        self.simulation: Simulation | None = None
        self.last_at: dict[str, float] = {}
        self.asked_dead_at: dict[str, float] = {}
        """When a dead server was asked for the first time after its death, samples apart."""
        self.kinds: dict[str, Counter[str]] = {}
        self.requests = 0
        self._world = world

    def started(self, now: float, rank: int, task: Task, lane_id: int) -> None:
        super().started(now, rank, task, lane_id)
        self.requests += 1
        if lane_id > 0 and now >= self._world.servers[task.server].down_from_s:
            self.asked_dead_at.setdefault(task.server, now)

    def decided(self, rank: int, batch_id: int, row: int, failure: Failure | None) -> None:
        super().decided(rank, batch_id, row, failure)
        server = self._world.batches[batch_id].server_name
        assert self.simulation is not None
        self.last_at[server] = self.simulation.now
        self.kinds.setdefault(server, Counter())["" if failure is None else failure.kind.value] += 1


def live(table: Table, world: World, watch: Watch) -> tuple[list[RunReport], int]:
    """Run after run until no row is pending; their reports, and the rows that are pending after the last one."""
    config = table.config
    frontier = frontier_config(config, config.downloader_parameters.connections_per_rank, 0.0, is_restart=False)
    cluster = Cluster(
        RANKS,
        model=RankModel(checkpoint_interval_s=HOUR_S),
        schedule_rules=config.schedule_rules,
        connections_per_rank=frontier.connections,
        pace=frontier.pace,
        retry=frontier.retry,
        parked_wait_s=config.parked_wait_s,
        final_wait_s=config.final_wait_s,
        samples=config.profiling.samples_per_server,
        rarely=RARELY,
    )
    disk = Disk()
    reports: list[RunReport] = []
    start_at_s, pending = 0.0, world.rows
    while pending and len(reports) < MOST_LIVES:
        ends_at_s = start_at_s + WALLTIME_S
        life = replace(
            cluster,
            walltime_at_s=ends_at_s - config.walltime.margin_s,
            samples=0 if reports else cluster.samples,
        )
        before = reports[-1] if reports else None
        watch.simulation = Simulation(
            world, life, disk, watch, seed=SEED + len(reports), before=before, start_at_s=start_at_s
        )
        reports.append(watch.simulation.run())
        pending = watch.simulation.core.counts.pending
        day, spent_s = reports[-1].ended_at_s / DAY_S, time.process_time()
        print(f"life {len(reports)}: to day {day:.2f}, {pending:,} rows left, {spent_s:.0f} s", flush=True)
        is_early = reports[-1].ended_at_s < life.walltime_at_s
        start_at_s = _again_at_s(watch.simulation, reports[-1]) if is_early else ends_at_s
    return reports, pending


def _again_at_s(simulation: Simulation, report: RunReport) -> float:
    """When whoever started the run starts it again: when the first server may be asked, as the run has said."""
    world, ended_at_s = simulation.world, report.ended_at_s
    plan = world.plan((0,), {1: 1})
    index_of = {name: index for index, name in enumerate(plan.group_names)}
    left = np.bincount(plan.batch_group, simulation.core.counts.rows_left(), len(index_of)).astype(np.int64)
    told = waiting(
        plan.group_names,
        left,
        report.paces,
        group_of=lambda server: index_of.get(world.group_of(server)),
        limits=lambda server: world.limits_for(world.group_of(server)),
        held=(),
        probing_left_s=lambda _: 0.0,
        now=ended_at_s,
        undone=int(left.sum()),
    )
    return max(told.until, ended_at_s + AGAIN_S)


def figures(table: Table, watch: Watch, reports: Sequence[RunReport]) -> dict[str, object]:
    """What is told at the end."""
    least = {group: table.least_time_s(group) for group in table.members}
    slowest = max(least, key=lambda group: least[group])
    ratios = {
        group: max(watch.last_at[name] for name in table.living(group)) / time_s
        for group, time_s in least.items()
        if time_s >= LEAST_MEASURED_S
    }
    by_kind: dict[str, float] = {}
    for group, ratio in sorted(ratios.items(), key=lambda item: -item[1]):
        kinds = {table.hosts[name].kind for name in table.members[group]} - {"sound"} or {"sound"}
        print(
            f"{group}: {least[group] / DAY_S:.2f} days at least, {ratio:.4f} times as long, {', '.join(sorted(kinds))}"
        )
        for kind in kinds:
            by_kind[kind] = max(by_kind.get(kind, 0.0), round(ratio, 4))
    dead = [name for name, host in table.hosts.items() if host.down_from_s < math.inf and name in watch.asked_dead_at]
    ended_s = reports[-1].ended_at_s
    return {
        "days": round(ended_s / DAY_S, 2),
        "bound_days": round(least[slowest] / DAY_S, 2),
        "ratio": round(ended_s / least[slowest], 4),
        "bound_group": slowest,
        "lives": len(reports),
        "worst_ratios": by_kind,
        "dead_servers": len(dead),
        "given_up_s": round(max((watch.last_at[name] - watch.asked_dead_at[name] for name in dead), default=0.0)),
        "dead_but_not_unreachable": sum(
            rows for name in dead for kind, rows in watch.kinds[name].items() if kind not in {"", "unreachable"}
        ),
        "requests": watch.requests,
        "steals": sum(report.steals for report in reports),
    }


def main(argv: Sequence[str]) -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate_gbif", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--servers", type=int, default=SERVERS)
    options = parser.parse_args(argv)
    contact = {"header": "User-Agent: benchmark/1.0 (+mailto:someone@example.org)"}
    config = parse(
        {"path_to_input": "gbif", "path_to_output_folder": "out", "downloader_parameters": contact}, "benchmark"
    )
    table = Table(make_hosts(options.servers, options.rows, random.Random(SEED)), config)
    world = table.world()
    sizes = f"{len(world.batches):,} batches, {world.rows:,} rows simulated"
    print(f"{len(table.hosts)} servers, {len(table.members)} groups, {sizes}", flush=True)
    watch = Watch(world)
    reports, pending = live(table, world, watch)
    told = figures(table, watch, reports)
    told |= {
        "pending": pending,
        "capacity_ratio": round(table.capacity_ratio(world), 4),
        "seconds": round(time.process_time()),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
