"""What a simulated run works on: a table of rows, the servers behind it, and a disk. Pure.

Decides how a simulated server answers and what a simulated disk keeps. It must not know ranks, lanes or messages.

Invariants: an answer depends only on the requests so far and the ``random.Random``; a part on the disk is whole and is
never changed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import msgspec
import numpy as np

from ddmpi.core.arrays import IntArray
from ddmpi.core.ledger.batch_counts import BatchContent, BatchCounts
from ddmpi.core.ledger.sampling import Target
from ddmpi.core.ledger.schedule import DEFAULT_LATENCY_S, Plan, row_time_s
from ddmpi.core.records import INVALID_SERVER, MANY_SERVERS, Answer, BatchRef, Limits, Task, is_packed

RELAXED_SHARE = 0.1
"""Latencies are spread by up to this share of themselves, and now and then (1 in 20) are ten times as long."""

OFFLINE_FAILS_AFTER_S = 3.0
"""A look-up that nobody answers takes up to so long."""


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
    error_share: float = 0.0
    """Answers with status 500 among all."""
    missing_share: float = 0.0
    """Rows with status 404 among all; a row that is missing stays so."""
    refused_share: float = 0.0
    """URLs that are always answered 429."""
    up_from_s: float = 0.0
    down_from_s: float = float("inf")
    body_bytes: int = 1000


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
    """By pace group; ``default_limits`` for all others."""
    default_limits: Limits = field(default_factory=lambda: Limits(10.0, 4))
    groups: Mapping[str, str] = field(default_factory=dict)
    """RateLimiter groups of servers that are not their own."""
    redirects: Mapping[str, str] = field(default_factory=dict)
    """URL -> Location."""
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

    def limits_for(self, group: str) -> Limits:
        """The limits of a pace group."""
        return self.limits.get(group, self.default_limits)

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
        )

    def _row_time_s(self, group: str) -> float:
        limits = self.default_limits if is_packed(group) or group == INVALID_SERVER else self.limits_for(group)
        return row_time_s(limits, DEFAULT_LATENCY_S)


class Network:
    """The servers of a world, as a run sees them."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._levels: dict[str, tuple[float, float]] = {}

    def request(self, task: Task, now: float) -> tuple[float, Answer]:
        """A request starts: (seconds until it ends, the answer that comes then)."""
        server = self._world.servers[task.server]
        failure = self._failure_to_connect(task, server, now)
        if failure is not None:
            return failure
        latency_s = server.latency_s * (1 + RELAXED_SHARE * self._rng.random())
        if self._rng.random() < 0.05:
            latency_s *= 10
        is_refused = random.Random(f"refused {task.url}").random() < server.refused_share
        if self._is_above_limit(task.server, server, now) or is_refused:
            retry_after = "" if server.retry_after_s is None else str(server.retry_after_s)
            return latency_s, Answer(task, status=429, retry_after=retry_after)
        location = self._world.redirects.get(task.url)
        if location is not None:
            return latency_s, Answer(task, status=302, location=location)
        if self._rng.random() < server.error_share:
            return latency_s, Answer(task, status=500)
        return latency_s, self._found(task, server)

    def _found(self, task: Task, server: ServerModel) -> Answer:
        """What is there, or that nothing is."""
        body: bytes | None = bytes(server.body_bytes)
        if task.robots_of:
            text = (self._world.robots or {}).get(task.server)
            body = None if text is None else text.encode()
        elif random.Random(task.url).random() < server.missing_share:
            body = None
        if body is None:
            return Answer(task, status=404)
        return Answer(task, status=200, body=body, content_type="image/jpeg")

    def _failure_to_connect(self, task: Task, server: ServerModel, now: float) -> tuple[float, Answer] | None:
        if 0 <= now - self._world.offline_from_s < self._world.offline_s:
            took_s = OFFLINE_FAILS_AFTER_S * self._rng.random()
            return took_s, Answer(task, curl_code=6, error="Could not resolve host")
        if not server.up_from_s <= now < server.down_from_s:
            return server.latency_s, Answer(task, curl_code=7, error="Failed to connect: refused")
        return None

    def _is_above_limit(self, name: str, server: ServerModel, now: float) -> bool:
        if server.rate_per_s <= 0:
            return False
        level, at = self._levels.get(name, (0.0, now))
        level = max(0.0, level - (now - at) * server.rate_per_s)
        above = level + 1 > server.burst
        self._levels[name] = (level if above else level + 1, now)
        return above


@dataclass(frozen=True, slots=True)
class Part:
    """A published part: which rows of which batch it holds."""

    batch_id: int
    is_errors: bool
    rows: tuple[int, ...]


class Disk:
    """The published parts of an output folder; it outlives the runs."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}

    def publish(self, part: Part) -> str:
        """The part gets its final name, which is returned."""
        path = f"part-{len(self.parts):04}"
        self.parts[path] = part
        return path

    def final_rows(self, paths: Iterable[str]) -> set[int]:
        """Rows with an outcome in these parts."""
        return {row for path in paths for row in self.parts[path].rows}

    def count(self, world: World) -> BatchCounts:
        """What is final, as rank 0 finds it in the output folder."""
        counts = BatchCounts(world.batch_rows())
        contents: dict[int, BatchContent] = {}
        for path, part in self.parts.items():
            known = contents.get(part.batch_id, BatchContent(part.batch_id, 0, 0))
            contents[part.batch_id] = replace(
                known,
                successes=known.successes + len(part.rows) * (not part.is_errors),
                errors=known.errors + len(part.rows) * part.is_errors,
                parts=(*known.parts, path),
            )
        for content in contents.values():
            counts.set(content)
        for batch_id in counts.due():
            counts.complete(batch_id)
        return counts
