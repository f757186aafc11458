"""What Slurm's programs say, by programs of their names that say it."""

from __future__ import annotations

import time

import pytest

from ddmpi.io.schedulers.slurm import LEAST_DELAY_S, Slurm
from tests.io.schedulers.conftest import Says

JOB = Slurm({"SLURM_JOB_ID": "7"})
RUNNING = "JobId=7 JobState=RUNNING Comment=a=b word BatchFlag=1 Requeue=1\n"


def test_the_end_that_the_environment_names_is_believed(no_programs: None) -> None:
    job = Slurm({"SLURM_JOB_END_TIME": "1900000000", "SLURM_JOB_ID": "7"})
    assert job.end().at == 1_900_000_000.0


@pytest.mark.parametrize(
    ("printed", "complained", "code", "end", "problem"),
    [
        pytest.param("2030-01-02T03:04:05\n", "", 0, (2030, 1, 2, 3, 4, 5), "", id="local time"),
        pytest.param("NONE\n", "", 0, None, "", id="no limit"),
        pytest.param("", "slurm_load_jobs error\n", 1, None, "slurm_load_jobs error", id="an error"),
        pytest.param("", "", 1, None, "squeue ended with exit code 1", id="an error without a word"),
        pytest.param("soon\n", "", 0, None, "squeue says 'soon'", id="another form"),
    ],
)
def test_an_older_slurm_is_asked_for_the_end(
    says: Says, printed: str, complained: str, code: int, end: tuple[int, ...] | None, problem: str
) -> None:
    arguments = says("squeue", printed, complained, code)
    expected = None if end is None else time.mktime((*end, 0, 0, -1))  # type: ignore[arg-type]  # nine numbers
    assert JOB.end() == (expected, problem)
    assert arguments.read_text().split() == ["--noheader", "--jobs", "7", "--format", "%e"]


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
    assert JOB.is_gone("7_1") is gone


def test_nothing_is_guessed_without_its_programs(no_programs: None) -> None:
    assert JOB.end() == (None, "squeue is not on the PATH")
    assert JOB.is_gone("7") is None
    assert JOB.is_gone("$(x)") is None
    assert JOB.objection() == "Slurm does not say what it thinks of the job: scontrol is not on the PATH"
    assert JOB.put_back(None, None) == "scontrol is not on the PATH"


@pytest.mark.parametrize(
    ("field", "value", "objection"),
    [
        ("JobState", "RUNNING", ""),
        ("JobState", "CANCELLED", "Slurm is ending it: CANCELLED"),
        ("JobState", "COMPLETING", "Slurm is ending it: COMPLETING"),
        ("BatchFlag", "0", "it was not started by sbatch"),
        ("Requeue", "0", "Slurm may not requeue it (sbatch --requeue allows that)"),
    ],
)
def test_a_job_that_slurm_ends_or_may_not_requeue_stays_out(says: Says, field: str, value: str, objection: str) -> None:
    fields = [f"{field}={value}" if one.startswith(f"{field}=") else one for one in RUNNING.split()]
    says("scontrol", " ".join(fields))
    assert JOB.objection() == objection


@pytest.mark.parametrize(("code", "reason"), [(0, ""), (1, "Job is not permitted")])
def test_a_job_goes_back_or_slurm_says_why_not(says: Says, code: int, reason: str) -> None:
    arguments = says("scontrol", complained="Job is not permitted" if code else "", code=code)
    assert JOB.put_back(None, None) == reason
    assert arguments.read_text().split() == ["requeue", "7"]


def test_a_job_never_starts_in_the_seconds_in_which_it_ends(says: Says) -> None:
    arguments = says("scontrol")
    JOB.put_back(time.time() - 5, None)
    start = arguments.read_text().split()[-1].removeprefix("StartTime=")
    assert time.mktime(time.strptime(start, "%Y-%m-%dT%H:%M:%S")) >= time.time() + LEAST_DELAY_S - 5


def test_the_time_to_start_is_named_once_the_job_is_back(says: Says) -> None:
    arguments = says("scontrol")
    assert JOB.put_back(time.mktime((2030, 1, 2, 3, 4, 5, 0, 0, -1)), None) == ""
    assert arguments.read_text().split() == ["requeue", "7", "update", "JobId=7", "StartTime=2030-01-02T03:04:05"]
