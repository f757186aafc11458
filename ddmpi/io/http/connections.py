"""The open connections of a rank, by server and by server group: how many there are, and which idle ones are closed.

libcurl's callback for closing sockets cannot run when its handle is outside the multi, which is the normal case for an
idle connection; pycurl (7.49) then warns and leaks the descriptor. So connections are followed by descriptor and inode:
a descriptor whose inode has changed is another file's by now.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol


class Connections:
    """The connections of one rank, idle ones included."""

    def __init__(self) -> None:
        self._inodes: dict[str, dict[int, int]] = {}  # of each server's descriptors
        self._opened: set[str] = set()

    def note(self, server: str, fd: int) -> None:
        """Note that a connection to the server is being opened."""
        self._inodes.setdefault(server, {})[fd] = os.fstat(fd).st_ino
        self._opened.add(server)

    def count(self, server: str) -> int:
        """Open connections to the server."""
        known = self._inodes.get(server)
        if not known:
            return 0
        for fd, inode in list(known.items()):
            if _inode(fd) != inode:
                del known[fd]
        return len(known)

    def take_opened(self) -> Collection[str]:
        """Return servers to which connections were opened since the last call."""
        if not self._opened:
            return frozenset()
        opened, self._opened = self._opened, set()
        return opened

    def has_more(self, server: str, limit: int) -> bool:
        """Return whether more than ``limit`` connections to the server are open.

        Asked before each request, so the kernel is asked only where more than that were ever opened (an fstat per
        connection and request took a sixth of the time).
        """
        return len(self._inodes.get(server, ())) > limit and self.count(server) > limit

    def descriptors(self, servers: Iterable[str]) -> Iterator[tuple[str, int]]:
        """Return server and descriptor of all connections that are open, or were lately: the kernel is not asked."""
        return ((server, fd) for server in servers for fd in self._inodes.get(server, ()))

    def close(self, servers: Iterable[str]) -> None:
        """Shut all connections to servers on which nothing is in flight, so that another rank may open its own."""
        for server in servers:
            for fd, inode in self._inodes.pop(server, {}).items():
                _shut(fd, inode)

    def close_one(self, server: str, fd: int) -> None:
        """Shut one connection on which nothing is in flight."""
        _shut(fd, self._inodes[server].pop(fd))


class KeepIdle(Protocol):
    """``Transfers.keep_idle``."""

    def __call__(self, servers: Collection[str], most: int, *, about_to_use: str) -> set[str]: ...


class GroupConnections:
    """The connections of one rank by server group: all servers of a group share its limit, and idle ones count as well.

    libcurl keeps connections by server. Before a request to one server of a group, idle ones to the others are shut, as
    far as the group's limit would not hold them beside those in use.

    Args:
        group_of: the group of a server.
        keep_idle: shuts idle connections beyond a number.
    """

    def __init__(self, group_of: Callable[[str], str], connections: Connections, keep_idle: KeepIdle) -> None:
        self._group_of = group_of
        self._connections = connections
        self._keep_idle = keep_idle
        self._servers_of: dict[str, set[str]] = {}  # by group: those that a connection was opened to

    def opened(self) -> Iterator[tuple[str, int]]:
        """Yield each group to whose servers connections were opened since the last call, with how many it has now."""
        for server in self._connections.take_opened():
            group = self._group_of(server)
            servers = self._servers_of.setdefault(group, set())
            servers.add(server)
            yield group, sum(self._connections.count(it) for it in servers)

    def make_room(self, group: str, server: str, spare: int) -> None:
        """Before a request to the server, keep at most ``spare`` idle connections to the group's other servers."""
        servers = self._servers_of.get(group)
        if servers is not None and not servers <= {server}:
            servers -= self._keep_idle(servers, spare, about_to_use=server)


def _inode(fd: int) -> int:
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return -1


def _shut(fd: int, inode: int) -> None:
    """Shut the connection, unless the descriptor is another one's by now."""
    if _inode(fd) != inode:
        return
    with socket.socket(fileno=os.dup(fd)) as connection:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The server closed it first.
            return
