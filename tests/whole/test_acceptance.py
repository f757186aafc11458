"""What a user is promised, at a size where it can go wrong: 20,000 rows of 200 servers, a killed rank, idle ranks."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from tests.fleet.log import Event
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import demo_fleet, plain_fleet
from tests.whole.job import (
    ROOT,
    Job,
    assert_bodies_as_served,
    assert_every_row_once,
    assert_polite,
    finish,
    make_job,
    ranks_of,
    repeated_fetches,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LOGGER = logging.getLogger(__name__)

ROWS = 20_000
SERVERS = 200
RATE_PER_S = 2.5
"""Of each server: 100 rows take 40 s, and all servers together make 500 requests/s."""
REPEATED_SHARE = 0.05
IDLE_WAKEUPS_PER_S = 40
"""Of a rank that waits: it looks for messages 17 times a second, beside reports and timers. What a wakeup costs depends
on the machine; their number does not."""
SPINNING_SHARE = 0.2
"""Eight ranks that never sleep take a quarter of two cores each; one at five files a second takes a few percent."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path / "fleet", plain_fleet(SERVERS, latency_s=0.002), ROWS) as running:
        yield running


def job_of(fleet: RunningFleet, folder: Path, checkpoint_interval_s: float) -> Job:
    return make_job(
        folder,
        fleet.table_path,
        downloader_parameters={"default_rate_limit": RATE_PER_S},
        checkpoint_interval_s=checkpoint_interval_s,
    )


def assert_accounted_and_polite(job: Job, fleet: RunningFleet, log: Sequence[Event]) -> None:
    assert_every_row_once(job, ROWS)
    assert assert_bodies_as_served(job, fleet) == ROWS
    assert_polite(log, {spec.name(fleet.port): RATE_PER_S for spec in fleet.specs}, connections=8)


def test_twenty_thousand_rows_of_two_hundred_servers(fleet: RunningFleet, tmp_path: Path) -> None:
    job = job_of(fleet, tmp_path / "job", checkpoint_interval_s=5)
    started_at = time.monotonic()
    code, printed = job.run(4)
    LOGGER.info("%d rows in %.1f s", ROWS, time.monotonic() - started_at)
    log = fleet.finished_log()
    assert code == 0, printed
    assert_accounted_and_polite(job, fleet, log)
    assert repeated_fetches(log) == 0


def test_a_rank_killed_half_way_costs_little(fleet: RunningFleet, tmp_path: Path) -> None:
    # 200 open parts and a checkpoint each second: more than many a disk can keep up with. Admission has to wait for it.
    job = job_of(fleet, tmp_path / "job", checkpoint_interval_s=1)
    process = job.start(4)
    wait_until(lambda: answers(fleet) > ROWS // 2, process, timeout_s=90)
    os.kill(ranks_of(process)[2], signal.SIGKILL)
    code, printed = finish(process)
    assert code not in {0, 75}, printed
    code, printed = job.run(3)
    log = fleet.finished_log()
    assert code == 0, printed
    assert_accounted_and_polite(job, fleet, log)
    repeated = repeated_fetches(log)
    LOGGER.info("%d of %d rows fetched twice: %.2f %%", repeated, ROWS, 100 * repeated / ROWS)
    assert repeated < REPEATED_SHARE * ROWS


def answers(fleet: RunningFleet) -> int:
    """How many requests the fleet has answered so far."""
    return fleet.log_path.read_bytes().count(b"\tanswer\t")


def test_ranks_that_wait_need_no_cpu(tmp_path: Path) -> None:
    window_s = 10.0
    with running_fleet(tmp_path / "fleet", plain_fleet(1), 100) as fleet:
        job = make_job(tmp_path / "job", fleet.table_path, downloader_parameters={"default_rate_limit": 5})
        process = job.start(8)
        # Two seconds of downloading: everybody has started, and whoever wanted to steal has asked.
        wait_until(lambda: answers(fleet) >= 15, process, timeout_s=60)
        ranks = ranks_of(process)
        seconds, wakeups = cpu_seconds(ranks), wakeups_of(ranks)
        started_at = time.monotonic()
        wait_until(lambda: time.monotonic() - started_at >= window_s, process)
        took_s = time.monotonic() - started_at
        shares = [(after - seconds[pid]) / took_s for pid, after in cpu_seconds(ranks).items()]
        rates = [(after - wakeups[pid]) / took_s for pid, after in wakeups_of(ranks).items()]
        code, printed = finish(process)
    assert code == 0, printed
    assert len(ranks) == 8
    LOGGER.info("CPU of each rank: %s %%", ", ".join(f"{100 * share:.1f}" for share in shares))
    LOGGER.info("wakeups of each rank: %s per second", ", ".join(f"{rate:.0f}" for rate in rates))
    assert max(shares) < SPINNING_SHARE
    # One of them downloads, and rank 0 hears the others and shows the progress.
    assert sorted(rates)[-3] < IDLE_WAKEUPS_PER_S


def cpu_seconds(pids: Sequence[int]) -> Mapping[int, float]:
    """User and system time of all threads of each process, so far."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    seconds = {}
    for pid in pids:
        # Fields 14 and 15 of proc(5), counted after the name, which may hold blanks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds[pid] = (int(fields[11]) + int(fields[12])) / ticks_per_s
    return seconds


def wakeups_of(pids: Sequence[int]) -> Mapping[int, int]:
    """How often the threads of each process have slept and gone on, so far."""
    key = "voluntary_ctxt_switches:"
    return {
        pid: sum(
            int(line.removeprefix(key))
            for path in Path(f"/proc/{pid}/task").glob("*/status")
            for line in path.read_text().splitlines()
            if line.startswith(key)
        )
        for pid in pids
    }


@pytest.mark.parametrize("ranks", [2, 4, 16])
def test_the_demo_ends_well_with_any_number_of_ranks(tmp_path: Path, ranks: int) -> None:
    rows = 5_000
    with running_fleet(tmp_path / "fleet", demo_fleet(), rows) as fleet:
        config = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
        config["path_to_input"] = str(fleet.table_path)
        config["path_to_output_folder"] = str(tmp_path / "out")
        job = Job(tmp_path, config)
        started_at = time.monotonic()
        code, printed = job.run(ranks)
    LOGGER.info("%d ranks: %.1f s", ranks, time.monotonic() - started_at)
    assert code == 0, printed
    assert_every_row_once(job, rows)
