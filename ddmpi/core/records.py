"""What all parts share: names, limits, batches, tasks, answers, verdicts. Data only; decisions are elsewhere."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import fnmatchcase
from operator import add, sub
from typing import TypeAlias

import msgspec

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for damaged input: neither text that is not UTF-8 nor a thousand open brackets are among its own
errors."""

INVALID_SERVER = "__invalid__"
"""``server_name`` of the batches whose rows have a URL that was refused."""
MANY_SERVERS = "__many__"
"""``server_name`` of the batches that pack many small servers."""

CONNECTIONS_PER_RANK = 256
"""What one rank may have in flight over all servers, where the config does not say otherwise."""


class ErrorKind(str, Enum):
    """The closed list of ``error_kind`` values; docs/errors.md says what each one means."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    STALLED = "stalled"
    NETWORK = "network"
    PROTOCOL = "protocol"
    HTTP_STATUS = "http_status"
    TOO_LARGE = "too_large"
    WRONG_TYPE = "wrong_type"
    EMPTY_BODY = "empty_body"
    REDIRECT = "redirect"
    BLOCKED_ADDRESS = "blocked_address"
    BAD_URL = "bad_url"
    DECODE = "decode"
    HASH_MISMATCH = "hash_mismatch"
    ROBOTS = "robots"
    PLACEHOLDER = "placeholder"
    SERVER_REFUSED = "server_refused"
    UNREACHABLE = "unreachable"
    GIVEN_UP = "given_up"
    FORGOTTEN = "forgotten"


ERROR_CODE_NETWORK = -1
ERROR_CODE_LOCAL = -2

_NETWORK_KINDS = frozenset(
    map(ErrorKind, ("dns", "connect", "tls", "timeout", "stalled", "network", "protocol", "unreachable"))
)


def error_code(kind: ErrorKind, http_status: int) -> int:
    """The ``error_code`` column: the HTTP status, -1 for the network, -2 for content or local reasons."""
    if kind is ErrorKind.HTTP_STATUS:
        return http_status
    return ERROR_CODE_NETWORK if kind in _NETWORK_KINDS else ERROR_CODE_LOCAL


MIRRORS = "mirrors"
"""Column of the urls folder: further URLs of a row, in the order in which they are asked; only where rows may have
some."""
REQUESTED = "requested_url"
"""Column of the urls folder, and of the results: what is asked for, null where that is the table's URL; only where the
config may say so. In the urls folder it is what is asked for first."""
REQUEST_HEADERS = "request_headers"
"""Column of the urls folder: the rows' own headers; only where the config has ``columns.headers``."""
RESULT_COLUMNS = frozenset(
    {"uuid", "source_id", "identifier", "is_license_full", "license", "source", "title", "hashsum_original"}
    | {"hashsum_resized", "original_size", "resized_size", "image", "status", "final_url", "content_type", "bytes"}
    | {"etag", "last_modified", "attempts", "fetched_at", "total_ms", "ttfb_ms", "ip", "retry_count", "error_code"}
    | {"error_kind", "error_msg", "row_number", "reject", "server_name", "partition_id", "same_as", "item_number"}
    | {
        "outcome",
        "epoch",
        "expected_mismatch",
        "placeholder",
        "usage_signals",
        "warnings",
        "check",
        "file_epoch",
        MIRRORS,
        REQUESTED,
        REQUEST_HEADERS,
    }
)
"""Columns that ddmpi itself writes, needs in ``urls``, or adds when results are read: a kept column of the same name
would be lost."""


class Limits(msgspec.Struct, frozen=True):
    """What one server group allows, or the share of it that one lane holds. 0 means no limit."""

    rate_per_s: float = 0.0
    connections: int = 8
    bytes_per_s: float = 0.0
    bytes_per_day: float = 0.0
    bytes_per_hour: float = 0.0
    numbers: frozenset[int] = frozenset()
    """Of a share: which of the group's connections it has, counted from 0; none of them named = all."""

    @property
    def has_byte_budget(self) -> bool:
        """Whether all bytes have to be counted in one place: such a group has one lane."""
        return self.bytes_per_hour > 0 or self.bytes_per_day > 0

    @property
    def without_bytes(self) -> Limits:
        """These limits for one of several servers that share them: bytes are counted for all of them together."""
        return Limits(self.rate_per_s, self.connections)

    def divided(self, parts: int) -> list[Limits]:
        """Return shares that add up to these limits, none of them without a connection. Raises ValueError: more parts
        than connections."""
        if parts > self.connections:
            raise ValueError(f"{parts} lanes cannot share {self.connections} connections")
        if parts == 1:
            return [self]
        numbers = sorted(self._all_numbers)
        return [self._with(numbers[i::parts], (value / parts for value in self._amounts)) for i in range(parts)]

    def plus(self, other: Limits) -> Limits:
        """Return the share that has both."""
        return self._with(self._all_numbers | other._all_numbers, map(add, self._amounts, other._amounts))

    def part_of(self, whole: Limits) -> float:
        """Return which part of a group's limits this share is."""
        if whole.rate_per_s > 0:
            return self.rate_per_s / whole.rate_per_s
        return self.connections / whole.connections

    def minus(self, part: Limits) -> Limits:
        """Return what is left of this share when a part of it is given away."""
        return self._with(self._all_numbers - part._all_numbers, map(sub, self._amounts, part._amounts))

    def connections_of(self, now: int, planned: int) -> int:
        """Return how many connections a share has while its group has ``now`` instead of those ``planned``. Of all
        shares these are exactly as many, and no share has more while the group has fewer."""
        each, extra = divmod(now, planned)
        return sum(each + (number < extra) for number in self._all_numbers)

    @property
    def _all_numbers(self) -> frozenset[int]:
        return self.numbers or frozenset(range(self.connections))

    @property
    def _amounts(self) -> tuple[float, ...]:
        """What a share has a part of, but for connections."""
        return self.rate_per_s, self.bytes_per_s, self.bytes_per_day, self.bytes_per_hour

    @staticmethod
    def _with(numbers: Collection[int], amounts: Iterable[float]) -> Limits:
        rate_per_s, bytes_per_s, bytes_per_day, bytes_per_hour = amounts
        return Limits(rate_per_s, len(numbers), bytes_per_s, bytes_per_day, bytes_per_hour, frozenset(numbers))


class PaceState(msgspec.Struct, frozen=True):
    """What is worth keeping of a pace when its lane moves or the run ends. All durations count from the message.
    ``spent_hour`` and ``spent_day`` are (seconds left, bytes) as in ``byte_limits``."""

    rate_per_s: float = 0.0
    wait_s: float = 0.0
    incidents: int = 0
    open_count: int = 0
    throttles: int = 0
    spent_hour: tuple[tuple[float, float], ...] = ()
    spent_day: tuple[tuple[float, float], ...] = ()
    why: str = ""
    """What it waits for, for people; empty if for nothing."""
    since_s: float = 0.0
    """For how long it has not answered, if ``open_count`` > 0."""
    debt_s: float = 0.0
    """How long its bodies so far are still to be paid for, at the limit per second."""
    body_bytes: float = 0.0
    """What one body is likely to take, where bytes per second are limited; 0 = no idea."""
    asked_s: float = 0.0
    """So much of ``wait_s`` the server itself has asked for."""


_SHARED_PREFIX = "*"


def shared_name(group: str) -> str:
    """The name by which the pace of a group's servers together is kept, beside theirs: what no server can be called."""
    return _SHARED_PREFIX + group


def group_of_shared(name: str) -> str | None:
    """The group of a name made by ``shared_name``; None: it is a server's."""
    return name.removeprefix(_SHARED_PREFIX) if name.startswith(_SHARED_PREFIX) else None


NOTHING_LEARNED = PaceState()
"""Of a server that somebody may have asked, without a word on how it took that."""


class Quota(msgspec.Struct, frozen=True):
    """What a server says that it takes from us, of all ranks together."""

    per_s: float = math.inf
    """Requests per second, at any time; inf = not said."""
    left: float = math.inf
    """Requests that are left for ``left_s`` seconds; inf = not said."""
    left_s: float = 0.0


class BatchRef(msgspec.Struct, frozen=True, array_like=True):
    """Where a batch's rows are, and which parts already hold some of their outcomes.

    ``file`` is relative to the urls folder; the rows are ``rows`` rows from ``offset`` of row group ``row_group``.
    ``sample_rows`` > 0 asks for only so many URLs of the rows that are not final (profiling). ``retry`` says which
    errors of earlier epochs do not count as final (see ``retry_filter``): those rows are fetched again. Rows on servers
    that are ``ignored`` are left out, and so are the ``decided`` ones, by index: a rank that sampled them has outcomes
    of them which are in no part yet. ``stale_before`` > 0 asks for a refresh: files that were last asked for before
    that moment (seconds since 1970), by a run before this one, are asked for again.
    """

    batch_id: int
    server_name: str
    partition_id: int
    file: str
    row_group: int
    offset: int
    rows: int
    parts: tuple[str, ...] = ()
    sample_rows: int = 0
    retry: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    decided: tuple[int, ...] = ()
    stale_before: float = 0.0


@dataclass(slots=True, frozen=True)
class Failure:
    """How a row, or one attempt at it, failed."""

    kind: ErrorKind
    code: int
    message: str


GIVEN_UP_BY_USER = Failure(ErrorKind.GIVEN_UP, ERROR_CODE_LOCAL, "given up by the user")
"""What rows of a server fail with that the operator does not want to wait for."""


class Mirrors(msgspec.Struct, frozen=True, array_like=True):
    """Where else a row's file may be, after the URL that is asked now."""

    left: tuple[str, ...]
    """Further URLs, as the table gives them, in the order in which they are to be tried."""
    told: str = ""
    """What the URLs before have failed with, and then which is asked now, for people; empty at the first one."""
    attempts: int = 0
    """Requests for the URLs before."""


class Validators(msgspec.Struct, frozen=True, array_like=True):
    """What the server of a file that is there already has given to tell whether it has changed; nothing where both
    texts are empty. They are for requests of this URL alone."""

    url: str
    etag: str = ""
    last_modified: str = ""


Taken: TypeAlias = "tuple[int, str, str, tuple[int, ...], tuple[str, ...], str, Validators | None]"
"""A URL that is to become a task: the first row's index in its batch, what to fetch, its server, the other rows with
the URL, the URLs to ask when that one fails for good, headers, and what is known of the file that the rows have."""


@dataclass(slots=True, eq=False)
class Task:
    """One URL on its way, for one row or more: what to fetch now, and how often that was tried."""

    batch_id: int
    row: int
    """Index of the row in its batch."""
    url: str
    server: str
    attempt: int = 1
    redirects: int = 0
    started_at: float = 0.0
    robots_of: str = ""
    """The origin whose robots.txt this asks for; empty for a row."""
    refused_at: float = -math.inf
    """When the server last asked for fewer requests in answer to this one; -inf: never."""
    cookies: tuple[bytes, ...] = field(default=(), repr=False)
    """Those that the redirects up to here have set, as lines of libcurl's; secrets, so they are shown nowhere."""
    home_lane: int = 0
    """The lane that lent this task to another lane of the rank after a redirect; 0 = it is where it came from."""
    others: tuple[int, ...] = ()
    """The other rows of the batch with this URL, by index: they get the outcome that ``row`` gets."""
    mirrors: Mirrors | None = None
    """None where the table gives one URL for the row."""
    asked: str = ""
    """The URL before the redirects; empty without any."""
    headers: str = field(default="", repr=False)
    """What the table says is to be sent with its URL, as a JSON object of texts; secrets, so they are shown nowhere."""
    is_at_origin: bool = True
    """No redirect has led away from the scheme and server of the table's URL, but for one from http to https."""
    usage_signals: str = ""
    """What robots.txt says of the URL, where that was asked for (see ``usage_signals``)."""
    validators: Validators | None = None
    """Of the file that the rows have already; None where they have none."""

    @property
    def is_conditional(self) -> bool:
        """Whether the request asks for the file only if it has changed."""
        known = self.validators
        if known is None or known.url != self.url or self.robots_of:
            return False
        return bool(known.etag or known.last_modified)

    @property
    def rows(self) -> tuple[int, ...]:
        """All rows that the task is for."""
        return (self.row, *self.others)

    @property
    def attempts(self) -> int:
        """Requests for the row until now, those for URLs before this one included."""
        return self.attempt if self.mirrors is None else self.mirrors.attempts + self.attempt

    @property
    def has_mirror(self) -> bool:
        """Whether another URL is left for when this one fails for good."""
        return self.mirrors is not None and bool(self.mirrors.left)

    @property
    def mirrors_left(self) -> int | None:
        """How many URLs are left for when this one fails for good; None: there was only one."""
        return None if self.mirrors is None else len(self.mirrors.left)

    def final(self, failure: Failure) -> Failure:
        """Return what the row fails with after this failure of its URL: it names those of the URLs before."""
        if self.mirrors is None or not self.mirrors.told:
            return failure
        return replace(failure, message=f"{self.mirrors.told}: {failure.message}")


@dataclass(slots=True, eq=False)
class Answer:
    """What came back for a task, as libcurl saw it. ``curl_code`` 0 alone does not mean success."""

    task: Task
    curl_code: int = 0
    status: int = 0
    body: bytes = b""
    content_type: str = ""
    content_length: int = -1
    """Of the body; -1 where the server did not say, or where the body came encoded."""
    end_announced: bool = False
    """The answer said where its body ends: by its length, by chunks, or by HTTP/2's frames. Otherwise a connection
    that broke looks like the end of the body."""
    etag: str = ""
    last_modified: str = ""
    retry_after: str = ""
    rate_limits: dict[str, str] | None = None
    """The ``RateLimit`` headers by their lower-case names; None where there are none."""
    location: str = ""
    cookies: tuple[bytes, ...] = field(default=(), repr=False)
    """Of a redirect: those of its task, and what it has set itself."""
    final_url: str = ""
    ip: str = ""
    http_version: str = ""
    connect_s: float = 0.0
    ttfb_s: float = 0.0
    total_s: float = 0.0
    fetched_at: float = 0.0
    """Wall clock, seconds since the epoch: goes into the results, decides nothing."""
    error: str = ""
    blocked: bool = False
    too_large: bool = False
    usage_signals: str = ""
    """What the server says of how the file may be used, in canonical words; empty for nothing."""
    warnings: str = ""
    """What is odd about the file that is kept all the same, on one line for people; empty for nothing."""
    refused: str = ""
    """Why the body must not be kept: the transfer was cut off after the head."""
    objection: Failure | None = None
    """What a look into the body has found, where that was waited for."""


@dataclass(frozen=True)
class Orders:
    """What the command line asks for beside a plain run."""

    reset_profiled: bool = False
    reset_batched: bool = False
    delete_results: bool = False
    retry_failed: tuple[str, ...] = ()
    give_up: tuple[str, ...] | None = None
    """Servers, by name or glob, whose rows are not waited for; empty: all that the last run has waited for."""
    job: str | None = None
    """How a further command of ``ddmpi`` names the job: by its config (``birds.yaml``), "" for its output folder. None:
    it was started by options, and takes options."""


@dataclass(frozen=True)
class Picture:
    """A small image, and whose it is."""

    data_uri: str
    caption: str


PACKED_PREFIX = MANY_SERVERS + "/"
"""How the name of a group begins that is one packed batch."""


def is_meant(server: str, pattern: str) -> bool:
    """Return whether a pattern means this server or server group. A name means itself, although ``[`` begins a glob's
    set and IPv6 addresses stand in such brackets."""
    return pattern == server or fnmatchcase(server, pattern)


def is_packed(group: str) -> bool:
    """Whether the group is a packed batch: its servers have own limits instead of a common share."""
    return group.startswith(PACKED_PREFIX)
