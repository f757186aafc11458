"""What Slurm's programs say, by programs of their names that say it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ddmpi.io import slurm

Says = Callable[..., Path]


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Puts a program on the PATH that prints, fails, and keeps its arguments in the file that is returned."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def program(name: str, printed: str = "", complained: str = "", code: int = 0) -> Path:
        path = tmp_path / name
        lines = [
            "#!/bin/sh",
            f'echo "$@" > {path}.arguments',
            f"printf %s '{printed}'",
            f"printf %s '{complained}' >&2",
        ]
        path.write_text("\n".join([*lines, f"exit {code}\n"]))
        path.chmod(0o755)
        return Path(f"{path}.arguments")

    return program


@pytest.fixture
def without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_the_end_that_the_environment_names_is_believed(without_slurm: None) -> None:
    assert slurm.end_time({"SLURM_JOB_END_TIME": "1900000000", "SLURM_JOB_ID": "7"}) == 1_900_000_000.0


@pytest.mark.parametrize(
    ("printed", "code", "end"),
    [
        pytest.param("2030-01-02T03:04:05\n", 0, (2030, 1, 2, 3, 4, 5), id="local time"),
        pytest.param("NONE\n", 0, None, id="no limit"),
        pytest.param("2030-01-02T03:04:05\n", 1, None, id="an error"),
    ],
)
def test_an_older_slurm_is_asked_for_the_end(says: Says, printed: str, code: int, end: tuple[int, ...] | None) -> None:
    arguments = says("squeue", printed, code=code)
    expected = None if end is None else time.mktime((*end, 0, 0, -1))  # type: ignore[arg-type]  # nine numbers
    assert slurm.end_time({"SLURM_JOB_ID": "7"}) == expected
    assert arguments.read_text().split() == ["--noheader", "--jobs", "7", "--format", "%e"]


@pytest.mark.parametrize("environment", [{}, {"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "$(x)"}])
def test_without_slurm_there_is_no_end(without_slurm: None, environment: dict[str, str]) -> None:
    assert slurm.end_time(environment) is None
    assert slurm.seconds_left(None, 60.0, environment) is None


def test_the_configured_end_wins_and_the_margin_is_taken_off(without_slurm: None) -> None:
    left_s = slurm.seconds_left(time.time() + 1000.0, 60.0, {"SLURM_JOB_END_TIME": "1"})
    assert left_s == pytest.approx(940.0, abs=30.0)


@pytest.mark.parametrize(
    ("printed", "complained", "code", "gone"),
    [
        pytest.param("RUNNING\n", "", 0, False, id="it runs"),
        pytest.param("\n", "", 0, True, id="it is listed no more"),
        pytest.param("", "slurm_load_jobs error: Invalid job id specified", 1, True, id="it is forgotten"),
        pytest.param("", "Unable to contact slurm controller", 1, None, id="the controller does not answer"),
    ],
)
def test_whether_a_job_is_gone(says: Says, printed: str, complained: str, code: int, gone: bool | None) -> None:
    says("squeue", printed, complained, code)
    assert slurm.job_is_gone("7_1") is gone


def test_no_job_is_known_without_slurm(without_slurm: None) -> None:
    assert slurm.job_is_gone("7") is None
    assert slurm.job_fields("7") is None
    assert slurm.requeue("7") == "scontrol does not answer"


def test_fields_of_a_job_are_told_apart_and_values_may_have_signs(says: Says) -> None:
    says("scontrol", "JobId=7 JobState=RUNNING Comment=a=b word Requeue=1\n")
    assert slurm.job_fields("7") == {"JobId": "7", "JobState": "RUNNING", "Comment": "a=b", "Requeue": "1"}
    says("scontrol", "JobId=7", code=1)
    assert slurm.job_fields("7") is None


@pytest.mark.parametrize(("code", "reason"), [(0, ""), (1, "Job is not permitted")])
def test_a_job_goes_back_or_slurm_says_why_not(says: Says, code: int, reason: str) -> None:
    arguments = says("scontrol", complained="Job is not permitted", code=code)
    assert slurm.requeue("7") == reason
    assert arguments.read_text().split() == ["requeue", "7"]


def test_a_program_that_hangs_has_said_nothing(says: Says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "ANSWER_TIMEOUT_S", 0.2)
    says("scontrol")
    (tmp_path / "scontrol").write_text("#!/bin/sh\nexec sleep 60\n")
    assert slurm.requeue("7") == "scontrol does not answer"
