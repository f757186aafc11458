"""What each server of the fleet is like, and two ready-made fleets.

Decides nothing about single requests (``verdict`` does) and knows no socket, clock or file.
Invariants: a spec that exists is valid; the address alone identifies a server, and no two specs of a fleet share one.
"""

from __future__ import annotations

import ipaddress
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import Enum

REFUSED_PORT_OFFSET = 1
"""Refusing servers are named by the port after the fleet's, which is reserved and on which nothing listens."""

_PLAIN_BASE = int(ipaddress.IPv4Address("127.16.0.0"))
_HOSTS_PER_SUBNET = 250
_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
_AMOUNTS = (
    "latency_s", "rate_limit_per_s", "burst", "retry_after_s", "refused_retry_after_s", "body_bytes_per_s",
    "row_weight",
)  # fmt: skip


class Mode(str, Enum):
    """What becomes of a request that is neither limited, nor missing, nor an error by chance."""

    OK = "ok"
    """The image, or a 302 where ``redirect_to`` is set."""
    REFUSED = "refused"
    """No connection: its port has no listener."""
    RESET = "reset"
    """The connection is reset after the request (RST), without an answer."""
    CLOSE = "close"
    """The connection is closed after the request (FIN), without an answer."""
    BLACKHOLE = "blackhole"
    """The request is read and never answered."""
    STALL = "stall"
    """Half of the body, then silence on an open connection."""
    TRUNCATED = "truncated"
    """Half of the body that Content-Length promises, then a clean close."""
    HTML = "html"
    """200 with an HTML page."""
    EMPTY = "empty"
    """200 with a body of 0 bytes."""
    GARBAGE = "garbage"
    """An answer that is not HTTP, then a clean close."""


class Size(str, Enum):
    """Which images a server holds: ``small`` has a median of about 2 KB, ``normal`` of about 30 KB."""

    SMALL = "small"
    NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One server. Shares lie in 0..1; 0 means "no limit" for every rate.

    Raises ValueError where a field is out of range.
    """

    address: str
    """An IPv4 address of 127.0.0.0/8."""
    latency_s: float = 0.0
    """From the arrival of a request to the first byte of its answer, 429 included."""
    rate_limit_per_s: float = 0.0
    burst: int = 0
    """Requests admitted at once by a rested server (token bucket); 0 means one second's worth, at least 1."""
    later_limits: tuple[tuple[float, float], ...] = ()
    """(seconds after the first request, requests/s from then on, above 0), in order: the limit changes meanwhile."""
    retry_after_s: int = 0
    """> 0: a 429 carries Retry-After and starts a pause of so many seconds, in which every request gets 429."""
    states_limit: bool = False
    """Each answer carries RateLimit-Policy and RateLimit."""
    error_rate: float = 0.0
    """Share of tries answered by ``error_statuses``, by hash of path and try number."""
    error_statuses: tuple[int, ...] = (503, 500)
    error_retry_after: str = ""
    """Retry-After of such an answer: a number of seconds, or "date", which means a date that lies 2 to 3 s ahead."""
    not_found_share: float = 0.0
    """Share of paths that answer 404, at every try."""
    changed_share: float = 0.0
    """Share of paths under which there is another image than without it."""
    body_bytes_per_s: float = 0.0
    """Pace of each connection's body."""
    refused_prefix: str = ""
    """Paths that begin so are refused at every try; empty: none are."""
    refused_status: int = 429
    refused_retry_after_s: int = 0
    """> 0: the Retry-After of such an answer, which starts no pause: other paths are answered as before."""
    refused_body: str = ""
    redirect_to: str = ""
    """Address of the server whose same path a 302 points to."""
    sets_cookie: bool = False
    """A redirect sets a cookie of its path, and a request that shows it gets the image. Any other cookie gets 400, as
    from all servers."""
    mode: Mode = Mode.OK
    mode_share: float = 1.0
    """Share of tries to which ``mode`` applies, by hash of path and try number; the others are ``ok``."""
    x_robots_tag: str = ""
    """Value of that header of each image; lines of several such headers have a line feed between them."""
    content_usage: str = ""
    """Value of that header of each image."""
    robots: str | None = None
    """Body of /robots.txt; None: it is a path like any other."""
    robots_status: int = 200
    robots_location: str = ""
    """Location of /robots.txt, for a ``robots_status`` that is a redirect."""
    size: Size = Size.SMALL
    row_weight: float = 1.0
    """How many rows of a table this server has, relative to the others."""

    def __post_init__(self) -> None:
        if ipaddress.IPv4Address(self.address) not in _LOOPBACK:
            raise ValueError(f"{self.address}: not a loopback address")
        for name in _AMOUNTS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{self.address}: {name} must be a finite number >= 0")
        for name in ("error_rate", "not_found_share", "changed_share", "mode_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{self.address}: {name} must be in 0..1")
        times = [0.0, *(at_s for at_s, _ in self.later_limits)]
        rates = [self.rate_limit_per_s, *(rate for _, rate in self.later_limits)]
        if self.later_limits and (sorted(times) != times or min(rates) <= 0):
            raise ValueError(f"{self.address}: later_limits must be in order, and change a limit to a limit")
        if not self.error_statuses:
            raise ValueError(f"{self.address}: error_statuses must not be empty")
        if self.mode is Mode.REFUSED and self.mode_share != 1:
            raise ValueError(f"{self.address}: a server refuses either all connections or none")

    def name(self, port: int) -> str:
        """The server as it stands in URLs ("127.10.0.7:8080"), given the port of the fleet."""
        return f"{self.address}:{port + REFUSED_PORT_OFFSET if self.mode is Mode.REFUSED else port}"

    def url(self, port: int, path: str) -> str:
        return f"http://{self.name(port)}{path}"

    def refuses(self, path: str) -> bool:
        """Whether ``path`` is refused at every try."""
        return bool(self.refused_prefix) and path.startswith(self.refused_prefix)

    def limit_at(self, age_s: float) -> float:
        """Requests per second that are allowed so long after the first request; 0 = any."""
        return next((rate for at_s, rate in reversed(self.later_limits) if at_s <= age_s), self.rate_limit_per_s)

    def burst_at(self, age_s: float) -> int:
        """Capacity of the token bucket behind that limit."""
        return self.burst or max(1, math.ceil(self.limit_at(age_s)))


def check_fleet(specs: Iterable[ServerSpec]) -> None:
    """Raise ValueError where two specs share an address or a redirect leads out of the fleet."""
    by_address: dict[str, ServerSpec] = {}
    for spec in specs:
        if spec.address in by_address:
            raise ValueError(f"{spec.address}: two specs for one address")
        by_address[spec.address] = spec
    for spec in by_address.values():
        if spec.redirect_to and spec.redirect_to not in by_address:
            raise ValueError(f"{spec.address}: redirect_to {spec.redirect_to}, which is not in the fleet")


def encode_specs(specs: Iterable[ServerSpec]) -> str:
    """JSON text from which ``decode_specs`` makes equal specs."""
    return json.dumps([asdict(spec) for spec in specs])


def decode_specs(text: str) -> list[ServerSpec]:
    """Inverse of ``encode_specs``. Raises ValueError or TypeError for anything else."""
    return [
        ServerSpec(
            **{
                **fields,
                "error_statuses": tuple(fields["error_statuses"]),
                "later_limits": tuple((at_s, rate) for at_s, rate in fields["later_limits"]),
                "mode": Mode(fields["mode"]),
                "size": Size(fields["size"]),
            }
        )
        for fields in json.loads(text)
    ]


def plain_address(index: int) -> str:
    """Address of the plain fleet's server ``index``: 250 per subnet of /24 from 127.16.0.0 on."""
    subnet, host = divmod(index, _HOSTS_PER_SUBNET)
    return str(ipaddress.IPv4Address(_PLAIN_BASE + (subnet << 8) + host + 1))


def plain_fleet(n: int, rate: float = 0.0, *, latency_s: float = 0.0, size: Size = Size.SMALL) -> list[ServerSpec]:
    """``n`` healthy servers (up to 15 million), each limited to ``rate`` requests/s (0: unlimited)."""
    return [
        ServerSpec(plain_address(index), latency_s=latency_s, rate_limit_per_s=rate, size=size) for index in range(n)
    ]


def demo_fleet(size: Size = Size.SMALL) -> list[ServerSpec]:
    """40 servers of mixed behavior, 127.10.0.1 to 127.10.0.40.

    The numbers fit a client that sends at most 50 requests/s to a server it knows no limit of: the 31 healthy
    servers allow that, so their limits show only an impolite client. Odd servers have fewer rows than healthy
    ones, so that 5,000 rows (about 144 per healthy server) end in 10 to 20 s in spite of pauses and retries.
    """
    healthy = [
        ServerSpec(f"127.10.0.{index + 1}", latency_s=latency_s, rate_limit_per_s=rate_per_s)
        for index, (latency_s, rate_per_s) in enumerate(_demo_grid(31))
    ]
    target = healthy[0].address
    odd = [
        ServerSpec("127.10.0.32", latency_s=0.01, rate_limit_per_s=25, retry_after_s=2, row_weight=0.5),
        ServerSpec("127.10.0.33", latency_s=0.01, rate_limit_per_s=25, row_weight=0.5),
        ServerSpec("127.10.0.34", latency_s=0.02, error_rate=0.08, row_weight=0.5),
        ServerSpec("127.10.0.35", latency_s=0.02, body_bytes_per_s=30_000, row_weight=0.2),
        ServerSpec("127.10.0.36", latency_s=0.005, redirect_to=target, row_weight=0.3),
        ServerSpec("127.10.0.37", mode=Mode.REFUSED, row_weight=0.1),
        ServerSpec("127.10.0.38", latency_s=0.01, mode=Mode.HTML, row_weight=0.3),
        ServerSpec("127.10.0.39", latency_s=0.01, not_found_share=0.1, row_weight=0.8),
        ServerSpec("127.10.0.40", latency_s=0.01, mode=Mode.RESET, mode_share=0.05, row_weight=0.5),
    ]
    return [replace(spec, size=size) for spec in healthy + odd]


def _demo_grid(servers: int) -> list[tuple[float, float]]:
    # Primes to each other, so that slow and strict do not always meet. The first server takes a redirector's rows too.
    latencies_s = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
    rates_per_s = (0.0, 60.0, 80.0, 100.0)
    return [(latencies_s[index % 7], rates_per_s[index % 4]) for index in range(servers)]
