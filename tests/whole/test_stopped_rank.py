"""A rank that stands still for half a minute (SIGSTOP): it holds up nobody, and nothing of what it held is lost."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.csv as pa_csv
import pytest

from benchmarks.processes import numbers_of
from tests.fleet.log import EventKind, read_log
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import Job, assert_every_row_once, finish, make_job, ranks_of, repeated_fetches, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

RATE_PER_S = 10.0
SERVERS = 12
ROWS_OF_EACH = 200
STOPPED = 2
"""The rank that stands still: until all servers that others hold are done, which their rates make 20 s."""


def holders(job: Job) -> dict[str, int]:
    """The rank that holds each server, by the first schedule."""
    path = job.output / "schedules" / "0001" / "schedule.csv"
    if not path.exists():
        return {}
    rows: list[dict[str, Any]] = pa_csv.read_csv(path).to_pylist()
    return {row["server_name"]: row["rank"] for row in rows}


def requests_of(fleet: RunningFleet) -> Counter[str]:
    """Requests that each server has got so far."""
    return Counter(event.server for event in read_log(fleet.log_path) if event.kind is EventKind.REQUEST)


def test_a_rank_that_stands_still_holds_up_nobody(tmp_path: Path) -> None:
    rows = SERVERS * ROWS_OF_EACH
    with running_fleet(tmp_path / "fleet", plain_fleet(SERVERS, latency_s=0.02), rows) as fleet:
        job = make_job(
            tmp_path / "job",
            fleet.table_path,
            downloader_parameters={"default_rate_limit": RATE_PER_S},
            profiling={"mode": "uniform"},
        )
        rows_of = Counter(url.split("/")[2] for url in fleet.urls())
        process = job.start(4)
        wait_until(lambda: len(requests_of(fleet)) == SERVERS, process)
        held_by = holders(job)
        others = {server for server, rank in held_by.items() if rank != STOPPED}
        (stopped,) = (pid for pid, number in numbers_of(ranks_of(process)).items() if number == STOPPED)
        os.kill(stopped, signal.SIGSTOP)
        try:
            wait_until(lambda: all(requests_of(fleet)[it] == rows_of[it] for it in others), process, timeout_s=90)
            meanwhile = requests_of(fleet)
        finally:
            os.kill(stopped, signal.SIGCONT)
        code, printed = finish(process)
        log = fleet.finished_log()
    assert code == 0, printed
    assert len(others) < len(held_by) == SERVERS
    assert all(meanwhile[server] < rows_of[server] / 2 for server in held_by if server not in others), meanwhile
    assert_every_row_once(job, rows)
    # libcurl takes an answer that came while the rank stood still for one that stalled: a request of each server.
    assert repeated_fetches(log) <= len(held_by) - len(others)
