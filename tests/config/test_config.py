"""The config: what loads, what is refused and with which words, and what follows from it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ddmpi
from ddmpi.config.config import LATER_SEMANTIC_KEYS, Config, Keys, load, parse
from ddmpi.config.messages import known_keys
from ddmpi.core.records import Limits
from ddmpi.core.rules.verdict import RETRY_STATUSES
from ddmpi.errors import EXIT_SETUP, ConfigError

ROOT = Path(__file__).parents[2]
REQUIRED = {"path_to_input": "urls.parquet", "path_to_output_folder": "out"}


def make(**keys: object) -> Config:
    return parse({**REQUIRED, **keys}, "test")


def make_downloader(**keys: object) -> Config:
    return make(downloader_parameters=keys)


def refusal(data: object) -> list[str]:
    """The problem lines of a config that must be refused, without the line that counts them."""
    with pytest.raises(ConfigError) as caught:
        parse(data, "test")
    assert caught.value.exit_code == EXIT_SETUP
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def load_refusal(folder: Path, text: str | bytes) -> str:
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_two_keys_are_enough() -> None:
    config = make()
    assert config.downloader_parameters.batch_size == 10_000
    assert config.downloader_parameters.hash_algorithm == "sha256"
    assert config.output_structure.images_folder == "images"
    assert config.notices == ()


def test_models_are_frozen() -> None:
    config = make()
    with pytest.raises(ValueError, match="frozen"):
        config.path_to_input = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        config.downloader_parameters.batch_size = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        pytest.param({"batch_size": -1}, "batch_size: -1: expected a whole number from 1 to 10000000", id="too small"),
        pytest.param({"batch_size": 0}, "batch_size: 0: expected a whole number from 1 to 10000000", id="zero"),
        pytest.param({"batch_size": 1.0}, "batch_size: 1.0: expected a whole number", id="float for int"),
        pytest.param({"batch_size": "10"}, "batch_size: '10': expected a whole number", id="text for int"),
        pytest.param({"image_size": True}, "image_size: True: expected a whole number", id="bool for int"),
        pytest.param({"connect_timeout_s": True}, "connect_timeout_s: True: expected a number", id="bool for float"),
        pytest.param({"connect_timeout_s": "5"}, "expected a number above 0 and at most 3600", id="text for float"),
        pytest.param({"default_rate_limit": float("nan")}, "default_rate_limit: nan: expected a number", id="nan"),
        pytest.param({"default_rate_limit": float("inf")}, "default_rate_limit: inf: expected", id="infinity"),
        pytest.param({"default_rate_limit": None}, "default_rate_limit: null: expected", id="null for number"),
        pytest.param({"rate_multiplier": 0}, "rate_multiplier: 0: expected a number above 0", id="bound is exclusive"),
        pytest.param({"verify_tls": 1}, "verify_tls: 1: expected true or false", id="int for bool"),
        pytest.param({"verify_tls": "yes"}, "verify_tls: 'yes': expected true or false", id="text for bool"),
        pytest.param({"accept": "pdf"}, "accept: 'pdf': expected image or any", id="not a choice"),
        pytest.param({"hash_algorithm": "md6"}, "hash_algorithm: 'md6': expected one of blake2b", id="unknown hash"),
        pytest.param({"hash_algorithm": "shake_128"}, "hash_algorithm: 'shake_128': expected one of", id="shake"),
        pytest.param({"max_file_bytes": 2**31}, "max_file_bytes: 2147483648: expected", id="beyond an Arrow value"),
        pytest.param({"memory_budget_bytes": 4096}, "at least max_file_bytes (104857600)", id="file exceeds budget"),
        pytest.param({"ca_bundle": ""}, "ca_bundle: '': expected text, not empty or null", id="empty path"),
        pytest.param({"proxy": "ftp://host"}, "proxy: 'ftp://host': expected a URL such as", id="proxy scheme"),
        pytest.param({"proxy": "http://h:99999"}, "proxy: 'http://h:99999': expected a URL", id="proxy port"),
        pytest.param({"proxy": "host:3128"}, "proxy: 'host:3128': expected a URL such as", id="proxy without scheme"),
        pytest.param({"header": 5}, "header: 5: expected text such as", id="number for header"),
        pytest.param({"header": ["A: b", 5]}, "header[1]: 5: expected", id="number in a list of headers"),
        pytest.param({"header": "no colon"}, "header[0]: a text without a colon: expected a header", id="no colon"),
        pytest.param({"header": "A: b\r\nC: d"}, "header[0]: 'A: ...': expected a header", id="header injection"),
        pytest.param({"header": "Ä: b"}, "expected a header 'Name: value' in ASCII", id="header name not ASCII"),
        pytest.param({"header": "Range: bytes=0-1"}, "expected a header other than Range", id="header makes a 206"),
        pytest.param({"header": "host: x"}, "expected a header other than host", id="header that curl sets"),
        pytest.param({"allow_private_addresses": ["x"]}, "allow_private_addresses[0]: 'x': expected a network", id="x"),
        pytest.param({"allow_private_addresses": ["10.0.0.1/8"]}, "has host bits set", id="host bits"),
        pytest.param({"allow_private_addresses": "10.0.0.0/8"}, "expected a list", id="text for list"),
        pytest.param({"retry_statuses": [503, 302]}, "retry_statuses[1]: 302: expected statuses of fail", id="moved"),
        pytest.param({"retry_statuses": [200]}, "retry_statuses[0]: 200: expected statuses of failures", id="success"),
        pytest.param({"retry_statuses": [99]}, "retry_statuses[0]: 99: expected greater than or equal", id="no status"),
        pytest.param({"retry_statuses": ["503"]}, "retry_statuses[0]: '503': expected a valid integer", id="digits"),
        pytest.param({"retry_statuses": [True]}, "retry_statuses[0]: True: expected a valid integer", id="true"),
        pytest.param({"retry_statuses": [503, 503]}, "each entry once (doubled: 503)", id="status twice"),
        pytest.param({"retry_statuses": 503}, "retry_statuses: 503: expected a list", id="one status"),
        pytest.param({"connect_to": ["a:1:b"]}, "connect_to[0]: 'a:1:b': expected HOST:PORT", id="three parts"),
        pytest.param({"connect_to": ["a:1:b:70000"]}, "connect_to[0]: 'a:1:b:70000': expected", id="port too high"),
        pytest.param({"connect_to": ["a:0:b:1"]}, "connect_to[0]: 'a:0:b:1': expected HOST:PORT", id="port zero"),
        pytest.param({"connect_to": ["a:1:[zz]:1"]}, "connect_to[0]: 'a:1:[zz]:1': expected", id="no IPv6 address"),
    ],
)
def test_downloader_parameters_refused(keys: Mapping[str, object], line: str) -> None:
    (problem,) = refusal({**REQUIRED, "downloader_parameters": keys})
    assert problem.startswith("downloader_parameters.")
    assert line in problem


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        pytest.param({"path_to_input": ""}, "path_to_input: '': expected text, not empty", id="empty path"),
        pytest.param({"path_to_input": 5}, "path_to_input: 5: expected text, not empty", id="number for path"),
        pytest.param({"path_to_input": "./out/"}, "path_to_output_folder to differ from path_to_input", id="same path"),
        pytest.param({"breaker": 3}, "breaker: 3: expected a mapping", id="number for section"),
        pytest.param({"servers": {"a": 1}}, "servers: a mapping: expected", id="mapping for list"),
        pytest.param({"servers": [3]}, "servers[0]: 3: expected a mapping", id="number for rule"),
        pytest.param({"servers": [{}]}, "servers[0].match: missing; expected text, not empty", id="rule without match"),
        pytest.param(
            {"servers": [{"match": "http://a/"}]}, "servers[0].match: 'http://a/': expected a server name", id="url"
        ),
        pytest.param({"servers": [{"match": "a", "group": "__x"}]}, "servers[0].group: '__x': expected", id="reserved"),
        pytest.param({"servers": [{"match": "a", "robots": 1}]}, "servers[0].robots: 1: expected true or", id="robots"),
        pytest.param({"servers": [{"match": "a", "respect": ["noai"]}]}, "servers[0].respect[0]: 'noai': ", id="sign"),
        pytest.param({"servers": [{"match": "a", "max_connections": 0}]}, "servers[0].max_connections: 0", id="none"),
        pytest.param(
            {"servers": [{"match": "a", "group": "g", "rate_limit": 1}, {"match": "b", "group": "g", "rate_limit": 2}]},
            "expected the same limits in all rules of the group g",
            id="group with two limits",
        ),
        pytest.param(
            {"servers": [{"match": "a", "group": "g", "per_address": True}]},
            "servers[0]: a mapping: expected group or per_address, not both",
            id="group and address",
        ),
        pytest.param(
            {"servers": [{"match": "a", "per_address": True, "rate_limit": 1}, {"match": "b", "per_address": True}]},
            "expected the same limits in all rules with per_address",
            id="addresses with two limits",
        ),
        pytest.param({"schedule_rules": {}}, "schedule_rules: a mapping: expected at least one rule", id="no rules"),
        pytest.param({"schedule_rules": {"1": 1}}, "schedule_rules.1: '1': expected a valid integer", id="text key"),
        pytest.param({"schedule_rules": {1: 0}}, "schedule_rules[1]: 0: expected greater than or equal to 1", id="0"),
        pytest.param({"keep_columns": ["a", "a"]}, "expected each entry once (doubled: a)", id="kept twice"),
        pytest.param({"keep_columns": ["status"]}, "(taken: status)", id="kept column is ours"),
        pytest.param({"columns": {"uuid": ""}}, "columns.uuid: '': expected text, not empty", id="empty column name"),
        pytest.param({"output_structure": {"urls_folder": ".."}}, "expected a plain name", id="parent folder"),
        pytest.param({"output_structure": {"urls_folder": "/abs"}}, "expected a plain name", id="absolute folder"),
        pytest.param({"output_structure": {"urls_folder": "errors"}}, "(errors is used twice", id="one name for two"),
        pytest.param(
            {"output_structure": {"urls_folder": "report.html"}},
            "query.parquet, placeholders.parquet, config.yaml, refresh.csv are taken",
            id="name is taken",
        ),
        pytest.param({"backoff": {"base_s": 10, "cap_s": 5}}, "backoff.cap_s: 5: expected at least base_s", id="cap"),
        pytest.param({"walltime": {"end_time": "tomorrow"}}, "expected a date with time zone", id="no date"),
        pytest.param({"walltime": {"end_time": "2030-01-31T18:00:00"}}, "expected a date with time zone", id="local"),
        pytest.param({"walltime": {"end_time": True}}, "end_time: True: expected a number", id="bool for date"),
        pytest.param({"notices": []}, "notices: unknown key; ", id="notices is no key"),
        pytest.param({"1": 2}, "1: unknown key", id="no such key"),
    ],
)
def test_other_sections_refused(keys: Mapping[str, object], line: str) -> None:
    (problem,) = refusal({**REQUIRED, **keys})
    assert line in problem


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"dowloader_parameters": {}}, "dowloader_parameters: unknown key; did you mean downloader_parameters?"),
        ({"columns": {"identifer": "url"}}, "columns.identifer: unknown key; did you mean columns.identifier?"),
        ({"batch_size": 5}, "batch_size: unknown key; did you mean downloader_parameters.batch_size?"),
        ({"servers": [{"match": "a", "rate": 1}]}, "servers[0].rate: unknown key; did you mean servers[0].rate_limit?"),
        ({"profiling": {"zzzz": 1}}, "profiling.zzzz: unknown key; known here: mode, samples_per_server, min_rows"),
    ],
)
def test_unknown_keys_name_the_nearest_known_one(keys: Mapping[str, object], line: str) -> None:
    assert refusal({**REQUIRED, **keys}) == [line]


def test_a_key_that_is_no_text_is_unknown() -> None:
    keys: dict[object, object] = {1: 2}
    (problem,) = refusal(keys | REQUIRED)
    assert problem.startswith("1: unknown key")


def test_all_problems_are_reported_at_once() -> None:
    data = {
        "path_to_input": 1,
        "typo": 1,
        "downloader_parameters": {"batch_size": 0, "image_size": "big"},
        "servers": [{"match": "ok"}, {"rate_limit": -1}],
    }
    assert [line.partition(": ")[0] for line in refusal(data)] == [
        "path_to_input",
        "path_to_output_folder",
        "downloader_parameters.batch_size",
        "downloader_parameters.image_size",
        "servers[1].match",
        "servers[1].rate_limit",
        "typo",
    ]


@pytest.mark.parametrize("data", [None, [], "text", 5])
def test_a_config_is_a_mapping(data: object) -> None:
    with pytest.raises(ConfigError, match="expected a mapping with at least path_to_input"):
        parse(data, "test")


@pytest.mark.parametrize(
    "parameters",
    [
        {"proxy": "gopher://user:s3cr@et@host"},
        {"header": ["Cookie: s3cr@et\n"]},
        {"header": {"Cookie": "s3cr@et"}},
        {"header": "Cookie: s3cr@et", "unknown": 1},
    ],
)
def test_secrets_stay_out_of_messages(parameters: Mapping[str, object]) -> None:
    for data in ({**REQUIRED, "downloader_parameters": parameters}, {"downloader_parameters": parameters}):
        assert "s3cr" not in " ".join(refusal(data))


@pytest.mark.parametrize(
    ("text", "before", "kept"),
    [
        pytest.param("30d", 1e9 - 30 * 86_400, "30d", id="days"),
        pytest.param("12 h", 1e9 - 12 * 3_600, "12h", id="hours"),
        pytest.param("1.5m", 1e9 - 90, "1.5m", id="part of a minute"),
        pytest.param("2w", 1e9 - 14 * 86_400, "2w", id="weeks"),
        pytest.param("2001-09-09", 999_993_600.0, "2001-09-09T00:00:00+00:00", id="a day is one in UTC"),
        pytest.param("2001-09-09 01:46:40", 1e9, "2001-09-09T01:46:40+00:00", id="and so is a time"),
        pytest.param("2001-09-09T01:46:40Z", 1e9, "2001-09-09T01:46:40+00:00", id="UTC"),
        pytest.param("2001-09-09T03:46:40+02:00", 1e9, "2001-09-09T01:46:40+00:00", id="another time zone"),
    ],
)
def test_an_age_or_a_date_says_which_files_are_asked_for_again(
    tmp_path: Path, text: str, before: float, kept: str
) -> None:
    (tmp_path / "c.yaml").write_text(f"path_to_input: a\npath_to_output_folder: b\nrefresh: {{older_than: {text}}}\n")
    for config in (load(tmp_path / "c.yaml"), make(refresh={"older_than": text})):
        assert config.refresh.older_than == kept
        assert config.refresh.cutoff(1e9) == before
        assert Config.model_validate_json(config.model_dump_json()) == config
    assert make(refresh={"older_than": text}).semantic() == make().semantic(), "it may change between two runs"
    assert make().refresh.cutoff(1e9) == 0.0


@pytest.mark.parametrize("value", ["30", "d", "30 days", "0d", "-1d", "soon", 30, True, "2026-13-01"])
def test_what_is_neither_is_refused(value: object) -> None:
    (line,) = refusal({**REQUIRED, "refresh": {"older_than": value}})
    assert "refresh.older_than: " in line
    assert "an age such as 30d, 12h, 45m or 2w, or a date in UTC such as 2026-11-01" in line


def test_load_reads_yaml(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "\ufeffpath_to_input: in.csv\npath_to_output_folder: out\n"
        "downloader_parameters: {default_rate_limit: 2e1, connect_timeout_s: 1.5E-1}\n"
        "walltime: {end_time: 1970-01-01T01:00:10+01:00}\n"
        "columns:\n",
        encoding="utf-8",
    )
    config = load(path)
    assert config.downloader_parameters.default_rate_limit == 20.0
    assert config.downloader_parameters.connect_timeout_s == 0.15
    assert config.walltime.end_time == 10.0
    assert config.columns.identifier == "identifier"


def test_load_reports_keys_that_stand_twice_with_all_other_problems(tmp_path: Path) -> None:
    text = "path_to_input: a\nbreaker: {probes: 1, probes: 2}\npath_to_input: b\nfinal_wait_s: -1\n"
    message = load_refusal(tmp_path, text)
    assert "4 problems" in message
    assert "line 2: the key 'probes' stands twice" in message
    assert "line 3: the key 'path_to_input' stands twice" in message
    assert "final_wait_s: -1" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("a: [1\nb: 2", "is not valid YAML: while parsing a flow sequence", id="syntax"),
        pytest.param("a: 1\n---\nb: 2\n", "expected a single document", id="two documents"),
        pytest.param("a: !!python/name:os.system\n", "could not determine a constructor", id="python tag"),
        pytest.param("a: \x01\n", "line 1 has the character U+0001", id="control character"),
        pytest.param("a: 2030-02-31\n", "is not valid YAML: day", id="no such day"),
        pytest.param("[" * 1_000, "is not valid YAML: maximum recursion", id="nested too deeply"),
        pytest.param(b"a: \xff\n", "is not UTF-8 text (byte 3)", id="not UTF-8"),
        pytest.param("", "expected a mapping with at least path_to_input", id="empty"),
    ],
)
def test_load_refuses_what_is_no_yaml_mapping(tmp_path: Path, text: str | bytes, words: str) -> None:
    assert words in load_refusal(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "servers:\n- match: a\n  headers:\n    X-Mine: s3cret: x\n",
        "servers: [{match: a, headers: {\nX-Mine: s3cret: x}}]\n",
        "downloader_parameters: {proxy: http://me:s3cret@host: x}\n",
        "downloader_parameters:\n  header:\n  - 'X-Mine: 1'\n  - \"X-Mine: s3cret\n",
        "path_to_input: https://me:s3cret@host: x\n",
    ],
)
def test_the_line_of_a_yaml_error_is_not_shown_where_a_secret_may_stand(tmp_path: Path, text: str) -> None:
    message = load_refusal(tmp_path, text)
    assert "is not valid YAML" in message
    assert "s3cret" not in message


def test_a_line_after_what_may_be_secret_is_shown(tmp_path: Path) -> None:
    text = "downloader_parameters:\n  header: 'User-Agent: me'\n  batch_size: 5: 6\n"
    assert "\n  line 3: batch_size: 5: 6\n" in load_refusal(tmp_path, text)


def test_keys_are_changed_by_settings(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("path_to_input: a\npath_to_output_folder: b\nbreaker: {failures: 3}\n")
    settings = ["breaker.probes=7", "keep_columns=[x, y]", "walltime.margin_s=5", 'filter=a == "b"']
    config = load(tmp_path / "c.yaml", settings)
    assert (config.breaker.failures, config.breaker.probes, config.walltime.margin_s) == (3, 7, 5.0)
    assert (config.keep_columns, config.filter) == (("x", "y"), 'a == "b"')


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = make(path_to_input="~/in.csv", path_to_output_folder="~/out", excluded_servers_path="~/no.csv")
    assert config.path_to_input == "/home/me/in.csv"
    assert config.path_to_output_folder == "/home/me/out"
    assert config.excluded_servers_path == "/home/me/no.csv"
    assert make(path_to_input="./~/in.csv").path_to_input == "./~/in.csv"


def test_load_refuses_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such file in"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match=r"is a folder, without a config\.yaml"):
        load(tmp_path)


def test_first_matching_rule_gives_the_limits() -> None:
    config = make(
        servers=[
            {"match": "Img.Example.org", "rate_limit": 0, "bytes_per_second": 3},
            {"match": "*.example.org", "max_connections": 2, "bytes_per_day": 5},
            {"match": "[::1]:8080", "rate_limit": 1},
        ],
        downloader_parameters={"default_rate_limit": 7, "max_connections_per_server": 4},
    )
    assert config.limits_for("img.example.org") == Limits(rate_per_s=0, connections=4, bytes_per_s=3)
    assert config.limits_for("a.example.org") == Limits(rate_per_s=7, connections=2, bytes_per_day=5)
    assert config.limits_for("[::1]:8080") == Limits(rate_per_s=1, connections=4)
    assert config.limits_for("example.org") == Limits(rate_per_s=7, connections=4)
    assert config.group_of("a.example.org") == "a.example.org"


def test_statuses_that_are_tried_again_are_the_rules_or_those_of_all() -> None:
    parameters = {"retry_statuses": [503]}
    rules = [{"match": "a", "retry_statuses": [404, 503]}, {"match": "b", "retry_statuses": []}, {"match": "c"}]
    config = parse({**REQUIRED, "downloader_parameters": parameters, "servers": rules}, "test")
    assert [config.retry_statuses(server) for server in "abcd"] == [(404, 503), (), (503,), (503,)]
    assert parse(REQUIRED, "test").retry_statuses("a") == RETRY_STATUSES


def test_group_joins_servers_and_the_server_of_its_own_name() -> None:
    rules = [
        {"match": "archive.org", "rate_limit": 9},
        {"match": "*.archive.org", "group": "archive.org", "rate_limit": 2},
    ]
    config = make(servers=rules)
    for server in ("ia800.us.archive.org", "archive.org"):
        assert config.group_of(server) == "archive.org"
        assert config.limits_for(server).rate_per_s == 2
    assert config.group_of("archive.com") == "archive.com"


def test_rules_are_found_again_from_a_bounded_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddmpi.config.sections.MATCH_CACHE_ENTRIES", 2)
    config = make(servers=[{"match": "a*", "group": "g"}])
    for _ in range(2):
        assert [config.group_of(name) for name in ("a1", "b1", "a2", "b2")] == ["g", "b1", "g", "b2"]
    assert len(config.servers._cache) <= 2


def test_a_copy_with_other_rules_does_not_keep_the_old_answers() -> None:
    config = make(servers=[{"match": "a", "rate_limit": 1}])
    assert config.limits_for("a").rate_per_s == 1
    other = config.model_copy(update={"rules": make().rules})
    assert other.limits_for("a").rate_per_s == 10


@pytest.mark.parametrize(("batches", "lanes"), [(1, 1), (49, 1), (50, 2), (199, 2), (200, 8), (10**9, 8)])
def test_largest_fitting_schedule_rule_counts(batches: int, lanes: int) -> None:
    assert make(schedule_rules={200: 8, 50: 2}).max_lanes(batches) == lanes


def test_user_agent_is_always_sent() -> None:
    default = f"User-Agent: ddmpi/{ddmpi.__version__}"
    assert make().header_list() == [default]
    assert make_downloader(header="").header_list() == [default]
    assert make_downloader(header=["Accept: image/*"]).header_list() == [default, "Accept: image/*"]
    assert make_downloader(header="user-agent: me/1").header_list() == ["user-agent: me/1"]


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        ("", True),
        ("User-Agent: me/1", True),
        ("From: a@example.org", True),
        ("User-Agent: me/1 (+https://example.org)", False),
        ("User-Agent: me/1 (me@example.org)", False),
    ],
)
def test_contact_is_looked_for_in_the_user_agent(header: str, missing: bool) -> None:
    assert make_downloader(header=header).contact_missing is missing


def test_networks_proxies_and_connect_to_are_accepted() -> None:
    config = make_downloader(
        allow_private_addresses=["127.0.0.0/8", "fd00::/8", "10.1.2.3"],
        proxy="socks5h://user:pass@host:1080",
        connect_to=["example.org:443:127.0.0.1:8443", "::[::1]:8080", ":::"],
    )
    assert [str(network) for network in config.allowed_networks] == ["127.0.0.0/8", "fd00::/8", "10.1.2.3/32"]
    assert make_downloader(proxy="").downloader_parameters.proxy == ""


@pytest.mark.parametrize(
    "change",
    [
        {"path_to_input": "other.csv"},
        {"columns": {"identifier": "url"}},
        {"keep_columns": ["country"]},
        {"downloader_parameters": {"batch_size": 5}},
        {"downloader_parameters": {"image_size": 5}},
        {"downloader_parameters": {"hash_algorithm": "md5"}},
        {"downloader_parameters": {"accept": "any"}},
        {"servers": [{"match": "*.a.org", "group": "a"}]},
        {"columns": {"identifier": ["a", "b"]}, "mirrors": True},
        {"expected": {"on_mismatch": "keep"}},
    ],
)
def test_semantic_keys_change_the_identity(change: Mapping[str, object]) -> None:
    changed = make(**change)
    assert changed.identity_hash() != make().identity_hash()
    assert [key for key, value in changed.semantic().items() if value != make().semantic()[key]] != []


@pytest.mark.parametrize(
    "change",
    [
        {"path_to_output_folder": "elsewhere"},
        {"downloader_parameters": {"default_rate_limit": 1, "header": "A: b", "max_attempts": 9}},
        {"servers": [{"match": "a", "rate_limit": 1}]},
        {"schedule_rules": {1: 4}},
        {"walltime": {"margin_s": 1}},
        {"account": "x"},
    ],
)
def test_harmless_keys_keep_the_identity(change: Mapping[str, object]) -> None:
    assert make(**change).identity_hash() == make().identity_hash()


def test_who_shares_an_address_is_part_of_the_identity() -> None:
    rule: dict[str, object] = {"match": "*.a.org"}
    plain, grouped = make(servers=[rule]), make(servers=[{**rule, "group": "g"}])
    by_address = make(servers=[{**rule, "per_address": True}])
    assert len({config.identity_hash() for config in (plain, grouped, by_address)}) == 3
    assert make(servers=[{**rule, "per_address": True, "rate_limit": 3}]).identity_hash() == by_address.identity_hash()
    # A rule before it takes servers away from it.
    before = make(servers=[{"match": "x.a.org"}, {**rule, "per_address": True}])
    assert before.identity_hash() != by_address.identity_hash()


def test_keys_that_older_folders_do_not_name_have_their_default_there() -> None:
    assert {key: make().semantic()[key] for key in LATER_SEMANTIC_KEYS} == LATER_SEMANTIC_KEYS


@pytest.mark.parametrize("identifier", ["url", ["url"]])
def test_mirrors_need_several_columns(identifier: object) -> None:
    with pytest.raises(ConfigError, match=r"several columns in columns\.identifier"):
        make(columns={"identifier": identifier}, mirrors=True)


def test_a_column_of_mirrors_is_not_kept_beside_them() -> None:
    with pytest.raises(ConfigError, match=r"rename them: keep_columns: \{input_mirrors: mirrors\}"):
        make(columns={"identifier": ["a", "b"]}, mirrors=True, keep_columns=["mirrors"])


def test_semantic_survives_json() -> None:
    semantic = make(servers=[{"match": "*.a.org", "group": "a"}, {"match": "*", "per_address": True}]).semantic()
    assert json.loads(json.dumps(semantic)) == semantic


def test_config_survives_json_and_pickle() -> None:
    config = make(
        account="x",
        servers=[{"match": "*.a.org", "group": "a", "rate_limit": 0.5}, {"match": "b"}],
        schedule_rules={1: 1, 100: 3},
        keep_columns=["x"],
        walltime={"end_time": "2030-01-31T18:00:00Z"},
        downloader_parameters={"header": ["A: b"], "connect_to": [":::"], "allow_private_addresses": ["10.0.0.0/8"]},
    )
    assert config.group_of("i.a.org") == "a"
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(known_keys(Keys))) | st.text(), JSON_LIKE, max_size=6), st.booleans())
def test_whatever_stands_in_the_file_gives_a_config_or_a_config_error(flat: dict[str, object], required: bool) -> None:
    data: dict[str, object] = dict(REQUIRED) if required else {}
    for key, value in flat.items():
        section, _, name = key.partition(".")
        inner = data.setdefault(section, {}) if name else data
        if isinstance(inner, dict):
            inner[name or section] = value
    try:
        config = parse(data, "test")
    except ConfigError as error:
        assert len(str(error).splitlines()) >= 1
    else:
        assert Config.model_validate_json(config.model_dump_json()) == config
