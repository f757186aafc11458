"""Servers that send each row along a chain of URLs, and note which headers they were shown.

One process plays all hosts: http and https on two ports each, and a proxy. Which host is meant is told by the request.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import trustme

from tests.fleet.images import body_of
from tests.fleet.spec import ServerSpec
from tests.fleet.threaded import QuietHandler, running

IMAGE = body_of(ServerSpec("127.0.0.1"), "/1")
PLAIN, ALSO_PLAIN, TLS, ALSO_TLS, PROXY = 80, 8080, 443, 8443, 3128
"""What the ports are called in URLs."""


class Shown(NamedTuple):
    """A request, as its server has seen it. ``by_proxy``: by a proxy's eyes."""

    scheme: str
    host: str
    path: str
    headers: Mapping[str, str]
    by_proxy: bool = False


@dataclass
class Chains:
    """What the servers know, and what they have seen.

    The path ``/N/K`` is hop K of row N: a redirect to the next URL of the row's chain, or the image at its end.
    """

    urls: Sequence[Sequence[str]]
    stumbling: frozenset[int] = frozenset()
    """Rows that each server first answers with 503."""
    log: list[Shown] = field(default_factory=list)
    tries: Counter[str] = field(default_factory=Counter)
    ports: dict[int, int] = field(default_factory=dict)

    @property
    def connect_to(self) -> list[str]:
        """How libcurl finds them, whatever the host."""
        return [f":{name}:127.0.0.1:{port}" for name, port in self.ports.items() if name != PROXY]

    def answer(self, path: str) -> tuple[int, str]:
        """Return status and Location of a path."""
        row, hop = (int(part) for part in path.split("/")[1:3])
        self.tries[path] += 1
        if row in self.stumbling and self.tries[path] == 1:
            return 503, ""
        if hop + 1 < len(self.urls[row]):
            return (301, 302, 303, 307, 308)[row % 5], self.location(row, hop + 1)
        return 200, ""

    def location(self, row: int, hop: int) -> str:
        """Return the URL of a hop: its place in the chain stands for {}."""
        return self.urls[row][hop].replace("{}", f"{row}/{hop}")


def _handler(chains: Chains, scheme: str, *, is_proxy: bool = False) -> type[QuietHandler]:
    class Handler(QuietHandler):
        timeout = 30

        def get(self) -> None:
            target = urlsplit(self.path)
            headers = dict(self.headers.items())
            chains.log.append(Shown(scheme, self.headers["Host"], target.path, headers, is_proxy))
            status, location = (404, "") if target.path == "/robots.txt" else chains.answer(target.path)
            headers = {"Content_Type": "image/jpeg", **({"Location": location} if location else {})}
            self.answer(status, IMAGE if status == 200 else b"", **headers)

        def do_CONNECT(self) -> None:  # noqa: N802  # the name is http.server's
            chains.log.append(Shown("connect", self.path, "", dict(self.headers.items()), is_proxy))
            self.send_response(200)
            self.end_headers()
            with socket.create_connection(("127.0.0.1", chains.ports[TLS])) as there:
                _relay(self.connection, there)
            self.close_connection = True

    return Handler


def _relay(here: socket.socket, there: socket.socket) -> None:
    other = {here: there, there: here}
    while True:
        for end in select.select(list(other), [], [])[0]:
            try:
                data = end.recv(65_536)
                other[end].sendall(data)
            except ConnectionError:
                return
            if not data:
                return


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed leaves connections behind."""


@contextmanager
def serving(chains: Chains, bundle: Path) -> Iterator[None]:
    """Serve until the end of the block; ``bundle`` gets the certificate of the authority to trust."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(bundle))
    hosts = {host for chain in chains.urls for url in chain if (host := urlsplit(url).hostname) and host.isascii()}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*sorted(hosts)).configure_cert(context)
    with ExitStack() as stack:
        for name in (PLAIN, ALSO_PLAIN, TLS, ALSO_TLS, PROXY):
            is_tls = name in {TLS, ALSO_TLS}
            handler = _handler(chains, "https" if is_tls else "http", is_proxy=name == PROXY)
            server = stack.enter_context(running(_Server(("127.0.0.1", 0), handler), context if is_tls else None))
            chains.ports[name] = server.server_port
        yield
