"""The plan that is made of config, table and profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmpi.config.config import parse
from ddmpi.core.ledger.profile import Profile
from ddmpi.core.ledger.schedule import Plan
from ddmpi.core.records import MANY_SERVERS, Limits
from ddmpi.io.urls.batch_table import limits_by_group, make_plan
from tests.roles.coordinator.states import make_state


def plan(tmp_path: Path, *profiles: Profile) -> Plan:
    """A large server and a pack of two small ones; 10 requests per second each, as the config says."""
    state = make_state(tmp_path, {"large.org": 30, "a.net": 3, "b.net": 2})
    known = {profile.server_name: profile for profile in profiles}
    return make_plan(
        state.table, state.config, rows=state.counts.rows, profiles=known, limits=limits_by_group(state.config, known),
        ref=state.ref, workers=[1],
    )  # fmt: skip


def test_the_plan_knows_how_many_connections_a_rank_has(tmp_path: Path) -> None:
    assert plan(tmp_path).connections_per_rank == 256


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        pytest.param(Profile("a.net", 1, 0, 0, 2.0), {"a.net": Limits(2.0, 8)}, id="a lower rate counts"),
        pytest.param(Profile("a.net", 1, 0, 0, 10.0), {}, id="the config's own need not be told"),
        pytest.param(Profile("a.net", 1, 0, 0, 20.0), {}, id="nor a higher one, which does not count"),
        pytest.param(Profile("absent.net", 1, 0, 0, 2.0), {}, id="nor that of a server of another table"),
    ],
)
def test_profiles_of_packed_servers_count(tmp_path: Path, profile: Profile, expected: dict[str, Limits]) -> None:
    made = plan(tmp_path, profile)
    assert made.server_limits == ({f"{MANY_SERVERS}/0": expected} if expected else {})


def test_the_profile_of_a_large_server_is_in_its_limits(tmp_path: Path) -> None:
    made = plan(tmp_path, Profile("large.org", 2, 0, 0, 2.0))
    assert (made.limits("large.org").rate_per_s, made.server_limits) == (2.0, {})


@pytest.mark.parametrize(
    ("values", "profile", "rate_per_s"),
    [
        pytest.param({"default_rate_limit": 50}, Profile("a", 1, 0, 0, 5.0, configured_rate=5.0), 50.0, id="raised"),
        pytest.param({"default_rate_limit": 2}, Profile("a", 1, 0, 0, 5.0, configured_rate=5.0), 2.0, id="lowered"),
        pytest.param({"default_rate_limit": 50}, Profile("a", 1, 0, 0, 3.0, configured_rate=5.0), 3.0, id="by hand"),
        pytest.param({"rate_multiplier": 4}, Profile("a", 1, 0, 0, 10.0, configured_rate=10.0), 40.0, id="scaled"),
        pytest.param({"rate_multiplier": 4}, None, 10.0, id="only where it was profiled"),
        pytest.param({"rate_multiplier": 4}, Profile("b", 1, 0, 0, 20.0, configured_rate=20.0), 5.0, id="never a rule"),
    ],
)
def test_the_limit_of_now_counts_whatever_it_was_when_the_server_was_profiled(
    values: dict[str, float], profile: Profile | None, rate_per_s: float
) -> None:
    config = parse(
        {
            "path_to_input": "urls.txt",
            "path_to_output_folder": "out",
            "downloader_parameters": values,
            "servers": [{"match": "b", "rate_limit": 5}],
        },
        "test",
    )
    server = "a" if profile is None else profile.server_name
    limits = limits_by_group(config, {} if profile is None else {server: profile})
    assert limits(server).rate_per_s == rate_per_s
