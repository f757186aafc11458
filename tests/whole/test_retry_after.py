"""A server's Retry-After of half a minute: all ranks keep it, also those that a kill and a restart have made."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.fleet.log import NOTE_LIMITED, Event, EventKind, read_log, requests_during_pause
from tests.fleet.process import running_fleet
from tests.fleet.spec import ServerSpec, plain_address
from tests.whole.job import (
    Job,
    assert_every_row_once,
    assert_polite,
    finish,
    make_job,
    ranks_of,
    repeated_fetches,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PAUSE_S = 30
STRICT_PER_S = 40.0
OTHERS_PER_S = 5.0
OTHERS = 5
ROWS_OF_EACH_OTHER = 150
STRICT_ROWS = 70
"""More than the server lets through at once, and fewer than twice that: one pause is all there is."""
GRACE_S = 1.5
"""An answer that has left the server is read by its rank within this time, and told to the ranks with other lanes."""


def make_specs() -> list[ServerSpec]:
    total = STRICT_ROWS + OTHERS * ROWS_OF_EACH_OTHER
    strict = ServerSpec(
        plain_address(0),
        latency_s=0.01,
        rate_limit_per_s=STRICT_PER_S,
        retry_after_s=PAUSE_S,
        row_weight=STRICT_ROWS / total,
    )
    weight = ROWS_OF_EACH_OTHER / total
    return [
        strict,
        *(ServerSpec(plain_address(number + 1), latency_s=0.01, row_weight=weight) for number in range(OTHERS)),
    ]


def refusals(log: list[Event]) -> list[Event]:
    """Requests of which each began a pause."""
    return [event for event in log if event.note == NOTE_LIMITED]


def test_a_pause_holds_for_all_ranks_and_over_a_kill_and_a_restart(tmp_path: Path) -> None:
    rows = STRICT_ROWS + OTHERS * ROWS_OF_EACH_OTHER
    with running_fleet(tmp_path / "fleet", make_specs(), rows) as fleet:
        strict, *others = (spec.name(fleet.port) for spec in fleet.specs)
        job = job_of(tmp_path / "job", fleet.table_path, strict)
        process = job.start(4)
        wait_until(lambda: bool(refusals(read_log(fleet.log_path))), process)
        refused_at = refusals(read_log(fleet.log_path))[0].time_s
        # Two checkpoints later the pause is on the disk, and others have long been told.
        wait_until(lambda: read_log(fleet.log_path)[-1].time_s > refused_at + 3, process)
        os.kill(ranks_of(process)[1], signal.SIGKILL)
        assert finish(process)[0] not in {0, 75}
        code, printed = job.run(3)
        log = fleet.finished_log()
    assert code == 0, printed
    assert_every_row_once(job, rows)
    assert requests_during_pause(log, strict, GRACE_S) == 0
    arrivals = [event for event in log if event.kind is EventKind.REQUEST]
    next_at = min(event.time_s for event in arrivals if event.server == strict and event.time_s > refused_at + GRACE_S)
    assert refused_at + PAUSE_S <= next_at
    assert_polite(log, dict.fromkeys(others, OTHERS_PER_S), connections=8)
    # The others' rows were done long before the pause was over, in spite of the restart in between.
    meanwhile = Counter(event.server for event in arrivals if refused_at < event.time_s < refused_at + PAUSE_S)
    assert all(meanwhile[server] > OTHERS_PER_S * PAUSE_S / 2 for server in others), meanwhile
    assert repeated_fetches(log) < rows / 4


def job_of(folder: Path, table: Path, strict: str) -> Job:
    """No limit is stated for the strict server, and nothing is learned of it before."""
    return make_job(
        folder,
        table,
        downloader_parameters={"batch_size": 10, "default_rate_limit": OTHERS_PER_S},
        servers=[{"match": strict, "rate_limit": 0}],
        final_wait_s=2 * PAUSE_S,
        profiling={"mode": "uniform"},
        schedule_rules={1: 4},
    )
