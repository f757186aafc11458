"""The plan that is made of config, table and profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

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
