"""Keys that others have replaced: what they come to, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from ddmpi.config.config import Config, parse
from ddmpi.core.rules.usage_signals import NO_AI, Respect
from ddmpi.errors import ConfigError

DEFAULT = Respect(directives=frozenset(NO_AI))


def made(parameters: dict[str, Any] | None = None, rules: list[dict[str, Any]] | None = None) -> Config:
    keys = {"path_to_input": "a", "path_to_output_folder": "b"}
    return parse({**keys, "downloader_parameters": parameters or {}, "servers": rules or []}, "test")


def test_without_them_the_default_counts_and_nothing_is_said() -> None:
    config = made()
    assert (config.respect("a.org"), config.notices, config.uses_robots) == (DEFAULT, (), False)
    assert config.obeys_answers


@pytest.mark.parametrize(
    ("parameters", "expected", "written"),
    [
        ({"robots": True}, Respect(True, frozenset(NO_AI)), "[robots, x-robots-tag]"),
        ({"robots": False}, DEFAULT, "[x-robots-tag]"),
        ({"respect_x_robots_tag": ["NoIndex"]}, Respect(directives=frozenset({"noindex"})), "[x-robots-tag:NoIndex]"),
        ({"respect_x_robots_tag": []}, Respect(), "[]"),
        ({"robots": True, "respect_x_robots_tag": []}, Respect(True), "[robots]"),
    ],
)
def test_they_go_on_working_and_a_notice_says_what_to_write(
    parameters: dict[str, Any], expected: Respect, written: str
) -> None:
    config = made(parameters)
    assert config.respect("a.org") == expected
    (notice,) = config.notices
    assert notice.endswith(f": write respect: {written}, which has replaced it")
    assert f"downloader_parameters.{next(iter(parameters))}" in notice


def test_a_rule_overrides_the_key_for_all() -> None:
    some = made(rules=[{"match": "*.b.org", "robots": True}])
    assert some.uses_robots
    assert [some.respect(server).robots for server in ("a.b.org", "c.org")] == [True, False]
    assert some.respect("a.b.org").directives == frozenset(NO_AI)
    most = made({"robots": True}, [{"match": "c.org", "robots": False}, {"match": "d.org", "robots": None}])
    assert [most.respect(server).robots for server in ("a.b.org", "c.org", "d.org")] == [True, False, True]
    assert len(most.notices) == 2


def test_the_new_key_of_a_rule_stands_alone() -> None:
    config = made({"respect": ["robots"]}, [{"match": "c.org", "respect": ["content-usage"]}])
    assert config.respect("a.org") == Respect(robots=True)
    assert config.respect("c.org") == Respect(categories=frozenset({"train-ai"}))
    assert made({"respect": [], "hear_robots": True}).uses_robots
    assert not made({"respect": []}).obeys_answers
    assert made({"respect": []}, [{"match": "c.org", "respect": ["x-robots-tag"]}]).obeys_answers


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"robots": True, "respect": ["robots"]}, "parameters.robots: write it in downloader_parameters.respect"),
        ({"robots": "yes"}, "downloader_parameters.robots: 'yes': expected true or false"),
        ({"respect_x_robots_tag": "noai"}, "respect_x_robots_tag: 'noai': expected a list of texts"),
        ({"respect_x_robots_tag": ["no ai"]}, "_parameters.respect[0]: 'x-robots-tag:no ai': expected robots"),
        ({"respect_x_robots_tag": ["none"]}, "_parameters.respect[0]: 'x-robots-tag:none': expected robots"),
        ({"respect": ["noai"]}, "_parameters.respect[0]: 'noai': expected robots, x-robots-tag, content-usage"),
        ({"respect": ["robots", "ROBOTS"]}, "expected each entry once (doubled: robots)"),
        ({"respect": "robots"}, "downloader_parameters.respect: 'robots': expected a list"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(parameters)
    assert message in str(caught.value)
