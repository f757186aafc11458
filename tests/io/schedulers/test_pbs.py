"""PBS by answers that OpenPBS 20.0.1 has given; nothing here has met a real one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ddmpi.io.schedulers.pbs import Pbs
from tests.io.schedulers.conftest import Says

JOB = Pbs({"PBS_JOBID": "1008.head", "PBS_ENVIRONMENT": "PBS_BATCH"})
ANSWER = """{
    "timestamp":1618432467,
    "pbs_version":"20.0.1",
    "pbs_server":"head",
    "Jobs":{
        "1008.head":{
            "Job_Name":"ddmpi",
            "resources_used":{
                "cput":"00:00:00",
                "ncpus":5,
                "walltime":"00:01:50"
            },
            "job_state":"R",
            "Rerunable":"True",
            "Resource_List":{
                "ncpus":5,
                "place":"free",
                "select":"5:ncpus=1",
                "walltime":"04:00:00"
            },
            "stime":"Wed Apr 14 23:34:19 2021",
            "substate":42,
            "Submit_arguments":"pbs.sh"
        }
    }
}
"""
STARTED = time.mktime((2021, 4, 14, 23, 34, 19, 0, 0, -1))
WITHOUT_LIMIT = ANSWER.replace('"5:ncpus=1",', '"5:ncpus=1"').replace('                "walltime":"04:00:00"\n', "")


@pytest.mark.parametrize(
    ("printed", "end"),
    [
        (ANSWER, STARTED + 4 * 3600),
        (ANSWER.replace("04:00:00", "168:00:30"), STARTED + 168 * 3600 + 30),
        (WITHOUT_LIMIT, None),
    ],
    ids=["4 h", "a week", "no limit"],
)
def test_the_end_is_that_of_the_walltime(says: Says, printed: str, end: float | None) -> None:
    arguments = says("qstat", printed)
    assert JOB.end() == (end, "")
    assert arguments.read_text().split() == ["-f", "-F", "json", "1008.head"]


@pytest.mark.parametrize(
    ("printed", "complained", "code", "problem"),
    [
        ("", "qstat: cannot connect to server head (errno=15010)", 255, "cannot connect to server"),
        ("Job Id: 1008.head\n", "", 0, "the answer of qstat cannot be read"),
        ('{"Jobs":{}}', "", 0, "the answer of qstat cannot be read"),
        (ANSWER.replace('"stime"', '"qtime"'), "", 0, "the answer of qstat cannot be read"),
    ],
    ids=["no server", "no JSON", "no job", "not started"],
)
def test_another_answer_is_a_problem(says: Says, printed: str, complained: str, code: int, problem: str) -> None:
    says("qstat", printed, complained, code)
    assert JOB.end().at is None
    assert problem in JOB.end().problem


@pytest.mark.parametrize(
    ("complained", "code", "gone"),
    [
        ("", 0, False),
        ("qstat: Unknown Job Id 1006.head\n", 153, True),
        ("qstat: 1006.head Job has finished, use -x or -H to obtain historical job information\n", 35, True),
        ("qstat: cannot connect to server head (errno=15010)", 255, None),
    ],
)
def test_whether_a_job_is_gone(says: Says, complained: str, code: int, gone: bool | None) -> None:
    says("qstat", complained=complained, code=code)
    assert JOB.is_gone("1006.head") is gone


def test_the_script_is_submitted_again_after_the_jobs_end(says: Says) -> None:
    arguments = says("qsub", "1013.head\n")
    assert JOB.objection() == ""
    assert JOB.put_back(time.mktime((2030, 1, 2, 3, 4, 5, 0, 0, -1)), Path("pbs.sh")) == ""
    assert arguments.read_text().split() == ["-a", "203001020304.05", "-W", "depend=afterany:1008.head", "pbs.sh"]
    says("qsub", complained="qsub: Unknown queue", code=170)
    assert JOB.put_back(None, Path("pbs.sh")) == "qsub: Unknown queue"


def test_without_a_script_or_in_an_interactive_job_nothing_is_submitted(says: Says) -> None:
    arguments = says("qsub")
    assert "needs the job script" in JOB.put_back(None, None)
    assert Pbs({"PBS_JOBID": "1.head", "PBS_ENVIRONMENT": "PBS_INTERACTIVE"}).objection() == "it is no batch job"
    assert not arguments.exists()
