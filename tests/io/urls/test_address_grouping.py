"""From a table's servers to their groups by address: who is looked up, who joins whom, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ddmpi.config.config import Config, parse
from ddmpi.core.records import Limits
from ddmpi.errors import Interrupted, SetupError
from ddmpi.io.input.table import open_input
from ddmpi.io.urls.address_grouping import AddressGrouping, AddressSummary
from ddmpi.io.urls.address_table import read_addresses
from ddmpi.io.urls.batch_table import limits_by_group
from ddmpi.io.urls.index import read_index
from ddmpi.io.urls.writer import partition_input

ALL: dict[str, Any] = {"match": "*", "per_address": True, "rate_limit": 3, "max_connections": 2}
NAMES = {
    "a.org": ["203.0.113.5", "203.0.113.6"],
    "b.org": ["203.0.113.6"],
    "alone.org": ["203.0.113.9"],
    "private.org": ["192.168.0.1"],
    "private.net": ["192.168.0.1"],
    "new.org": ["203.0.113.6"],
    "beside.org": ["203.0.113.9"],
    "six.org": ["2001:DB8::1"],
    "six.net": ["2001:db8:0::1"],
}


def lookup(host: str) -> Sequence[str]:
    if host not in NAMES:
        raise OSError(-2, "Name or service not known")
    return NAMES[host]


def config_of(folder: Path, *rules: dict[str, Any], **changes: Any) -> Config:
    values = {
        "path_to_input": str(folder / "urls.txt"),
        "path_to_output_folder": str(folder / "out"),
        "downloader_parameters": {"batch_size": 10, "allow_private_addresses": ["203.0.113.0/24", "127.0.0.0/8"]},
        "profiling": {"min_rows": 5},
        "servers": list(rules),
        "servers_from": [],
    }
    return parse({**values, **changes}, "test")


def write_rows(folder: Path, **rows: int) -> None:
    """A table with so many rows of each server (``_`` stands for a dot)."""
    urls = [f"http://{name.replace('_', '.')}/{row}" for name, count in rows.items() for row in range(count)]
    (folder / "urls.txt").write_text("\n".join(urls) + "\n")


def clustered(folder: Path, config: Config, *, known: int = 0) -> AddressSummary:
    """Partition the table, or the rows after the ``known`` ones; what was told of addresses."""
    table, urls = open_input(config.input_name, config.columns.as_lists(), []), folder / "urls"
    earlier = read_index(urls) if known else None
    told: list[AddressSummary] = []
    partition_input(
        table.after(known) if known else table,
        urls if earlier is None else earlier.next_addition,
        batch_size=10,
        small_rows=5,
        group_of=config.group_of,
        grouped=config.rules.grouped,
        by_address=AddressGrouping(config, earlier, lookup=lookup, on_grouped=told.append),
        earlier=earlier,
    )
    return told[0]


def groups_of_batches(folder: Path) -> dict[str, set[str]]:
    """The groups of the batches of each ``server_name``."""
    found: dict[str, set[str]] = {}
    for batch in read_index(folder / "urls").batches.to_pylist():
        found.setdefault(batch["server_name"], set()).add(batch["group"])
    return found


def test_batches_are_cut_by_address(tmp_path: Path) -> None:
    write_rows(tmp_path, a_org=12, b_org=2, alone_org=6, private_org=6, private_net=6, unknown_org=6)
    config = config_of(tmp_path, ALL)
    assert clustered(tmp_path, config) == AddressSummary(servers=6, unknown=3, shared=2, groups=1)
    assert groups_of_batches(tmp_path) == {
        "a.org": {"203.0.113.5"},
        "__many__": {"203.0.113.5"},
        **{name: {name} for name in ("alone.org", "private.org", "private.net", "unknown.org")},
    }
    table = read_addresses(tmp_path / "urls")
    assert {name: table.group_of(name) for name in ("a.org", "b.org", "alone.org", "unknown.org", "absent.org")} == {
        "a.org": "203.0.113.5",
        "b.org": "203.0.113.5",
        "alone.org": None,
        "unknown.org": None,
        "absent.org": None,
    }
    assert list(table.names) == ["203.0.113.5"]


def test_without_a_shared_address_the_batches_are_as_without_the_rule(tmp_path: Path) -> None:
    write_rows(tmp_path, a_org=12, alone_org=2, unknown_org=3)
    clustered(tmp_path, config_of(tmp_path, ALL))
    partition_input(
        open_input(str(tmp_path / "urls.txt"), {"identifier": "identifier"}, []),
        tmp_path / "plain",
        batch_size=10,
        small_rows=5,
    )
    assert (tmp_path / "urls/batches.parquet").read_bytes() == (tmp_path / "plain/batches.parquet").read_bytes()


def test_a_rule_before_it_takes_a_server_out_and_other_servers_are_not_looked_up(tmp_path: Path) -> None:
    rules = [{"match": "b.org", "rate_limit": 1}, {"match": "*.org", "per_address": True}]
    write_rows(tmp_path, a_org=6, b_org=6, new_org=6, six_net=6)
    assert clustered(tmp_path, config_of(tmp_path, *rules)) == AddressSummary(2, 0, 2, 1)
    groups = groups_of_batches(tmp_path)
    assert groups == {"a.org": {"203.0.113.5"}, "new.org": {"203.0.113.5"}, "b.org": {"b.org"}, "six.net": {"six.net"}}


def test_ports_and_literal_addresses_share_what_they_name(tmp_path: Path) -> None:
    urls = [f"http://{server}/{row}" for row in range(6) for server in ("127.0.0.1:8080", "127.0.0.1:8081", "[::1]:81")]
    (tmp_path / "urls.txt").write_text("\n".join(urls))
    config = config_of(tmp_path, ALL)
    assert clustered(tmp_path, config) == AddressSummary(3, 1, 2, 1)
    assert groups_of_batches(tmp_path)["127.0.0.1:8081"] == {"127.0.0.1"}
    # Of IPv6, as server names spell it.
    config = config_of(tmp_path, ALL, downloader_parameters={"allow_private_addresses": ["2001:db8::/32"]})
    write_rows(tmp_path, six_org=6, six_net=6)
    clustered(tmp_path, config)
    assert groups_of_batches(tmp_path) == {"six.org": {"[2001:db8::1]"}, "six.net": {"[2001:db8::1]"}}


def test_a_server_that_is_named_as_a_group_is_one_with_it(tmp_path: Path) -> None:
    # Two packed rows of it would be asked for beside the group's, each under all of the limits.
    rules = [{"match": "203.0.113.5", "rate_limit": 50}, ALL]
    urls = [f"http://{server}/{row}" for row in range(2) for server in ("a.org", "b.org", "203.0.113.5")]
    (tmp_path / "urls.txt").write_text("\n".join(urls))
    config = config_of(tmp_path, *rules)
    clustered(tmp_path, config)
    assert groups_of_batches(tmp_path) == {"__many__": {"203.0.113.5"}, "203.0.113.5": {"203.0.113.5"}}
    config = config.with_addresses(read_addresses(tmp_path / "urls"))
    assert config.group_of("203.0.113.5") == "203.0.113.5"
    assert config.limits_for("203.0.113.5").rate_per_s == 3


def test_the_limits_of_an_address_are_those_of_the_rule(tmp_path: Path) -> None:
    write_rows(tmp_path, a_org=6, b_org=6, alone_org=6)
    rule = {**ALL, "match": "*.org", "bytes_per_day": 1e9}
    config = config_of(tmp_path, rule)
    clustered(tmp_path, config)
    assert config.group_of("b.org") == "b.org"
    config = config.with_addresses(read_addresses(tmp_path / "urls"))
    assert [config.group_of(name) for name in ("b.org", "alone.org", "new.org")] == [
        "203.0.113.5",
        "alone.org",
        "new.org",
    ]
    limits = limits_by_group(config, {})
    assert limits("203.0.113.5") == limits("alone.org") == Limits(3.0, 2, bytes_per_day=1e9)
    assert limits("203.0.113.6") == Limits(10.0, 8)
    assert config.with_debug().group_of("a.org") == "203.0.113.5"
    assert Config.model_validate_json(config.model_dump_json()).group_of("a.org") == "a.org"


def test_new_servers_join_the_groups_that_are_there(tmp_path: Path) -> None:
    before = {"a_org": 12, "b_org": 2, "alone_org": 6}
    config = config_of(tmp_path, ALL)
    write_rows(tmp_path, **before)
    clustered(tmp_path, config)
    first = (tmp_path / "urls/addresses.parquet").read_bytes()
    write_rows(tmp_path, **before, new_org=6, beside_org=6, six_org=6, six_net=6)
    assert clustered(tmp_path, config, known=20).servers == 4
    groups = groups_of_batches(tmp_path)
    assert (groups["new.org"], groups["beside.org"]) == ({"203.0.113.5"}, {"alone.org"})
    assert (tmp_path / "urls/addresses.parquet").read_bytes() == first
    config = config.with_addresses(read_addresses(tmp_path / "urls"))
    assert config.group_of("beside.org") == config.group_of("alone.org") == "alone.org"
    assert config.limits_for("alone.org").rate_per_s == 3


def test_who_is_in_a_packed_batch_keeps_limits_of_its_own(tmp_path: Path) -> None:
    config = config_of(tmp_path, ALL)
    write_rows(tmp_path, alone_org=2)
    clustered(tmp_path, config)
    write_rows(tmp_path, alone_org=2, beside_org=6)
    clustered(tmp_path, config, known=2)
    assert groups_of_batches(tmp_path) == {"__many__": {"__many__/0"}, "beside.org": {"beside.org"}}


def test_a_machine_without_a_resolver_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path, **{f"gone{number}_org": 1 for number in range(9)}, a_org=1)
    config = config_of(tmp_path, ALL)
    assert clustered(tmp_path, config).unknown == 9
    write_rows(tmp_path, **{f"gone{number}_org": 1 for number in range(10)})
    with pytest.raises(SetupError, match="none of the 10 names"):
        clustered(tmp_path, config)


def test_a_stop_during_the_look_up_leaves_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path, a_org=6)
    config = config_of(tmp_path, ALL)
    table = open_input(config.input_name, config.columns.as_lists(), [])
    grouping = AddressGrouping(config, lookup=lookup, should_stop=lambda: True)
    with pytest.raises(Interrupted):
        partition_input(table, tmp_path / "urls", batch_size=10, small_rows=5, by_address=grouping)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["urls.txt"]
