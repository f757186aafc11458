"""The commands of ``ddmpi``: each is the order that it has as an option, and help comes at once."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ddmpi.__main__ import main, without_ranks
from ddmpi.cli.arguments import Arguments, parse_arguments
from ddmpi.cli.commands import completion, read_command
from ddmpi.config.config import load
from ddmpi.errors import TransitionError
from ddmpi.io.folder.layout import configured_layout

HEAVY = ("numpy", "pyarrow", "pydantic", "yaml", "mpi4py", "pycurl", "rich", "logging", "subprocess", "ctypes")


def asked(arguments: Arguments) -> dict[str, object]:
    """What was asked for, without what only says by which words."""
    names = ("config", "check", "plan", "ranks", "status", "verify", "audit", "rehash", "debug", "start", "settings")
    orders = replace(arguments.orders, job=None)
    return {name: getattr(arguments, name) for name in (*names, "is_local")} | {"orders": orders}


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


@pytest.mark.parametrize(
    ("command", "job"),
    [
        pytest.param("run c.yaml", "c.yaml", id="a command"),
        pytest.param("run my\\ c.yaml --set limit=5 -n 2", "'my c.yaml' --set limit=5", id="with keys of its own"),
        pytest.param("status out", "out", id="an output folder"),
        pytest.param("birds.csv -o out", "", id="a table: in its output folder"),
        pytest.param("c.yaml --status", None, id="options"),
    ],
)
def test_what_is_advised_is_a_command_where_one_was_given(command: str, job: str | None) -> None:
    assert read_command(shlex.split(command)).orders.job == job


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
        (["retry-failed", "c.yaml", "nonsense"], "error: retry-failed: "),
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


class Started:
    """What mpiexec would have been told."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.ranks = 0
        self.words: Sequence[str] = ()

    def __call__(self, ranks: int, program: Sequence[str], environment: Mapping[str, str]) -> int:  # noqa: ARG002
        assert list(program[:3]) == [sys.executable, "-m", "ddmpi"]
        self.ranks, self.words = ranks, program[3:]
        return self.code


@pytest.mark.parametrize(
    ("command", "ranks", "words"),
    [
        ("run c.yaml -n 3 --debug", 3, "run c.yaml --debug"),
        ("birds.csv -o out", 8, "birds.csv -o out"),
        ("export out shards --to files -n 2", 2, "export out shards --to files"),
    ],
)
def test_ranks_are_started_by_option_or_as_the_tasks_of_a_job(
    command: str, ranks: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Started()
    monkeypatch.setattr("ddmpi.cli.mpiexec.start", started)
    assert main(command.split(), tasks=8) == 0
    assert (started.ranks, " ".join(started.words)) == (ranks, words)


@pytest.mark.parametrize(
    ("command", "restarts", "words", "config"),
    [
        ("c.yaml --retry-failed", "0", "c.yaml --retry-failed", "c.yaml"),
        ("c.yaml --retry-failed --set limit=5", "1", "run c.yaml --set=limit=5", "c.yaml"),
        ("birds.csv -o out", "1", "birds.csv -o out", "out/config.yaml"),
    ],
)
def test_a_submitted_job_goes_back_and_orders_count_for_its_first_run(
    command: str, restarts: str, words: str, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, requeued = Started(75), list[list[str]]()
    monkeypatch.setattr("ddmpi.cli.mpiexec.start", started)
    monkeypatch.setattr("ddmpi.cli.requeue.main", requeued.append)
    monkeypatch.setenv("DDMPI_SUBMITTED", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    assert main(command.split(), tasks=4) == 75
    assert " ".join(started.words) == words
    assert requeued == [[config, "75"]]


@pytest.mark.parametrize(("is_locked", "code"), [(True, 255), (False, 0)])
def test_a_launcher_that_ends_well_without_its_ranks_is_not_believed(
    is_locked: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, requeued = tmp_path / "c.yaml", list[list[str]]()
    config.write_text(f"path_to_input: urls.csv\npath_to_output_folder: {tmp_path}/out\n")
    if is_locked:
        lock = configured_layout(load(config)).lock
        lock.parent.mkdir(parents=True)
        lock.touch()
    monkeypatch.setattr("ddmpi.cli.mpiexec.start", Started(0))
    monkeypatch.setattr("ddmpi.cli.requeue.main", requeued.append)
    monkeypatch.setenv("DDMPI_SUBMITTED", "7")
    assert main(["run", str(config), "-n", "2"]) == code
    assert requeued == [[str(config), str(code)]]
    assert ("the launcher has lost ranks" in capsys.readouterr().err) == is_locked


def test_a_bug_is_told_with_its_traceback_and_what_to_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise TransitionError("no such thing")

    monkeypatch.setattr("ddmpi.cli.inspection.run", fail)
    assert main(["check", "c.yaml"]) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "TransitionError: no such thing\nddmpi: this is a bug in ddmpi: please report it" in told


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
