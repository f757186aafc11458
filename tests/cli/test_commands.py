"""The commands of ``ddmpi``: each is the order that it has as an option, and help comes at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ddmpi.__main__ import main, without_ranks
from ddmpi.cli.arguments import Arguments, parse_arguments
from ddmpi.cli.commands import completion, read_command

HEAVY = ("numpy", "pyarrow", "pydantic", "yaml", "mpi4py", "pycurl", "rich", "logging", "subprocess", "ctypes")


def asked(arguments: Arguments) -> dict[str, object]:
    """What was asked for, without what only says by which words."""
    names = ("config", "check", "plan", "ranks", "status", "verify", "audit", "rehash", "debug", "start", "settings")
    return {name: getattr(arguments, name) for name in (*names, "orders", "is_local")}


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("run c.yaml", "c.yaml"),
        ("run c.yaml --reset-batched --yes-delete-results", "c.yaml --reset-batched --yes-delete-results"),
        ("run c.yaml -n 4 --debug --set limit=5", "c.yaml -n 4 --debug --set limit=5"),
        ("check c.yaml", "c.yaml --check"),
        ("plan c.yaml --ranks 8", "c.yaml --plan --ranks 8"),
        ("status c.yaml", "c.yaml --status"),
        ("verify c.yaml --rehash", "c.yaml --verify --rehash"),
        ("audit c.yaml", "c.yaml --audit"),
        ("audit c.yaml *.example.org", "c.yaml --audit *.example.org"),
        ("retry-failed c.yaml", "c.yaml --retry-failed"),
        ("retry-failed c.yaml 404 dns", "c.yaml --retry-failed 404 dns"),
        ("c.yaml --plan", "c.yaml --plan"),
    ],
)
def test_a_command_is_the_order_of_its_option(command: str, options: str) -> None:
    assert asked(read_command(command.split())) == asked(parse_arguments(options.split()))


@pytest.mark.parametrize("command", ["birds.csv -o out -n 2", "download birds.csv --output out -n 2"])
def test_a_table_needs_no_config(command: str) -> None:
    given = read_command([*command.split(), "--rate", "3"])
    assert (given.table, given.output, given.start, given.is_local) == ("birds.csv", Path("out"), 2, False)
    assert given.config_path == Path("out/config.yaml")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["stauts", "c.yaml"], "did you mean ddmpi status?"),
        (["status", "c.yaml", "-n", "2"], "unrecognized arguments: -n 2"),
        (["c.yaml", "--status", "-n", "2"], "-n goes with a download"),
        (["run", "c.yaml", "-n", "0"], "-n must be at least 1"),
        (["retry-failed", "c.yaml", "nonsense"], "--retry-failed: "),
        (["errors", "c.yaml", "--by", "color"], "choose from"),
        (["download", "birds.csv"], "-o"),
    ],
)
def test_a_command_that_makes_no_sense(command: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_command(command)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["run", "c.yaml", "-n", "4", "--debug"], ["run", "c.yaml", "--debug"]),
        (["c.yaml", "-n4"], ["c.yaml"]),
        (
            ["retry-failed", "c.yaml", "404", "-n", "2", "--set", "a=-n"],
            ["retry-failed", "c.yaml", "404", "--set", "a=-n"],
        ),
    ],
)
def test_a_rank_gets_the_command_without_the_number_of_ranks(given: Sequence[str], kept: Sequence[str]) -> None:
    assert without_ranks(given) == kept


def test_the_shells_learn_every_command() -> None:
    script = completion("bash")
    assert all(name in script for name in ("retry-failed", "status", "init", "--image-size"))


def test_help_imports_nothing_heavy() -> None:
    program = f"""
import sys
sys.argv = ["ddmpi", "--help"]
from ddmpi.__main__ import console
try:
    console()
except SystemExit:
    print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert "retry-failed" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_a_table_in_the_place_of_a_config_is_told_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("birds.csv").write_text("identifier\nhttps://a.example/1.jpg\n")
    assert main(["check", "birds.csv"]) == 2
    assert capsys.readouterr().err == (
        "ddmpi: birds.csv: this is a table, and no config. Write: ddmpi birds.csv -o birds\n"
    )
