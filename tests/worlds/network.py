"""How the servers of a world answer. Pure: it depends only on the requests before and the ``random.Random``."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable

from ddmpi.core.records import Answer, Task
from tests.worlds.model import ServerModel, World

RELAXED_SHARE = 0.1
"""Latencies are spread by up to this share of themselves, and now and then (1 in 20) are ten times as long."""


OFFLINE_FAILS_AFTER_S = 3.0
"""A look-up that nobody answers takes up to so long."""


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
        latency_s, answer = self._answer(task, server, now)
        if server.states_limit and server.rate_per_s:
            left = int(server.burst - self._levels[task.server][0])
            policy = f'"all";q={server.rate_per_s:.0f};w=1'
            answer.rate_limits = {"ratelimit-policy": policy, "ratelimit": f'"all";r={left};t=1'}
        return latency_s, answer

    def _answer(self, task: Task, server: ServerModel, now: float) -> tuple[float, Answer]:
        latency_s = server.latency_s * (1 + RELAXED_SHARE * self._rng.random())
        if self._rng.random() < 0.05:
            latency_s *= 10
        if self._is_above_limit(task.server, server, now) or server.refuses(task.url):
            retry_after = "" if server.retry_after_s is None else str(server.retry_after_s)
            return latency_s, Answer(task, status=429, retry_after=retry_after)
        if rest_s := server.rest_left_s(now):
            return latency_s, Answer(task, status=429, retry_after=str(math.ceil(rest_s)))
        if server.forbids(task.url) and not task.robots_of:
            return latency_s, Answer(task, status=403)
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
        elif server.lacks(task.url):
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


class Connections:
    """The connections of a rank, kept idle by server as libcurl keeps them."""

    def __init__(self) -> None:
        self._idle: Counter[str] = Counter()
        self._busy: Counter[str] = Counter()

    def count(self, server: str) -> int:
        """Open connections to the server."""
        return self._idle[server] + self._busy[server]

    def take(self, server: str, group: Iterable[str], spare: int) -> bool:
        """Use a connection to the server, after idle ones to the group were closed but for ``spare``; whether it is
        a new one."""
        reuses = self._idle[server] > 0
        others = [name for name in group if name != server]
        surplus = sum(self._idle[name] for name in others) + self._idle[server] - reuses - spare
        for name in others:
            closed = max(0, min(self._idle[name], surplus))
            self._idle[name] -= closed
            surplus -= closed
        self._idle[server] -= reuses
        self._busy[server] += 1
        return not reuses

    def give_back(self, server: str, *, keep: bool) -> None:
        """A request has ended; its connection stays open or is closed."""
        self._busy[server] -= 1
        self._idle[server] += keep

    def close(self, servers: Iterable[str]) -> None:
        """Close idle connections."""
        for server in servers:
            self._idle[server] = 0
