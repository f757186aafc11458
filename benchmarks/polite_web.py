"""Servers with request limits of their own, half of them nginx's and half of them a fleet's, and a table of their rows.

What counts is what the servers have seen: ``Web.arrivals`` reads their logs. A server admits ``burst_of(limit) + 1``
requests at once (one more than ddmpi promises, for requests that the network pushes together), and answers 429 above.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fleet.images import body_of
from tests.fleet.log import EventKind, read_log
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import ServerSpec
from tests.whole.nginx import common_directives, free_port, started_nginx, temporary_paths

LEAST_PER_S: Final = 1
MOST_PER_S: Final = 200
WIDE_PER_S: Final = 600
"""Of the server that is worth several ranks: its limit is split."""
LATENCY_S: Final = 0.02
"""Of the fleet's servers; nginx answers at once."""
REDIRECTORS: Final = 6
CONNECTIONS: Final = 8
LEAST_WORK: Final = 0.6
"""The server with the fewest rows has so much of the time's work; the next ones more, up to all of it."""
_FIELDS: Final = "$msec $request_time $server_addr $status $request_uri"


@dataclass(frozen=True)
class Server:
    """One server: ``target`` is the address that its rows are redirected to, empty for none."""

    address: str
    limit_per_s: int
    is_nginx: bool
    rows: int
    target: str = ""


class Arrival(NamedTuple):
    """A request, as its server saw it come. ``time_s`` is of the monotonic clock."""

    time_s: float
    path: str
    status: int


def burst_of(limit_per_s: float) -> float:
    """What ddmpi may send at once on top of the limit."""
    return max(1.0, limit_per_s / 10)


def make_servers(count: int, work_s: float) -> list[Server]:
    """``count`` servers with limits from 1 to 200 requests/s, and the wide one last.

    They have between ``LEAST_WORK`` and all of ``work_s`` seconds of rows. The redirectors' limits are a small part of
    their targets', which keep rows of their own until the redirectors are done.
    """
    ratio = (MOST_PER_S / LEAST_PER_S) ** (1 / (count - 1))
    limits = [round(LEAST_PER_S * ratio**number) for number in range(count)]
    # The last servers are the fastest; a fleet's server can only redirect to one of the same fleet.
    redirectors = range(count // 2, count // 2 + REDIRECTORS)
    fleet = [number for number in range(count) if not _is_nginx(number)]
    fast = {True: cycle((count - 1, count - 2)), False: cycle(fleet[-2:])}
    targets = {number: next(fast[_is_nginx(number)]) for number in redirectors}
    servers = []
    for number, limit in enumerate(limits):
        share = LEAST_WORK if number in targets else LEAST_WORK + (1 - LEAST_WORK) * (number * 7 % count) / count
        if number in targets.values():
            share = 0.9
        target = _address(targets[number]) if number in targets else ""
        servers.append(Server(_address(number), limit, _is_nginx(number), round(share * limit * work_s), target))
    return [*servers, Server(_address(count + count % 2), WIDE_PER_S, True, round(WIDE_PER_S * work_s))]


def _is_nginx(number: int) -> bool:
    return number % 2 == 0


def _address(number: int) -> str:
    return f"127.{60 + number % 2}.0.{number + 1}"


@dataclass(frozen=True)
class Web:
    """All servers of a run, accepting connections, and the table of their rows."""

    fleet: RunningFleet
    nginx_folder: Path
    nginx_port: int
    servers: Sequence[Server]
    table: Path
    own_paths: Mapping[str, frozenset[str]]
    """Paths of the rows that the table has of each server, by its address."""

    def name(self, server: Server) -> str:
        """The server as it stands in URLs."""
        return f"{server.address}:{self.nginx_port if server.is_nginx else self.fleet.port}"

    def rules(self) -> list[dict[str, Any]]:
        """What the config has to say of the servers."""
        return [
            {"match": self.name(server), "rate_limit": server.limit_per_s, "max_connections": CONNECTIONS}
            for server in self.servers
        ]

    def arrivals(self) -> dict[str, list[Arrival]]:
        """What every server has seen so far, by address and in order of time."""
        found: dict[str, list[Arrival]] = {server.address: [] for server in self.servers}
        for address, arrival in (*self._of_fleet(), *self._of_nginx()):
            found[address].append(arrival)
        return {address: sorted(arrivals) for address, arrivals in found.items()}

    def _of_fleet(self) -> Iterator[tuple[str, Arrival]]:
        asked: dict[int, tuple[float, str]] = {}
        for event in read_log(self.fleet.log_path):
            if event.kind is EventKind.REQUEST:
                asked[event.connection] = (event.time_s, event.path)
            elif event.kind is EventKind.ANSWER:
                at, path = asked.pop(event.connection)
                yield event.server.partition(":")[0], Arrival(at, path, event.status)

    def _of_nginx(self) -> Iterator[tuple[str, Arrival]]:
        to_monotonic_s = time.monotonic() - time.time()
        for line in (self.nginx_folder / "access.log").read_text().splitlines():
            ended_at, took_s, address, status, path = line.split()
            yield address, Arrival(float(ended_at) - float(took_s) + to_monotonic_s, path, int(status))


@contextmanager
def running_web(folder: Path, servers: Sequence[Server]) -> Iterator[Web]:
    """Start the servers, write the table, and end them in the end."""
    specs = [
        ServerSpec(
            server.address,
            latency_s=LATENCY_S,
            rate_limit_per_s=server.limit_per_s,
            burst=_admitted_at_once(server),
            redirect_to=server.target,
        )
        for server in servers
        if not server.is_nginx
    ]
    nginx_folder = folder / "nginx"
    nginx_folder.mkdir(parents=True)
    (nginx_folder / "image.jpg").write_bytes(body_of(specs[0], "/0.jpg"))
    hosts = [server for server in servers if server.is_nginx]
    with running_fleet(folder / "fleet", specs) as fleet:
        port = free_port(hosts[0].address)
        web = Web(fleet, nginx_folder, port, servers, folder / "urls.parquet", _paths(servers))
        _write_table(web)
        with started_nginx(nginx_folder, _configuration(web, hosts), [(host.address, port) for host in hosts]):
            yield web


def _admitted_at_once(server: Server) -> int:
    return math.ceil(burst_of(server.limit_per_s)) + 1


def _paths(servers: Sequence[Server]) -> dict[str, frozenset[str]]:
    paths, row = {}, 0
    for server in servers:
        paths[server.address] = frozenset(f"/{number}.jpg" for number in range(row, row + server.rows))
        row += server.rows
    return paths


def _write_table(web: Web) -> None:
    urls = [f"http://{web.name(server)}{path}" for server in web.servers for path in web.own_paths[server.address]]
    random.Random(1).shuffle(urls)
    pq.write_table(pa.table({"identifier": urls}), web.table)


def _configuration(web: Web, hosts: Sequence[Server]) -> str:
    folder, names = web.nginx_folder, {server.address: web.name(server) for server in web.servers}
    lines = [
        *common_directives(folder),
        f"error_log {folder}/error.log crit;",
        "events { worker_connections 4096; }",
        "http {",
        "types { image/jpeg jpg; }",
        f"log_format arrivals '{_FIELDS}';",
        f"access_log {folder}/access.log arrivals;",
        "limit_req_status 429;",
        "keepalive_requests 1000000;",
        *temporary_paths(folder),
        *(line for number, host in enumerate(hosts) for line in _server_block(web, number, host, names)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _server_block(web: Web, number: int, host: Server, names: Mapping[str, str]) -> Iterator[str]:
    yield f"limit_req_zone $server_addr zone=host{number}:1m rate={host.limit_per_s}r/s;"
    yield f"server {{ listen {web.name(host)}; root {web.nginx_folder};"
    # try_files comes after limit_req, which a rewrite or return beside it would not.
    found = "@target" if host.target else "/image.jpg"
    burst = _admitted_at_once(host) - 1
    yield f"location / {{ limit_req zone=host{number} burst={burst} nodelay; try_files /none {found}; }}"
    yield "location = /image.jpg { }"
    if host.target:
        yield f"location @target {{ return 302 http://{names[host.target]}$request_uri; }}"
    yield "}"
