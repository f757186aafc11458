"""The open connections of a rank, by server: how many there are, and how idle ones are closed.

libcurl's callback for closing sockets cannot run when its handle is outside the multi, which is the normal case for an
idle connection; pycurl (7.49) then warns and leaks the descriptor. So connections are followed by descriptor and inode:
a descriptor whose inode has changed is another file's by now.

As many are kept as files may be open. Where there are more servers, those that come later get a connection for each of
their requests: polite servers are asked in turn, so the one that was used last is needed last. (libcurl closes the one
that was used first, which is needed next: with a few servers too many it would keep none.)
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Iterator

RECOUNT_AFTER = 1_000
"""So many new connections may come before the kernel is asked again which of the others are open."""


class Connections:
    """The connections of one rank, idle ones included.

    Args:
        most: that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._inodes: dict[str, dict[int, int]] = {}  # of each server's descriptors
        self.opened = 0
        """Those that were ever opened."""
        self._opened: set[str] = set()
        self._noted = 0
        self._count = 0  # as of the last count, and those that were noted since

    def note(self, server: str, fd: int) -> None:
        """Note that a connection to the server is being opened."""
        self._inodes.setdefault(server, {})[fd] = os.fstat(fd).st_ino
        self._opened.add(server)
        self.opened += 1
        self._noted += 1
        self._count += 1

    def is_full_for(self, server: str) -> bool:
        """Return whether no connection to the server is open, and a new one would be one too many to keep."""
        if self._count < self._most or self.count(server):
            return False
        if self._noted >= RECOUNT_AFTER:
            self._noted = 0
            self._count = sum(map(self.count, self._inodes))
        return self._count >= self._most

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
