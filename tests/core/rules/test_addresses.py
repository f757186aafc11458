"""Which resolved addresses may be contacted: every range that is not the internet, in every form that leads there."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.core.rules.addresses import Address, address_rule

PUBLIC = ["8.8.8.8", "1.1.1.1", "151.101.1.6", "2606:4700::6810:84e5", "2a00:1450:4001:80b::200e"]
PRIVATE = [
    "0.0.0.0",  # noqa: S104  # nothing is bound here
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
]
SPECIAL_V6 = [
    "::",
    "::1",
    "100::1",
    "2001:db8::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
    "64:ff9b:1::808:808",  # a translator of the own network
    "fc00::1",
    "fd00:ec2::254",  # metadata of a cloud
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "::808:808",
    "4000::1",
]


def carried(address: str) -> dict[str, str]:
    """IPv6 forms that end at an IPv4 address."""
    number = int(ipaddress.IPv4Address(address))
    return {
        "mapped": f"::ffff:{address}",
        "6to4": str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1)),
        "NAT64": str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number)),
    }


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_contacted(address: str) -> None:
    assert address_rule([])(address)


@pytest.mark.parametrize("address", [*PRIVATE, *SPECIAL_V6])
def test_all_others_may_not(address: str) -> None:
    assert not address_rule([])(address)


@pytest.mark.parametrize("form", ["mapped", "6to4", "NAT64"])
@pytest.mark.parametrize("address", PRIVATE)
def test_ipv4_inside_ipv6_is_judged_by_itself(address: str, form: str) -> None:
    assert not address_rule([])(carried(address)[form])


@pytest.mark.parametrize("form", ["mapped", "6to4", "NAT64"])
def test_what_is_allowed_is_allowed_in_every_form(form: str) -> None:
    may_connect = address_rule([ipaddress.ip_network("10.0.0.0/8")])
    assert may_connect(carried("10.1.2.3")[form])
    assert not may_connect(carried("192.168.1.1")[form])


def test_an_allowed_network_opens_nothing_else() -> None:
    may_connect = address_rule([ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("fd00::/8")])
    assert may_connect("127.0.0.1")
    assert may_connect("fd12::1")
    assert not may_connect("::1")
    assert not may_connect("10.0.0.1")


addresses: st.SearchStrategy[Address] = st.ip_addresses()


@settings(derandomize=True, max_examples=300)
@given(addresses)
def test_what_may_be_contacted_is_global_and_of_one_host(address: Address) -> None:
    if address_rule([])(str(address)):
        assert not address.is_multicast
        assert not address.is_loopback
        assert not address.is_link_local
        assert not address.is_unspecified
