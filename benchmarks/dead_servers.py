"""What dead servers cost the others: ``python -m benchmarks.dead_servers``.

100 servers with the same number of rows and the same limit, of which 30 are dead: connections are refused, reset,
closed without an answer, or accepted and never answered. They are downloaded by 4 ranks, then the 70 healthy ones
alone; pauses and breaker are those of the default config. The last line is JSON:

- ``excess_s``: how much longer the run with dead servers takes, whole command; allowed are 5 %, 20 s, and the 180 s
  after which they are given up;
- ``pending``: rows of dead servers that are left for the next run, ``errors``: those that ended, by kind;
- ``wrong``: healthy rows that are no success, rows of dead servers that are one, errors of a kind that does not fit
  their server, and rows that are not exactly once among successes, errors and pending.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.pace.policy import PROBING_LEAST_S
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import Mode, ServerSpec, plain_address
from tests.whole.job import make_job, outcomes, rows_of

RANKS: Final = 4
LATENCY_S: Final = 0.02
RUN_TIMEOUT_S: Final = 400.0
DEAD: Final = {
    Mode.REFUSED: {"connect", "unreachable"},
    Mode.RESET: {"network", "unreachable"},
    Mode.CLOSE: {"network", "unreachable"},
    Mode.BLACKHOLE: {"stalled", "timeout", "unreachable"},
}
"""How a server can be dead, and the kinds of errors that fit."""


@dataclass(frozen=True)
class Outcomes:
    """What one run left."""

    seconds: float
    pending: int
    errors: Counter[str]
    wrong: int


def make_specs(servers: int, dead: int) -> list[ServerSpec]:
    """The dead ones last, of all kinds in turn."""
    modes = [Mode.OK] * (servers - dead) + [list(DEAD)[number % len(DEAD)] for number in range(dead)]
    return [ServerSpec(plain_address(number), latency_s=LATENCY_S, mode=mode) for number, mode in enumerate(modes)]


def measure(folder: Path, fleet: RunningFleet, rate_per_s: float, *, with_dead: bool) -> Outcomes:
    """One run, over all servers or the healthy ones. Raises RuntimeError where it fails."""
    modes = {spec.name(fleet.port): spec.mode for spec in fleet.specs}
    urls = [url for url in fleet.urls() if with_dead or modes[url.split("/")[2]] is Mode.OK]
    folder.mkdir()
    pq.write_table(pa.table({"identifier": urls}), folder / "urls.parquet")
    job = make_job(
        folder / "job",
        folder / "urls.parquet",
        downloader_parameters={
            "default_rate_limit": rate_per_s,
            "max_attempts": 5,
            "connect_timeout_s": 10,
            "stall_timeout_s": 20,
            "total_timeout_s": 120,
        },
        backoff={},
        breaker={},
        checkpoint_interval_s=60,
    )
    started_at = time.monotonic()
    try:
        printed, _ = (process := job.start(RANKS)).communicate(timeout=RUN_TIMEOUT_S)
    finally:
        job.close()
    seconds = time.monotonic() - started_at
    print(printed[-900:], flush=True)
    if process.returncode not in {0, 75}:
        raise RuntimeError(f"the run ended with {process.returncode}")
    pending = re.findall(r"^pending\s+([\d,]+)", printed, re.MULTILINE)
    left = int(pending[-1].replace(",", "")) if pending else 0
    healthy = sum(modes[url.split("/")[2]] is Mode.OK for url in urls)
    kinds, wrong = _judged(job.output, modes, healthy)
    counts = outcomes(job)
    wrong += abs(len(urls) - left - len(counts)) + counts.total() - len(counts)
    return Outcomes(seconds, left, kinds, wrong)


def _judged(output: Path, modes: dict[str, Mode], healthy_rows: int) -> tuple[Counter[str], int]:
    """Errors by how their server is dead and by kind, and how many rows have not the outcome that they should have."""
    images: list[dict[str, Any]] = rows_of(output / "images", ["server_name", "row_number"]).to_pylist()
    wrong = sum(modes[row["server_name"]] is not Mode.OK for row in images)
    kinds: Counter[str] = Counter()
    if any((output / "errors").rglob("*.parquet")):
        for row in rows_of(output / "errors", ["server_name", "error_kind"]).to_pylist():
            mode = modes[row["server_name"]]
            kinds[f"{mode.value}: {row['error_kind']}"] += 1
            wrong += row["error_kind"] not in DEAD.get(mode, ())
    healthy = sum(modes[row["server_name"]] is Mode.OK for row in images)
    return kinds, wrong + abs(healthy_rows - healthy)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dead_servers", description=__doc__.partition("\n")[0])
    parser.add_argument("--servers", type=int, default=100)
    parser.add_argument("--dead", type=int, default=30, help="how many of them")
    parser.add_argument("--rows", type=int, default=600, help="of each server")
    parser.add_argument("--rate", type=float, default=10.0, help="requests per second for each server")
    options = parser.parse_args(argv)
    specs = make_specs(options.servers, options.dead)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_fleet(folder / "fleet", specs, options.servers * options.rows) as fleet:
            mixed = measure(folder / "mixed", fleet, options.rate, with_dead=True)
            alone = measure(folder / "alone", fleet, options.rate, with_dead=False)
    excess_s = mixed.seconds - alone.seconds
    print(
        json.dumps(
            {
                "with_dead_s": round(mixed.seconds, 1),
                "alone_s": round(alone.seconds, 1),
                "excess_s": round(excess_s, 1),
                "allowed_s": round(0.05 * alone.seconds + 20 + PROBING_LEAST_S, 1),
                "pending": mixed.pending,
                "errors": dict(mixed.errors),
                "wrong": mixed.wrong + alone.wrong,
                "load": round(os.getloadavg()[0], 1),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
