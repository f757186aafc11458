"""Puts servers that share an IP address into one group, while a table is partitioned: rules, resolver, earlier groups.

Only the servers whose rule says ``per_address`` are looked up, and each host once, whatever its ports. Those that are
in the urls folder already keep what they have, so groups never change within an output folder. A new server on an
address of theirs joins them, but for servers in packed batches, which have limits of their own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.config.config import Config
from ddmpi.core.partition.address_groups import host_of, shared_groups, usable_addresses
from ddmpi.core.partition.server_patterns import matching_servers
from ddmpi.core.rules.addresses import address_rule
from ddmpi.errors import SetupError
from ddmpi.io.http.resolver import Lookup, resolve, system_lookup
from ddmpi.io.urls.address_table import read_rows, write_addresses
from ddmpi.io.urls.index import UrlsIndex

MANY_NAMES: Final = 10
"""From this many servers on not all are gone: where none of them has an address, no name server answers here."""


@dataclass(frozen=True)
class AddressSummary:
    """What came of the look-up."""

    servers: int
    unknown: int
    """Of these, those without an address that may be contacted."""
    shared: int
    """Servers that share an address."""
    groups: int
    """How many groups these are in."""


class AddressGrouping:
    """See the module's docstring. For one run of ``partition_input``.

    Args:
        earlier: the index to which rows are added.
        on_progress: is told how many of how many names are looked up.
        on_grouped: is told the end of it.
    """

    def __init__(
        self,
        config: Config,
        earlier: UrlsIndex | None = None,
        *,
        lookup: Lookup = system_lookup,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
        on_grouped: Callable[[AddressSummary], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._rules = config.rules
        self._connect_to = config.downloader_parameters.connect_to
        self._may_connect = address_rule(config.allowed_networks)
        self._earlier = earlier
        self._lookup = lookup
        self._on_progress = on_progress
        self._on_grouped = on_grouped
        self._should_stop = should_stop
        self._found: dict[str, Sequence[str]] = {}
        self._groups: dict[str, str] = {}

    def groups_of(self, names: pa.Array[Any], groups: pa.Array[Any]) -> pa.Array[Any]:
        """Return (n,) the groups of these new servers, where ``groups`` are those by name.

        Raises:
            Interrupted: ``should_stop`` turned true.
            SetupError: of many names none could be looked up.
            OutputError: the earlier table cannot be read.
        """
        taken = {} if self._earlier is None else _taken(self._earlier)
        asked = self._asked(names)
        hosts = {server: host_of(server, self._connect_to) for server in asked}
        known = self._addresses(set(hosts.values()))
        self._found = {server: known.get(host, ()) for server, host in hosts.items()}
        self._groups = shared_groups(self._found, taken)
        self._on_grouped(
            AddressSummary(
                len(asked),
                sum(not found for found in self._found.values()),
                len(self._groups),
                len(set(self._groups.values())),
            )
        )
        return self._entered(names, groups, taken)

    def write(self, folder: Path) -> None:
        """Keep what was found beside the batches. Raises OSError: the disk does not take it."""
        names = sorted(self._found)
        write_addresses(
            folder,
            pa.array(names, pa.string()),
            pa.array([self._groups.get(name) for name in names], pa.string()),
            pa.array([list(self._found[name]) for name in names], pa.list_(pa.string())),
        )

    def _asked(self, names: pa.Array[Any]) -> list[str]:
        """Return the servers whose first rule is about addresses."""
        may_be = matching_servers(names, [rule.match for rule in self._rules.per_address])
        candidates = (str(name) for name in names.filter(pa.array(may_be)))
        return [name for name in candidates if (rule := self._rules.find(name)) is not None and rule.per_address]

    def _addresses(self, hosts: set[str]) -> dict[str, tuple[str, ...]]:
        """Return the addresses of the hosts that have some. A literal address is its own."""
        texts: dict[str, Sequence[str]] = {host: [host] for host in hosts if _is_address(host)}
        names = hosts - texts.keys()
        found = resolve(names, self._lookup, on_progress=self._on_progress, should_stop=self._should_stop)
        if len(names) >= MANY_NAMES and not found:
            raise SetupError(
                f"none of the {len(names):,} names of servers with per_address could be looked up: does a name server "
                "answer on this machine? Without addresses their limits cannot hold"
            )
        texts.update(found)
        return {host: usable_addresses(found, self._may_connect) for host, found in texts.items()}

    def _entered(self, names: pa.Array[Any], groups: pa.Array[Any], taken: Mapping[str, str]) -> pa.Array[Any]:
        """Return the groups by name, and those by address beside them."""
        members = pa.array(list(self._groups), pa.string())
        places = pc.index_in(names, value_set=members)
        by_address = pa.array(list(self._groups.values()), pa.string()).take(places)
        # A server that is named as a group is, and that another rule limits, is asked under that group's limits.
        named = set(self._groups.values()) | set(taken.values())
        is_named = pc.is_in(names, value_set=pa.array(sorted(named), pa.string()))
        own: pa.Array[Any] = pc.if_else(is_named, names, pa.scalar(None, pa.string()))
        answer: pa.Array[Any] = pc.coalesce(by_address, groups, own)
        return answer


def _taken(index: UrlsIndex) -> dict[str, str]:
    """Return the group that serves each address of the urls folder."""
    rows = read_rows(index.folder)
    names, own_groups = rows.column("server_name").combine_chunks(), rows.column("group").combine_chunks()
    served_by = index.groups_of(names, lambda unknown: pa.nulls(len(unknown), pa.string()))
    groups = pc.coalesce(own_groups, served_by)
    # A packed server is asked under its own limits: no server can join it.
    can_be_joined = pc.or_(pc.is_valid(own_groups), pc.equal(groups, names))
    addresses = rows.column("addresses").filter(can_be_joined).to_pylist()
    taken: dict[str, str] = {}
    for group, found in zip(groups.filter(can_be_joined).to_pylist(), addresses, strict=True):
        taken.update((str(address), str(group)) for address in found or () if address not in taken)
    return taken


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
