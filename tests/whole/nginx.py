"""An nginx as a child process, for the length of a test: an independent server that limits rates and speaks HTTP/2.

All its files, images and certificates included, are in one folder; it listens on loopback addresses and ports of its
own and is ended by its pid.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fleet.images import FORMATS, body_of
from tests.fleet.spec import ServerSpec
from tests.fleet.table import path_of

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0
_POLL_INTERVAL_S = 0.05
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where Debian keeps daemons; not on every user's PATH."""
_COUNT_PATH = "/connection-number"
_LOG_FIELDS = ("$msec", "$server_addr", "$connection", "$uri", "$status", "$server_protocol")


class NginxError(Exception):
    """nginx or openssl is missing, or did not do what it should; the text holds what was printed."""


@dataclass(frozen=True)
class Host:
    """One address of the server.

    Args:
        rate_per_s: of ``limit_req``, with ``burst`` more at once; a request above is answered 429. 0 = no limit.
        tls: HTTPS with HTTP/2 instead of plain HTTP.
    """

    address: str
    rate_per_s: int = 0
    burst: int = 0
    tls: bool = False


@dataclass(frozen=True)
class Request:
    """One line of the access log."""

    time_s: float
    address: str
    connection: int
    path: str
    status: int
    protocol: str


@dataclass(frozen=True)
class Nginx:
    """A server that accepts connections."""

    folder: Path
    port: int
    hosts: tuple[Host, ...]

    @property
    def table_path(self) -> Path:
        """The table of the files' URLs."""
        return self.folder / "urls.parquet"

    @property
    def ca_path(self) -> Path:
        """The authority that signed the certificate."""
        return self.folder / "ca.pem"

    def body(self, row: int, address: str) -> bytes:
        """The bytes of the file behind a row."""
        return (self.folder / "files" / address / path_of(row)[1:]).read_bytes()

    def requests(self) -> list[Request]:
        """All requests so far, in the order of their ends."""
        lines = (line.split() for line in (self.folder / "access.log").read_text().splitlines())
        return [
            Request(float(at), to, int(number), path, int(code), spoken) for at, to, number, path, code, spoken in lines
        ]

    def connection_number(self) -> int:
        """Make one connection: nginx's count of all connections to all hosts, this one included."""
        address, tls = self.hosts[0].address, self.hosts[0].tls
        connection = HTTPConnection(address, self.port, timeout=START_TIMEOUT_S)
        if tls:
            context = ssl.create_default_context(cafile=str(self.ca_path))
            connection = HTTPSConnection(address, self.port, timeout=START_TIMEOUT_S, context=context)
        with closing(connection):
            connection.request("GET", _COUNT_PATH)
            return int(connection.getresponse().read())


@contextmanager
def running_nginx(folder: Path, hosts: Sequence[Host], rows: int) -> Iterator[Nginx]:
    """Start nginx over a table of ``rows`` rows, spread evenly over the hosts, and end it in the end.

    Raises NginxError where it does not start.
    """
    folder.mkdir(parents=True)
    server = Nginx(folder, free_port(hosts[0].address), tuple(hosts))
    _write_files(server, rows)
    if any(host.tls for host in hosts):
        make_certificates(folder, [host.address for host in hosts])
    with started_nginx(folder, _configuration(server), [(host.address, server.port) for host in hosts]):
        yield server


@contextmanager
def started_nginx(folder: Path, configuration: str, places: Sequence[tuple[str, int]]) -> Iterator[None]:
    """An nginx with this configuration, from when it listens at all places (address, port) until the end of the block.

    Raises NginxError where it does not start.
    """
    (folder / "nginx.conf").write_text(configuration)
    command = [
        _program("nginx", "nginx"),
        "-p",
        f"{folder}/",
        "-c",
        f"{folder}/nginx.conf",
        "-e",
        f"{folder}/error.log",
    ]
    with (folder / "printed").open("wb") as printed:
        process = subprocess.Popen(command, cwd=folder, stdout=printed, stderr=subprocess.STDOUT)
    try:
        _await_listening(process, folder, places)
        yield
    finally:
        # QUIT would wait for idle connections; TERM ends master and workers at once.
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}")
    if found is None:
        raise NginxError(f"{name} is not installed (Debian: apt-get install {package})")
    return found


def _write_files(server: Nginx, rows: int) -> None:
    urls = []
    for row in range(rows):
        host, path = server.hosts[row % len(server.hosts)], path_of(row)
        file = server.folder / "files" / host.address / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body_of(ServerSpec(host.address), path))
        urls.append(f"{'https' if host.tls else 'http'}://{host.address}:{server.port}{path}")
    pq.write_table(pa.table({"identifier": urls}), server.table_path)


def _configuration(server: Nginx) -> str:
    folder = server.folder
    types = "".join(f"{one.content_type} {suffix}; " for suffix, one in FORMATS.items())
    lines = [
        *common_directives(folder),
        f"error_log {folder}/error.log info;",
        "events { worker_connections 512; }",
        "http {",
        f"types {{ {types}}}",
        f"log_format test '{' '.join(_LOG_FIELDS)}';",
        f"access_log {folder}/access.log test;",
        "limit_req_status 429;",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        *temporary_paths(folder),
        *(line for number, host in enumerate(server.hosts) for line in _server_block(server, number, host)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def common_directives(folder: Path) -> list[str]:
    """One worker in the foreground, as the user who runs this, with its files in ``folder``."""
    user = f"user {pwd.getpwuid(os.geteuid()).pw_name};" if os.geteuid() == 0 else ""
    return [user, "daemon off;", "worker_processes 1;", f"pid {folder}/nginx.pid;"]


def temporary_paths(folder: Path) -> list[str]:
    """Directives of the http block: nothing is made outside of ``folder``."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return [f"{kind}_temp_path {folder}/unused.{kind};" for kind in kinds]


def _server_block(server: Nginx, number: int, host: Host) -> Iterator[str]:
    if host.rate_per_s:
        # One client, one server: the zone's only key is the server's address.
        yield f"limit_req_zone $server_addr zone=host{number}:1m rate={host.rate_per_s}r/s;"
    yield "server {"
    yield f"listen {host.address}:{server.port}{' ssl http2' if host.tls else ''};"
    if host.tls:
        yield f"ssl_certificate {server.folder}/server.pem;"
        yield f"ssl_certificate_key {server.folder}/server.key;"
    yield f"location = {_COUNT_PATH} {{ access_log off; default_type text/plain; return 200 $connection; }}"
    yield f"root {server.folder}/files/{host.address};"
    if host.rate_per_s:
        yield f"limit_req zone=host{number} burst={host.burst} nodelay;"
    yield "}"


def make_certificates(folder: Path, addresses: Sequence[str], names: Sequence[str] = ()) -> None:
    """``server.pem`` and ``server.key`` for these addresses and names, signed by ``ca.pem``."""
    alternatives = ",".join([*(f"IP:{address}" for address in addresses), *(f"DNS:{name}" for name in names)])
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    _openssl(folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    signed = ["-x509", "-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    named = ["-subj", "/CN=test server", "-addext", f"subjectAltName={alternatives}"]
    _openssl(folder, "req", *key, *signed, *named, "-keyout", "server.key", "-out", "server.pem")


def _openssl(folder: Path, *arguments: str) -> None:
    command = [_program("openssl", "openssl"), *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise NginxError(f"{' '.join(command)}:\n{result.stderr}")


def free_port(address: str) -> int:
    """A port of this address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _await_listening(process: subprocess.Popen[bytes], folder: Path, places: Sequence[tuple[str, int]]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    for address, port in places:
        while not _accepts(address, port):
            if process.poll() is not None or time.monotonic() > deadline:
                printed = (folder / "printed").read_text() + (folder / "error.log").read_text()
                raise NginxError(f"nginx did not start:\n{printed}")
            time.sleep(_POLL_INTERVAL_S)


def _accepts(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
