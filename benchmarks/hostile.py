"""Do bad servers slow the good ones? ``python -m benchmarks.hostile``.

A fleet of 1,000 servers, of which 300 misbehave in all the ways of ``tests.hostile``, is downloaded by 4 ranks; then
the 700 healthy ones alone. The throughput of the healthy ones is their rows over the time from their first to their
last file. All servers have the same limit, as in a real run: what is measured is whether healthy servers get all that
their limits allow while others stall, flood, break off and lie. The last line is JSON:

- ``healthy_ratio``: throughput of the healthy servers, with the others over without them;
- ``false_successes``: files that are not what their server holds, or that no client could have got whole;
- ``unaccounted``: rows that are not exactly once among successes, errors and pending;
- ``peak_rss_mb``: of the largest rank, with the others and without; ``budget_mb``: what one may take for bodies.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fleet.images import body_of
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import plain_fleet
from tests.fleet.table import path_of
from tests.hostile.answers import ANSWERS
from tests.hostile.bodies import MAX_FILE_BYTES, PICTURE
from tests.whole.job import Job, make_job, outcomes, ranks_of, rows_of

RANKS: Final = 4
LATENCY_S: Final = 0.02
START_TIMEOUT_S: Final = 60.0
SAMPLE_S: Final = 0.25
RUN_TIMEOUT_S: Final = 280.0
BUDGET_BYTES: Final = 64 << 20
PARAMETERS: Final[dict[str, Any]] = {
    "batch_size": 1000,
    "max_attempts": 3,
    "connect_timeout_s": 5,
    "stall_timeout_s": 5,
    "total_timeout_s": 15,
    "max_file_bytes": MAX_FILE_BYTES,
    "memory_budget_bytes": BUDGET_BYTES,
}


@dataclass(frozen=True)
class HostileServers:
    """The 300: the beginning of each one's URLs, and its case."""

    urls: Sequence[str]
    cases: Sequence[int]
    connect_to: Sequence[str]
    bundle: str


@contextmanager
def hostile_servers(folder: Path, servers: int) -> Iterator[HostileServers]:
    """A process that serves them. Raises TimeoutError where it does not begin to."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.hostile", f"--servers={servers}", f"--folder={folder}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        ready = folder / "ready.json"
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready.exists():
            if time.monotonic() > deadline or process.poll() is not None:
                raise TimeoutError("the hostile servers did not start")
            time.sleep(0.05)
        yield HostileServers(**json.loads(ready.read_text()))
        process.communicate()


@dataclass(frozen=True)
class Figures:
    """What one run showed."""

    healthy_files: int
    healthy_s: float
    false_successes: int
    unaccounted: int
    pending: int
    peak_rss_mb: float
    total_s: float


class PeakMemory(threading.Thread):
    """The largest resident set of any rank, as the kernel remembers it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self._process = process

    def run(self) -> None:
        while self._process.poll() is None:
            for pid in ranks_of(self._process):
                self.peak_mb = max(self.peak_mb, _peak_mb(pid))
            time.sleep(SAMPLE_S)


def _peak_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1e3 if found else 0.0


@dataclass(frozen=True)
class Web:
    """All servers of a run. ``rows`` says, for each row that follows those of the fleet, which hostile server it is
    on; there are none in the run of the healthy servers alone."""

    fleet: RunningFleet
    hostile: HostileServers
    rows: Sequence[int]

    @cached_property
    def healthy_rows(self) -> int:
        return len(self.fleet.urls())

    def urls(self) -> list[str]:
        others = (f"{self.hostile.urls[server]}/{number}.jpg" for number, server in enumerate(self.rows))
        return [*self.fleet.urls(), *others]


def measure(folder: Path, web: Web, rate_per_s: float) -> Figures:
    """One run over all URLs of ``web``. Raises RuntimeError where it fails."""
    folder.mkdir()
    table = folder / "urls.parquet"
    pq.write_table(pa.table({"identifier": web.urls()}), table)
    parameters = {
        **PARAMETERS,
        "default_rate_limit": rate_per_s,
        "ca_bundle": web.hostile.bundle,
        "connect_to": web.hostile.connect_to,
    }
    job = make_job(folder, table, downloader_parameters=parameters, profiling={"mode": "uniform"}, parked_wait_s=5)
    started_at = time.monotonic()
    process = job.start(RANKS)
    memory = PeakMemory(process)
    memory.start()
    try:
        printed, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    finally:
        job.close()
    memory.join()
    total_s = time.monotonic() - started_at
    print(printed[-1500:], flush=True)
    if process.returncode not in {0, 75}:
        raise RuntimeError(f"the run ended with {process.returncode}")
    return _figures(job, web, printed, peak_rss_mb=memory.peak_mb, total_s=total_s)


def _figures(job: Job, web: Web, printed: str, *, peak_rss_mb: float, total_s: float) -> Figures:
    found = re.findall(r"^pending\s+([\d,]+)", printed, re.MULTILINE)
    pending = int(found[-1].replace(",", "")) if found else 0
    counts = outcomes(job)
    doubled = sum(count - 1 for count in counts.values())
    missing = web.healthy_rows + len(web.rows) - len(counts) - pending
    table = rows_of(job.output / "images", ["row_number", "final_url", "image", "fetched_at"])
    files: list[dict[str, Any]] = table.to_pylist()
    times = sorted(file["fetched_at"] for file in files if file["row_number"] < web.healthy_rows)
    return Figures(
        healthy_files=len(times),
        healthy_s=(times[-1] - times[0]).total_seconds(),
        false_successes=_false_successes(files, web),
        unaccounted=doubled + abs(missing),
        pending=pending,
        peak_rss_mb=peak_rss_mb,
        total_s=total_s,
    )


def _false_successes(files: Sequence[dict[str, Any]], web: Web) -> int:
    by_address = {spec.address: spec for spec in web.fleet.specs}
    first_hostile = web.healthy_rows
    wrong: Counter[str] = Counter()
    for row in files:
        number, url = int(row["row_number"]), str(row["final_url"])
        if number < first_hostile:
            spec = by_address[url.split("/")[2].partition(":")[0]]
            wrong["healthy"] += row["image"] != body_of(spec, path_of(number))
        else:
            case = ANSWERS[web.hostile.cases[web.rows[number - first_hostile]]]
            wrong[case.name] += case.expected.kind is not None or row["image"] != PICTURE
    for name, count in wrong.items():
        if count:
            print(f"{count} false successes: {name}")
    return wrong.total()


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__.partition("\n")[0])
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--hostile", type=int, default=300, help="how many of them misbehave")
    parser.add_argument("--rows", type=int, default=30, help="of each healthy server")
    parser.add_argument("--hostile-rows", type=int, default=10, help="of each of the others")
    parser.add_argument("--rate", type=float, default=1.0, help="requests per second for each server")
    options = parser.parse_args(argv)
    healthy = options.servers - options.hostile
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            running_fleet(folder / "fleet", plain_fleet(healthy, latency_s=LATENCY_S), healthy * options.rows) as fleet,
            hostile_servers(folder / "hostile", options.hostile) as others,
        ):
            rows = [server for server in range(options.hostile) for _ in range(options.hostile_rows)]
            mixed = measure(folder / "mixed", Web(fleet, others, rows), options.rate)
            alone = measure(folder / "alone", Web(fleet, others, []), options.rate)
    throughputs = [figures.healthy_files / figures.healthy_s for figures in (mixed, alone)]
    print(
        json.dumps(
            {
                "healthy_ratio": round(throughputs[0] / throughputs[1], 3),
                "false_successes": mixed.false_successes + alone.false_successes,
                "unaccounted": mixed.unaccounted + alone.unaccounted,
                "peak_rss_mb": round(mixed.peak_rss_mb),
                "peak_rss_mb_alone": round(alone.peak_rss_mb),
                "budget_mb": round(BUDGET_BYTES / 1e6),
                "healthy_files_per_s": round(throughputs[0]),
                "healthy_files_per_s_alone": round(throughputs[1]),
                "pending": mixed.pending,
                "mixed_s": round(mixed.total_s, 1),
                "alone_s": round(alone.total_s, 1),
                "load": round(os.getloadavg()[0], 1),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
