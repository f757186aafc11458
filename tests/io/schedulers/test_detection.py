"""Whose job it is, and that a scheduler that does not say when it ends is told of once."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from ddmpi.io.schedulers.detection import job_is_gone, job_of, scheduler_of, seconds_left
from tests.io.schedulers.conftest import Says


@pytest.mark.parametrize(
    ("environment", "name", "job"),
    [
        ({}, None, ""),
        ({"SLURM_JOB_ID": "7"}, "Slurm", "7"),
        ({"PBS_JOBID": "1008.head"}, "PBS", "PBS 1008.head"),
        ({"LSB_JOBID": "12", "LSB_JOBINDEX": "0"}, "LSF", "LSF 12"),
        ({"LSB_JOBID": "12", "LSB_JOBINDEX": "3"}, "LSF", "LSF 12[3]"),
        ({"FLUX_URI": "local:///run/flux/local", "SLURM_JOB_ID": "7"}, "Flux", ""),
    ],
)
def test_a_job_is_known_by_its_environment(environment: Mapping[str, str], name: str | None, job: str) -> None:
    scheduler = scheduler_of(environment)
    assert (None if scheduler is None else scheduler.name) == name
    assert job_of(environment) == job


def test_the_scheduler_of_a_job_is_asked_whether_it_is_gone(says: Says) -> None:
    says("squeue", "RUNNING\n")
    says("qstat", complained="qstat: Unknown Job Id 7.head", code=153)
    assert job_is_gone("7") is False
    assert job_is_gone("PBS 7.head") is True
    assert job_is_gone("Cobalt 7") is None


def test_the_configured_end_wins_and_the_margin_is_taken_off(no_programs: None) -> None:
    told: list[str] = []
    left_s = seconds_left(time.time() + 1000.0, 60.0, {"SLURM_JOB_END_TIME": "1", "SLURM_JOB_ID": "7"}, told.append)
    assert left_s == pytest.approx(940.0, abs=30.0)
    assert not told


def test_the_first_end_counts_where_one_scheduler_runs_in_a_job_of_another(says: Says) -> None:
    told: list[str] = []
    end = str(int(time.time()) + 500)
    inside = {"FLUX_URI": "local:///run/flux/local", "SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": end}
    for printed, code, expected_s in (("1000\n", 0, 500), ("100\n", 0, 100), ("", 1, 500)):
        says("flux", printed, code=code)
        assert seconds_left(None, 0.0, inside, told.append) == pytest.approx(expected_s, abs=30)
    assert not told


def test_an_end_that_is_not_known_is_told_once(no_programs: None) -> None:
    told: list[str] = []
    assert seconds_left(None, 60.0, {"PBS_JOBID": "7.head"}, told.append) is None
    assert len(told) == 1
    assert "PBS does not say when this job ends (qstat is not on the PATH)" in told[0]
    assert "walltime.end_time" in told[0]
    assert seconds_left(None, 60.0, {}, told.append) is None
    assert len(told) == 1
