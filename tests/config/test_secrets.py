"""What may be secret in a config: which headers may stand where, and variables of the environment."""

from __future__ import annotations

from typing import Any

import pytest

from ddmpi.config.config import Config, changed_keys, digests, parse
from ddmpi.config.secrets import Variables, read_variables
from ddmpi.config.sections import ServerRules
from ddmpi.errors import ConfigError

SECRET = "hunter2/x"  # noqa: S105


def config(**keys: Any) -> Config:
    return parse({"path_to_input": "a", "path_to_output_folder": "b", **keys}, "test")


def with_rule(**rule: Any) -> Config:
    return config(servers=[{"match": "files.mine.org", **rule}])


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (
            f"Authorization: {SECRET}",
            'servers: [{match: "files.mine.org", headers: {Authorization: "${AUTHORIZATION}"}}]',
        ),
        (f"cookie: {SECRET}", 'servers: [{match: "files.mine.org", headers: {cookie: "${COOKIE}"}}]'),
        (f"PROXY-authorization: {SECRET}", 'proxy: "http://${PROXY_USER}:${PROXY_PASSWORD}@proxy.mine.org:3128"'),
    ],
)
def test_credentials_for_everybody_are_refused_with_the_line_to_write(header: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(downloader_parameters={"header": ["Accept: image/*", header]})
    assert line in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Authorization": f"Bearer {SECRET}"}, 'Authorization: "${NAME}", with NAME set in the environment'),
        ({"Cookie": SECRET}, 'Cookie: "${NAME}", with NAME'),
        ({"Proxy-Authorization": "${X}"}, "no Proxy-Authorization among headers"),
        ({"Host": SECRET}, "a header other than Host"),
        ({"X-Key": f"{SECRET}\r\nX: y"}, "in ASCII on one line"),
        ({"X Key": SECRET}, "in ASCII on one line"),
        ({"X-Key": SECRET, "x-key": SECRET}, "each header once"),
        ({"X-Key": " "}, "a value for X-Key"),
        ({"X-Key": f"${{{SECRET}}}"}, "a variable of the environment as ${NAME}"),
        ({"X-Key": f"${{{SECRET}"}, "a variable of the environment as ${NAME}"),
        ({"X-Key": 123456789}, "servers[0].headers.X-Key: what is not shown here: expected"),
        ([SECRET], "servers[0].headers: what is not shown here: expected a mapping"),
        (SECRET, "servers[0].headers: what is not shown here: expected a mapping"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused_and_never_shown(headers: object, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_rule(headers=headers)
    assert expected in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "123456789" not in str(caught.value)


@pytest.mark.parametrize(
    ("match", "is_fine"),
    [
        ("files.mine.org", True),
        ("files.mine.org:8080", True),
        ("localhost", True),
        ("127.0.0.1:80", True),
        ("[::1]:8080", True),
        ("*.mine.org", True),
        ("img[12].mine.org:8443", True),
        ("*", False),
        ("*.org", False),
        ("*mine.org", False),
        ("mine.*", False),
        ("127.0.0.*", False),
        ("*.0.0.1", False),
        ("files.mine.org:*", False),
    ],
)
def test_headers_are_for_servers_that_a_pattern_names(match: str, is_fine: bool) -> None:
    rule = {"match": match, "headers": {"X-Key": "${KEY}"}}
    if is_fine:
        assert config(servers=[rule]).rules.root[0].headers == {"X-Key": "${KEY}"}
        return
    with pytest.raises(ConfigError, match="may mean strangers"):
        config(servers=[rule])


def test_a_group_shares_limits_and_no_headers() -> None:
    rule = {"match": "a.archive.org", "group": "internet-archive", "rate_limit": 1, "proxy": "", "total_timeout_s": 5.0}
    found = config(servers=[{**rule, "headers": {"X-Key": "${KEY}"}}])
    assert found.limits_for("b.archive.org").rate_per_s == 1
    meant = {name: found.rules.meant(name) for name in ("a.archive.org", "b.archive.org", "internet-archive", "c.org")}
    assert {name: rule and dict(rule.headers) for name, rule in meant.items()} == {
        "a.archive.org": {"X-Key": "${KEY}"},
        "b.archive.org": {},
        "internet-archive": None,
        "c.org": None,
    }
    assert [found.parameters_of(rule).total_timeout_s for rule in meant.values()] == [5, 120, 120, 120]
    named = ServerRules.model_validate([{"match": "a.org", "group": "c.org"}, {"match": "*.org"}])
    assert [named.meant(server) for server in ("a.org", "b.org", "c.org")] == [named.root[place] for place in (0, 1, 1)]


def test_a_rule_has_connection_options_of_its_own() -> None:
    own = {
        "connect_timeout_s": 1.0, "stall_timeout_s": 2.0, "total_timeout_s": 3.0, "max_redirects": 0,
        "verify_tls": False, "ca_bundle": "x.pem", "proxy": "http://${USER}:${PASSWORD}@p.org:1",
    }  # fmt: skip
    found = with_rule(**own)
    parameters = found.parameters_of(found.rules.meant("files.mine.org"))
    assert {key: getattr(parameters, key) for key in own} == own
    assert parameters.max_attempts == 5
    assert found.parameters_of(None) is found.downloader_parameters
    assert [found.max_redirects(server) for server in ("files.mine.org", "a.org")] == [0, 5]


def test_a_rule_that_hides_the_limits_of_a_known_host_says_so() -> None:
    rule = {"match": "upload.wikimedia.org", "headers": {"X-Key": "${KEY}"}}
    (notice,) = config(servers=[rule]).notices
    assert notice.startswith("the limits of upload.wikimedia.org in servers_from do not hold for upload.wikimedia.org,")
    assert config(servers=[{**rule, "max_connections": 2}]).notices == ()
    assert config(servers=[{**rule, "match": "a.org"}]).notices == ()


def test_the_json_that_ranks_get_means_the_same() -> None:
    found = with_rule(headers={"Authorization": "Bearer ${KEY}"}, proxy="${PROXY}")
    assert Config.model_validate_json(found.model_dump_json()) == found


def test_values_come_from_the_environment_and_are_shown_nowhere() -> None:
    found = with_rule(headers={"Authorization": "Bearer ${KEY}", "Referer": "https://a.org/"}, proxy="${PROXY}")
    environment = {"KEY": SECRET, "PROXY": "http://u:p%40@h:1", "OTHER": "x"}
    variables = read_variables(found.variable_uses(), environment)
    assert variables.values == {"KEY": SECRET, "PROXY": "http://u:p%40@h:1"}
    assert variables.fill("Bearer ${KEY}") == f"Bearer {SECRET}"
    assert variables.fill_url("http://me:${KEY}@h:1") == "http://me:hunter2%2Fx@h:1"
    assert variables.fill_url("${PROXY}") == "http://u:p%40@h:1"
    assert SECRET not in repr(variables)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "KEY is not set"),
        ("", "KEY is empty"),
        (f"{SECRET}\n", "a line break"),
        (f"{SECRET}\u00e9", "beyond ASCII"),
    ],
)
def test_variables_that_cannot_be_used_are_named_without_their_value(value: str | None, told: str) -> None:
    found = config(
        servers=[{"match": "a.org"}, {"match": "b.org", "headers": {"X-Key": "${KEY}"}}],
        downloader_parameters={"proxy": "http://${ALSO}@h:1"},
    )
    environment = {} if value is None else {"KEY": value}
    with pytest.raises(ConfigError) as caught:
        read_variables(found.variable_uses(), environment)
    also, key = str(caught.value).splitlines()
    assert also.startswith("downloader_parameters.proxy: the environment's variable ALSO is not set")
    assert key.startswith("servers[1].headers.X-Key: ")
    assert told in key
    assert SECRET not in key


def test_variables_of_shared_rules_are_read_too(tmp_path: Any) -> None:
    (tmp_path / "rules.yaml").write_text('servers: [{match: "a.org", headers: {X-Key: "${KEY}"}}]')
    found = config(servers_from=[str(tmp_path / "rules.yaml")])
    with pytest.raises(ConfigError, match=r"servers_from: the rule of a\.org\.headers\.X-Key: .*KEY is not set"):
        read_variables(found.variable_uses(), {})
    with pytest.raises(KeyError):
        Variables().fill("${KEY}")


def test_digests_tell_nothing_of_values() -> None:
    def keys(header: str, password: str) -> dict[str, str]:
        rule = {"headers": {"X-Key": header}, "proxy": f"http://u:{password}@h:1"}
        return digests(with_rule(**rule))

    assert keys("a", "b") == keys("c", "d%2Fe%40f")
    other = digests(with_rule(headers={"X-Other": "a"}, proxy="http://u:b@h:1"))
    assert changed_keys(keys("a", "b"), other) == ["servers", "rules"]


def test_a_line_that_is_no_yaml_is_not_quoted(tmp_path: Any) -> None:
    from ddmpi.config.config import load  # noqa: PLC0415

    path = tmp_path / "config.yaml"
    path.write_text(f'path_to_input: a\nservers: [{{match: a.org, headers: {{X-Key: "{SECRET}}}}}]\n')
    with pytest.raises(ConfigError, match=r"line \d+, column \d+") as caught:
        load(path)
    assert SECRET not in str(caught.value)


def test_passwords_of_proxies_are_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        config(downloader_parameters={"proxy": f"gopher://u:{SECRET}@h:1"})
    assert "gopher://...@h:1" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "is_refused"),
    [
        ("upload.wikimedia.org", True),
        ("commons.wikimedia.org", True),
        ("en.wikipedia.org", True),
        ("wikimedia.org.example.net", False),
        ("example.net", False),
    ],
)
def test_who_asks_for_a_contact_is_not_asked_without_one(server: str, is_refused: bool) -> None:
    assert config().refuses_without_contact(server) is is_refused
    own = config(servers=[{"match": "upload.wikimedia.org", "rate_limit": 1}])
    assert own.refuses_without_contact(server) is is_refused, "a limit of one's own is no contact"
    named = config(downloader_parameters={"header": "User-Agent: me/1 (+mailto:me@my.edu)"})
    assert not named.refuses_without_contact(server)
    assert not config(servers_from=[]).refuses_without_contact(server)


def test_the_line_to_write_names_a_contact() -> None:
    line = config().contact_line
    import yaml  # noqa: PLC0415

    assert not config(**yaml.safe_load(line)).contact_missing
