"""Does twice as many ranks fetch twice as fast? ``python -m benchmarks.scaling``.

200 servers without limits that answer after 100 ms: a rank's connections (``connections_per_rank``) are all that limits
it. One, two and four ranks download the same job, beside rank 0, which only coordinates. Throughput is that of the
download stage, from its schedule to its last answer, so the last servers' tail counts. Nothing else may be scarce:
few connections per rank, so that two cores have room for the servers and four ranks.

The JSON line last: files per second by number of downloading ranks, and ``speedup_2``, ``speedup_4``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.makespan import scheduled_at
from tests.fleet.log import EventKind
from tests.fleet.process import running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import assert_every_row_once, make_job

SERVERS: Final = 200
LATENCY_S: Final = 0.1
CONNECTIONS_PER_RANK: Final = 24
ROWS: Final = 16_000
WORKERS: Final = (1, 2, 4)
RUN_TIMEOUT_S: Final = 150.0


def throughput(folder: Path, workers: int, rows: int) -> float:
    """Files per second of one run with so many ranks that download. Raises RuntimeError where it fails."""
    with running_fleet(folder / "fleet", plain_fleet(SERVERS, latency_s=LATENCY_S), rows) as fleet:
        parameters = {"connections_per_rank": CONNECTIONS_PER_RANK, "batch_size": 10_000}
        job = make_job(folder, fleet.table_path, downloader_parameters=parameters, checkpoint_interval_s=60)
        process = job.start(workers + 1)
        try:
            printed, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        finally:
            job.close()
        if process.returncode:
            raise RuntimeError(f"the run ended with {process.returncode}:\n{printed}")
        log = fleet.finished_log()
    assert_every_row_once(job, rows)
    began_s = scheduled_at(job)
    answers = [event.time_s for event in log if event.kind is EventKind.ANSWER and event.time_s > began_s]
    per_s = len(answers) / (answers[-1] - began_s)
    print(f"{workers} ranks that download: {per_s:.0f} files/s", flush=True)
    return per_s


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        found = {workers: throughput(Path(name) / str(workers), workers, options.rows) for workers in WORKERS}
    figures: dict[str, float] = {f"files_per_s_{workers}": round(per_s) for workers, per_s in found.items()}
    figures |= {f"speedup_{workers}": round(found[workers] / found[1], 3) for workers in WORKERS[1:]}
    print(json.dumps({**figures, "load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main(sys.argv[1:])
