"""One connection of a fleet's server: delays, sends, cuts and logs what ``verdict`` and ``wire`` decide.

Invariants: at most one request is being answered at a time; each has exactly one answer in the log, written when its
last byte went to the kernel or, as a cut one, when the connection is gone.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import count

from tests.fleet.log import NOTE_CUT, NOTE_WHOLE, Event, EventKind, LogWriter, now_s
from tests.fleet.spec import Mode, ServerSpec
from tests.fleet.verdict import Admission, Limiter, verdict_of
from tests.fleet.wire import (
    END_OF_HEAD,
    GARBAGE,
    MAX_HEAD_BYTES,
    ROBOTS_PATH,
    Answer,
    BadRequestError,
    Request,
    answer_of,
    cookie_of,
    make_answer,
    parse_head,
    refusal_of,
    robots_of,
    too_many_requests,
    with_fields,
)

_DRIP_INTERVAL_S = 0.02
"""Time between two pieces of a slow body."""
_LINGER_0 = struct.pack("ii", 1, 0)
"""SO_LINGER on, 0 s: closing sends RST (socket(7))."""


class Site:
    """One server's memory: its limiter, and how often each path was tried."""

    __slots__ = ("_limiter", "_location", "_tries", "name", "spec")

    def __init__(self, spec: ServerSpec, name: str, location: str) -> None:
        """``location`` is the URL, without path, of the server that redirects lead to."""
        self.spec = spec
        self.name = name
        self._location = location
        self._limiter = Limiter(spec)
        self._tries: Counter[str] = Counter()

    def decide(self, request: Request, now: float) -> tuple[Admission, Mode, Answer]:
        """Count a request that arrives at ``now`` and decide how it ends."""
        admission, mode, answer = self._decide(request.path, request.cookie, now)
        if self.spec.states_limit:
            quota, left, reset_s = self._limiter.stated
            stated = f'RateLimit-Policy: "all";q={quota};w=1\r\nRateLimit: "all";r={left};t={reset_s}\r\n'
            answer = with_fields(answer, stated)
        return admission, mode, answer

    def _decide(self, path: str, cookie: str, now: float) -> tuple[Admission, Mode, Answer]:
        admission = self._limiter.admit(now)
        if admission is not Admission.PASSED:
            return admission, Mode.OK, too_many_requests(self._limiter.retry_after_s(now))
        if path == ROBOTS_PATH and self.spec.robots is not None:
            return admission, Mode.OK, robots_of(self.spec)
        if cookie and not (self.spec.sets_cookie and cookie == cookie_of(path)):
            return admission, Mode.OK, make_answer(400, b"a cookie of another path or server\n")
        if self.spec.refuses(path):
            return admission, Mode.OK, refusal_of(self.spec)
        self._tries[path] += 1
        mode, status = verdict_of(self.spec, path, self._tries[path])
        if status == 302 and cookie:
            status = 200
        answer = answer_of(self.spec, path, mode, status, self._location + path)
        if status == 302 and self.spec.sets_cookie:
            answer = with_fields(answer, f"Set-Cookie: {cookie_of(path)}\r\n")
        if status in self.spec.error_statuses and self.spec.error_retry_after:
            answer = with_fields(answer, f"Retry-After: {self._error_retry_after()}\r\n")
        return admission, mode, answer

    def _error_retry_after(self) -> str:
        if self.spec.error_retry_after != "date":
            return self.spec.error_retry_after
        return formatdate(time.time() + 3, usegmt=True)


@dataclass(slots=True)
class Hub:
    """What all connections of one fleet share."""

    sites: Mapping[str, Site]
    """By address; a connection to any other address is reset."""
    log: LogWriter
    loop: asyncio.AbstractEventLoop
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    connections: set[Connection] = field(default_factory=set)
    """The open ones."""


class Connection(asyncio.Protocol):
    """Reads requests one after the other and answers each as its site decides."""

    _transport: asyncio.Transport
    _site: Site
    _number: int

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._received = bytearray()
        self._request: Request | None = None  # the one being answered
        self._mode = Mode.OK
        self._answer = make_answer(400, b"")
        self._status_sent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing_paused = False
        self._whole = False  # all of the answer is written, though perhaps not sent

    def abort(self) -> None:
        """Reset the connection; ``connection_lost`` follows in the next turn of the loop."""
        endpoint: socket.socket = self._transport.get_extra_info("socket")
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self._transport.abort()

    def _log(self, kind: EventKind, path: str = "", status: int = 0, size_bytes: int = 0, note: str = "") -> None:
        self._hub.log.write(Event(now_s(), kind, self._site.name, self._number, path, status, size_bytes, note))

    # --- called by asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        site = self._hub.sites.get(transport.get_extra_info("sockname")[0])
        if site is None:
            self.abort()
            return
        self._site = site
        self._number = next(self._hub.numbers)
        self._hub.connections.add(self)
        # With both limits 0, writing resumes exactly when the last byte has gone to the kernel.
        transport.set_write_buffer_limits(high=0)
        self._log(EventKind.OPEN)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._serve_next()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._whole:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # why it was lost changes nothing
        if self not in self._hub.connections:
            return
        self._hub.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._request is not None:
            self._log(EventKind.ANSWER, self._request.path, self._status_sent, note=NOTE_CUT)
        self._log(EventKind.CLOSE)

    # --- one request, from its arrival to its end ---

    def _serve_next(self) -> None:
        if self._request is not None or self._transport.is_closing():
            return
        end = self._received.find(END_OF_HEAD)
        if end < 0:
            if len(self._received) > MAX_HEAD_BYTES:
                self.abort()
            return
        head = bytes(self._received[:end])
        del self._received[: end + len(END_OF_HEAD)]
        try:
            self._accept(parse_head(head))
        except BadRequestError as error:
            self._reject(error)

    def _accept(self, request: Request) -> None:
        now = now_s()
        admission, self._mode, self._answer = self._site.decide(request, now)
        self._request = request
        self._hub.log.write(
            Event(now, EventKind.REQUEST, self._site.name, self._number, request.path, note=admission.value)
        )
        if self._site.spec.latency_s:
            self._timer = self._hub.loop.call_later(self._site.spec.latency_s, self._respond)
        else:
            self._respond()

    def _reject(self, error: BadRequestError) -> None:
        self._request = Request("GET", "", keep_alive=False)
        self._mode, self._answer = Mode.OK, make_answer(400, f"{error}\n".encode())
        self._log(EventKind.REQUEST)
        self._respond()

    def _respond(self) -> None:
        match self._mode:
            case Mode.BLACKHOLE:
                return
            case Mode.RESET:
                self.abort()
            case Mode.CLOSE:
                self._transport.close()
            case Mode.GARBAGE:
                self._transport.write(GARBAGE)
                self._transport.close()
            case Mode.STALL:
                self._send_half()
            case Mode.TRUNCATED:
                self._send_half()
                self._transport.close()
            case _:
                self._send_whole()

    def _send_half(self) -> None:
        self._status_sent = self._answer.status
        self._transport.write(self._answer.head + self._answer.body[: len(self._answer.body) // 2])

    def _send_whole(self) -> None:
        assert self._request is not None
        status, head, body = self._answer
        self._status_sent = status
        if self._request.method == "HEAD":
            self._answer = Answer(status, head, b"")
            self._write_last(head)
        elif self._site.spec.body_bytes_per_s:
            self._transport.write(head)
            self._drip(0)
        else:
            self._write_last(head + body)

    def _drip(self, offset: int) -> None:
        piece_bytes = max(1, round(self._site.spec.body_bytes_per_s * _DRIP_INTERVAL_S))
        piece = self._answer.body[offset : offset + piece_bytes]
        rest = offset + piece_bytes
        if rest >= len(self._answer.body):
            self._write_last(piece)
            return
        self._transport.write(piece)
        self._timer = self._hub.loop.call_later(_DRIP_INTERVAL_S, self._drip, rest)

    def _write_last(self, data: bytes) -> None:
        self._transport.write(data)
        self._whole = True
        if not self._writing_paused:
            self._finish()

    def _finish(self) -> None:
        assert self._request is not None
        self._log(EventKind.ANSWER, self._request.path, self._answer.status, len(self._answer.body), NOTE_WHOLE)
        if not self._request.keep_alive:
            self._transport.close()
        self._request, self._timer, self._whole, self._status_sent = None, None, False, 0
        if self._received:
            self._hub.loop.call_soon(self._serve_next)
