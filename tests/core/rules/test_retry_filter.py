"""What the words after --retry-failed mean, and how a wrong one is refused."""

from __future__ import annotations

import pytest

from ddmpi.cli.arguments import parse_arguments
from ddmpi.core.rules.retry_filter import RetryChoice, choice_of, without_servers


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param([], RetryChoice(), id="nothing is said: every error"),
        pytest.param(["*"], RetryChoice(), id="a star: every error"),
        pytest.param(["Timeout", "404", "-1"], RetryChoice(frozenset({"timeout", "404", "-1"})), id="kinds and codes"),
        pytest.param(["*.Example.org"], RetryChoice(servers=("*.example.org",)), id="a glob"),
        pytest.param(["127.0.0.1:8080"], RetryChoice(servers=("127.0.0.1:8080",)), id="a name with a port"),
        pytest.param(["dns", "localhost*"], RetryChoice(frozenset({"dns"}), ("localhost*",)), id="a kind on a server"),
    ],
)
def test_words_are_kinds_codes_and_servers(words: list[str], expected: RetryChoice) -> None:
    assert choice_of(words) == expected


def test_where_the_server_is_known_kinds_and_codes_are_left() -> None:
    assert without_servers(["*.org", "404", "dns"]) == ("404", "dns")
    assert without_servers(["*.org"]) == ("*",)


def test_an_unknown_word_is_refused_before_mpi_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        parse_arguments(["config.yaml", "--retry-failed", "timeouts", "nobody"])
    assert ending.value.code == 2
    printed = capsys.readouterr().err
    assert "'timeouts'" in printed
    assert "did you mean timeout?" in printed
    assert "kinds are dns, connect" in printed


def test_nothing_means_what_was_withdrawn() -> None:
    for words in (["*"], ["forgotten"], ["-2"], ["a.example"]):
        assert not choice_of(words).means("forgotten", -2)
    assert choice_of(["-2"]).means("decode", -2)
