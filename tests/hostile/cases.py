"""What every kind of answer case has in common: its number, its name, what it does, and what must become of the row."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ddmpi.core.records import ERROR_CODE_LOCAL, ERROR_CODE_NETWORK, ErrorKind
from tests.hostile.steps import NextRequest, Script

MAX_ATTEMPTS = 2
"""``max_attempts`` of all runs over the cases."""


class Transport(str, Enum):
    """How the server is spoken to, and what is wrong with it before the first answer."""

    PLAIN = "http"
    TLS = "https"
    HTTP2 = "https, HTTP/2"
    EXPIRED = "https, an expired certificate"
    SELF_SIGNED = "https, a self-signed certificate"
    WRONG_HOST = "https, a certificate for another host"
    UNTRUSTED = "https, an unknown authority"
    NO_TLS = "https, but the server speaks plain HTTP"
    NO_CIPHER = "https, no cipher in common"
    REFUSED = "http, nothing listens"
    UNANSWERED = "http, connections are not accepted"
    NO_NAME = "http, a name that does not exist"
    PRIVATE = "http, on a private address"

    @property
    def scheme(self) -> str:
        return self.value.partition(",")[0]


@dataclass(frozen=True)
class Expected:
    """What becomes of a row. ``kind`` None is a success; ``code`` is the ``error_code`` column."""

    kind: ErrorKind | None
    code: int
    retried: bool = False

    def __str__(self) -> str:
        if self.kind is None:
            return "success"
        return f"{self.kind.value}, {self.code}" + (", after more tries" if self.retried else "")


SUCCESS = Expected(None, 200)


def at_once(kind: ErrorKind) -> Expected:
    """An error without a second try. Of kinds without a status."""
    return Expected(kind, _code(kind))


def retried(kind: ErrorKind) -> Expected:
    """An error after all tries. Of kinds without a status."""
    return Expected(kind, _code(kind), retried=True)


def status(code: int, *, retried: bool = False) -> Expected:
    """An error of kind http_status."""
    return Expected(ErrorKind.HTTP_STATUS, code, retried)


_NETWORK_KINDS = frozenset(
    {
        ErrorKind.DNS,
        ErrorKind.CONNECT,
        ErrorKind.UNREACHABLE,
        ErrorKind.TLS,
        ErrorKind.TIMEOUT,
        ErrorKind.STALLED,
        ErrorKind.NETWORK,
        ErrorKind.PROTOCOL,
    }
)


def _code(kind: ErrorKind) -> int:
    # Written out again, not asked of records.error_code: it is part of what is tested.
    return ERROR_CODE_NETWORK if kind in _NETWORK_KINDS else ERROR_CODE_LOCAL


@dataclass(frozen=True)
class AnswerCase:
    """One way for a server to behave. All requests for the case's rows go to one server that does nothing else."""

    number: int
    """Of the catalog (see ``catalog``); several cases may share it."""
    name: str
    script: Script
    expected: Expected
    transport: Transport = Transport.PLAIN
    then: Script | None = None
    """What all requests after the first one get, where that is something else."""
    rows: int = 1
    """Rows in a run of the program; more than one where what happens to the next request is the point."""

    @property
    def has_pictures(self) -> bool:
        """Whether every request for any path gets a picture, over plain HTTP."""
        is_plain = self.transport is Transport.PLAIN and self.then is None
        return is_plain and self.expected == SUCCESS and isinstance(self.script[-1], NextRequest)
