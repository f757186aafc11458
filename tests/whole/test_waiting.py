"""A run whose last servers have asked for a pause: it waits for them, and says until when where it does not."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests.fleet.log import NOTE_LIMITED, requests_during_pause
from tests.fleet.process import running_fleet
from tests.fleet.spec import Mode, ServerSpec, plain_address
from tests.whole.job import MakeJob, assert_every_row_once, finish, rows_of, signal_run, wait_until

ROWS = 60
RATE_PER_S = 10
PAUSE_S = 3
CLOCK = r"\d\d:\d\d:\d\d"


def lone_server(retry_after_s: int) -> list[ServerSpec]:
    return [ServerSpec("127.62.0.1", latency_s=0.01, rate_limit_per_s=RATE_PER_S, retry_after_s=retry_after_s)]


@pytest.mark.slow
def test_a_lone_server_that_asks_for_a_pause_is_waited_for(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", lone_server(PAUSE_S), ROWS) as fleet:
        job = new_job(fleet.table_path, parked_wait_s=0, profiling={"mode": "uniform"})
        code, printed = job.run(2)
        log = fleet.finished_log()
    assert code == 0, printed
    assert_every_row_once(job, ROWS)
    assert requests_during_pause(log, fleet.specs[0].name(fleet.port), 0.5) == 0
    assert any(event.note == NOTE_LIMITED for event in log), "it has asked for a pause"


def test_a_pause_that_is_too_long_ends_the_run_at_once_with_its_end(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", lone_server(600), ROWS) as fleet:
        job = new_job(fleet.table_path, final_wait_s=60, parked_wait_s=0, profiling={"mode": "uniform"})
        began_at = time.monotonic()
        code, printed = job.run(2)
        assert time.monotonic() - began_at < 30
        server = fleet.specs[0].name(fleet.port)
        assert code == 75, printed
        told = (
            rf"for {re.escape(server)} until {CLOCK} \(429, Retry-After 600 s\); run the same command again after "
            rf"{CLOCK}, or with --give-up to make them errors now\."
        )
        ending = re.search(told, printed)
        assert ending, printed
        assert ending[0] in job.inspect("--status")[1]
        assert ending[0] in (job.output / "logs" / "run.log").read_text()
        code, printed = job.run(1, "--give-up")
        assert code == 0, printed
        assert f"Given up: {server}; rows of it" in printed
        assert re.search(r"requests +0 ", printed), "nothing is asked for"
        assert_every_row_once(job, ROWS)
        assert job.inspect("--verify")[0] == 0
        rows = rows_of(job.output / "errors", ["error_kind", "error_code", "error_msg"]).to_pylist()
        assert {tuple(row.values()) for row in rows} == {("given_up", -2, "not asked: given up by the user")}
        code, printed = job.run(1, "--retry-failed", "given_up")
    assert code == 75, printed
    assert re.search(rf"{len(rows)} rows are pending: {len(rows)} {told}", printed), "its pause is not over"


@pytest.mark.slow
def test_a_pause_that_outlasts_the_allocation_ends_the_run_at_once_and_the_next_one_keeps_it(
    tmp_path: Path, new_job: MakeJob
) -> None:
    pause_s, allocation_s, margin_s = 20, 15.0, 1.0
    spec = ServerSpec("127.62.0.2", latency_s=0.01, rate_limit_per_s=RATE_PER_S, burst=40, retry_after_s=pause_s)
    with running_fleet(tmp_path / "fleet", [spec], ROWS) as fleet:
        end_time = time.time() + allocation_s
        walltime = {"end_time": end_time, "margin_s": margin_s}
        job = new_job(fleet.table_path, walltime=walltime, profiling={"mode": "uniform"})
        code, printed = job.run(2)
        assert time.time() < end_time - margin_s, "it ends at once"
        assert code == 75, printed
        server = re.escape(fleet.specs[0].name(fleet.port))
        told = rf"for {server} until {CLOCK} \(429, Retry-After {pause_s} s\); run the same command again after "
        assert re.search(told, printed), printed
        del job.config["walltime"]
        code, printed = job.run(2)
        log = fleet.finished_log()
    assert code == 0, printed
    assert_every_row_once(job, ROWS)
    assert requests_during_pause(log, spec.name(fleet.port), 0.5) == 0
    assert sum(event.note == NOTE_LIMITED for event in log) == 1


def with_a_dead_server() -> list[ServerSpec]:
    return [ServerSpec(plain_address(0)), ServerSpec(plain_address(1), mode=Mode.REFUSED)]


def test_a_server_out_of_reach_is_probed_for_as_long_as_it_is_worth_and_then_given_up(
    tmp_path: Path, new_job: MakeJob
) -> None:
    with running_fleet(tmp_path / "fleet", with_a_dead_server(), ROWS) as fleet:
        job = new_job(
            fleet.table_path,
            backoff={"brief_s": 0.1, "base_s": 600, "cap_s": 3600},
            breaker={"failures": 3, "probes": 3, "longest_s": 7},
            parked_wait_s=0,
        )
        began_at = time.monotonic()
        code, printed = job.run(2)
        took_s = time.monotonic() - began_at
    assert code == 0, printed
    assert 7 < took_s < 40
    assert_every_row_once(job, ROWS)
    rows = rows_of(job.output / "errors", ["error_kind", "error_code", "error_msg"]).to_pylist()
    assert {(row["error_kind"], row["error_code"]) for row in rows} == {("unreachable", -1)}
    begins = {row["error_msg"].partition(", at last: connect, ")[0] for row in rows}
    told = "the server has not answered any probe"
    assert begins == {told, f"not asked: {told}"}


def test_a_signal_while_a_run_waits_ends_it_with_what_is_left(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", with_a_dead_server(), ROWS) as fleet:
        job = new_job(fleet.table_path, backoff={"base_s": 600, "cap_s": 3600})
        run = job.start(2)
        checkpoint = job.output / "checkpoint.json"
        wait_until(lambda: checkpoint.exists() and "out of reach" in checkpoint.read_text(), run)
        signal_run(run, signal.SIGINT)
        printed = finish(run)[1]
        server = re.escape(fleet.specs[1].name(fleet.port))
    reason = rf"\(connect, out of reach since {CLOCK}, given up about {CLOCK}\)"
    told = rf"30 rows are pending: 30 for {server} until {CLOCK} {reason}; run the same command"
    assert re.search(told, printed), printed
