"""The engine: tasks in, answers out, over libcurl's multi interface with socket_action and epoll.

The only file that starts requests. It decides nothing: when a request may start is the frontier's business, what an
answer means is ``outcome``'s. One thread; ``poll`` is where a downloader waits, also for the descriptors of others
(``watch``). Handles are made once and kept; only the URL changes from task to task.

libcurl facts that shape this file (8.23, pycurl 7.49):
- ``CurlMulti.select()`` is select(2) and fails above 1,024 descriptors: hence epoll.
- ``reset()`` would clear the callbacks and limits below: handles are never reset, and one function sets every option.
- the callback for closing sockets cannot run when its handle is outside the multi, which is the normal case for an idle
  connection; pycurl then warns and leaks the descriptor. So connections are followed by descriptor and inode instead.
- ``PIPEWAIT`` lets requests wait for a connection that may turn out to be HTTP/2. Where it turns out to be HTTP/1, they
  wait on for its first body, be it slow or large, and run into their connect time-out (seen with 8.23): so only servers
  that have spoken HTTP/2 are waited for. The others open a connection for each of their first requests.
- ``RETRY_AFTER`` is capped and turns garbage into 0: the header's text is handed on as it came.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import pycurl

from ddmpi.memory import Arrival
from ddmpi.records import Answer, Task

IMPATIENT_S = 3.0
"""For a sample: all servers wait for the slowest one, and its row can be fetched later."""
STALL_BYTES_PER_S = 100
"""Below this, averaged over the stall time-out, a body counts as stalled."""
DNS_CACHE_S = 86_400
"""A name is looked up once a day: often enough for a server that moves, and once in nearly all runs."""
DNS_RETRY_CACHE_S = 60
"""The same for a name whose last look-up failed: libcurl (8.23) keeps "no such name" for half of this time."""
BUFFER_BYTES = 64 * 1024
"""Read from a socket at once; libcurl hands it on in pieces of 16 kB at most. 256 kB measured the same."""
_HEADERS = re.compile(
    rb"^(etag|last-modified|retry-after|transfer-encoding|content-encoding)[ \t]*:([^\r\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
"""The headers that become columns or decide something."""
_KEPT_CHARS = 512
_STATUS_LINE = b"\nHTTP/"
_EVENTS = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}
_FRAMED_VERSIONS = frozenset({"2", "3"})
"""Here each answer says where it ends, whether it has a Content-Length or not."""
_HTTP_VERSIONS = {1: "1.0", 2: "1.1", 3: "2", 4: "2", 5: "2", 30: "3"}


@dataclass(frozen=True)
class TransferOptions:
    """How requests are made; the same for all requests of a rank."""

    headers: Sequence[str]
    connect_timeout_s: float
    stall_timeout_s: float
    total_timeout_s: float
    max_file_bytes: int
    connections: int
    verify_tls: bool = True
    ca_bundle: str | None = None
    proxy: str | None = None
    """None = the environment's, "" = none."""
    connect_to: Sequence[str] = ()


class _Slot:
    """One easy handle and what belongs to the request that uses it."""

    __slots__ = (
        "asks_anew",
        "blocked",
        "chunks",
        "curl",
        "fresh",
        "head",
        "is_impatient",
        "is_last",
        "opened",
        "paused",
        "refused",
        "size_bytes",
        "task",
        "too_large",
        "waits",
    )

    def __init__(self) -> None:
        self.curl = pycurl.Curl()
        self.chunks: list[bytes] = []
        self.size_bytes = 0
        self.too_large = False
        self.head: list[bytes] = []
        self.task: Task | None = None
        self.blocked = ""
        """The last address that was refused."""
        self.refused = ""
        """Why the body must not be kept."""
        self.waits = False
        """PIPEWAIT is set."""
        self.asks_anew = False
        """An old failure to find the name does not count."""
        self.paused = False
        """libcurl reads nothing for this request."""
        self.is_last = False
        """The connection closes after this request."""
        self.is_impatient = False
        """It ends when the server is silent for ``IMPATIENT_S``."""
        self.fresh: socket.socket | None = None
        """A socket on its way to libcurl."""
        self.opened = False
        """An address was accepted: of several that a name has, one that is refused does not matter then."""


class Transfers:
    """The requests of one rank.

    Args:
        may_connect: asked for each new connection with the resolved address; False refuses it before any packet.
        objection: asked with the head of each answer, once it is complete; a text cuts the transfer off. None: nobody
            is asked.
    """

    def __init__(
        self,
        options: TransferOptions,
        may_connect: Callable[[str], bool],
        objection: Callable[[bytes], str] | None = None,
    ) -> None:
        self._options = options
        self._may_connect = may_connect
        self._objection = objection
        self._free: list[_Slot] = []
        self._slots: dict[pycurl.Curl, _Slot] = {}
        self._busy: dict[pycurl.Curl, _Slot] = {}
        self._connections: dict[str, dict[int, int]] = {}
        self._opened: set[str] = set()
        self._multiplexing: set[str] = set()
        """Servers that have spoken HTTP/2."""
        self._unresolved: set[str] = set()
        """Servers whose name was not found when they were last asked."""
        self._timer_at: float | None = None
        self._epoll = select.epoll()
        self._registered: set[int] = set()
        self._idle: set[int] = set()
        self._watched: dict[int, Callable[[], None]] = {}
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, max(16, options.connections * 2))

    # ---- requests

    def start(self, task: Task, *, last_on_connection: bool = False, impatient: bool = False) -> None:
        """Start the request; its answer comes out of ``poll``.

        Args:
            last_on_connection: close the connection afterwards (its server's share has shrunk).
            impatient: wait no longer than ``IMPATIENT_S`` for a connection, and for each byte.
        """
        slot = self._free.pop() if self._free else self._new_slot()
        slot.task = task
        curl = slot.curl
        # Bytes: pycurl refuses text that is not ASCII, and a URL may hold raw UTF-8 in its path.
        curl.setopt(pycurl.URL, task.url.encode("utf-8"))
        _set_for_server(slot, waits=task.server in self._multiplexing, asks_anew=task.server in self._unresolved)
        if last_on_connection:
            curl.setopt(pycurl.FORBID_REUSE, 1)
            slot.is_last = True
        if impatient:
            options = self._options
            _set_patience(curl, min(IMPATIENT_S, options.connect_timeout_s), min(IMPATIENT_S, options.stall_timeout_s))
            slot.is_impatient = True
        self._busy[curl] = slot
        self._multi.add_handle(curl)

    def poll(self, timeout_s: float) -> list[Answer]:
        """Wait at most so long for the network or a watched descriptor; the answers that are complete."""
        now = time.monotonic()
        if self._timer_at is not None:
            timeout_s = min(timeout_s, self._timer_at - now)
        for fd, mask in self._epoll.poll(max(0.0, timeout_s)):
            watcher = self._watched.get(fd)
            if watcher is not None:
                watcher()
            elif fd in self._idle:
                self._forget_socket(fd)
            else:
                self._multi.socket_action(fd, _action(mask))
        if self._timer_at is not None and self._timer_at <= time.monotonic():
            self._timer_at = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        return self._completed()

    def _completed(self) -> list[Answer]:
        answers = []
        left = 1
        while left:
            left, done, failed = self._multi.info_read()
            answers += [self._answer(curl, 0, "") for curl in done]
            answers += [self._answer(curl, code, message) for curl, code, message in failed]
        return answers

    def _answer(self, curl: pycurl.Curl, code: int, message: str) -> Answer:
        slot = self._busy.pop(curl)
        self._multi.remove_handle(curl)
        answer = _read_answer(slot, code, message)
        self._remember(answer)
        self._recycle(slot)
        return answer

    def _remember(self, answer: Answer) -> None:
        """What later requests to the server have to know."""
        server = answer.task.server
        if answer.http_version == "2":
            self._multiplexing.add(server)
        elif answer.http_version:
            self._multiplexing.discard(server)
        if answer.curl_code == pycurl.E_COULDNT_RESOLVE_HOST:
            self._unresolved.add(server)
        else:
            self._unresolved.discard(server)

    def abort(self) -> list[Task]:
        """Cut off everything that is in flight; the tasks that will have no answer."""
        tasks = []
        for curl, slot in list(self._busy.items()):
            self._multi.remove_handle(curl)
            if slot.task is not None:
                tasks.append(slot.task)
            self._recycle(slot)
        self._busy.clear()
        return tasks

    def _recycle(self, slot: _Slot) -> None:
        slot.task = None
        slot.blocked = slot.refused = ""
        slot.opened = slot.too_large = slot.paused = False
        slot.size_bytes = 0
        slot.chunks.clear()
        slot.head.clear()
        if slot.is_last:
            slot.curl.setopt(pycurl.FORBID_REUSE, 0)
            slot.is_last = False
        if slot.is_impatient:
            _set_patience(slot.curl, self._options.connect_timeout_s, self._options.stall_timeout_s)
            slot.is_impatient = False
        self._free.append(slot)

    # ---- handles

    def _new_slot(self) -> _Slot:
        slot = _Slot()
        _set_transport(slot.curl, self._options)
        _set_limits(slot.curl, self._options)
        slot.curl.setopt(pycurl.WRITEFUNCTION, lambda data: self._take(slot, data))
        if self._objection is None:
            slot.curl.setopt(pycurl.HEADERFUNCTION, slot.head.append)
        else:
            objection = self._objection
            slot.curl.setopt(pycurl.HEADERFUNCTION, lambda line: _take_head(slot, line, objection))
        slot.curl.setopt(pycurl.OPENSOCKETFUNCTION, lambda _purpose, address: self._open_socket(slot, address))
        slot.curl.setopt(pycurl.SOCKOPTFUNCTION, lambda fd, _purpose: self._note_connection(slot, fd))
        self._slots[slot.curl] = slot
        return slot

    def _take(self, slot: _Slot, data: bytes) -> int | None:
        """MAXFILESIZE counts what arrives; decoded bytes only from libcurl 8.20 on. Both end here."""
        slot.size_bytes += len(data)
        if slot.size_bytes > self._options.max_file_bytes:
            slot.too_large = True
            return 0
        slot.chunks.append(data)
        return None

    def _open_socket(self, slot: _Slot, address: tuple[int, int, int, tuple[object, ...]]) -> socket.socket | int:
        """The resolved address decides, at every connect: names and spellings of addresses can lie."""
        family, kind, protocol, place = address
        ip = str(place[0])
        if not self._may_connect(ip):
            slot.blocked = ip
            return pycurl.SOCKET_BAD
        slot.opened = True
        slot.fresh = socket.socket(family, kind, protocol)
        return slot.fresh

    def _note_connection(self, slot: _Slot, fd: int) -> int:
        if slot.fresh is not None:
            slot.fresh.close()  # pycurl has made a duplicate
            slot.fresh = None
        if slot.task is not None:
            self._connections.setdefault(slot.task.server, {})[fd] = os.fstat(fd).st_ino
            self._opened.add(slot.task.server)
        return 0

    # ---- connections

    def connections(self, server: str) -> int:
        """Open connections to the server, idle ones included."""
        known = self._connections.get(server)
        if not known:
            return 0
        for fd, inode in list(known.items()):
            if _inode(fd) != inode:
                del known[fd]
        return len(known)

    def take_opened(self) -> Collection[str]:
        """Servers to which connections were opened since the last call."""
        if not self._opened:
            return frozenset()
        opened, self._opened = self._opened, set()
        return opened

    def has_more_connections(self, server: str, limit: int) -> bool:
        """Whether more than ``limit`` connections to the server are open.

        Asked before each request, so the kernel is asked only where more than that were ever opened (an fstat per
        connection and request took a sixth of the time).
        """
        return len(self._connections.get(server, ())) > limit and self.connections(server) > limit

    def close_connections(self, servers: Iterable[str]) -> None:
        """Shut all connections to servers on which nothing is in flight, so that another rank may open its own."""
        for server in servers:
            self._multiplexing.discard(server)
            self._unresolved.discard(server)
            for fd, inode in self._connections.pop(server, {}).items():
                if _inode(fd) == inode:
                    with socket.socket(fileno=os.dup(fd)) as connection:
                        _shut(connection)

    # ---- events

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back from ``poll`` when ``fd`` is readable."""
        self._watched[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def _on_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        """libcurl wants to hear of a descriptor, or no longer.

        It takes a kept connection away and brings it back with each request, so the descriptor stays in the epoll set
        meanwhile: one system call per request instead of two. A descriptor that was closed has left the set by itself,
        and its number may be that of another file by now: only the kernel knows.
        """
        if what == pycurl.POLL_REMOVE:
            self._idle.add(fd)
            return
        self._idle.discard(fd)
        try:
            if fd in self._registered:
                self._epoll.modify(fd, _EVENTS[what])
                return
        except FileNotFoundError:
            self._registered.discard(fd)
        self._epoll.register(fd, _EVENTS[what])
        self._registered.add(fd)

    def _forget_socket(self, fd: int) -> None:
        """The server closed a kept connection: libcurl will see that when it wants to use it again.

        Where an earlier event of the same poll made libcurl close the descriptor, it has left the set by itself, and
        its number is free (EBADF), another socket's (ENOENT) or that of a part, which epoll does not take (EPERM).
        """
        self._idle.discard(fd)
        self._registered.discard(fd)
        try:
            self._epoll.unregister(fd)
        except OSError as error:
            if error.errno not in {errno.EBADF, errno.ENOENT, errno.EPERM}:
                raise

    def _on_timer(self, timeout_ms: int) -> None:
        self._timer_at = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000.0

    # ---- memory

    def restrain(self, may_read_on: Callable[[Sequence[Arrival]], Sequence[bool]]) -> None:
        """Let the bodies in flight, in the order of their starts, be read or stand still.

        A body that stands still does not stall in libcurl's sense, but its total time-out runs on.
        """
        slots = list(self._busy.values())
        for slot, reads_on in zip(slots, may_read_on([_arrival(slot) for slot in slots]), strict=True):
            # libcurl 8.23 refuses to pause a handle that has no connection yet, and forgets pauses between requests.
            if slot.paused is reads_on and slot.size_bytes:
                slot.paused = not reads_on
                slot.curl.pause(pycurl.PAUSE_CONT if reads_on else pycurl.PAUSE_RECV)

    @property
    def in_flight(self) -> int:
        """Requests that were started and have no answer yet."""
        return len(self._busy)

    def close(self) -> None:
        """Cut off what is in flight and close all connections."""
        self.abort()
        self._multi.close()
        for slot in self._slots.values():
            slot.curl.close()
        self._slots.clear()
        self._free.clear()
        self._epoll.close()


def _take_head(slot: _Slot, line: bytes, objection: Callable[[bytes], str]) -> int:
    """Another count than the line's makes libcurl cut the transfer off."""
    slot.head.append(line)
    if not line.strip() and slot.task is not None and not slot.task.robots_of:
        slot.refused = objection(_last_head(slot.head))
    return 0 if slot.refused else len(line)


def _last_head(lines: Sequence[bytes]) -> bytes:
    """The head of the last response: interim and proxy responses come before it."""
    received = b"".join(lines)
    return received[received.rfind(_STATUS_LINE) + 1 :]


def _arrival(slot: _Slot) -> Arrival:
    return Arrival(slot.size_bytes, int(slot.curl.getinfo(pycurl.CONTENT_LENGTH_DOWNLOAD_T)))


def _action(mask: int) -> int:
    action = 0
    if mask & (select.EPOLLIN | select.EPOLLHUP):
        action |= pycurl.CSELECT_IN
    if mask & select.EPOLLOUT:
        action |= pycurl.CSELECT_OUT
    if mask & select.EPOLLERR:
        action |= pycurl.CSELECT_ERR
    return action


def _inode(fd: int) -> int:
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return -1


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The server closed it first.
        return


def _set_transport(curl: pycurl.Curl, options: TransferOptions) -> None:
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    curl.setopt(pycurl.FOLLOWLOCATION, 0)
    curl.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
    curl.setopt(pycurl.PATH_AS_IS, 1)
    curl.setopt(pycurl.HTTPHEADER, list(options.headers))
    # Files are asked for as they are; what comes encoded nevertheless is decoded: it would be no file otherwise.
    curl.setopt(pycurl.ACCEPT_ENCODING, "identity")
    curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
    curl.setopt(pycurl.TCP_NODELAY, 1)
    curl.setopt(pycurl.TCP_KEEPALIVE, 1)
    curl.setopt(pycurl.DNS_CACHE_TIMEOUT, DNS_CACHE_S)
    curl.setopt(pycurl.SSL_VERIFYPEER, 1 if options.verify_tls else 0)
    curl.setopt(pycurl.SSL_VERIFYHOST, 2 if options.verify_tls else 0)
    if options.ca_bundle:
        curl.setopt(pycurl.CAINFO, options.ca_bundle)
    if options.proxy is not None:
        curl.setopt(pycurl.PROXY, options.proxy)
    if options.connect_to:
        curl.setopt(pycurl.CONNECT_TO, list(options.connect_to))


def _set_patience(curl: pycurl.Curl, connect_timeout_s: float, stall_timeout_s: float) -> None:
    curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(connect_timeout_s * 1000))
    curl.setopt(pycurl.LOW_SPEED_TIME, max(1, round(stall_timeout_s)))


def _set_limits(curl: pycurl.Curl, options: TransferOptions) -> None:
    _set_patience(curl, options.connect_timeout_s, options.stall_timeout_s)
    curl.setopt(pycurl.TIMEOUT_MS, int(options.total_timeout_s * 1000))
    curl.setopt(pycurl.LOW_SPEED_LIMIT, STALL_BYTES_PER_S)
    curl.setopt(pycurl.MAXFILESIZE_LARGE, options.max_file_bytes)
    curl.setopt(pycurl.BUFFERSIZE, BUFFER_BYTES)


def _set_for_server(slot: _Slot, *, waits: bool, asks_anew: bool) -> None:
    """The options that depend on what the server did before; most servers leave them as they are."""
    if waits is not slot.waits:
        slot.curl.setopt(pycurl.PIPEWAIT, int(waits))
        slot.waits = waits
    if asks_anew is not slot.asks_anew:
        slot.curl.setopt(pycurl.DNS_CACHE_TIMEOUT, DNS_RETRY_CACHE_S if asks_anew else DNS_CACHE_S)
        slot.asks_anew = asks_anew


def _read_answer(slot: _Slot, code: int, message: str) -> Answer:
    task = slot.task
    if task is None:
        raise RuntimeError("libcurl finished a handle that has no task")
    get = slot.curl.getinfo
    answer = Answer(task, code, get(pycurl.RESPONSE_CODE), error=message)
    answer.body = slot.chunks[0] if len(slot.chunks) == 1 else b"".join(slot.chunks)
    # Raw: getinfo fails where a server's bytes are not UTF-8.
    content_type = slot.curl.getinfo_raw(pycurl.CONTENT_TYPE) or b""
    answer.content_type = content_type.strip()[:_KEPT_CHARS].decode("latin-1")
    answer.content_length = int(get(pycurl.CONTENT_LENGTH_DOWNLOAD_T))
    answer.final_url = task.url
    answer.ip = get(pycurl.PRIMARY_IP) or slot.blocked
    answer.http_version = _HTTP_VERSIONS.get(get(pycurl.INFO_HTTP_VERSION), "")
    answer.connect_s = get(pycurl.CONNECT_TIME)
    answer.ttfb_s = get(pycurl.STARTTRANSFER_TIME)
    answer.total_s = get(pycurl.TOTAL_TIME)
    answer.fetched_at = time.time()
    answer.blocked = bool(slot.blocked) and not slot.opened
    answer.too_large = slot.too_large or code == pycurl.E_FILESIZE_EXCEEDED
    answer.refused = slot.refused
    answer.end_announced = answer.content_length >= 0 or answer.http_version in _FRAMED_VERSIONS
    _read_headers(answer, _last_head(slot.head))
    if 300 <= answer.status < 400:
        answer.location = (slot.curl.getinfo_raw(pycurl.REDIRECT_URL) or b"").decode("utf-8", "surrogateescape")
    return answer


def _read_headers(answer: Answer, head: bytes) -> None:
    """The headers that become columns, of the last response."""
    is_encoded = False
    for name, value in _HEADERS.findall(head):
        kept = _text(value)
        match name.lower():
            case b"etag":
                answer.etag = kept
            case b"last-modified":
                answer.last_modified = kept
            case b"retry-after":
                answer.retry_after = kept
            case b"transfer-encoding":
                answer.end_announced = True
            case _ if kept.lower() != "identity":
                is_encoded = True
    if is_encoded:
        # What was announced is the end of what was sent: libcurl 8.23 takes gzip that is cut off for whole.
        answer.content_length = -1
        answer.end_announced = False


def _text(value: bytes) -> str:
    return value.strip()[:_KEPT_CHARS].decode("latin-1")
