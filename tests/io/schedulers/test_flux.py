"""Flux by answers of the forms in the manual pages of flux-core; nothing here has met a real one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ddmpi.io.schedulers.flux import NO_LIMIT, Flux
from tests.io.schedulers.conftest import Says

JOB = Flux({"FLUX_URI": "local:///run/flux/local"})


def test_the_end_is_that_of_the_time_limit(says: Says) -> None:
    arguments = says("flux", "14340\n")
    assert JOB.end().at == pytest.approx(time.time() + 14_340, abs=30)
    assert arguments.read_text().split() == ["job", "timeleft"]


@pytest.mark.parametrize(
    ("printed", "complained", "code", "problem"),
    [
        (f"{NO_LIMIT}\n", "", 0, ""),
        ("inf\n", "", 0, "flux job timeleft says 'inf'"),
        ("", "flux-job: not in a job\n", 1, "flux-job: not in a job"),
    ],
)
def test_without_a_limit_there_is_no_end(says: Says, printed: str, complained: str, code: int, problem: str) -> None:
    says("flux", printed, complained, code)
    assert JOB.end() == (None, problem)


def test_the_script_is_submitted_again_to_the_instance_that_runs_the_job(says: Says) -> None:
    arguments = says("flux", "f7Zq9AKHno\n")
    assert JOB.put_back(1_900_000_000.4, Path("flux.sh")) == ""
    after = ["--dependency=afterany:f7Zq9AKHno", "--dependency=begin-time:1900000000"]
    assert arguments.read_text().split() == ["getattr", "jobid", "--parent", "batch", *after, "flux.sh"]


def test_outside_a_batch_job_nothing_is_submitted(says: Says) -> None:
    arguments = says("flux", complained="flux_attr_get: No such file or directory", code=1)
    assert "needs the job script" in JOB.put_back(None, None)
    assert not arguments.exists()
    assert "it is no batch job" in JOB.put_back(None, Path("flux.sh"))
    assert JOB.is_gone("f7Zq9AKHno") is None
