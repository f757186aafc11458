"""How many requests a rank takes on: as many as it has connections, and memory for their bodies.

What fits into the memory is decided by ``memory``; this file knows what is in flight, and what waits for the disk.

The open connections of a rank by pace group: all servers of a group share its limit, and idle ones count as well.

libcurl keeps connections by server. Before a request to one server of a group, idle ones to the others are shut, as far
as the group's limit would not hold them beside those in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ddmpi.core.frontier.memory_budget import MemoryBudget
from ddmpi.io.http.transfers import Transfers
from ddmpi.io.results.writer import ResultWriter

RESTRAIN_INTERVAL_S = 0.02
"""How often the bodies in flight are compared with the memory budget: 20 ms of a 10 Gbit/s network are 25 MB."""
RESTRAIN_SHARE_S = 1e-5
"""The same per body in flight, so that many of them do not take all of the time."""


class Capacity:
    """The capacity of one rank.

    Args:
        connections: requests in flight at most.
        now: seconds, monotonic, as in all methods.
    """

    def __init__(
        self, connections: int, budget: MemoryBudget, transfers: Transfers, writer: ResultWriter, now: float
    ) -> None:
        self._connections = connections
        self._budget = budget
        self._transfers = transfers
        self._writer = writer
        self._restrain_at = now

    def free_slots(self) -> int:
        """Requests that this rank can take on beside those in flight."""
        in_flight = self._transfers.in_flight
        return min(self._connections - in_flight, self._budget.may_start(self._writer.buffered_bytes, in_flight))

    def restrain(self, now: float) -> None:
        """Bodies larger than expected stand still while there is no memory for them."""
        if now >= self._restrain_at:
            in_flight = self._transfers.in_flight
            self._restrain_at = now + max(RESTRAIN_INTERVAL_S, RESTRAIN_SHARE_S * in_flight)
            waiting_bytes = self._writer.buffered_bytes
            self._transfers.restrain(lambda arrivals: self._budget.may_read_on(waiting_bytes, arrivals))


class GroupConnections:
    """The connections of one rank.

    Args:
        group_of: the pace group of a server.
    """

    def __init__(self, group_of: Callable[[str], str], transfers: Transfers) -> None:
        self._group_of = group_of
        self._transfers = transfers
        self._servers_of: dict[str, set[str]] = {}  # by group: those that a connection was opened to

    def opened(self) -> Iterator[tuple[str, int]]:
        """The groups to whose servers connections were opened since the last call, and how many they have now."""
        for server in self._transfers.connections.take_opened():
            group = self._group_of(server)
            servers = self._servers_of.setdefault(group, set())
            servers.add(server)
            yield group, sum(self._transfers.connections.count(it) for it in servers)

    def make_room(self, group: str, server: str, spare: int) -> None:
        """Before a request to the server: keep no more idle connections to the group's others than it has to spare."""
        servers = self._servers_of.get(group)
        if servers is not None and not servers <= {server}:
            servers -= self._transfers.keep_idle(servers, spare, about_to_use=server)
