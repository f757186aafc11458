"""The servers of a hostile web: one per case, each on a loopback address of its own, in one thread of this process.

What a server does follows from its case's script alone; what clients did is counted. ``requests`` may be read from
other threads at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.hostile import http2
from tests.hostile.cases import AnswerCase, Transport
from tests.hostile.certificates import Certificates
from tests.hostile.steps import OWN_NAME, PICTURE_SERVER, Drop, Flood, Hold, NextRequest, Reset, Script, Send

FIRST_ADDRESS: Final = "127.40.0.1"
PRIVATE_ADDRESS: Final = "10.255.255.254"
"""Only ever asked for, never contacted."""
NO_NAME: Final = "gone.example"
UNRESOLVABLE: Final = "x" * 64
"""No resolver looks this up: a label has at most 63 characters. So nothing is asked of a name server."""
_BACKLOG: Final = 512
_LINGER_0: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, 0 s: closing sends RST (socket(7))."""
_WITHOUT_SERVER: Final = frozenset({Transport.NO_NAME, Transport.PRIVATE})


class HostileServers:
    """The servers of ``cases``, in their order."""

    def __init__(self, cases: Sequence[AnswerCase], folder: Path, first_address: str = FIRST_ADDRESS) -> None:
        """``folder`` gets the certificate authority. Raises OSError where a socket cannot be had."""
        self.cases = tuple(cases)
        self.bundle = folder / "authority.pem"
        self.requests: Counter[tuple[int, str]] = Counter()
        """By (index of the case, path)."""
        self._asked: Counter[int] = Counter()
        self.failures: list[str] = []
        """What went wrong in here: must stay empty."""
        certificates = Certificates()
        certificates.write_bundle(self.bundle)
        self._ports: dict[int, int] = {}
        self._addresses: dict[int, str] = {}
        self._sockets: list[socket.socket] = []
        self._listening: list[tuple[int, socket.socket, ssl.SSLContext | None]] = []
        first = ipaddress.IPv4Address(first_address)
        for index, case in enumerate(self.cases):
            if case.transport not in _WITHOUT_SERVER:
                # 250 per subnet: addresses that end in 0 or 255 look odd in logs.
                self._addresses[index] = str(first + (index // 250) * 256 + index % 250)
                self._open(index, case.transport, certificates)

    def _open(self, index: int, transport: Transport, certificates: Certificates) -> None:
        address = self._addresses[index]
        bound = socket.socket()
        self._sockets.append(bound)
        bound.bind((address, 0))
        self._ports[index] = bound.getsockname()[1]
        if transport is Transport.UNANSWERED:
            bound.listen(0)
            self._fill_queue(bound.getsockname())
        elif transport is not Transport.REFUSED:
            plain = transport in {Transport.PLAIN, Transport.NO_TLS}
            context = None if plain else certificates.context(transport, address)
            bound.listen(_BACKLOG)  # from here on nobody is refused, though the loop begins later
            self._listening.append((index, bound, context))

    def _fill_queue(self, place: tuple[str, int]) -> None:
        """Connections that nobody accepts, until the kernel takes no more: from then on it drops every SYN."""
        for _ in range(3):
            waiting = socket.socket()
            self._sockets.append(waiting)
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(place)

    def server(self, index: int) -> str:
        """The server of a case as it stands in URLs."""
        match self.cases[index].transport:
            case Transport.NO_NAME:
                return NO_NAME
            case Transport.PRIVATE:
                return PRIVATE_ADDRESS
            case _:
                return f"{self._addresses[index]}:{self._ports[index]}"

    def url(self, index: int, row: int = 0) -> str:
        return f"{self.cases[index].transport.scheme}://{self.server(index)}/{row}.jpg"

    @property
    def connect_to(self) -> list[str]:
        """What a client has to be told, so that the name that does not exist is looked up nowhere."""
        return [f"{NO_NAME}:80:{UNRESOLVABLE}:80"]

    async def serve(self, stopping: asyncio.Event) -> None:
        """Answer until ``stopping`` is set."""
        servers = [
            await asyncio.start_server(self._handler(index), sock=bound, ssl=context, backlog=_BACKLOG)
            for index, bound, context in self._listening
        ]
        await stopping.wait()
        for server in servers:
            server.close()

    def close(self) -> None:
        for bound in self._sockets:
            bound.close()

    # ---- one connection

    def _handler(self, index: int):  # type: ignore[no-untyped-def]
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self._answer(index, reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, TimeoutError):
                writer.transport.abort()  # the client has gone: most do, sooner or later
            except asyncio.CancelledError:
                writer.transport.abort()
                raise
            except Exception as error:  # noqa: BLE001  # told to the test, in another thread
                self.failures.append(f"{self.cases[index].name}: {error!r}")
                writer.transport.abort()

        return handle

    async def _answer(self, index: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        case = self.cases[index]
        again = True
        while again:
            if case.transport is Transport.HTTP2:
                await _read_http2_request(reader, writer)
                path = ""
            elif case.transport is Transport.NO_TLS:
                await reader.read(1)
                path = ""
            else:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode("latin-1")
            script = case.then if case.then is not None and self._asked[index] else case.script
            self._asked[index] += 1
            self.requests[index, path] += 1
            again = await self._play(index, script, reader, writer)

    def _named(self, index: int, data: bytes) -> bytes:
        if PICTURE_SERVER in data:
            healthy = next(number for number, case in enumerate(self.cases) if case.has_pictures)
            data = data.replace(PICTURE_SERVER, self.server(healthy).encode())
        return data.replace(OWN_NAME, self.server(index).encode())

    async def _play(
        self, index: int, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Perform the steps; whether the connection takes another request."""
        for step in script:
            match step:
                case Send(data):
                    writer.write(self._named(index, data))
                    await writer.drain()
                case Flood(data, interval_s):
                    while not writer.transport.is_closing():
                        writer.write(data)
                        await writer.drain()
                        await asyncio.sleep(interval_s)
                case Hold():
                    await reader.read()
                case Reset():
                    endpoint: socket.socket = writer.get_extra_info("socket")
                    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
                    writer.transport.abort()
                    return False
                case Drop():
                    writer.transport.abort()
                    return False
                case NextRequest():
                    return True
        writer.close()
        return False


async def _read_http2_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(http2.hello())
    received = b""
    while not any(kind == http2.HEADERS for kind, _ in http2.frames(received)):
        more = await reader.read(65_536)
        if not more:
            raise ConnectionError("closed before a request")
        received += more


@contextlib.contextmanager
def running_servers(cases: Sequence[AnswerCase], folder: Path) -> Iterator[HostileServers]:
    """The servers, in a thread, for the length of a test. Raises AssertionError where one of them failed."""
    servers = HostileServers(cases, folder)
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()
    thread = threading.Thread(target=_run, args=(loop, servers, stopping), name="hostile", daemon=True)
    thread.start()
    try:
        yield servers
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
        servers.close()
    if servers.failures:
        raise AssertionError("\n".join(servers.failures))


def _run(loop: asyncio.AbstractEventLoop, servers: HostileServers, stopping: asyncio.Event) -> None:
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(lambda _loop, _context: None)
    try:
        loop.run_until_complete(servers.serve(stopping))
        handlers = asyncio.all_tasks(loop)
        for handler in handlers:
            handler.cancel()
        loop.run_until_complete(asyncio.gather(*handlers, return_exceptions=True))
    finally:
        loop.close()
