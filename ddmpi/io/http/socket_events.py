"""libcurl's sockets and its timer in one epoll set, with the descriptors of others: where a downloader waits.

``CurlMulti.select()`` is select(2) and fails above 1,024 descriptors (pycurl 7.49): hence epoll and ``socket_action``.
libcurl is asked for its timer once a turn; told of each change (M_TIMERFUNCTION) it calls back twice for each request.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Callable

import pycurl

_EVENTS = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}


class SocketEvents:
    """The events of one multi handle."""

    def __init__(self, multi: pycurl.CurlMulti) -> None:
        self._multi = multi
        self._epoll = select.epoll()
        self._registered: set[int] = set()
        self._idle: set[int] = set()
        self._let_go: set[int] = set()
        self._watched: dict[int, Callable[[], None]] = {}
        multi.setopt(pycurl.M_SOCKETFUNCTION, self.on_socket)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back from ``wait`` when ``fd`` is readable."""
        self._watched[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def wait(self, timeout_s: float) -> None:
        """Wait at most so long (s) for the network or a watched descriptor, and let libcurl act on what has come."""
        timer_ms = self._multi.timeout()
        if timer_ms >= 0:
            timeout_s = min(timeout_s, timer_ms / 1000)
        for fd, mask in self._epoll.poll(max(0.0, timeout_s)):
            watcher = self._watched.get(fd)
            if watcher is not None:
                watcher()
            elif fd in self._idle:
                self._forget_socket(fd)
            else:
                self._multi.socket_action(fd, _action(mask))
        if self._multi.timeout() == 0:
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def look_at(self, fd: int) -> None:
        """Have libcurl look at a descriptor of its own of which nothing has come."""
        self._multi.socket_action(fd, 0)

    def close(self) -> None:
        """Give the epoll set back, after the multi handle."""
        self._epoll.close()

    def on_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        """Note that libcurl wants to hear of a descriptor, or no longer.

        It takes a kept connection away and brings it back with each request, so the descriptor stays in the epoll set
        meanwhile: one system call per request instead of two. A descriptor that was closed has left the set by itself,
        and its number may be that of another file by now: only the kernel knows.
        """
        if what == pycurl.POLL_REMOVE:
            self._idle.add(fd)
            self._let_go.add(fd)
            return
        self._idle.discard(fd)
        self._let_go.discard(fd)
        try:
            if fd in self._registered:
                self._epoll.modify(fd, _EVENTS[what])
                return
        except FileNotFoundError:
            self._registered.discard(fd)
        self._epoll.register(fd, _EVENTS[what])
        self._registered.add(fd)

    def is_let_go(self, fd: int) -> bool:
        """Return whether libcurl ignores a descriptor for now: it is kept for later, or its body stands still."""
        return fd in self._let_go

    def _forget_socket(self, fd: int) -> None:
        """Forget a kept connection that the server closed: libcurl sees that when it wants to use it again.

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


def _action(mask: int) -> int:
    action = 0
    if mask & (select.EPOLLIN | select.EPOLLHUP):
        action |= pycurl.CSELECT_IN
    if mask & select.EPOLLOUT:
        action |= pycurl.CSELECT_OUT
    if mask & select.EPOLLERR:
        action |= pycurl.CSELECT_ERR
    return action
