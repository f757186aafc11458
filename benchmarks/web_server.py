"""An nginx on loopback with a benchmark's files: one worker, no log; the same files at any number of addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tests.whole.nginx import common_directives, free_port, started_nginx, temporary_paths

SERVERS: Final = 16
"""A few connections to each, as polite programs have, add up to many."""
MEAN_BYTES: Final = 30_000
SIGMA: Final = 0.6
"""Standard deviation of the logarithm of a file's size."""
_JPEG_HEAD: Final = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffc00011080258025803012200021101031101")
_PER_SUBNET: Final = 250


@dataclass(frozen=True)
class WebServer:
    """A server that accepts connections, the same files at all its addresses."""

    files: Path
    port: int
    sizes: Mapping[str, int]
    """Of each file, in bytes."""
    servers: int

    def urls(self, rows: int, servers: int) -> list[str]:
        """``rows`` different URLs over the first ``servers`` addresses, in turn, and over all files."""
        bases = [f"http://{_address(number)}:{self.port}/" for number in range(servers)]
        names = list(self.sizes)
        return [f"{bases[row % servers]}{names[(row + row // servers) % len(names)]}?{row}" for row in range(rows)]


def _address(number: int) -> str:
    return f"127.40.{number // _PER_SUBNET}.{number % _PER_SUBNET + 1}"


def make_bodies(files: int, mean_bytes: int = MEAN_BYTES) -> dict[str, bytes]:
    """Files that look like JPEG of 600 x 600 pixels as far as a header tells, of log-normal sizes."""
    rng = np.random.default_rng(7)
    sizes = mean_bytes * rng.lognormal(-SIGMA * SIGMA / 2, SIGMA, files)
    return {f"{number:05d}.jpg": _JPEG_HEAD + rng.bytes(max(0, int(size))) for number, size in enumerate(sizes)}


@contextmanager
def serving(
    folder: Path, bodies: Mapping[str, bytes], servers: int = SERVERS, *, log: Path | None = None
) -> Iterator[WebServer]:
    """Write the files and serve them at ``servers`` addresses until the end of the block; ``log`` gets a line for each
    request: time (s since 1970), status, bytes of the body, path."""
    sizes = {name: len(body) for name, body in bodies.items()}
    server = WebServer(folder / "files", free_port(_address(0)), sizes, servers)
    server.files.mkdir(parents=True)
    for name, body in bodies.items():
        (server.files / name).write_bytes(body)
    places = [(_address(number), server.port) for number in range(servers)]
    with started_nginx(folder, _configuration(folder, server, log), places):
        yield server


def _configuration(folder: Path, server: WebServer, log: Path | None) -> str:
    lines = [
        *common_directives(folder),
        "worker_rlimit_nofile 60000;",
        f"error_log {folder}/error.log crit;",
        "events { worker_connections 50000; }",
        "http {",
        "types { image/jpeg jpg; }",
        "log_format asked '$msec $status $body_bytes_sent $request_uri';",
        "access_log off;" if log is None else f"access_log {log} asked;",
        "sendfile on;",
        "tcp_nopush on;",
        "keepalive_requests 1000000;",
        "open_file_cache max=10000;",
        *temporary_paths(folder),
        "server {",
        *(f"listen {_address(number)}:{server.port};" for number in range(server.servers)),
        f"root {server.files};",
        "}",
        "}",
    ]
    return "\n".join(lines) + "\n"
