"""An nginx on loopback with a benchmark's files: one worker, no log; plain HTTP, and TLS with HTTP/1.1 and HTTP/2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tests.whole.nginx import common_directives, free_port, make_certificates, started_nginx, temporary_paths

ADDRESSES: Final = tuple(f"127.40.0.{number}" for number in range(1, 17))
"""Sixteen servers: a few connections to each, as polite programs have, add up to many."""
PROTOCOLS: Final = {"plain": "", "tls_h1": " ssl", "tls_h2": " ssl http2"}
"""What follows the port in nginx's ``listen``."""
MEAN_BYTES: Final = 30_000
SIGMA: Final = 0.6
"""Standard deviation of the logarithm of a file's size."""
_JPEG_HEAD: Final = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffc00011080258025803012200021101031101")


@dataclass(frozen=True)
class WebServer:
    """A server that accepts connections, the same files under all its addresses."""

    folder: Path
    ports: Mapping[str, int]
    """By name of ``PROTOCOLS``."""
    names: tuple[str, ...]

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def ca_path(self) -> Path:
        return self.folder / "ca.pem"

    def urls(self, protocol: str, rows: int) -> list[str]:
        """``rows`` URLs over all addresses and files, the same one again after addresses x files rows."""
        scheme = "http" if protocol == "plain" else "https"
        bases = [f"{scheme}://{address}:{self.ports[protocol]}/" for address in ADDRESSES]
        files, addresses = len(self.names), len(bases)
        return [bases[(row + row // files) % addresses] + self.names[row % files] for row in range(rows)]


def make_bodies(files: int, mean_bytes: int = MEAN_BYTES) -> dict[str, bytes]:
    """Files that look like JPEG of 600 x 600 pixels as far as a header tells, of log-normal sizes."""
    rng = np.random.default_rng(7)
    sizes = mean_bytes * rng.lognormal(-SIGMA * SIGMA / 2, SIGMA, files)
    return {f"{number:05d}.jpg": _JPEG_HEAD + rng.bytes(max(0, int(size))) for number, size in enumerate(sizes)}


@contextmanager
def serving(folder: Path, bodies: Mapping[str, bytes]) -> Iterator[WebServer]:
    """Write the files and serve them until the end of the block."""
    folder.mkdir(parents=True)
    server = WebServer(folder, {name: free_port(ADDRESSES[0]) for name in PROTOCOLS}, tuple(bodies))
    server.files.mkdir()
    for name, body in bodies.items():
        (server.files / name).write_bytes(body)
    make_certificates(folder, ADDRESSES)
    places = [(address, port) for port in server.ports.values() for address in ADDRESSES]
    with started_nginx(folder, _configuration(server), places):
        yield server


def _configuration(server: WebServer) -> str:
    folder = server.folder
    lines = [
        *common_directives(folder),
        f"error_log {folder}/error.log crit;",
        "events { worker_connections 4096; }",
        "http {",
        "types { image/jpeg jpg; }",
        "access_log off;",
        "sendfile on;",
        "tcp_nopush on;",
        "open_file_cache max=10000;",
        f"ssl_certificate {folder}/server.pem;",
        f"ssl_certificate_key {folder}/server.key;",
        "ssl_session_cache shared:tls:4m;",
        *temporary_paths(folder),
        "server {",
        *(
            f"listen {address}:{server.ports[name]}{suffix};"
            for name, suffix in PROTOCOLS.items()
            for address in ADDRESSES
        ),
        f"root {server.files};",
        "}",
        "}",
    ]
    return "\n".join(lines) + "\n"
