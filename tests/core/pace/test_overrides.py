"""Limits that change while a run goes on: the rules, the file, the shares, and whole simulated runs."""

from __future__ import annotations

import random
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.config.control_file import parse_control
from ddmpi.core.pace.overrides import NO_OVERRIDES, Overrides, describe_changes
from ddmpi.core.protocol import ControlOverride, StopReason
from ddmpi.core.records import Limits
from ddmpi.errors import ConfigError
from ddmpi.io.folder.layout import Layout
from ddmpi.roles.coordinator.live_control import LOOK_INTERVAL_S, Controller
from tests.laws.laws import Laws, run
from tests.simulation.disk import Disk
from tests.simulation.simulation import Simulation
from tests.worlds.at_random import random_cluster, random_world, table
from tests.worlds.model import Cluster, ServerModel, World

PLANNED = Limits(10.0, 8, 1000.0, 5000.0)

# ---- rules


def test_the_first_rule_that_matches_counts() -> None:
    control = Overrides(
        [ControlOverride("a.org", rate_per_s=1.0), ControlOverride("*.org", pause=True), ControlOverride("[x]")]
    )
    assert control.limits("a.org", PLANNED) == Limits(1.0, 8, 1000.0, 5000.0)
    assert control.limits("b.org", PLANNED) is None
    assert control.limits("[x]", PLANNED) == PLANNED
    assert control.limits("c.net", PLANNED) is PLANNED
    assert NO_OVERRIDES.share("a.org", PLANNED, Limits(5.0, 4)) == Limits(5.0, 4)


limits = st.builds(
    Limits,
    rate_per_s=st.sampled_from([0.0, 0.5, 10.0, 900.0]),
    connections=st.integers(1, 40),
    bytes_per_s=st.sampled_from([0.0, 1e6]),
)


@given(whole=limits, now=limits, data=st.data())
def test_the_parts_of_all_lanes_add_up_to_the_limits_that_hold_now(whole: Limits, now: Limits, data: Any) -> None:
    control = Overrides([ControlOverride("s", False, now.rate_per_s, now.connections, now.bytes_per_s)])
    shares = whole.divided(data.draw(st.integers(1, whole.connections)))
    parts = [part for part in (control.share("s", whole, share) for share in shares) if part is not None]
    assert sum(part.connections for part in parts) == now.connections
    assert all(part.connections >= 1 for part in parts)
    assert sum(part.rate_per_s for part in parts) <= now.rate_per_s * (1 + 1e-9)
    assert all((part.rate_per_s > 0) == (now.rate_per_s > 0) for part in parts), "0 would mean: no limit"
    assert all((part.bytes_per_s > 0) == (now.bytes_per_s > 0) for part in parts)
    total = shares[0]
    for share in shares[1:]:
        total = total.plus(share)
    assert control.share("s", whole, total) == now


def test_servers_are_given_up_by_name_group_or_glob_and_not_held() -> None:
    control = Overrides(
        [
            ControlOverride("*", pause=True),
            ControlOverride("a.org", give_up=True),
            ControlOverride("*.b.org", give_up=True),
        ]
    )
    assert control.gives_up("a.org", "a.org")
    assert control.gives_up("x.b.org", "10.0.0.1")
    assert control.gives_up("other.net", "a.org")
    assert not control.gives_up("c.org", "c.org")
    assert control.limits("a.org", PLANNED) == PLANNED, "its rows have to be read"
    assert control.limits("c.org", PLANNED) is None
    assert not NO_OVERRIDES.gives_up("a.org")


def test_changes_are_told_in_words() -> None:
    before = [ControlOverride("a", pause=True), ControlOverride("b", rate_per_s=2.0), ControlOverride("c")]
    after = [
        ControlOverride("a", rate_per_s=0.0, connections=2, bytes_per_hour=1e6),
        ControlOverride("c"),
        ControlOverride("d", pause=True),
        ControlOverride("e", give_up=True),
    ]
    assert describe_changes(before, after) == [
        "a: now unlimited requests/s, 2 connections, 1e+06 bytes/hour", "d: held",
        "e: given up: its rows become errors", "b: limits as configured again",
    ]  # fmt: skip


# ---- the file


def test_a_file_means_its_rules() -> None:
    parsed = parse_control(
        "servers:\n- {match: a.org, pause: true}\n"
        "- {match: '*.b.org', rate_limit: 0.5, max_connections: 1, bytes_per_hour: 5}\n"
        "- {match: c.org, give_up: true}\n"
        "stop: true\n",
        "control.yaml",
    )
    assert parsed.rules() == (
        ControlOverride("a.org", pause=True),
        ControlOverride("*.b.org", False, 0.5, 1, bytes_per_hour=5),
        ControlOverride("c.org", give_up=True),
    )
    assert parsed.stop
    assert parse_control("", "control.yaml").rules() == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("servers: [{match: a.org, rate_limt: 2}]", "servers[0].rate_limt: unknown key; did you mean"),
        ("servers: [{match: a.org, rate_limit: -2}]", "servers[0].rate_limit: -2: expected a number from 0 to 1000000"),
        ("servers: [{pause: true}]", "servers[0].match: missing"),
        ("servers: [{match: a.org, max_connections: 0}]", "max_connections: 0: expected a whole number from 1"),
        ("stopp: true", "stopp: unknown key; did you mean stop?"),
        ("servers: [", "not valid YAML"),
        ("- a", "expected a mapping"),
        ("stop: true\nstop: false", "stands twice"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_control(text, "control.yaml")
    assert told in str(caught.value)


class Calls:
    """Stands for the coordinator: keeps what it was told."""

    def __init__(self) -> None:
        self.rules: list[tuple[ControlOverride, ...]] = []
        self.stops: list[tuple[StopReason, float]] = []

    def set_overrides(self, rules: tuple[ControlOverride, ...]) -> None:
        self.rules.append(rules)

    def stop(self, reason: StopReason, now: float) -> None:
        self.stops.append((reason, now))


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    layout, told, calls = Layout(tmp_path), list[str](), Calls()
    layout.ignored.write_text("old.org\n")
    layout.control.write_text("servers: [{match: a.org, pause: true}]\nstop: true\n")
    controller = Controller(layout, told.append)
    assert controller.first_rules() == (ControlOverride("a.org", pause=True),)
    assert "says stop" in told[0]
    now = 0.0

    def look() -> None:
        nonlocal now
        now += LOOK_INTERVAL_S
        controller.on_turn(calls, now)

    look()
    layout.control.write_text("servers: [{match: a.org, paus: true}]\n")
    look()
    assert "nothing of it is used" in told[-1]
    assert (calls.rules, calls.stops) == ([], []), "what holds goes on"
    layout.control.write_text("servers: [{match: a.org, rate_limit: 3}]\n")
    look()
    layout.ignored.write_text("old.org\n*.new.org\n")
    look()
    layout.control.unlink()
    look()
    assert calls.rules == [
        (ControlOverride("a.org", rate_per_s=3.0),),
        (ControlOverride("*.new.org", pause=True), ControlOverride("a.org", rate_per_s=3.0)),
        (ControlOverride("*.new.org", pause=True),),
    ]
    layout.control.write_text("stop: true\n")
    look()
    at = now
    look()
    assert calls.stops == [(StopReason.CONTROL, at)]
    assert controller.changes[-3:] == ["*.new.org: held", "a.org: limits as configured again", "stop"]


def test_a_rule_that_changes_nothing_is_told(tmp_path: Path) -> None:
    layout, told = Layout(tmp_path), list[str]()
    layout.control.write_text("servers: [{match: a.org, pause: true}, {match: b.org, rate_limit: 1}]\n")
    controller = Controller(layout, told.append, {"a.org": "", "b.org": "no server"}.__getitem__)
    controller.first_rules()
    assert told[-1] == "Warning: control.yaml: b.org: no server"
    assert sum("Warning" in line for line in told) == 1


# ---- whole runs


def one_server(rows: int, limits: Limits) -> World:
    return World(table({"a": rows}, {}, batch_size=100, small_rows=0), {"a": ServerModel()}, default_limits=limits)


def simulate(world: World, cluster: Cluster, seed: int = 1) -> tuple[Any, Disk]:
    disk = Disk()
    laws = Laws(world, disk)
    return run(Simulation(world, cluster, disk, laws, seed=seed), laws), disk


def test_a_pause_holds_everything_until_it_is_over() -> None:
    pause = [ControlOverride("a", pause=True)]
    report, _ = simulate(
        one_server(300, Limits(10.0, 4)), Cluster(2, controls=[(10.0, pause), (500.0, [])], parked_wait_s=1e12)
    )
    assert 515 < report.ended_at_s < 535, "10 s before the pause, 20 s after it"


def test_a_run_that_only_waits_for_paused_servers_ends_with_rows_pending() -> None:
    world = World(
        table({"a": 300, "b": 300}, {}, batch_size=100, small_rows=0), {"a": ServerModel(), "b": ServerModel()}
    )
    report, disk = simulate(world, Cluster(2, controls=[(5.0, [ControlOverride("a", pause=True)])]))
    assert report.was_stuck
    assert 300 < sum(len(part.rows) for part in disk.parts.values()) < 400
    assert report.ended_at_s < 60


@pytest.mark.parametrize("small_rows", [0, 1_000])
def test_a_server_that_is_given_up_is_not_asked_again_and_its_rows_are_final_once(small_rows: int) -> None:
    """In batches of its own, and packed with another one that goes on."""
    batches = table({"a": 300, "b": 300}, {}, batch_size=100, small_rows=small_rows)
    world = World(batches, {"a": ServerModel(), "b": ServerModel()}, default_limits=Limits(2.0, 1))
    report, disk = simulate(world, Cluster(2, controls=[(20.0, [ControlOverride("a", give_up=True)])]))
    assert not report.was_stuck
    assert 145 < report.ended_at_s < 165, "b alone takes its time"
    assert sum(len(part.rows) for part in disk.parts.values()) == 600
    assert 255 < sum(len(part.rows) for part in disk.parts.values() if part.is_errors) < 262


def test_a_rate_that_is_raised_or_lowered_counts_at_once() -> None:
    faster = [ControlOverride("a", rate_per_s=50.0)]
    report, _ = simulate(one_server(600, Limits(10.0, 8)), Cluster(1, controls=[(10.0, faster)]))
    assert 18 < report.ended_at_s < 24
    slower = [ControlOverride("*", rate_per_s=1.0)]
    report, _ = simulate(one_server(160, Limits(10.0, 8)), Cluster(1, controls=[(10.0, slower)]))
    assert 60 < report.ended_at_s < 80


@pytest.mark.parametrize(
    "connections", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)]
)
def test_of_fewer_connections_than_lanes_all_are_used_until_the_last_row(connections: int) -> None:
    fewer = [ControlOverride("a", connections=connections)]
    world = one_server(3_200, Limits(0.0, 8))
    cluster = Cluster(8, schedule_rules={1: 8}, controls=[(1.0, fewer)], parked_wait_s=5.0)
    report, disk = simulate(world, cluster)
    assert not report.was_stuck
    assert sum(len(part.rows) for part in disk.parts.values()) == 3_200
    planned, _ = simulate(one_server(3_200, Limits(0.0, connections)), Cluster(1))
    assert report.ended_at_s < 1.05 * planned.ended_at_s, "none of them is left unused"


def test_small_servers_that_share_a_batch_are_controlled_one_by_one() -> None:
    world = World(
        table({"a": 20, "b": 20}, {}, batch_size=100, small_rows=50),
        {"a": ServerModel(), "b": ServerModel()},
        default_limits=Limits(2.0, 1),
    )
    cluster = Cluster(1, controls=[(2.0, [ControlOverride("a", pause=True)]), (60.0, [])], parked_wait_s=1e12)
    report, _ = simulate(world, cluster)
    assert 65 < report.ended_at_s < 75


@pytest.mark.parametrize("seed", range(20))
def test_the_laws_hold_whatever_is_changed_and_when(seed: int) -> None:
    rng = random.Random(f"control {seed}")
    world = random_world(rng, has_budgets=False)
    names = [*world.servers, "joint", "s*", "*"]
    controls = [
        (rng.uniform(0, 30), [_random_rule(rng, names) for _ in range(rng.choice([0, 1, 3]))]) for _ in range(4)
    ]
    cluster = random_cluster(rng)
    # Pauses that grow end within 10 s: all ranks report twice a second while the run waits for hours.
    cluster = replace(
        cluster,
        controls=[*sorted(controls, key=itemgetter(0)), (40.0, [])],
        pace=replace(cluster.pace, backoff_cap_s=10.0),
        parked_wait_s=1e12,
    )
    report, _ = simulate(world, cluster, seed)
    assert not report.was_stuck


def _random_rule(rng: random.Random, names: list[str]) -> ControlOverride:
    return ControlOverride(
        rng.choice(names),
        pause=rng.random() < 0.3,
        rate_per_s=rng.choice([None, 0.0, 1.0, 50.0, 3000.0]),
        connections=rng.choice([None, 1, 2, 40]),
    )
