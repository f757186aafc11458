"""A fleet: many small HTTP/1.1 servers in one asyncio loop, on one port of many loopback addresses.

The local address of an accepted connection says which server is meant. Everything that happens is logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.fleet.connection import Connection, Hub, Site
from tests.fleet.images import warm_up
from tests.fleet.log import FLUSH_INTERVAL_S, LogWriter
from tests.fleet.sockets import BACKLOG, open_sockets
from tests.fleet.spec import Mode, ServerSpec, check_fleet


class Fleet:
    """All servers of ``specs``. Call ``start``, ``serve`` and ``stop``, in this order, within one running loop."""

    def __init__(self, specs: Sequence[ServerSpec], log_path: Path, port: int = 0) -> None:
        """Port 0 means any free one. Raises ValueError where the specs do not fit together."""
        check_fleet(specs)
        self.specs = tuple(specs)
        self.port = port
        """The port in use, once ``start`` is done."""
        self._log_path = log_path

    def __repr__(self) -> str:
        return f"<Fleet: {len(self.specs)} servers on port {self.port}>"

    async def start(self) -> None:
        """Accept connections from now on. Raises OSError where the port or the log cannot be had."""
        for size in {spec.size for spec in self.specs}:
            warm_up(size)
        dead = [spec.address for spec in self.specs if spec.mode is Mode.REFUSED]
        alive = [spec for spec in self.specs if spec.mode is not Mode.REFUSED]
        loop = asyncio.get_running_loop()
        with ExitStack() as on_failure:
            self._log = LogWriter(self._log_path)
            on_failure.callback(self._log.close)
            self._sockets = open_sockets([spec.address for spec in alive], dead, self.port)
            on_failure.callback(self._sockets.close)
            self.port = self._sockets.port
            self._hub = hub = Hub(self._sites(alive), self._log, loop)
            self._servers = [
                await loop.create_server(lambda: Connection(hub), sock=bound, backlog=BACKLOG)
                for bound in self._sockets.listening
            ]
            on_failure.pop_all()

    async def serve(self, stopping: asyncio.Event) -> None:
        """Write the log at its interval until ``stopping`` is set. Raises OSError where that fails."""
        waiting = asyncio.ensure_future(stopping.wait())
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=FLUSH_INTERVAL_S)
                self._log.flush()
        finally:
            waiting.cancel()

    async def stop(self) -> None:
        """Reset all connections, close all sockets and finish the log. Raises OSError where that fails."""
        for server in self._servers:
            server.close()
        for connection in tuple(self._hub.connections):
            connection.abort()
        while self._hub.connections:
            await asyncio.sleep(0)  # the next turn of the loop calls connection_lost
        self._sockets.close()
        self._log.close()

    def _sites(self, alive: Sequence[ServerSpec]) -> dict[str, Site]:
        names = {spec.address: spec.name(self.port) for spec in self.specs}
        return {
            spec.address: Site(
                spec, names[spec.address], f"http://{names[spec.redirect_to]}" if spec.redirect_to else ""
            )
            for spec in alive
        }
