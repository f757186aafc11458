"""One easy handle of libcurl: its options, and what it gathers of the request that uses it.

Handles are made once and kept; from task to task only the URL changes, and the headers. The place where an address is
refused: libcurl asks for a socket with the resolved address in hand, at every connect, because names and spellings of
addresses can lie.

Headers of a rule or of a row may be secrets: which request has them is decided here alone, from what the task says of
its way (``Task.is_at_origin``). Over TLS a rule's headers go to each server that the rule means, as an entry of a netrc
file would, whoever has redirected to it; without TLS only where the table itself has such a URL and nothing has led
away from it: a stranger could else have them sent in the clear. A row's own go to the server of its URL alone. No
robots.txt is asked with either. What a server gave to tell whether a file has changed goes with that file's URL alone.
libcurl follows no redirects, so its own rules (CURLOPT_UNRESTRICTED_AUTH) never apply.

libcurl facts that shape this file (8.23, pycurl 7.49):
- ``reset()`` would clear the callbacks and limits: handles are never reset, and one function sets each option.
- MAXFILESIZE stops a body without an announced length from 8.4 on: so bytes are counted here, too.
- a handle that has no connection yet cannot be paused, and pauses are forgotten between requests.
- a handle whose proxy or password changes may show the one to the other (CVE-2026-7168): a handle has one
  ``ServerSettings`` for its life. Connections are not shared between such handles either: libcurl compares host, port,
  TLS options and proxy, and a server has one set of them. (Passwords of tunnels count from 8.19 on, CVE-2026-3784.)
- a Cookie among HTTPHEADER would stand beside the line of its own cookies (RFC 6265, 5.4 wants one): COOKIE joins them.
"""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import pycurl

from ddmpi.config.sections import DownloaderParameters
from ddmpi.core.frontier.memory_budget import Arrival
from ddmpi.core.records import Task
from ddmpi.core.rules.urls import is_encrypted

IMPATIENT_S = 3.0
"""For a sample: all servers wait for the slowest one, and its row can be fetched later."""
STALL_BYTES_PER_S = 100
"""Below this, averaged over the stall time-out, a body counts as stalled."""
NAMES_FOREVER = -1
"""Otherwise libcurl (8.23) looks at all names that it knows at the end of each request: of 3,000 servers that took a
fifth of a file's time."""
NAMES_LONG_S = 86_400
"""For libcurl 8.16, which refuses that."""
NAMES_SHORT_S = 60
"""libcurl keeps "no such name" for half of this time."""
BUFFER_BYTES = 64 * 1024
"""Read from a socket at once; libcurl hands it on in pieces of 16 kB at most. 256 kB measured the same."""
PIECES_BYTES = 512 * 1024
"""A larger body grows in one place. Pieces of 16 kB, freed one by one, would leave holes that no body fits into: with
files of 5 MB, 60 MB of them. Joining the pieces is faster by a fifth for small files."""
_STATUS_LINE = b"\nHTTP/"


@dataclass(frozen=True, eq=False)
class ServerSettings:
    """How some servers are asked; one object for all servers that are asked alike."""

    parameters: DownloaderParameters
    """Of which the connection and the time-outs count here. The proxy's URL is filled in."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers for these servers alone."""


@dataclass(frozen=True)
class Hooks:
    """Whom a handle asks and tells while a request is under way."""

    may_connect: Callable[[str], bool]
    """Asked for each new connection with the resolved address; False refuses it before any packet."""
    on_connection: Callable[[str, int], None]
    """Told of each new connection: server, descriptor."""
    hear: Callable[[bytes], str] = lambda _: ""
    """What the head of an answer says of the file's use, in canonical words."""
    objection: Callable[[bytes, str], str] | None = None
    """Asked where something was heard, with the head and the server, when the body begins; a text cuts the transfer
    off."""


class EasyHandle:
    """One handle: ``begin`` before libcurl gets it, ``end`` after it came back."""

    def __init__(self, settings: ServerSettings, headers: Sequence[str], hooks: Hooks) -> None:
        """
        Args:
            headers: of each request, as ``Name: value``.
        """
        parameters = settings.parameters
        self.curl = pycurl.Curl()
        self.settings = settings
        self.task: Task | None = None
        self.size_bytes = 0
        self.too_large = False
        self.head: list[bytes] = []
        self.blocked = ""
        """The last address that was refused."""
        self.opened = False
        """An address was accepted: of several that a name has, one that is refused does not matter then."""
        self.refused = ""
        """Why the body must not be kept."""
        self.usage_signals = ""
        """What the head of an answer with a body says of the file's use."""
        self._parameters = parameters
        self._hooks = hooks
        self._common_headers = list(headers)
        self._has_own_headers = False  # beside the common ones
        self._waits = False  # PIPEWAIT is set
        self._asks_anew = False  # an old address does not count
        self._is_last = False  # the connection closes after this request
        self._is_impatient = False  # it ends when the server is silent for IMPATIENT_S
        self.stands_still = False
        """The body is not read on: libcurl reads nothing for this request."""
        self._pieces: list[bytes] = []  # of a small body
        self._large: BytesIO | None = None  # a large one
        self._fresh: socket.socket | None = None  # a socket on its way to libcurl
        _set_transport(self.curl, parameters)
        self.curl.setopt(pycurl.HTTPHEADER, self._common_headers)
        _set_limits(self.curl, parameters)
        self.curl.setopt(pycurl.WRITEFUNCTION, self._take)
        self.curl.setopt(pycurl.HEADERFUNCTION, self.head.append)
        self.curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        self.curl.setopt(pycurl.SOCKOPTFUNCTION, self._note_connection)

    # ---- a request's life

    def begin(self, task: Task, *, waits: bool, asks_anew: bool, is_last: bool, is_impatient: bool) -> None:
        """Get ready for the request.

        Args:
            waits: for a connection that is being opened and may turn out to be shared (PIPEWAIT).
            asks_anew: for an address that is not known for a minute or less; libcurl then forgets all that are older.
            is_last: close the connection afterwards.
            is_impatient: wait no longer than ``IMPATIENT_S`` for a connection, and for each byte.
        """
        self.task = task
        curl = self.curl
        # Bytes: pycurl refuses text that is not ASCII, and a URL may hold raw UTF-8 in its path.
        curl.setopt(pycurl.URL, task.url.encode("utf-8"))
        for cookie in task.cookies:
            curl.setopt(pycurl.COOKIELIST, cookie)
        if task.headers or self.settings.headers or task.is_conditional:
            self._set_headers(headers_of(task, self.settings.headers))
        # What depends on what the server did before: most servers leave it as it is.
        if waits is not self._waits:
            curl.setopt(pycurl.PIPEWAIT, int(waits))
            self._waits = waits
        if asks_anew is not self._asks_anew:
            if asks_anew:
                curl.setopt(pycurl.DNS_CACHE_TIMEOUT, NAMES_SHORT_S)
            else:
                keep_names(curl)
            self._asks_anew = asks_anew
        if is_last:
            curl.setopt(pycurl.FORBID_REUSE, 1)
            self._is_last = True
        if is_impatient:
            _set_patience(curl, self._parameters, IMPATIENT_S)
            self._is_impatient = True

    def end(self) -> None:
        """Forget the request, and the cookies it has seen; the handle is free for another one."""
        self.curl.setopt(pycurl.COOKIELIST, "ALL")
        if self._has_own_headers:
            self._set_headers({})
        self.task = None
        self.blocked = self.refused = self.usage_signals = ""
        self.opened = self.too_large = self.stands_still = False
        self.size_bytes = 0
        self._pieces.clear()
        self._large = None
        self.head.clear()
        if self._is_last:
            self.curl.setopt(pycurl.FORBID_REUSE, 0)
            self._is_last = False
        if self._is_impatient:
            _set_patience(self.curl, self._parameters)
            self._is_impatient = False

    def _set_headers(self, own: Mapping[str, str]) -> None:
        """Send these headers beside the common ones, or in place of those of the same name."""
        names = {name.lower() for name in own}
        lines = [line for line in self._common_headers if line.partition(":")[0].lower() not in names]
        cookies = [value for name, value in own.items() if name.lower() == "cookie"]
        lines += [f"{name}: {value}" for name, value in own.items() if name.lower() != "cookie"]
        self.curl.setopt(pycurl.HTTPHEADER, lines)
        if cookies:
            self.curl.setopt(pycurl.COOKIE, cookies[0])
        else:
            self.curl.unsetopt(pycurl.COOKIE)
        self._has_own_headers = bool(own)

    @property
    def arrival(self) -> Arrival:
        """How much of the body has come in."""
        return Arrival(self.size_bytes, int(self.curl.getinfo(pycurl.CONTENT_LENGTH_DOWNLOAD_T)))

    def read_on(self, reads_on: bool) -> None:
        """Read the body, or let it stand still."""
        if self.stands_still is reads_on and self.size_bytes:
            self.stands_still = not reads_on
            self.curl.pause(pycurl.PAUSE_CONT if reads_on else pycurl.PAUSE_RECV)

    @property
    def body(self) -> bytes:
        """What has come in; copied at most once."""
        if self._large is not None:
            return self._large.getvalue()
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    @property
    def last_head(self) -> bytes:
        """The head of the last response: interim and proxy responses come before it."""
        received = b"".join(self.head)
        return received[received.rfind(_STATUS_LINE) + 1 :]

    # ---- called by libcurl

    def _take(self, data: bytes) -> int | None:
        if not self.size_bytes and self._is_refused():
            return 0
        self.size_bytes += len(data)
        if self.size_bytes > self._parameters.max_file_bytes:
            self.too_large = True
            return 0
        if self._large is not None:
            self._large.write(data)
            return None
        self._pieces.append(data)
        if self.size_bytes > PIECES_BYTES:
            self._large = BytesIO()
            self._large.writelines(self._pieces)
            self._pieces.clear()
        return None

    def hear_head(self) -> None:
        """Note what the head of an answer without a body says of the file's use."""
        self._is_refused()

    def _is_refused(self) -> bool:
        """Return whether the body that begins must not be kept. Any other count than its length makes libcurl cut the
        transfer off."""
        hooks, task = self._hooks, self.task
        if task is not None and not task.robots_of:
            head = self.last_head
            self.usage_signals = hooks.hear(head)
            if self.usage_signals and hooks.objection is not None:
                self.refused = hooks.objection(head, task.server)
        return bool(self.refused)

    def _open_socket(self, _purpose: int, address: tuple[int, int, int, tuple[object, ...]]) -> socket.socket | int:
        family, kind, protocol, place = address
        ip = str(place[0])
        if not self._hooks.may_connect(ip):
            self.blocked = ip
            return pycurl.SOCKET_BAD
        self.opened = True
        self._fresh = socket.socket(family, kind, protocol)
        return self._fresh

    def _note_connection(self, fd: int, _purpose: int) -> int:
        if self._fresh is not None:
            self._fresh.close()  # pycurl has made a duplicate
            self._fresh = None
        if self.task is not None:
            self._hooks.on_connection(self.task.server, fd)
        return 0


def headers_of(task: Task, of_server: Mapping[str, str]) -> dict[str, str]:
    """Return the headers by name that the request of a task may have beside those of all requests: a row's own count
    before those of its server."""
    if task.robots_of:
        return {}
    return _conditions(task) | _secrets(task, of_server)


def _conditions(task: Task) -> dict[str, str]:
    """Return what has the file sent only if it has changed."""
    known = task.validators
    if known is None or not task.is_conditional:
        return {}
    given = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    return {name: value for name, value in given.items() if value}


def _secrets(task: Task, of_server: Mapping[str, str]) -> dict[str, str]:
    own = json.loads(task.headers) if task.headers and task.is_at_origin else {}
    if not (task.is_at_origin or is_encrypted(task.url)):
        return {}
    lowered = {name.lower() for name in own}
    return {name: value for name, value in of_server.items() if name.lower() not in lowered} | own


def _set_transport(curl: pycurl.Curl, parameters: DownloaderParameters) -> None:
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    curl.setopt(pycurl.FOLLOWLOCATION, 0)
    curl.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
    curl.setopt(pycurl.COOKIEFILE, "")  # keeps cookies, in memory alone; whose they are is the task's business
    curl.setopt(pycurl.PATH_AS_IS, 1)
    curl.setopt(pycurl.HEADEROPT, pycurl.HEADER_SEPARATE)  # what servers are told is not for a proxy's CONNECT
    # Files are asked for as they are; what comes encoded nevertheless is decoded at the end (see content_encoding).
    curl.setopt(pycurl.ACCEPT_ENCODING, "identity")
    curl.setopt(pycurl.HTTP_CONTENT_DECODING, 0)
    curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
    curl.setopt(pycurl.TCP_NODELAY, 1)
    curl.setopt(pycurl.TCP_KEEPALIVE, 1)
    keep_names(curl)
    curl.setopt(pycurl.SSL_VERIFYPEER, 1 if parameters.verify_tls else 0)
    curl.setopt(pycurl.SSL_VERIFYHOST, 2 if parameters.verify_tls else 0)
    if parameters.ca_bundle:
        curl.setopt(pycurl.CAINFO, parameters.ca_bundle)
    if parameters.proxy is not None:
        curl.setopt(pycurl.PROXY, parameters.proxy)
    if parameters.connect_to:
        curl.setopt(pycurl.CONNECT_TO, list(parameters.connect_to))


def keep_names(curl: pycurl.Curl) -> None:
    """Have libcurl know the addresses of names for as long as it can."""
    try:
        curl.setopt(pycurl.DNS_CACHE_TIMEOUT, NAMES_FOREVER)
    except pycurl.error:
        curl.setopt(pycurl.DNS_CACHE_TIMEOUT, NAMES_LONG_S)


def _set_patience(curl: pycurl.Curl, parameters: DownloaderParameters, most_s: float = math.inf) -> None:
    curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(min(most_s, parameters.connect_timeout_s) * 1000))
    curl.setopt(pycurl.LOW_SPEED_TIME, max(1, round(min(most_s, parameters.stall_timeout_s))))


def _set_limits(curl: pycurl.Curl, parameters: DownloaderParameters) -> None:
    _set_patience(curl, parameters)
    curl.setopt(pycurl.TIMEOUT_MS, int(parameters.total_timeout_s * 1000))
    curl.setopt(pycurl.LOW_SPEED_LIMIT, STALL_BYTES_PER_S)
    curl.setopt(pycurl.MAXFILESIZE_LARGE, parameters.max_file_bytes)
    curl.setopt(pycurl.BUFFERSIZE, BUFFER_BYTES)
