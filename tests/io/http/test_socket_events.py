"""Where a downloader waits: what becomes of events that have been overtaken by others."""

from __future__ import annotations

import os
import socket

import pycurl
import pytest

from ddmpi.io.http.socket_events import SocketEvents


@pytest.mark.parametrize("is_reused", [False, True], ids=["gone", "another file's by now"])
def test_an_event_of_a_connection_that_was_closed_is_dropped(*, is_reused: bool) -> None:
    # Both events are in one answer of epoll: the first one's handling closes what the second one is about.
    multi = pycurl.CurlMulti()
    events = SocketEvents(multi)
    reader, writer = os.pipe()
    kept, peer = socket.socketpair()
    fd = kept.fileno()

    def close_kept() -> None:
        os.read(reader, 1)
        kept.close()
        if is_reused:
            os.dup2(writer, fd)

    events.watch(reader, close_kept)
    events.on_socket(pycurl.POLL_IN, fd, None, None)
    events.on_socket(pycurl.POLL_REMOVE, fd, None, None)
    os.write(writer, b"x")
    peer.close()
    events.wait(1.0)
    assert kept.fileno() == -1, "the first event was handled"
    events.wait(0.0)
    multi.close()
    events.close()
    for descriptor in {reader, writer} | ({fd} if is_reused else set()):
        os.close(descriptor)
