"""The open connections of a rank, by server: how many there are, and how idle ones are closed.

libcurl's callback for closing sockets cannot run when its handle is outside the multi, which is the normal case for an
idle connection; pycurl (7.49) then warns and leaks the descriptor. So connections are followed by descriptor and inode:
a descriptor whose inode has changed is another file's by now.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Iterator


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
