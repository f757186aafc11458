"""Runs of the program over the cases: the input table, a config with short time-outs, and what became of each row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.bodies import MAX_FILE_BYTES
from tests.hostile.cases import MAX_ATTEMPTS
from tests.hostile.server import HostileServers
from tests.whole.job import Job, make_job, rows_of

PROGRAM = (
    "-c",
    # A failed look-up is confirmed after 35 s, which no test wants to wait for.
    "import sys; from ddmpi.core.rules import retry; retry.DNS_WAIT_S = 0.5; "
    "from ddmpi.__main__ import main; sys.exit(main())",
)
PARAMETERS: dict[str, Any] = {
    "max_attempts": MAX_ATTEMPTS,
    "connect_timeout_s": 1,
    # libcurl renews its idea of the speed once a second: with 1 s here, a body that has just begun can be stalled.
    "stall_timeout_s": 2,
    "total_timeout_s": 4,
    "max_file_bytes": MAX_FILE_BYTES,
}
SHORT_WAITS: dict[str, Any] = {
    "backoff": {"base_s": 0.2, "cap_s": 0.4},
    "breaker": {"failures": 1, "probes": 1},
    "profiling": {"mode": "uniform"},
}


class Ending(NamedTuple):
    """What became of a row. ``kind`` is empty for a success; ``code`` is then its status."""

    kind: str
    code: int
    tries: int
    message: str
    final_url: str
    body: bytes


@dataclass(frozen=True)
class CaseRow:
    """A row of the input, and the case (by its index) that it asks."""

    case: int
    url: str


def rows_for(servers: HostileServers) -> Iterator[CaseRow]:
    for index, case in enumerate(servers.cases):
        for row in range(case.rows):
            yield CaseRow(index, servers.url(index, row))


def job_for(servers: HostileServers, rows: list[CaseRow], folder: Path, **changes: Any) -> Job:
    """A job over these rows. ``changes`` are of ``downloader_parameters``."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "urls.parquet"
    pq.write_table(pa.table({"identifier": [row.url for row in rows]}), table)
    parameters = PARAMETERS | {"ca_bundle": str(servers.bundle), "connect_to": servers.connect_to} | changes
    return make_job(folder, table, downloader_parameters=parameters, **SHORT_WAITS)


def endings(job: Job) -> dict[int, Ending]:
    """By row number. Raises AssertionError where a row has two."""
    found: dict[int, Ending] = {}
    successes = rows_of(job.output / "images", ["row_number", "status", "attempts", "final_url", "image"])
    for row in successes.to_pylist():
        assert row["row_number"] not in found
        found[row["row_number"]] = Ending("", row["status"], row["attempts"], "", row["final_url"], row["image"])
    columns = ["row_number", "error_kind", "error_code", "retry_count", "error_msg", "final_url"]
    for row in rows_of(job.output / "errors", columns).to_pylist():
        assert row["row_number"] not in found
        kind, code, tries = row["error_kind"], row["error_code"], row["retry_count"] + 1
        found[row["row_number"]] = Ending(kind, code, tries, row["error_msg"], row["final_url"], b"")
    return found
