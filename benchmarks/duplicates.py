"""Rows with the same URL: ``python -m benchmarks.duplicates``.

100,000 rows with 20,000 different URLs in random order, on servers that fill several batches each, by 4 ranks: once
left alone, and once with a rank killed (SIGKILL) in the middle and the same command again. The requests are those of
the servers' own log. A kill costs what was not durable, hence the rate counts: at 250 requests/s and a checkpoint
interval of a second about half of a second's. Prints one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.fleet.log import EventKind
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import plain_fleet
from tests.fleet.table import write_repeated
from tests.whole.job import Job, assert_every_row_once, make_job, ranks_of, wait_until

SERVERS: Final = 20
RANKS: Final = 4
BATCH_ROWS: Final = 1_000
WITH_KILL: Final = 1.01


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns 0 if each URL was asked once, but for what the kill costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--urls", type=int, default=20_000)
    parser.add_argument("--rows-per-url", type=int, default=5)
    parser.add_argument("--rate", type=float, default=250.0, help="requests per second of all servers together")
    parser.add_argument("--duplicates", choices=["copy", "reference"], default="copy")
    given = parser.parse_args(argv)
    found = {
        "rows": given.urls * given.rows_per_url,
        "urls": given.urls,
        "ranks": RANKS,
        "duplicates": given.duplicates,
    }
    for name, is_killed in (("requests_per_url", False), ("requests_per_url_killed", True)):
        with tempfile.TemporaryDirectory(prefix="ddmpi-duplicates-") as folder:
            found[name] = measure(Path(folder), given, is_killed=is_killed)
        print(f"{name}: {found[name]}", flush=True)
    print(json.dumps({**found, "load": round(os.getloadavg()[0], 1)}))
    return 0 if found["requests_per_url"] == 1 and found["requests_per_url_killed"] <= WITH_KILL else 1


def measure(folder: Path, given: argparse.Namespace, *, is_killed: bool) -> float:
    """Requests per URL of one job, after which every row has one outcome and all files are whole."""
    with running_fleet(folder / "fleet", plain_fleet(SERVERS, latency_s=0.01), given.urls) as fleet:
        write_repeated(folder / "urls.parquet", fleet.urls(), given.rows_per_url)
        job = make_job(
            folder / "job",
            folder / "urls.parquet",
            duplicates=given.duplicates,
            downloader_parameters={"batch_size": BATCH_ROWS, "default_rate_limit": given.rate / SERVERS},
        )
        if is_killed:
            kill_one_rank(job, fleet, given.urls // 2)
        run_to_end(job)
        asked = Counter((event.server, event.path) for event in fleet.finished_log() if event.kind is EventKind.REQUEST)
    assert_every_row_once(job, given.urls * given.rows_per_url)
    code, printed = job.inspect("--verify", "--rehash")
    if code or len(asked) != given.urls:
        raise RuntimeError(f"{len(asked)} of {given.urls} URLs were asked:\n{printed}")
    return asked.total() / len(asked)


def kill_one_rank(job: Job, fleet: RunningFleet, requests: int) -> None:
    """Start the job, and kill a rank once the fleet has seen so many requests; mpiexec ends the others."""
    process = job.start(RANKS)
    wait_until(lambda: fleet.log_path.read_bytes().count(b"\trequest\t") >= requests, process, timeout_s=3_600)
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    process.communicate(timeout=60)


def run_to_end(job: Job) -> None:
    process = job.start(RANKS)
    printed, _ = process.communicate(timeout=3_600)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}:\n{printed}")


if __name__ == "__main__":
    sys.exit(main())
