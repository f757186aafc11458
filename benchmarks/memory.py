"""How much memory does a downloading rank take at worst? ``python -m benchmarks.memory``.

Two jobs with the default budget (``memory_budget_bytes``), each by rank 0 and one rank that downloads:

- ``large``: files of 5 MB as fast as nginx gives them, far faster than they can be written: bodies pile up in flight
  and before the writer;
- ``open_batches``: 300 servers of a fleet, each with a batch of its own and so slow that all batches are open at once,
  each with some bodies that wait for their part to close.

Of each the JSON line, which is the last one, has ``peak_rss_mb`` of the downloading rank, the ``budget_mb``, ``files``
and ``files_per_s``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.processes import run_job
from benchmarks.throughput_runners import Work, ddmpi, measure
from benchmarks.web_server import SERVERS as SERVERS_OF_LARGE
from benchmarks.web_server import make_bodies, serving
from ddmpi.config.sections import DownloaderParameters
from tests.fleet.process import running_fleet
from tests.fleet.spec import ServerSpec, Size, plain_address
from tests.whole.job import make_job

LARGE_BYTES: Final = 5_000_000
LARGE_FILES: Final = 20
SERVERS: Final = 300
ROWS_OF_EACH: Final = 60
RATE_PER_S: Final = 2.0
TIMEOUT_S: Final = 300.0


def large(folder: Path, rows: int) -> Mapping[str, float]:
    """Files of 5 MB from a server without limits. Raises RuntimeError where a row is missing."""
    with serving(folder / "server", make_bodies(LARGE_FILES, LARGE_BYTES)) as server:
        done = measure(ddmpi("sha256"), Work(server.urls(rows, SERVERS_OF_LARGE), folder / "work", SERVERS_OF_LARGE))
    return {"files_per_s": round(rows / done.wall_s, 1), "peak_rss_mb": round(done.peak_rss_mb, 1)}


def open_batches(folder: Path) -> Mapping[str, float]:
    """One batch of each server, all of them open. Raises RuntimeError where the run fails."""
    rows = SERVERS * ROWS_OF_EACH
    specs = [ServerSpec(plain_address(number), latency_s=0.02, size=Size.NORMAL) for number in range(SERVERS)]
    with running_fleet(folder / "fleet", specs, rows) as fleet:
        job = make_job(
            folder / "job",
            fleet.table_path,
            downloader_parameters={"default_rate_limit": RATE_PER_S},
            profiling={"mode": "uniform", "min_rows": 1},
            checkpoint_interval_s=60,
        )
        usages, _ = run_job(job, 2, TIMEOUT_S)
    return {"files": rows, "peak_rss_mb": round(usages[1].peak_rss_mb, 1)}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4_000, help="large files to fetch, 5 MB of disk each")
    parser.add_argument("--folder", type=Path, help="where they go")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="ddmpi-memory-") as name:
        figures = {
            "budget_mb": DownloaderParameters().memory_budget_bytes / 1e6,
            "large": {"files": options.rows, **large(Path(name) / "large", options.rows)},
            "open_batches": open_batches(Path(name) / "open"),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
