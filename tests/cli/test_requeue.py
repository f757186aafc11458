"""When a job goes back into the queue, from when on, and when people have to look at it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddmpi.cli import requeue
from ddmpi.cli.requeue import (
    LONGEST_S,
    MOST_FRUITLESS,
    Attempts,
    Progress,
    main,
    next_attempts,
    objection,
    progress_of,
    queue_text,
    read_attempts,
)
from ddmpi.config.config import load
from ddmpi.core.ledger.waiting import Wait, Waiting
from ddmpi.io.folder.checkpoint import Checkpoint, save
from ddmpi.io.folder.layout import Layout, configured_layout
from ddmpi.io.schedulers.scheduler import JobEnd

NOW = 1_000_000.0
STUCK = Progress(rows=100, pending=50)
DEAD_HOST = Progress(rows=282, pending=17, waiting=17, until=NOW + 600)
HELD = Progress(rows=282, pending=17, waiting=17)


def after(progress: Progress, runs: int, code: int = 75, every_s: float = 600.0) -> tuple[Attempts, str]:
    """What is known after runs that have all left the same, and what speaks against one more."""
    attempts = next_attempts(None, "7", progress, code, NOW)
    now = NOW
    for _ in range(runs - 1):
        now += every_s
        attempts = next_attempts(attempts, "7", progress, code, now)
    return attempts, objection(code, progress, attempts, now)


@pytest.mark.parametrize("code", [75, 9, 137, 255])
def test_a_run_that_stopped_early_or_lost_a_rank_goes_back(code: int) -> None:
    assert after(STUCK, 1, code)[1] == ""


@pytest.mark.parametrize("code", [0, 1, 2, 127])
def test_a_run_that_would_end_in_the_same_way_does_not(code: int) -> None:
    assert after(STUCK, 1, code)[1] == "it would end in the same way again"


def test_a_job_that_gets_nothing_done_and_waits_for_nobody_goes_back_three_times() -> None:
    assert after(STUCK, MOST_FRUITLESS)[1] == ""
    assert "put back 3 times without a row more" in after(STUCK, MOST_FRUITLESS + 1)[1]


def test_a_job_whose_last_rows_wait_for_a_dead_server_goes_on_until_it_is_given_up() -> None:
    attempts, reason = after(DEAD_HOST, 100)
    assert reason == ""
    assert (attempts.fruitless, attempts.times) == (0, 100)


def test_a_job_that_waits_is_bounded_in_time() -> None:
    runs = int(LONGEST_S / 86_400.0)
    assert after(DEAD_HOST, runs, every_s=86_400.0)[1] == ""
    assert "no row has become final since" in after(DEAD_HOST, runs + 1, every_s=86_400.0)[1]


def test_a_server_that_is_waited_for_excuses_no_crash_and_no_rows_of_others() -> None:
    assert after(DEAD_HOST, MOST_FRUITLESS + 1, code=9)[0].fruitless == MOST_FRUITLESS
    others = Progress(rows=100, pending=50, waiting=17, until=NOW + 600)
    assert after(others, MOST_FRUITLESS + 1)[0].fruitless == MOST_FRUITLESS


def test_a_job_of_held_servers_alone_waits_for_its_operator() -> None:
    assert "control.yaml holds are left (17)" in after(HELD, 1)[1]


def test_a_row_more_begins_the_count_anew() -> None:
    tired = Attempts("7", 100, MOST_FRUITLESS, since=1.0, times=9)
    assert next_attempts(tired, "7", Progress(101, 49), 75, NOW) == Attempts("7", 101, since=NOW, times=10)
    assert next_attempts(tired, "7", STUCK, 75, NOW).fruitless == MOST_FRUITLESS + 1


def test_a_job_is_not_started_before_the_first_server_may_be_asked() -> None:
    assert next_attempts(None, "7", DEAD_HOST, 75, NOW).begin == NOW + 600
    assert next_attempts(None, "7", DEAD_HOST, 75, NOW + 700).begin == NOW + 700


def test_rows_that_wait_for_nobody_are_not_kept_waiting_by_others() -> None:
    others = Progress(rows=100, pending=50, waiting=17, until=NOW + 86_400)
    assert next_attempts(None, "7", others, 75, NOW).begin == 0


def test_progress_is_what_the_checkpoint_says() -> None:
    waiting = Waiting((Wait("a.example", 17, 9.0, "no answer"),), 1, 17, 9.0)
    counters = {"rows": 310, "successes": 280, "errors": 2, "ignored": 11}
    assert progress_of(Checkpoint(1, counters=counters, waiting=waiting)) == Progress(282, 17, 17, 9.0)
    assert progress_of(Checkpoint(1)) == progress_of(None) == Progress()


# ---- the program


class FakeScheduler:
    """A scheduler that takes every job back."""

    name = "Slurm"
    job_id = "7"

    def __init__(self, keeps_id: bool = True) -> None:
        self.keeps_id = keeps_id
        self.refuses = ""
        self.put: list[tuple[float | None, Path | None]] = []

    def end(self) -> JobEnd:
        return JobEnd()

    def is_gone(self, job_id: str) -> bool | None:  # noqa: ARG002  # as the others
        return None

    def objection(self) -> str:
        return self.refuses

    def put_back(self, begin: float | None, script: Path | None) -> str:
        self.put.append((begin, script))
        return ""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"path_to_input": "urls.csv", "path_to_output_folder": str(tmp_path / "out")}))
    return str(path)


@pytest.fixture
def layout(config: str) -> Layout:
    layout = configured_layout(load(Path(config)))
    layout.logs.mkdir(parents=True)
    return layout


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> FakeScheduler:
    fake = FakeScheduler()
    monkeypatch.setattr(requeue, "scheduler_of", lambda _: fake)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the test run has to go on hearing SIGTERM
    return fake


def leave(layout: Layout, **waiting: Any) -> None:
    counters = {"rows": 299, "successes": 282, "errors": 0, "ignored": 0}
    save(layout, Checkpoint(1, counters=counters, waiting=Waiting(**waiting)))


def test_a_job_without_progress_goes_back_three_times_and_the_log_says_why_not_again(
    config: str, layout: Layout, scheduler: FakeScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(layout)
    assert [main([config, "75"]) for _ in range(MOST_FRUITLESS + 1)] == [0] * MOST_FRUITLESS + [1]
    assert scheduler.put == [(None, None)] * MOST_FRUITLESS
    assert "job 7 is not put back into the queue: it was put back 3 times without" in capsys.readouterr().err
    attempts = read_attempts(layout)
    assert attempts is not None
    assert queue_text(attempts, time.time()).startswith("job 7 was not put back: it was put back 3 times")


def test_a_job_that_waits_is_told_when_it_goes_on(
    config: str, layout: Layout, scheduler: FakeScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    until = time.time() + 900
    leave(layout, servers=1, rows=17, until=until)
    assert main([config, "75", "job.sh"]) == 0
    assert scheduler.put == [(until, Path("job.sh"))]
    clock = time.strftime("%H:%M:%S", time.localtime(until))
    said = capsys.readouterr().err
    assert "282 rows final, 17 pending; job 7 goes back into the queue by itself, not to start before" in said
    assert clock in said
    attempts = read_attempts(layout)
    assert attempts is not None
    assert "put back 1 time, not to start before" in queue_text(attempts, time.time())
    assert clock in queue_text(attempts, time.time())


def test_a_job_that_follows_a_hard_end_waits_until_the_lock_is_old(
    config: str, layout: Layout, scheduler: FakeScheduler
) -> None:
    leave(layout)
    scheduler.keeps_id = False
    assert main([config, "137", "job.sh"]) == 0
    begin = scheduler.put[0][0]
    assert begin is not None
    assert begin > time.time() + 600


def test_a_job_that_somebody_submits_anew_begins_anew(config: str, layout: Layout, scheduler: FakeScheduler) -> None:
    leave(layout)
    for _ in range(MOST_FRUITLESS + 1):
        main([config, "75"])
    assert main([config, "75"]) == 0


def test_a_job_that_slurm_ends_stays_out(
    config: str, layout: Layout, scheduler: FakeScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler.refuses = "Slurm is ending it: CANCELLED"
    assert main([config, "75"]) == 1
    assert not scheduler.put
    assert "job 7 is not put back into the queue: Slurm is ending it: CANCELLED" in capsys.readouterr().err


def test_a_damaged_count_begins_anew(config: str, layout: Layout, scheduler: FakeScheduler) -> None:
    main([config, "75"])
    (layout.logs / "requeues.json").write_bytes(b"\xff{")
    assert [main([config, "75"]) for _ in range(MOST_FRUITLESS + 1)] == [0] * MOST_FRUITLESS + [1]


def test_a_job_that_is_done_leaves_nothing_to_tell(
    config: str, layout: Layout, scheduler: FakeScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    main([config, "75"])
    capsys.readouterr()
    assert main([config, "0"]) == 1
    assert len(scheduler.put) == 1
    assert read_attempts(layout) is None
    assert capsys.readouterr().err == ""


def test_nothing_is_said_outside_any_scheduler(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outside: Mapping[str, str] = {}
    monkeypatch.setattr(os, "environ", outside)
    assert main([config, "75"]) == 1
    assert capsys.readouterr().err == ""


def test_a_config_that_cannot_be_read_is_told(
    tmp_path: Path, scheduler: FakeScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "absent.yaml"), "75"]) == 1
    assert not scheduler.put
    assert "absent.yaml" in capsys.readouterr().err
