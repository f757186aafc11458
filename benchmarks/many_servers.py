"""Many polite servers beside one quick one: ``python -m benchmarks.many_servers``.

3,000 servers of which each allows 10 requests/s, 20 files of about 30 KB each, by one downloading rank with the default
config; then as many files on one server without a limit. All servers are one nginx on loopback under other names, in
``.localhost``: libcurl looks these up by itself, and keeps them and their connections as those of any other name. The
last line is JSON; of each protocol (``plain`` and ``tls``):

- ``connections_per_server``: connections opened, by the server's own log; 1.0 is best;
- ``cpu_ratio``: processor time per file over that of one server; ``cpu_ms`` is both, [many, one], of one more file:
  by a job and another one half as large, so that the start cancels out;
- ``peak_rss_mb`` of the downloading rank, and ``files_per_s``, [many, one].
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.processes import cache_bytecode, run_job
from benchmarks.web_server import make_bodies
from tests.whole.job import Job, rows_of
from tests.whole.nginx import common_directives, free_port, make_certificates, started_nginx, temporary_paths

ADDRESS: Final = "127.0.0.1"
DOMAIN: Final = "museum.localhost"
FILES: Final = 500
TIMEOUT_S: Final = 600.0
ONE_CONNECTIONS: Final = 64


@dataclass(frozen=True)
class Web:
    """An nginx with the same files under any name, plain and with TLS."""

    folder: Path
    ports: dict[str, int]
    names: tuple[str, ...]

    def urls(self, protocol: str, servers: int, rows: int) -> list[str]:
        """``rows`` URLs per server, one server after the other in turn."""
        scheme = "http" if protocol == "plain" else "https"
        port = self.ports[protocol]
        bases = [f"{scheme}://s{number}.{DOMAIN}:{port}/{self.names[number % FILES]}?" for number in range(servers)]
        return [f"{base}{turn}" for turn in range(rows) for base in bases]

    def take_connections(self) -> int:
        """How many connections the requests since the last call came on."""
        log = self.folder / "access.log"
        connections = set(log.read_text().split())
        os.truncate(log, 0)
        return len(connections)


@contextmanager
def running_web(folder: Path) -> Iterator[Web]:
    """Serve until the end of the block."""
    (folder / "files").mkdir(parents=True)
    bodies = make_bodies(FILES)
    for name, body in bodies.items():
        (folder / "files" / name).write_bytes(body)
    make_certificates(folder, [ADDRESS], [f"*.{DOMAIN}"])
    web = Web(folder, {"plain": free_port(ADDRESS), "tls": free_port(ADDRESS)}, tuple(bodies))
    configuration = [
        *common_directives(folder),
        "worker_rlimit_nofile 60000;",
        f"error_log {folder}/error.log crit;",
        "events { worker_connections 50000; }",
        "http {",
        "types { image/jpeg jpg; }",
        "log_format connection '$connection';",
        f"access_log {folder}/access.log connection;",
        "sendfile on; tcp_nopush on; open_file_cache max=10000;",
        "keepalive_timeout 600s; keepalive_requests 1000000;",
        f"ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;",
        *temporary_paths(folder),
        f"server {{ listen {ADDRESS}:{web.ports['plain']} backlog=8192;",
        f"listen {ADDRESS}:{web.ports['tls']} ssl backlog=8192; root {folder}/files; }}",
        "}",
    ]
    places = [(ADDRESS, port) for port in web.ports.values()]
    with started_nginx(folder, "\n".join(configuration) + "\n", places):
        yield web


@dataclass(frozen=True)
class Cost:
    """What a job has cost its downloading rank."""

    cpu_s: float
    peak_rss_mb: float
    files_per_s: float
    connections: int


def measure(web: Web, folder: Path, protocol: str, urls: Sequence[str], limits: tuple[float, int]) -> Cost:
    """Download all with two ranks, of which one downloads; of each server so many requests/s, on so many
    connections."""
    folder.mkdir()
    web.take_connections()
    pq.write_table(pa.table({"identifier": urls}), folder / "urls.parquet")
    config = {
        "path_to_input": str(folder / "urls.parquet"),
        "path_to_output_folder": str(folder / "out"),
        "profiling": {"mode": "uniform"},
        "downloader_parameters": {
            "default_rate_limit": limits[0],
            "max_connections_per_server": limits[1],
            "header": "User-Agent: ddmpi-benchmark (+https://example.org)",
            "ca_bundle": str(web.folder / "ca.pem") if protocol == "tls" else None,
            "proxy": "",
            "allow_private_addresses": ["127.0.0.0/8"],
        },
    }
    job = Job(folder, config)
    usages, printed = run_job(job, 2, TIMEOUT_S)
    usage = usages[1]
    ends = rows_of(job.output / "images", ["fetched_at"]).column("fetched_at").cast(pa.int64()).to_numpy() / 1e6
    if len(ends) != len(urls):
        raise RuntimeError(f"{len(ends)} of {len(urls)} rows:\n{printed[-3000:]}")
    shutil.rmtree(folder)
    seconds = float(ends.max() - ends.min())
    return Cost(usage.cpu_s, usage.peak_rss_mb, len(urls) / seconds, web.take_connections())


def cost_per_file_ms(small: Cost, large: Cost, files: int) -> float:
    """Processor time of one more file; ``files`` are those that the large job has more than the small one."""
    return (large.cpu_s - small.cpu_s) * 1e3 / files


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=3_000)
    parser.add_argument("--rows", type=int, default=20, help="of each server")
    parser.add_argument("--rate", type=float, default=10.0, help="requests per second of each server")
    parser.add_argument("--protocols", nargs="+", choices=["plain", "tls"], default=["plain", "tls"])
    given = parser.parse_args(argv)
    cache_bytecode()
    found: dict[str, object] = {"servers": given.servers, "rows": given.rows}
    with tempfile.TemporaryDirectory(prefix="ddmpi-many-") as name, running_web(Path(name) / "web") as web:
        for protocol in given.protocols:
            many, one = [], []
            for part in (given.servers // 2, given.servers):
                urls = web.urls(protocol, part, given.rows)
                many.append(measure(web, Path(name) / "many", protocol, urls, (given.rate, 8)))
                urls = web.urls(protocol, 1, part * given.rows)
                one.append(measure(web, Path(name) / "one", protocol, urls, (0.0, ONE_CONNECTIONS)))
            more_files = (given.servers - given.servers // 2) * given.rows
            costs_ms = [cost_per_file_ms(small, large, more_files) for small, large in (many, one)]
            found[protocol] = {
                "connections_per_server": round(many[1].connections / given.servers, 3),
                "cpu_ratio": round(costs_ms[0] / costs_ms[1], 3),
                "cpu_ms": [round(cost_ms, 3) for cost_ms in costs_ms],
                "peak_rss_mb": [round(each[1].peak_rss_mb) for each in (many, one)],
                "files_per_s": [round(each[1].files_per_s) for each in (many, one)],
            }
            print(f"{protocol}: {found[protocol]}", flush=True)
    print(json.dumps({**found, "load": round(os.getloadavg()[0], 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
