"""A server that answers 403 to everything: it is left alone soon, and its other rows say that they were not asked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from tests.fleet.log import EventKind
from tests.fleet.process import running_fleet
from tests.fleet.spec import ServerSpec, plain_fleet
from tests.whole.job import Job, MakeJob, assert_every_row_once, rows_of

ROWS = 200


def errors(job: Job) -> pa.Table:
    return rows_of(job.output / "errors", ["error_kind", "error_code", "error_msg", "retry_count", "fetched_at"])


@pytest.mark.slow
def test_it_costs_only_its_own_rows_and_says_which_were_not_asked(tmp_path: Path, new_job: MakeJob) -> None:
    good = plain_fleet(2)
    bad = ServerSpec(good[1].address, error_rate=1.0, error_statuses=(403,))
    with running_fleet(tmp_path / "fleet", [good[0], bad], ROWS) as fleet:
        port = fleet.port
        job = new_job(fleet.table_path, profiling={"mode": "uniform"}, parked_wait_s=30)
        code, printed = job.run(2)
        log = fleet.finished_log()
    assert code == 0, printed
    assert_every_row_once(job, ROWS)
    asked = sum(event.kind is EventKind.REQUEST and event.server == bad.name(port) for event in log)
    assert asked < 50
    rows = errors(job).to_pylist()
    assert Counter(row["error_kind"] for row in rows) == {"http_status": asked, "server_refused": ROWS // 2 - asked}
    unasked = [row for row in rows if row["error_kind"] == "server_refused"]
    assert {(row["error_code"], row["retry_count"], row["fetched_at"]) for row in unasked} == {(-2, 0, None)}
    assert all(row["error_msg"].startswith("not asked: ") for row in unasked)
    with running_fleet(tmp_path / "mended", good, port=port):
        code, printed = job.run(2, "--retry-failed", "server_refused")
    assert code == 0, printed
    assert rows_of(job.output / "images", ["row_number"]).num_rows == ROWS - asked
