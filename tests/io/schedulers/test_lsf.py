"""LSF by answers of the forms in its manual (bjobs -o, -WL) and in published scripts; none has met a real one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ddmpi.io.schedulers.lsf import Lsf
from tests.io.schedulers.conftest import Says

JOB = Lsf({"LSB_JOBID": "12", "LSB_JOBINDEX": "0"})


@pytest.mark.parametrize(("printed", "left_s"), [("3:59 L\n", 14_340), ("0:0 L\n", 0), ("120:05 L\n", 432_300)])
def test_the_end_is_that_of_the_run_limit(says: Says, printed: str, left_s: int) -> None:
    arguments = says("bjobs", printed)
    found = JOB.end()
    assert found.at == pytest.approx(time.time() + left_s, abs=30)
    assert found.problem == ""
    assert arguments.read_text().split() == ["-noheader", "-o", "time_left", "12"]


@pytest.mark.parametrize(
    ("printed", "complained", "code", "problem"),
    [
        ("-\n", "", 0, ""),
        ("1:00 E\n", "", 0, "bjobs tells the estimated run time (bsub -We) in place of the limit"),
        ("soon\n", "", 0, "bjobs says 'soon'"),
        ("", "LSF is down. Please wait ...\n", 255, "LSF is down. Please wait ..."),
    ],
    ids=["no limit", "an estimate", "another form", "no answer"],
)
def test_without_a_limit_there_is_no_end(says: Says, printed: str, complained: str, code: int, problem: str) -> None:
    says("bjobs", printed, complained, code)
    assert JOB.end() == (None, problem)


@pytest.mark.parametrize(
    ("printed", "complained", "code", "gone"),
    [
        ("RUN\n", "", 0, False),
        ("EXIT\n", "", 0, True),
        ("DONE\n", "", 0, True),
        ("", "Job <11> is not found\n", 255, True),
        ("", "LSF is down. Please wait ...\n", 255, None),
    ],
)
def test_whether_a_job_is_gone(says: Says, printed: str, complained: str, code: int, gone: bool | None) -> None:
    says("bjobs", printed, complained, code)
    assert JOB.is_gone("11") is gone


def test_the_script_is_submitted_again_after_the_jobs_end(says: Says, tmp_path: Path) -> None:
    script = tmp_path / "lsf.sh"
    script.write_text("#BSUB -W 4:00\n")
    arguments = says("bsub", "Job <13> is submitted to default queue <normal>.\n")
    assert JOB.objection() == ""
    assert JOB.put_back(time.mktime((2030, 1, 2, 3, 4, 5, 0, 0, -1)), script) == ""
    assert arguments.read_text().split() == ["-b", "2030:01:02:03:05", "-w", "ended(12)"]
    assert (tmp_path / "bsub.read").read_text() == "#BSUB -W 4:00\n"


def test_without_a_script_or_in_an_interactive_job_nothing_is_submitted(says: Says) -> None:
    arguments = says("bsub")
    assert "needs the job script" in JOB.put_back(None, None)
    assert Lsf({"LSB_JOBID": "1", "LSB_INTERACTIVE": "Y"}).objection() == "it is an interactive job"
    assert not arguments.exists()
