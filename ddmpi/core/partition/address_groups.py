"""Which servers share an IP address, and so one server group. Pure.

Decides the groups from the addresses of the servers, and which host's addresses are a server's. Must not know how names
are looked up, or which rule asks for it.

Invariants: two groups have no address in common, unless both were there before; a server that shares no address is in
none; a group has the name of its smallest address, as server names spell it, or that of the group that it joins.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from ddmpi.core.arrays import NameColumn
from ddmpi.core.rules.addresses import Address, unwrapped


@dataclass(frozen=True)
class AddressGroups:
    """The groups of an output folder; none where no rule is about addresses, or none is known yet. The addresses
    themselves are not kept."""

    servers: pa.Array[Any] = field(default_factory=lambda: pa.array([], pa.string()))
    groups: pa.Array[Any] = field(default_factory=lambda: pa.array([], pa.string()))
    """(n,) the group of each of ``servers``."""

    @cached_property
    def names(self) -> NameColumn:
        """Of the groups, each once."""
        return NameColumn(self.groups.unique())

    @cached_property
    def _servers(self) -> NameColumn:
        return NameColumn(self.servers)

    def has(self, name: str) -> bool:
        """Whether there is a group of that name."""
        return self.names.find(name) is not None

    def group_of(self, server: str) -> str | None:
        """The group of a server; None where it is on its own, or was not in the table."""
        place = self._servers.find(server)
        return None if place is None else str(self.groups[place])

    def __repr__(self) -> str:
        return f"<AddressGroups: {len(self.servers)} servers in {len(self.names)} groups>"


def host_of(server: str, connect_to: Iterable[str] = ()) -> str:
    """The name or literal address that is connected to for a canonical server name: its own, or by ``connect_to``
    (curl's HOST:PORT:CONNECT-TO-HOST:CONNECT-TO-PORT, of which the first that fits counts) another one."""
    host, port = _split_first(server)
    ports = {port} if port else {"80", "443"}  # canonical names do not tell the scheme
    for entry in connect_to:
        if (target := _target(entry, host, ports)) is not None:
            return (target or host).strip("[]")
    return host.strip("[]")


def _target(entry: str, host: str, ports: set[str]) -> str | None:
    """Where the entry leads; None where it is about another server, "" where it keeps the host."""
    asked_host, rest = _split_first(entry)
    asked_port, _, rest = rest.partition(":")
    if (asked_host and asked_host.lower() != host) or (asked_port and asked_port not in ports):
        return None
    return _split_first(rest)[0]


def _split_first(text: str) -> tuple[str, str]:
    """What is before the first colon, and after it; a bracketed address has colons of its own."""
    end = text.find("]") + 1 if text.startswith("[") else 0
    head, _, rest = text[end:].partition(":")
    return text[:end] + head, rest


def usable_addresses(texts: Iterable[str], may_connect: Callable[[str], bool]) -> tuple[str, ...]:
    """The addresses that may be contacted, smallest first, as server names spell them, whatever a resolver wrote. Names
    without a server behind them share 0.0.0.0 or 127.0.0.1: that makes no group."""
    allowed = {unwrapped(ipaddress.ip_address(text.partition("%")[0])) for text in texts if may_connect(text)}
    return tuple(map(_spelled, sorted(allowed, key=_order)))


def _spelled(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


def _order(address: Address) -> tuple[int, int]:
    return address.version, int(address)


def shared_groups(addresses: Mapping[str, Sequence[str]], taken: Mapping[str, str]) -> dict[str, str]:
    """The group of each server that shares an address with another one, also over a third server.

    Args:
        addresses: of each server, as ``usable_addresses`` gives them.
        taken: earlier groups by address; who has such an address joins the group of the smallest.
    """
    parents: dict[str, str] = {}
    for found in addresses.values():
        for address in found:
            _join(parents, found[0], address)
    members: dict[str, list[str]] = {}
    for server, found in addresses.items():
        if found:
            members.setdefault(_root(parents, found[0]), []).append(server)
    earlier: dict[str, list[str]] = {}
    for address in parents:
        if address in taken:
            earlier.setdefault(_root(parents, address), []).append(address)
    groups: dict[str, str] = {}
    for root, servers in members.items():
        joined = earlier.get(root)
        if joined:
            name = taken[min(joined, key=_rank)]
        elif len(servers) > 1:
            name = min((address for server in servers for address in addresses[server]), key=_rank)
        else:
            continue
        groups.update(dict.fromkeys(servers, name))
    return groups


def _rank(spelled: str) -> tuple[int, int]:
    return _order(ipaddress.ip_address(spelled.strip("[]")))


def _join(parents: dict[str, str], one: str, other: str) -> None:
    parents.setdefault(one, one)
    parents.setdefault(other, other)
    parents[_root(parents, other)] = _root(parents, one)


def _root(parents: dict[str, str], address: str) -> str:
    while parents[address] != address:
        parents[address] = address = parents[parents[address]]
    return address
