"""When a job goes back into Slurm's queue, and when people have to look at it."""

from __future__ import annotations

import pytest

from ddmpi.cli.requeue import MOST_FRUITLESS, Attempts, next_attempts, objection

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
