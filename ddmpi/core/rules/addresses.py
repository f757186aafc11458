"""Which resolved addresses may be contacted. Pure.

A URL list comes from strangers, and a cluster node sees more than the internet: metadata services, neighbors, itself.
So only globally reachable addresses are contacted, unless the config allows a network. The resolved address decides,
not the name: names and spellings of addresses can lie. Where a proxy is used, that is the proxy's address: it alone
sees the others.

Invariant: an IPv6 address that carries an IPv4 one is judged by the one it carries, since that is where packets go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_REMEMBERED = 65_536
"""Answers that a rule remembers: a rank of a run over a million servers would keep 100 MB of them."""
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is assigned to be reachable (RFC 4291, 2.4). Beyond it ``is_global`` is true of what nobody uses, such as
``::127.0.0.1``, or 64:ff9b:1::/48, behind which a network has translators of its own (RFC 8215)."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def address_rule(allowed: Sequence[Network]) -> Callable[[str], bool]:
    """The rule for resolved addresses, given as text: True = may be contacted. Answers are remembered."""
    networks = tuple(allowed)

    @lru_cache(maxsize=_REMEMBERED)
    def may_connect(text: str) -> bool:
        address = unwrapped(ipaddress.ip_address(text.partition("%")[0]))
        if any(address in network for network in networks if network.version == address.version):
            return True
        if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
            return False
        return address.is_global and not address.is_multicast

    return may_connect


def unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that only carries it (mapped, 6to4, NAT64), else the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
