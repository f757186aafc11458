"""The open connections of a rank by pace group: all servers of a group share its limit, and idle ones count as well.

libcurl keeps connections by server. Before a request to one server of a group, idle ones to the others are shut, as far
as the group's limit would not hold them beside those in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ddmpi.io.http.transfers import Transfers


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
