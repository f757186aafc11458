"""Limits per IP address over runs: restarts, an input that has grown, a lost table, and a real job."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.config.config import Config
from ddmpi.core.records import Orders
from ddmpi.errors import OutputError
from ddmpi.io.folder.layout import Layout
from ddmpi.io.urls.address_grouping import AddressSummary
from ddmpi.io.urls.address_table import located
from ddmpi.roles.coordinator.initialization import InitCallbacks, initialize, own_output
from ddmpi.roles.coordinator.run_state import RunState
from tests.fleet.log import EventKind
from tests.fleet.process import running_fleet
from tests.fleet.spec import ServerSpec
from tests.fleet.table import path_of
from tests.io.urls.test_address_grouping import ALL, config_of, write_rows
from tests.whole.job import ARRIVAL_SLACK_S, assert_every_row_once, assert_polite, make_job


@contextmanager
def opened(config: Config, orders: Orders = Orders()) -> Iterator[tuple[RunState, list[AddressSummary]]]:  # noqa: B008
    """The output folder at the start of a run, and what was looked up."""
    layout = Layout(Path(config.path_to_output_folder))
    told: list[AddressSummary] = []
    reporting = InitCallbacks(lambda _: None, lambda _: None, lambda: False, on_grouped=told.append)
    lock = own_output(layout, {})
    try:
        yield initialize(config, layout, lock, orders, reporting), told
    finally:
        lock.release()


def connected(folder: Path, targets: dict[str, str], *rules: dict[str, Any]) -> Config:
    """A config by which servers are where ``targets`` says, so that nobody is asked for a name."""
    parameters = {
        "batch_size": 10,
        "allow_private_addresses": ["127.0.0.0/8"],
        "connect_to": [f"{name}::{address}:" for name, address in targets.items()],
    }
    return config_of(folder, *(rules or (ALL,)), downloader_parameters=parameters)


def test_groups_stay_as_they_are_although_addresses_change(tmp_path: Path) -> None:
    write_rows(tmp_path, a_org=6, b_org=6)
    with opened(connected(tmp_path, {"a.org": "127.0.0.3", "b.org": "127.0.0.3"})) as (state, told):
        assert told == [AddressSummary(2, 0, 2, 1)]
        assert state.config.group_of("a.org") == "127.0.0.3"
        assert list(state.table.group_names) == ["127.0.0.3"]
    moved = connected(tmp_path, {"a.org": "127.0.0.4", "b.org": "127.0.0.5"})
    with opened(moved) as (state, told):
        assert told == []
        assert state.config.group_of("a.org") == state.config.group_of("b.org") == "127.0.0.3"
    with opened(moved, replace(Orders(), reset_batched=True)) as (state, told):
        assert told == [AddressSummary(2, 0, 0, 0)]
        assert state.config.group_of("a.org") == "a.org"


def test_a_grown_input_is_looked_up_only_where_it_is_new(tmp_path: Path) -> None:
    where = {"a.org": "127.0.0.3", "b.org": "127.0.0.3", "new.org": "127.0.0.3"}
    write_rows(tmp_path, a_org=6, b_org=6)
    with opened(connected(tmp_path, where)):
        pass
    write_rows(tmp_path, a_org=6, b_org=6, new_org=6)
    with opened(connected(tmp_path, where)) as (state, told):
        assert told == [AddressSummary(1, 0, 1, 1)]
        assert list(state.table.group_names) == ["127.0.0.3"]
        assert state.config.group_of("new.org") == "127.0.0.3"


@pytest.mark.parametrize("rules", [[], [{"match": "*.org", "per_address": True}]], ids=["without", "for others"])
def test_another_rule_is_another_job(tmp_path: Path, rules: list[dict[str, Any]]) -> None:
    write_rows(tmp_path, a_org=6)
    with opened(connected(tmp_path, {"a.org": "127.0.0.3"})):
        pass
    config = config_of(tmp_path, *rules)
    with pytest.raises(OutputError, match=r"servers\.groups: was \[\['\*', '__per_address__'\]\]"), opened(config):
        pass


def test_other_limits_may_be_set(tmp_path: Path) -> None:
    write_rows(tmp_path, a_org=6, b_org=6)
    where = {"a.org": "127.0.0.3", "b.org": "127.0.0.3"}
    with opened(connected(tmp_path, where)):
        pass
    with opened(connected(tmp_path, where, {**ALL, "rate_limit": 7})) as (state, _):
        assert state.config.limits_for("127.0.0.3").rate_per_s == 7


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.unlink(), id="missing"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-20]), id="cut off"),
        pytest.param(lambda path: pq.write_table(pa.table({"x": [1]}), path), id="another table"),
    ],
)
def test_a_lost_table_is_named(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    write_rows(tmp_path, a_org=6)
    config = connected(tmp_path, {"a.org": "127.0.0.3"})
    with opened(config):
        pass
    damage(tmp_path / "out/urls/addresses.parquet")
    with pytest.raises(OutputError, match=r"urls/addresses\.parquet"), opened(config):
        pass


def test_without_such_a_rule_no_table_is_written_or_read(tmp_path: Path) -> None:
    write_rows(tmp_path, a_org=6)
    config = config_of(tmp_path)
    with opened(config):
        pass
    assert not (tmp_path / "out/urls/addresses.parquet").exists()
    assert located(config, Layout(tmp_path / "out")) is config


def test_an_address_gets_no_more_than_its_limit_whatever_names_lead_to_it(tmp_path: Path) -> None:
    rate, rows = 30.0, 60
    shared, redirector = ServerSpec("127.16.0.1"), ServerSpec("127.16.0.2", redirect_to="127.16.0.1")
    with running_fleet(tmp_path / "fleet", [shared, redirector]) as fleet:
        servers = ["a.test", "b.test", "b.test:8080", shared.name(fleet.port), redirector.name(fleet.port)]
        urls = [f"http://{servers[row % 5]}{path_of(row)}" for row in range(rows)]
        pq.write_table(pa.table({"identifier": urls}), tmp_path / "urls.parquet")
        target = f"127.16.0.1:{fleet.port}"
        job = make_job(
            tmp_path / "job",
            tmp_path / "urls.parquet",
            downloader_parameters={"connect_to": [f"a.test::{target}", f"b.test::{target}"], "batch_size": 10},
            servers=[{"match": "*", "per_address": True, "rate_limit": rate, "max_connections": 3}],
            profiling={"min_rows": 5},
        )
        try:
            code, printed = job.run(3)
        finally:
            job.close()
        log = fleet.finished_log()
    assert code == 0, printed
    assert "Addresses: 4 of 5 servers share one, in 1 group" in printed
    assert_every_row_once(job, rows)
    assert_polite(log, {shared.name(fleet.port): rate}, connections=3, closing_s=ARRIVAL_SLACK_S)
    asked = sum(event.kind is EventKind.REQUEST and event.server == shared.name(fleet.port) for event in log)
    assert asked == rows
    with (job.output / "logs/politeness.csv").open(newline="") as file:
        audited = {line["server_name"]: line for line in csv.DictReader(file)}
    assert set(audited) == {"127.16.0.1", redirector.name(fleet.port)}
    assert int(audited["127.16.0.1"]["requests"]) == asked
    assert int(audited["127.16.0.1"]["highest_1s"]) <= rate + 3
    assert int(audited["127.16.0.1"]["connections"]) == 3
    assert float(audited["127.16.0.1"]["rate_limit"]) == rate
