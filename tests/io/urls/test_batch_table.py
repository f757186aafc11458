"""The plan that is made of config, table and profiles."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ddmpi.config.config import parse
from ddmpi.core.ledger.profile import Profile
from ddmpi.core.ledger.schedule import Plan
from ddmpi.core.records import INVALID_SERVER, MANY_SERVERS, Limits
from ddmpi.io.folder.layout import Layout
from ddmpi.io.input.table import open_input
from ddmpi.io.urls.batch_table import BatchTable, limits_by_group, make_plan
from ddmpi.io.urls.writer import partition_input
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
    ("group", "text"),
    [
        pytest.param("large.org", "large.org", id="a server"),
        pytest.param(f"{MANY_SERVERS}/0", "a.net and 1 more small server", id="a packed batch"),
        pytest.param(f"{MANY_SERVERS}/1", "small servers", id="a packed batch of another table"),
        pytest.param(INVALID_SERVER, "refused URLs", id="refused rows"),
    ],
)
def test_how_a_group_is_shown(tmp_path: Path, group: str, text: str) -> None:
    table = make_state(tmp_path, {"large.org": 30, "a.net": 3, "b.net": 2}).table
    assert table.shown_group(group) == text


@pytest.mark.parametrize("is_old", [False, True], ids=["counted", "by a release before"])
def test_a_url_takes_the_time_of_one_row(tmp_path: Path, *, is_old: bool) -> None:
    """30 rows of 10 URLs, as many rows of as many URLs, and a pack of 6 rows, 4 URLs."""
    urls = [f"http://{host}/{row % most}" for host, most in (("a.org", 10), ("b.org", 99)) for row in range(30)]
    urls += [f"http://{host}/{row // 2}" for host in ("c.net", "d.net") for row in range(3)]
    (tmp_path / "in.txt").write_text("\n".join(urls) + "\n")
    config = parse({"path_to_input": str(tmp_path / "in.txt"), "path_to_output_folder": str(tmp_path / "out")}, "test")
    table = open_input(config.input_name, {}, ())
    layout = Layout(tmp_path / "out")
    layout.root.mkdir()
    partition_input(table, layout.urls, batch_size=20, small_rows=5)
    if is_old:
        path = layout.urls / "servers.parquet"
        pq.write_table(pq.read_table(path).drop_columns(["urls"]), path)
    batches, limits = BatchTable(layout), limits_by_group(config, {})
    made = make_plan(batches, config, rows=batches.rows, profiles={}, limits=limits, ref=batches.ref, workers=[1])
    times = dict(zip(made.group_names, (made.row_times * 10).tolist(), strict=True))
    shares = [1.0, 1.0, 1.0] if is_old else [1 / 3, 1.0, 2 / 3]
    largest = 3 / 6  # a packed batch takes as long as its largest server
    assert times == pytest.approx({"a.org": shares[0], "b.org": shares[1], f"{MANY_SERVERS}/0": shares[2] * largest})


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
