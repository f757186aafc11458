"""A run whose last servers have asked for a pause: it waits for them, and says until when where it does not."""

from __future__ import annotations

import re
import time
from pathlib import Path

from tests.fleet.log import NOTE_LIMITED, requests_during_pause
from tests.fleet.process import running_fleet
from tests.fleet.spec import ServerSpec
from tests.whole.job import MakeJob, assert_every_row_once

ROWS = 60
RATE_PER_S = 10
PAUSE_S = 3


def lone_server(retry_after_s: int) -> list[ServerSpec]:
    return [ServerSpec("127.62.0.1", latency_s=0.01, rate_limit_per_s=RATE_PER_S, retry_after_s=retry_after_s)]


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
    assert re.search(rf"{re.escape(server)} may be asked again at \d\d:\d\d:\d\d\.", printed)
