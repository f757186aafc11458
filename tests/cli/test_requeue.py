"""When a job goes back into Slurm's queue, and when people have to look at it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ddmpi.cli.requeue import MOST_FRUITLESS, Attempts, main, next_attempts, objection
from ddmpi.io import slurm

RUNNING = {"JobState": "RUNNING", "BatchFlag": "1", "Requeue": "1"}


@pytest.mark.parametrize("code", [75, 9, 137, 255])
def test_a_run_that_stopped_early_or_lost_a_rank_goes_back(code: int) -> None:
    assert objection(code, RUNNING, Attempts("7")) == ""


@pytest.mark.parametrize("code", [0, 1, 2, 127])
def test_a_run_that_would_end_in_the_same_way_does_not(code: int) -> None:
    assert objection(code, RUNNING, Attempts("7")) != ""


@pytest.mark.parametrize(
    ("field", "value"),
    [("JobState", "CANCELLED"), ("JobState", "COMPLETING"), ("BatchFlag", "0"), ("Requeue", "0")],
)
def test_a_job_that_slurm_ends_or_may_not_requeue_does_not(field: str, value: str) -> None:
    assert objection(75, {**RUNNING, field: value}, Attempts("7")) != ""


def test_nothing_is_guessed_where_slurm_says_nothing() -> None:
    assert objection(75, None, Attempts("7")) != ""


def test_a_job_that_gets_nothing_done_goes_back_three_times() -> None:
    attempts = next_attempts(None, "7", 100)
    tries = 0
    while not objection(75, RUNNING, attempts):
        tries += 1
        attempts = next_attempts(attempts, "7", 100)
    assert tries == MOST_FRUITLESS


def test_a_row_more_or_another_job_begins_the_count_anew() -> None:
    tired = Attempts("7", 100, MOST_FRUITLESS)
    assert next_attempts(tired, "7", 101) == Attempts("7", 101)
    assert next_attempts(tired, "8", 100) == Attempts("8", 100)
    assert next_attempts(tired, "7", 100).fruitless == MOST_FRUITLESS + 1


# ---- the program


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"path_to_input": "urls.csv", "path_to_output_folder": str(tmp_path / "out")}))
    return str(path)


@pytest.fixture
def put_back(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs that Slurm was asked to put back; it knows job 7, and takes it."""
    found: list[str] = []
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(slurm, "job_fields", lambda job_id: RUNNING if job_id == "7" else None)

    def requeue(job_id: str) -> str:
        found.append(job_id)
        return ""

    monkeypatch.setattr(slurm, "requeue", requeue)
    return found


def test_a_job_without_progress_goes_back_three_times_and_the_log_says_why_not_again(
    config: str, put_back: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [main([config, "75"]) for _ in range(MOST_FRUITLESS + 1)] == [0] * MOST_FRUITLESS + [1]
    assert put_back == ["7"] * MOST_FRUITLESS
    assert "job 7 is not put back into the queue: it was put back 3 times without a row more" in capsys.readouterr().err


def test_a_damaged_count_begins_anew(config: str, put_back: list[str], tmp_path: Path) -> None:
    main([config, "75"])
    (tmp_path / "out/logs/requeues.json").write_bytes(b"\xff{")
    assert [main([config, "75"]) for _ in range(MOST_FRUITLESS + 1)] == [0] * MOST_FRUITLESS + [1]


@pytest.mark.parametrize(("code", "job_id"), [("0", "7"), ("75", "")], ids=["all is done", "outside Slurm"])
def test_nothing_is_said_where_nothing_is_to_be_put_back(
    config: str,
    put_back: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: str,
    job_id: str,
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", job_id)
    assert main([config, code]) == 1
    assert not put_back
    assert capsys.readouterr().err == ""


def test_a_config_that_cannot_be_read_is_told(
    tmp_path: Path, put_back: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "absent.yaml"), "75"]) == 1
    assert not put_back
    assert "absent.yaml" in capsys.readouterr().err
