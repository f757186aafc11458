"""``ddmpi report`` and the status for programs: what the output folder says, with nothing of it changed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from ddmpi.cli import inspection
from ddmpi.cli.commands import read_command
from ddmpi.cli.report import write_report
from ddmpi.config.config import parse
from ddmpi.core.records import ErrorKind
from ddmpi.core.stats.metrics import Measurement
from ddmpi.errors import EXIT_PENDING, OutputError
from ddmpi.io.folder.layout import configured_layout
from ddmpi.io.folder.stats_files import MetricsFile
from ddmpi.roles.coordinator.run_state import RunState
from tests.roles.coordinator.states import commit, make_state

KILLED = Measurement("2030-01-01T12:00:00+00:00", 1_893_499_200.0, 1, "downloading", 2, 8, 0, 0, 0, 5, 5, 5000)


@pytest.fixture
def killed(tmp_path: Path) -> RunState:
    """A run that was killed while it fetched: parts, no marker, no report."""
    state = make_state(tmp_path, {"a.example.org": 6, "b.example.org": 2}, min_rows=1)
    commit(state, 0, [0, 1], {ErrorKind.DNS: [2]})
    state.save({})
    MetricsFile(state.layout.metrics).append(KILLED)
    return state


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_report_of_a_run_that_was_killed(killed: RunState) -> None:
    out = Console(file=io.StringIO(), width=200)
    before = files(killed.layout.root)
    assert write_report(killed.config, killed.layout, out) == 0
    assert out.file.getvalue() == f"{killed.layout.report} is written\n"  # type: ignore[attr-defined]
    page = killed.layout.report.read_text(encoding="utf-8")
    assert "5 rows are pending" in page
    assert "a.<wbr>example" in page
    after = files(killed.layout.root)
    del after[killed.layout.report]
    assert after == before, "nothing else is written: a run may be on"


def test_the_status_cuts_off_no_path(tmp_path: Path) -> None:
    folder = tmp_path / ("a_long_name/" * 12)
    folder.mkdir(parents=True)
    state = make_state(folder, {"a.example.org": 6})
    out = Console(file=io.StringIO(), width=80, soft_wrap=True)
    inspection._status(state.config, state.layout, out)
    assert str(state.layout.root) in "".join(out.file.getvalue().split())  # type: ignore[attr-defined]


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    keys = {"path_to_input": "x.csv", "path_to_output_folder": str(tmp_path / "out")}
    config = parse(keys, "test")
    with pytest.raises(OutputError, match="no run has come far enough"):
        write_report(config, configured_layout(config), Console())


def config_file(state: RunState, tmp_path: Path) -> str:
    path = tmp_path / "c.yaml"
    path.write_text(f"path_to_input: {tmp_path}/urls.txt\npath_to_output_folder: {state.layout.root}\n")
    return str(path)


def test_programs_get_the_numbers_as_json(killed: RunState, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_file(killed, tmp_path)
    assert inspection.run(read_command(["status", config, "--json"]), {}) == EXIT_PENDING
    found = json.loads(capsys.readouterr().out)
    assert found["rows"]["all"] == 8
    assert found["running"] is True
    assert found["batches"] == {"all": 2, "complete": 0, "begun": 1}


def test_the_status_is_shown_until_the_run_has_ended(killed: RunState, capsys: pytest.CaptureFixture[str]) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            killed.layout.lock.unlink()

    out = Console(soft_wrap=True)
    assert inspection._watch(killed.config, killed.layout, out, pause=pause) == EXIT_PENDING
    assert pauses == [inspection.WATCH_INTERVAL_S] * 2
    assert capsys.readouterr().out.count("untouched") == 3
