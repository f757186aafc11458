"""Who shares an address, and what the groups are called."""

from __future__ import annotations

import random

import pytest

from ddmpi.core.partition.address_groups import host_of, shared_groups, usable_addresses


@pytest.mark.parametrize(
    ("addresses", "taken", "groups"),
    [
        pytest.param({"a": ["203.0.113.5"], "b": ["203.0.113.6"]}, {}, {}, id="each alone on its address: none"),
        pytest.param(
            {"b": ["203.0.113.9"], "a": ["203.0.113.9"], "c": ["203.0.113.10"]},
            {},
            {"a": "203.0.113.9", "b": "203.0.113.9"},
            id="two on one address",
        ),
        pytest.param(
            {"a": ["203.0.113.10", "203.0.113.9"], "b": ["203.0.113.10"], "c": ["203.0.113.9"]},
            {},
            dict.fromkeys("abc", "203.0.113.9"),
            id="joined by a third, named by the smallest number, not text",
        ),
        pytest.param(
            {"a": ["[2001:db8::a]"], "b": ["[2001:db8::a]", "203.0.113.1"], "c": ["203.0.113.1"]},
            {},
            dict.fromkeys("abc", "203.0.113.1"),
            id="both families",
        ),
        pytest.param(
            {"a": ["[2001:db8::10]", "[2001:db8::9]"], "b": ["[2001:db8::10]"]},
            {},
            dict.fromkeys("ab", "[2001:db8::9]"),
            id="IPv6 alone",
        ),
        pytest.param({"a": [], "b": []}, {}, {}, id="without addresses each is alone"),
        pytest.param(
            {"new": ["203.0.113.5"], "other": ["203.0.113.6"]},
            {"203.0.113.5": "203.0.113.1"},
            {"new": "203.0.113.1"},
            id="a single new one joins an earlier group",
        ),
        pytest.param(
            {"new": ["203.0.113.5", "203.0.113.6"], "other": ["203.0.113.6", "203.0.113.2"]},
            {"203.0.113.5": "old.example", "203.0.113.6": "203.0.113.6"},
            {"new": "old.example", "other": "old.example"},
            id="of two earlier groups the one of the smallest address",
        ),
    ],
)
def test_servers_that_share_an_address_are_one_group(
    addresses: dict[str, list[str]], taken: dict[str, str], groups: dict[str, str]
) -> None:
    assert shared_groups(addresses, taken) == groups
    assert shared_groups(dict(reversed(addresses.items())), taken) == groups


def test_no_address_is_in_two_groups_whatever_the_order() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        servers = {
            f"s{number}": [f"203.0.113.{rng.randrange(40)}" for _ in range(rng.randint(1, 3))] for number in range(30)
        }
        groups = shared_groups(servers, {})
        serving: dict[str, set[str]] = {}
        for server, addresses in servers.items():
            for address in addresses:
                serving.setdefault(address, set()).add(groups.get(server, server))
        assert all(len(found) == 1 for found in serving.values()), seed
        shuffled = rng.sample(sorted(servers.items()), len(servers))
        assert shared_groups(dict(shuffled), {}) == groups


def test_a_long_chain_of_addresses_is_one_group() -> None:
    spelled = [f"10.0.{number // 256}.{number % 256}" for number in range(20_001)]
    chain = {f"s{number}": spelled[number : number + 2] for number in range(20_000)}
    assert set(shared_groups(chain, {}).values()) == {"10.0.0.0"}


def test_addresses_are_spelled_as_server_names_spell_them() -> None:
    texts = ["2001:0DB8:0::0A", "fe80::1%eth0", "::ffff:203.0.113.5", "203.0.113.4", "64:ff9b::203.0.113.6", "::1"]
    allowed = usable_addresses(texts, lambda _: True)
    assert allowed == ("203.0.113.4", "203.0.113.5", "203.0.113.6", "[::1]", "[2001:db8::a]", "[fe80::1]")
    assert usable_addresses(["127.0.0.1", "203.0.113.4"], lambda text: text != "127.0.0.1") == ("203.0.113.4",)


@pytest.mark.parametrize(
    ("server", "connect_to", "host"),
    [
        ("img.example.org", [], "img.example.org"),
        ("img.example.org:8080", [], "img.example.org"),
        ("127.0.0.1:8081", [], "127.0.0.1"),
        ("[2001:db8::1]:8080", [], "2001:db8::1"),
        ("[2001:db8::1]", [], "2001:db8::1"),
        ("a.org", ["b.org::c.org:", "a.org:443:d.org:8443"], "d.org"),
        ("a.org:8080", ["a.org:443:d.org:8443", ":8080:[::1]:"], "::1"),
        ("a.org", ["A.org:::81", "a.org::d.org:"], "a.org"),
        ("[::1]:8080", ["[::1]:8080:127.0.0.1:80"], "127.0.0.1"),
    ],
)
def test_the_host_is_the_one_that_is_connected_to(server: str, connect_to: list[str], host: str) -> None:
    assert host_of(server, connect_to) == host
