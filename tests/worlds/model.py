"""What a simulated run works on: a table of rows, the servers behind it, and the ranks. Descriptions only."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import msgspec
import numpy as np

from ddmpi.core.arrays import IntArray
from ddmpi.core.frontier.interface import CHUNK_ROWS, LOW_WATER_ROWS, FrontierConfig
from ddmpi.core.ledger.batch_counts import BatchCounts
from ddmpi.core.ledger.rank0_core import GRACE_S
from ddmpi.core.ledger.sampling import Target
from ddmpi.core.ledger.schedule import DEFAULT_LATENCY_S, Plan, row_time_s
from ddmpi.core.pace.policy import PacePolicy
from ddmpi.core.protocol import ControlOverride, report_interval_s
from ddmpi.core.records import (
    INVALID_SERVER,
    MANY_SERVERS,
    BatchRef,
    ErrorKind,
    Failure,
    Limits,
    PaceState,
    Taken,
    error_code,
    is_packed,
)
from ddmpi.core.rules.retry import RetryPolicy
from ddmpi.core.rules.robots_txt import OBEYED

REFUSED_URL = Failure(ErrorKind.BAD_URL, error_code(ErrorKind.BAD_URL, 0), "not a URL")
"""Of the rows of ``INVALID_SERVER``."""


def server_of(url: str) -> str:
    """The server of a simulated URL."""
    return url.removeprefix("http://").partition("/")[0]


@dataclass(frozen=True, slots=True)
class ServerModel:
    """How a server behaves, which is not always what the config allows to ask of it.

    ``rate_per_s`` > 0: above it, and above ``burst`` requests at once, it answers 429, with Retry-After if
    ``retry_after_s`` is set. It can be reached from ``up_from_s`` on, until ``down_from_s``.
    """

    latency_s: float = 0.05
    rate_per_s: float = 0.0
    burst: float = 5.0
    retry_after_s: int | None = None
    states_limit: bool = False
    """Each answer says what it takes (RateLimit-Policy, RateLimit)."""
    error_share: float = 0.0
    """Answers with status 500 among all."""
    missing_share: float = 0.0
    """Rows with status 404 among all; a row that is missing stays so."""
    refused_share: float = 0.0
    """URLs that are always answered 429."""
    forbidden_share: float = 0.0
    """URLs that are always answered 403, robots.txt never."""
    up_from_s: float = 0.0
    down_from_s: float = float("inf")
    rests_every_s: float = float("inf")
    rests_s: float = 0.0
    """In the middle of each ``rests_every_s`` it answers 429 to everything for so long, with what is left of that time
    as Retry-After."""
    body_bytes: int = 1000

    def rest_left_s(self, now: float) -> float:
        """How long it still rests, 0 if it does not."""
        since_s = now % self.rests_every_s - self.rests_every_s / 2
        return self.rests_s - since_s if 0 <= since_s < self.rests_s else 0.0

    def refuses(self, url: str) -> bool:
        """Whether the URL is always answered 429."""
        return self.refused_share > 0 and random.Random(f"refused {url}").random() < self.refused_share

    def forbids(self, url: str) -> bool:
        """Whether the URL is always answered 403."""
        return self.forbidden_share > 0 and random.Random(f"forbidden {url}").random() < self.forbidden_share

    def lacks(self, url: str) -> bool:
        """Whether the URL is always answered 404."""
        return self.missing_share > 0 and random.Random(url).random() < self.missing_share

    def serves(self, url: str) -> bool:
        """Whether the URL is answered well at every try: a file, or a redirect."""
        is_sound = self.rate_per_s == self.error_share == self.up_from_s == self.rests_s == 0
        is_sound = is_sound and self.down_from_s == math.inf
        return is_sound and not (self.refuses(url) or self.forbids(url) or self.lacks(url))


@dataclass(frozen=True, slots=True)
class BatchModel:
    """A batch: its names as in ``partition``, and its rows as (URL, server)."""

    server_name: str
    group: str
    partition_id: int
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class World:
    """A table and its servers."""

    batches: Sequence[BatchModel]
    servers: Mapping[str, ServerModel]
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """By server group; ``default_limits`` for all others."""
    default_limits: Limits = field(default_factory=lambda: Limits(10.0, 4))
    groups: Mapping[str, str] = field(default_factory=dict)
    """Groups of servers that are not their own."""
    redirects: Mapping[str, str] = field(default_factory=dict)
    """URL -> Location."""
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """URL of a row -> those to ask when it fails for good, in this order."""
    robots: Mapping[str, str] | None = None
    """What each server's robots.txt says, none that is not named; None: nobody asks for it."""
    offline_from_s: float = math.inf
    offline_s: float = 0.0
    """From ``offline_from_s`` on the ranks' own network is down for so long: no server can be reached."""

    def group_of(self, server: str) -> str:
        """The server group of a server."""
        return self.groups.get(server, server)

    def servers_of(self, group: str) -> Sequence[str]:
        """The servers of a group."""
        return self._members.get(group, (group,))

    @cached_property
    def _members(self) -> dict[str, list[str]]:
        members: dict[str, list[str]] = {}
        for server, group in self.groups.items():
            members.setdefault(group, []).append(server)
        return members

    def way_of(self, url: str, server: str) -> list[tuple[str, str]]:
        """The row's URL and server, and those that redirects lead to, in order."""
        way = [(url, server)]
        while (location := self.redirects.get(way[-1][0])) is not None:
            way.append((location, server_of(location)))
        return way

    def ways_of(self, url: str, server: str) -> list[list[tuple[str, str]]]:
        """The ways of the row's URL and of its mirrors, in the order in which they are to be tried."""
        others = ((mirror, server_of(mirror)) for mirror in self.mirrors.get(url, ()))
        return [self.way_of(*each) for each in [(url, server), *others]]

    def limits_for(self, group: str) -> Limits:
        """The limits of a server group."""
        return self.limits.get(group, self.default_limits)

    def rate_of(self, group: str) -> float:
        """The rate limit of a server group, requests per second."""
        return self.limits_for(group).rate_per_s

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return sum(len(batch.rows) for batch in self.batches)

    def batch_rows(self) -> IntArray:
        """(B,) rows of each batch."""
        return np.array([len(batch.rows) for batch in self.batches], np.int64)

    def ref(self, batch_id: int) -> BatchRef:
        """Where the batch's rows are, as far as the core is concerned."""
        batch = self.batches[batch_id]
        return BatchRef(batch_id, batch.server_name, batch.partition_id, "table", 0, 0, len(batch.rows))

    def targets(self, counts: BatchCounts) -> list[Target]:
        """The servers to profile: those with batches of their own, of which the first is not complete."""
        by_server: dict[str, list[int]] = {}
        for batch_id, batch in enumerate(self.batches):
            if batch.server_name not in {MANY_SERVERS, INVALID_SERVER}:
                by_server.setdefault(batch.server_name, []).append(batch_id)
        begun = {name: ids for name, ids in by_server.items() if counts.is_open(ids[0])}
        return [(name, self._begun_ref(ids[0], counts), len(ids)) for name, ids in begun.items()]

    def _begun_ref(self, batch_id: int, counts: BatchCounts) -> BatchRef:
        return msgspec.structs.replace(self.ref(batch_id), parts=tuple(counts.parts.get(batch_id, ())))

    def plan(self, workers: Sequence[int], max_lanes: Mapping[int, int]) -> Plan:
        """The plan of a run. ``max_lanes`` is ``schedule_rules``: batches -> ranks at once."""
        names = list(dict.fromkeys(batch.group for batch in self.batches))
        index_of = {name: index for index, name in enumerate(names)}
        served = {server: index_of[batch.group] for batch in self.batches for _, server in batch.rows if server}

        def lanes(batches: int) -> int:
            fitting = [threshold for threshold in max_lanes if threshold <= batches]
            return max_lanes[max(fitting)] if fitting else 1

        return Plan(
            batch_rows=self.batch_rows(),
            batch_group=np.array([index_of[batch.group] for batch in self.batches], np.int64),
            group_names=names,
            limits=self.limits_for,
            row_times=np.array([self._row_time_s(name) for name in names]),
            ref=self.ref,
            group_of_server=lambda server, group: index_of.get(group, served.get(server)),
            max_lanes=lanes,
            workers=workers,
            batch_partition=np.array([batch.partition_id for batch in self.batches], np.int64),
        )

    def _row_time_s(self, group: str) -> float:
        limits = self.default_limits if is_packed(group) or group == INVALID_SERVER else self.limits_for(group)
        return row_time_s(limits, DEFAULT_LATENCY_S)


@dataclass(frozen=True, slots=True)
class RankModel:
    """How fast a rank and its disk are, in seconds."""

    cpu_per_answer_s: float = 0.0003
    load_s: float = 0.02
    commit_s: float = 0.05
    checkpoint_interval_s: float = 20.0
    stall_at_s: float = math.inf
    stall_s: float = 0.0
    """From ``stall_at_s`` on the rank gets no turn for so long."""


@dataclass(frozen=True)
class Cluster:
    """The ranks of a run and what lies between them."""

    ranks: int
    """Ranks that download."""
    models: Mapping[int, RankModel] = field(default_factory=dict)
    """By rank (from 0); ``model`` for all others."""
    model: RankModel = field(default_factory=RankModel)
    least_latency_s: float = 0.0001
    most_latency_s: float = 0.02
    """Bounds on how long a message takes."""
    schedule_rules: Mapping[int, int] = field(default_factory=lambda: {1: 1})
    connections_per_rank: int = 256
    chunk_rows: int = CHUNK_ROWS
    low_water_rows: int = LOW_WATER_ROWS
    """These two as in ``frontier``; smaller ones make small tables as eventful as large ones."""
    pace: PacePolicy = field(default_factory=PacePolicy)
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(5))
    parked_wait_s: float = 1800.0
    final_wait_s: float = 0.0
    stop_at_s: float = math.inf
    """A soft stop at this time."""
    grace_s: float = GRACE_S
    """What requests in flight get then."""
    controls: Sequence[tuple[float, Sequence[ControlOverride]]] = ()
    """(time in s, the rules that hold from then on)."""
    samples: int = 0
    """Rows of each server that are fetched to profile it, before its batches flow."""
    kill_at_s: float = math.inf
    """SIGKILL for all ranks at this time."""
    walltime_at_s: float = math.inf
    """Rank 0 knows that it has to stop by then."""
    rarely: float = 1.0
    """Reports, turns of rank 0 and checkpoints come so many times as rarely as they do: for runs of weeks."""

    @property
    def report_interval_s(self) -> float:
        """How often a rank tells what is not urgent."""
        return report_interval_s(self.ranks) * self.rarely

    def frontier_config(self, world: World, model: RankModel, *, is_restart: bool) -> FrontierConfig:
        """What a rank of this cluster has to know."""

        def locate(location: str) -> tuple[str, str] | str:
            server = server_of(location)
            return (location, server) if server in world.servers else "no such server"

        return FrontierConfig(
            limits_for=world.limits_for,
            group_of=world.group_of,
            locate=locate,
            pace=self.pace,
            retry=self.retry,
            connections=self.connections_per_rank,
            servers_at_once=self.connections_per_rank,
            chunk_rows=self.chunk_rows,
            low_water_rows=self.low_water_rows,
            respect=None if world.robots is None else lambda _: OBEYED,
            accept="any",
            is_restart=is_restart,
            checkpoint_interval_s=model.checkpoint_interval_s,
        )


class Cursor:
    """Rows of a batch, as (index, URL, server); of more than ``most_urls`` URLs (0: all) the first. ``mirrors`` are
    further URLs of each."""

    def __init__(
        self, rows: Sequence[tuple[int, str, str]], most_urls: int, mirrors: Mapping[str, tuple[str, ...]]
    ) -> None:
        by_url: dict[tuple[str, str], list[int]] = {}
        for row, url, server in rows:
            by_url.setdefault((url, server), []).append(row)
        urls = [
            (first, *url, tuple(others), mirrors.get(url[0], ()), "", None) for url, (first, *others) in by_url.items()
        ]
        self._urls = urls[: most_urls or None]
        self._next = 0

    @property
    def rows(self) -> list[int]:
        return [row for first, _, _, others, *_ in self._urls for row in (first, *others)]

    @property
    def left(self) -> int:
        return len(self._urls) - self._next

    def take(self, n: int) -> Sequence[Taken]:
        taken = self._urls[self._next : self._next + n]
        self._next += len(taken)
        return taken


@dataclass
class RunReport:
    """How a run ended."""

    began_at_s: float
    ended_at_s: float
    was_killed: bool
    was_stuck: bool
    """Only parked rows were left."""
    unfinished: tuple[int, ...]
    """Ranks that did not finish in time: what they had not committed is lost."""
    requests: int
    steals: int
    idle_wakes: int
    completed: list[int]
    """Batches that got their marker, in order."""
    verified: list[int]
    """Batches of ended big batches, in order."""
    paces: dict[str, PaceState]
    """What the last checkpoint holds, with waits counted from the end."""
