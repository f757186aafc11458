"""The sockets of a fleet: all of its addresses on one port, nothing that another machine could reach.

One socket on 0.0.0.0 tied to the loopback device serves any number of addresses; where the kernel does not permit
that tie, each address gets a socket of its own. Invariant: on failure nothing stays open.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tests.fleet.spec import REFUSED_PORT_OFFSET

BACKLOG = 4096
"""Connections that may wait for accept: the default of Linux' net.core.somaxconn since 5.4, which caps it."""
_PORT_TRIES = 50


@dataclass(frozen=True, slots=True)
class FleetSockets:
    """``listening`` ones are not yet listening, only bound; ``reserved`` ones never will."""

    port: int
    listening: list[socket.socket]
    reserved: list[socket.socket]

    def close(self) -> None:
        for bound in (*self.listening, *self.reserved):
            bound.close()


def open_sockets(addresses: Sequence[str], refused: Sequence[str], port: int) -> FleetSockets:
    """Bind ``addresses`` to ``port`` (0: any free one) and ``refused`` to the port named for them.

    Raises OSError where the port, or the one after it, is taken; with port 0 after some tries with other ports.
    """
    if port == 0:
        for _ in range(_PORT_TRIES):
            sockets = _open_unless_taken(addresses, refused)
            if sockets is not None:
                return sockets
    return _open_once(addresses, refused, port)


def _open_unless_taken(addresses: Sequence[str], refused: Sequence[str]) -> FleetSockets | None:
    try:
        return _open_once(addresses, refused, 0)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return None


def _open_once(addresses: Sequence[str], refused: Sequence[str], port: int) -> FleetSockets:
    with ExitStack() as on_failure:
        listening = _bound_to_device(port)
        if listening is None:
            sockets: list[socket.socket] = []
            for address in addresses:
                sockets.append(on_failure.enter_context(_bound(address, port)))
                port = int(sockets[0].getsockname()[1])
        else:
            sockets = [on_failure.enter_context(listening)]
            port = int(listening.getsockname()[1])
        # Bound but not listening: the kernel answers a connection with RST, and gives the port to nobody else.
        reserved = [on_failure.enter_context(_bound(address, port + REFUSED_PORT_OFFSET)) for address in refused]
        on_failure.pop_all()
        return FleetSockets(port, sockets, reserved)


def _bound_to_device(port: int) -> socket.socket | None:
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
    except PermissionError:
        bound.close()
        return None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("0.0.0.0", port))  # noqa: S104  # tied to the loopback device above
    except OSError:
        bound.close()
        raise
    return bound


def _bound(address: str, port: int) -> socket.socket:
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound
