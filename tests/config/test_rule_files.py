"""Rules for servers that come from files: which of them win, what is refused, and what users are told of them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.config.config import Config, load, parse
from ddmpi.config.rule_files import FOLDER, KNOWN_HOSTS
from ddmpi.config.sections import ServerRule, ServerRules
from ddmpi.core.records import Limits
from ddmpi.errors import ConfigError
from tests.whole.job import make_job


def make(**keys: object) -> Config:
    return parse({"path_to_input": "urls.parquet", "path_to_output_folder": "out", **keys}, "test")


def file_of(folder: Path, text: str) -> str:
    path = folder / "rules.yaml"
    path.write_text(text)
    return str(path)


def test_known_hosts_get_what_they_ask_for_without_a_word_in_the_config() -> None:
    config = make()
    assert config.limits_for("upload.wikimedia.org") == Limits(10.0, 2, bytes_per_s=25e6 / 8)
    assert config.limits_for("static.inaturalist.org") == Limits(10.0, 8, bytes_per_hour=5e9, bytes_per_day=24e9)
    for server in ("archive.org", "ia800.us.archive.org"):
        assert config.group_of(server) == "internet-archive"
        assert config.limits_for(server) == Limits(2.0, 2)
    assert config.group_of("api.gbif.org") == config.group_of("www.gbif.org")
    assert config.limits_for("api.gbif.org").rate_per_s == 1
    assert config.is_known_host("upload.wikimedia.org")
    assert config.limits_for("b.s3.eu-west-1.amazonaws.com") == config.limits_for("storage.googleapis.com")
    assert config.limits_for("inaturalist-open-data.s3.amazonaws.com") == Limits(100.0, 32)
    assert config.limits_for("huggingface.co").rate_per_s == 10
    assert config.limits_for("zenodo.org").rate_per_s < 2000 / 3600
    assert not config.is_known_host("example.org")
    assert config.limits_for("notarchive.org") == Limits(10.0, 8)


def test_each_known_host_says_where_its_limit_is_from() -> None:
    for rule in make().rules.root:
        assert rule.source is not None
        assert rule.source.startswith(("stated: ", "observed: ", "careful guess: ")), rule.match


def test_a_rule_of_the_config_wins_and_an_empty_list_means_no_files() -> None:
    config = make(servers=[{"match": "upload.wikimedia.org", "rate_limit": 50}, {"match": "archive.org"}])
    assert config.limits_for("upload.wikimedia.org") == Limits(50.0, 8)
    assert not config.is_known_host("upload.wikimedia.org")
    assert config.group_of("archive.org") == "archive.org"
    assert config.group_of("a.archive.org") == "internet-archive"
    assert make(servers_from=[]).limits_for("upload.wikimedia.org") == Limits(10.0, 8)


def test_a_group_that_the_config_names_keeps_the_limits_of_the_config() -> None:
    config = make(servers=[{"match": "*.mirror.net", "group": "internet-archive", "rate_limit": 5}])
    assert config.limits_for("ia800.archive.org") == config.limits_for("a.mirror.net") == Limits(5.0, 8)


def test_addresses_have_the_limits_of_the_config_whatever_a_file_says(tmp_path: Path) -> None:
    path = file_of(tmp_path, "servers:\n  - {match: '*', per_address: true, rate_limit: 3}\n")
    config = make(servers=[{"match": "*.org", "per_address": True, "rate_limit": 5}], servers_from=[KNOWN_HOSTS, path])
    assert [rule.rate_limit for rule in config.rules.per_address] == [5, 5]
    assert config.limits_for("upload.wikimedia.org").rate_per_s == 5
    assert make(servers_from=[KNOWN_HOSTS, path]).limits_for("upload.wikimedia.org").connections == 2
    assert make(servers_from=[KNOWN_HOSTS, path]).limits_for("a.net").rate_per_s == 3


def test_files_of_the_users_own(tmp_path: Path) -> None:
    path = file_of(tmp_path, "servers:\n  - {match: upload.wikimedia.org, rate_limit: 3}\n")
    assert make(servers_from=[path]).limits_for("upload.wikimedia.org") == Limits(3.0, 8)
    assert make(servers_from=[path]).limits_for("api.gbif.org") == Limits(10.0, 8)
    assert make(servers_from=[path, KNOWN_HOSTS]).limits_for("upload.wikimedia.org") == Limits(3.0, 8)
    assert make(servers_from=[KNOWN_HOSTS, path]).limits_for("upload.wikimedia.org").connections == 2
    copy = file_of(tmp_path, (FOLDER / f"{KNOWN_HOSTS}.yaml").read_text())
    assert make(servers_from=[copy]).rules == make().rules


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("servers: [{match: a, rate: 3}]", "servers[0].rate: unknown key; did you mean servers[0].rate_limit?"),
        ("servers: [{match: a, rate_limit: -1}]", "servers[0].rate_limit: -1: expected a number from 0 to 1000000"),
        ("- {match: a}", "the config: "),
        ("servers: [", "is not valid YAML"),
        ("servers: []\nservers: []", "line 2: the key 'servers' stands twice"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_name(tmp_path: Path, text: str, expected: str) -> None:
    path = file_of(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        make(servers_from=[path])
    assert f"servers_from: {path}: " in str(caught.value)
    assert expected in str(caught.value)


def test_a_file_that_is_missing_is_told_beside_other_problems(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "path_to_input: a\npath_to_output_folder: b\nservers_from: [nowhere.yaml]\nservers_from: [x.yaml]\n"
    )
    with pytest.raises(ConfigError, match=r"2 problems\n.*stands twice\n.*servers_from: x.yaml: cannot be read"):
        load(path)


def test_groups_of_files_are_part_of_the_identity_and_plain_rules_of_other_servers_are_not() -> None:
    identity = make().identity_hash()
    assert make(servers_from=[]).identity_hash() != identity
    assert make(servers=[{"match": "*.example.org"}, {"match": "a"}]).identity_hash() == identity
    for takes_away in ("x.archive.org", "*", "*.org", "ia*.us.archive.org"):
        assert make(servers=[{"match": takes_away}]).identity_hash() != identity


names = st.text("ab.[]*?!:", min_size=1, max_size=6)


@given(st.lists(names, min_size=1, max_size=4), names, st.booleans())
def test_a_rule_is_found_exactly_where_a_pattern_matches(patterns: list[str], server: str, is_group: bool) -> None:
    rules = ServerRules(tuple(ServerRule(match=pattern, group="b.a" if is_group else None) for pattern in patterns))
    matching = [rule for rule in rules.root if rule.match == server or fnmatchcase(server, rule.match)]
    by_name = [rules.root[0]] if is_group and server == "b.a" else []
    assert rules.find(server) is next(iter([*by_name, *matching]), None)


def test_users_are_told_which_limits_they_did_not_set_and_that_no_contact_is_named(tmp_path: Path) -> None:
    rows = ["http://static.inaturalist.org/a.png", "https://a.archive.org/b.png", "http://example.org/c.png"]
    (tmp_path / "urls.txt").write_text("\n".join(rows) + "\n")
    # The proxy refuses everything: nothing is sent anywhere.
    job = make_job(
        tmp_path / "job",
        tmp_path / "urls.txt",
        downloader_parameters={"proxy": "http://127.0.0.1:1", "max_attempts": 1, "header": "User-Agent: me/1"},
        profiling={"mode": "uniform"},
        breaker={"failures": 1, "probes": 1, "longest_s": 1},
        parked_wait_s=0,
    )
    _, printed = job.run(1)
    assert printed.count("Warning: the User-Agent names no contact") == 1
    assert "Limits of known hosts (servers_from) hold for internet-archive, static.inaturalist.org\n" in printed


def test_a_job_for_servers_that_ask_for_a_contact_does_not_start_without_one(tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text("http://upload.wikimedia.org/a.png\nhttp://example.org/c.png\n")
    job = make_job(
        tmp_path / "job", tmp_path / "urls.txt", downloader_parameters={"header": "User-Agent: me/1"},
        profiling={"mode": "uniform"},
    )  # fmt: skip
    told = r"(?s)^upload\.wikimedia\.org: the policy of these servers asks for a contact .*: \{header: \"User-Agent: "
    for command in ("--check", "--plan"):
        with pytest.raises(ConfigError, match=told):
            job.inspect(command)
    code, printed = job.run(1)
    assert code == 2
    assert "ddmpi: upload.wikimedia.org: the policy of these servers asks for a contact" in printed
    (job.output / "ignored.csv").write_text("server_name\nupload.wikimedia.org\n")
    job.inspect("--plan")
