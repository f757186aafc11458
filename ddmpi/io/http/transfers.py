"""The engine: tasks in, answers out, over libcurl's multi interface.

The only file that starts requests. It decides nothing: when a request may start is the frontier's business, what an
answer means is ``verdict``'s. One thread; ``poll`` is where a downloader waits, also for the descriptors of others
(``events.watch``).

Its parts: ``easy_handle`` (one request's options, limits and bytes, and the guard of addresses), ``answers`` (what is
read off a handle at its end), ``connections`` (how many are open), ``socket_events`` (epoll).

libcurl facts that shape this file (8.23):
- ``PIPEWAIT`` lets requests wait for a connection that may turn out to be HTTP/2. Where it turns out to be HTTP/1, they
  wait on for its first body, be it slow or large, and run into their connect time-out: so only servers that have spoken
  HTTP/2 are waited for. The others open a connection for each of their first requests.
- at the end of each request that does not keep names for ever, all names are looked at that libcurl knows: only few
  requests keep them for a minute, of servers that were not reached, and now and then one.
- the speed of a request is measured from the first event on, not from when it was sent. Of a server that says nothing
  the first event would be the end of the connect time-out: so ``poll`` has libcurl look at such requests before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain

import pycurl

from ddmpi.config.sections import DownloaderParameters
from ddmpi.core.frontier.memory_budget import Arrival
from ddmpi.core.records import Answer, Task
from ddmpi.io.http.answers import read_answer
from ddmpi.io.http.connections import Connections
from ddmpi.io.http.easy_handle import EasyHandle, Hooks, ServerSettings
from ddmpi.io.http.socket_events import SocketEvents

LIBCURL_MOST = 1 << 20
"""Connections that libcurl keeps: ``connections`` decides."""
NAMES_KEPT = 8_192
"""When so many connections were opened, libcurl is to forget the names that it has looked up before the last minute: a
few MB, and 0.2 ms for the look at them."""
_UNREACHED = frozenset({pycurl.E_COULDNT_RESOLVE_HOST, pycurl.E_COULDNT_CONNECT, pycurl.E_OPERATION_TIMEDOUT})
LOOK_S = 1.0
"""How often libcurl looks at the requests that have no answer yet: as often as it does by itself at those that have."""


class Transfers:
    """The requests of one rank.

    Args:
        settings_of: how a server is asked, where that is not as ``parameters`` has it; else None.
        headers: of each request, as ``Name: value``.
        kept: connections that stay open for later requests, at most.
        may_connect: asked for each new connection with the resolved address; False refuses it before any packet.
        objection: asked with the head and the server of each answer whose body begins; a text cuts the transfer off.
            None: nothing is asked.
        hear: what an answer's head says of the file's use.
    """

    def __init__(
        self,
        parameters: DownloaderParameters,
        headers: Sequence[str],
        kept: int,
        may_connect: Callable[[str], bool],
        objection: Callable[[bytes, str], str] | None = None,
        *,
        hear: Callable[[bytes], str] = lambda _: "",
        settings_of: Callable[[str], ServerSettings | None] = lambda _: None,
    ) -> None:
        self.connections = Connections(kept)
        self._common_settings = ServerSettings(parameters)
        self._settings_of = settings_of
        self._headers = headers
        self._hooks = Hooks(may_connect, self.connections.note, hear, objection)
        self._free: dict[ServerSettings, list[EasyHandle]] = {}
        self._busy: dict[pycurl.Curl, EasyHandle] = {}
        self._multiplexing: set[str] = set()
        """Servers that have spoken HTTP/2."""
        self._unreached: set[str] = set()
        """Servers whose name was not found, or whose address took no connection, when they were last asked: they may
        have moved."""
        self._forget_at = NAMES_KEPT  # connections: so many names may be known to libcurl then
        self._look_at = -math.inf  # when libcurl is to look at the requests without an answer
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, LIBCURL_MOST)
        self.events = SocketEvents(self._multi)

    # ---- requests

    def start(self, task: Task, *, last_on_connection: bool = False, impatient: bool = False) -> None:
        """Start the request; its answer comes out of ``poll``.

        Args:
            last_on_connection: close the connection afterwards (its server's share has shrunk).
            impatient: wait no longer than ``easy_handle.IMPATIENT_S`` for a connection, and for each byte.
        """
        handle = self._free_handle(self._settings_of(task.server) or self._common_settings)
        handle.begin(
            task,
            waits=task.server in self._multiplexing,
            asks_anew=task.server in self._unreached or self._forgets(),
            is_last=last_on_connection or self.connections.is_full_for(task.server),
            is_impatient=impatient,
        )
        self._busy[handle.curl] = handle
        self._multi.add_handle(handle.curl)

    def _forgets(self) -> bool:
        """Return whether it is time for libcurl to forget the names that it has not looked up lately."""
        if self.connections.opened < self._forget_at:
            return False
        self._forget_at = self.connections.opened + NAMES_KEPT
        return True

    def _free_handle(self, settings: ServerSettings) -> EasyHandle:
        free = self._free.setdefault(settings, [])
        return free.pop() if free else EasyHandle(settings, self._headers, self._hooks)

    def poll(self, timeout_s: float) -> list[Answer]:
        """Wait at most so long for the network or a watched descriptor; the answers that are complete."""
        now = time.monotonic()
        if self._busy and now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look_at_silent()
        self.events.wait(min(timeout_s, self._look_at - now) if self._busy else timeout_s)
        answers = []
        left = 1
        while left:
            left, done, failed = self._multi.info_read()
            answers += [self._answer(curl, 0, "") for curl in done]
            answers += [self._answer(curl, code, message) for curl, code, message in failed]
        return answers

    def _look_at_silent(self) -> None:
        silent = {curl.getinfo(pycurl.ACTIVESOCKET) for curl, handle in self._busy.items() if not handle.head}
        for fd in silent - {-1}:  # requests that share a connection are looked at together
            self.events.look_at(fd)

    def _answer(self, curl: pycurl.Curl, code: int, message: str) -> Answer:
        handle = self._busy.pop(curl)
        self._multi.remove_handle(curl)
        answer = read_answer(handle, code, message)
        self._remember(answer)
        self._recycle(handle)
        return answer

    def _recycle(self, handle: EasyHandle) -> None:
        handle.end()
        self._free[handle.settings].append(handle)

    def abort(self) -> None:
        """Cut off everything that is in flight: it will have no answer."""
        for curl, handle in self._busy.items():
            self._multi.remove_handle(curl)
            self._recycle(handle)
        self._busy.clear()

    @property
    def in_flight(self) -> int:
        """Requests that were started and have no answer yet."""
        return len(self._busy)

    # ---- servers

    def _remember(self, answer: Answer) -> None:
        """Remember what later requests to the server have to know."""
        server = answer.task.server
        if answer.http_version == "2":
            self._multiplexing.add(server)
        elif answer.http_version:
            self._multiplexing.discard(server)
        if answer.curl_code in _UNREACHED and not answer.connect_s:
            self._unreached.add(server)
        else:
            self._unreached.discard(server)

    def leave(self, servers: Collection[str]) -> None:
        """Shut the connections to servers to which nothing is in flight, so that another rank may open its own."""
        for server in servers:
            self._multiplexing.discard(server)
            self._unreached.discard(server)
        self.connections.close(servers)

    def keep_idle(self, servers: Collection[str], most: int, *, about_to_use: str) -> set[str]:
        """Keep ``most`` idle connections to these servers, beside one to the server that is about to be used.

        Gives the servers, but for that one, to which no connection is open any more. As for ``Connections.has_more``
        the kernel is asked only where there seem to be too many.
        """
        idle = [(server, fd) for server, fd in self.connections.descriptors(servers) if self.events.is_let_go(fd)]
        most += any(server == about_to_use for server, _ in idle)
        if len(idle) <= most:
            return set()
        still = {it.task.server for it in self._busy.values() if it.stands_still and it.task is not None}
        idle = [(server, fd) for server, fd in idle if server not in still]
        idle.sort(key=lambda kept: kept[0] == about_to_use)
        for server, fd in idle[: max(0, len(idle) - most)]:
            self.connections.close_one(server, fd)
        return {server for server in servers if server != about_to_use and not self.connections.count(server)}

    # ---- memory

    def restrain(self, may_read_on: Callable[[Sequence[Arrival]], Sequence[bool]]) -> None:
        """Let the bodies in flight, in the order of their starts, be read or stand still. A body that stands still does
        not stall in libcurl's sense, but its total time-out runs on."""
        handles = list(self._busy.values())
        for handle, reads_on in zip(handles, may_read_on([handle.arrival for handle in handles]), strict=True):
            handle.read_on(reads_on)

    def close(self) -> None:
        """Cut off what is in flight and close all connections."""
        self.abort()
        self._multi.close()
        for handle in chain.from_iterable(self._free.values()):
            handle.curl.close()
        self._free.clear()
        self.events.close()


class GroupConnections:
    """The connections of one rank by server group: all servers of a group share its limit, and idle ones count as well.

    libcurl keeps connections by server. Before a request to one server of a group, idle ones to the others are shut, as
    far as the group's limit would not hold them beside those in use.

    Args:
        group_of: the group of a server.
    """

    def __init__(self, group_of: Callable[[str], str], transfers: Transfers) -> None:
        self._group_of = group_of
        self._transfers = transfers
        self._servers_of: dict[str, set[str]] = {}  # by group: those that a connection was opened to

    def opened(self) -> Iterator[tuple[str, int]]:
        """Yield each group to whose servers connections were opened since the last call, with how many it has now."""
        for server in self._transfers.connections.take_opened():
            group = self._group_of(server)
            servers = self._servers_of.setdefault(group, set())
            servers.add(server)
            yield group, sum(self._transfers.connections.count(it) for it in servers)

    def make_room(self, group: str, server: str, spare: int) -> None:
        """Before a request to the server, keep at most ``spare`` idle connections to the group's other servers."""
        servers = self._servers_of.get(group)
        if servers is not None and not servers <= {server}:
            servers -= self._transfers.keep_idle(servers, spare, about_to_use=server)
