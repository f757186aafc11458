"""How soon a run starts and how soon it is gone, and what ranks cost that wait: ``python -m benchmarks.start_end``.

- ``first_request_s``: from the start of ``mpiexec`` to the first request in the servers' log, with 2 and with 4 ranks,
  where 5,000 rows have to be partitioned first, and where they have been before (``--plan`` does that without network);
- ``gone_s``: from the last answer in that log to the end of mpiexec, with the last parts, their verification, the
  report and the summary in between; both are medians, with the worst beside them;
- ``rank0_cpu`` and ``idle_cpu``: share of a core that rank 0 and the busiest idle rank use while one server with 5
  requests/s is all there is to do for 64 ranks; ``started_64_s``: until the first request of these.

The JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.processes import cache_bytecode, numbers_of, usage_of
from tests.fleet.log import EventKind, read_log
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import Job, make_job, ranks_of, wait_until

RANKS: Final = (2, 4)
SERVERS: Final = 50
ROWS: Final = 5_000
RATE_PER_S: Final = 50.0
MANY_RANKS: Final = 64
SLOW_RATE_PER_S: Final = 5.0
SETTLE_S: Final = 15.0
"""Idle ranks ask for work at first, then ever more rarely."""
WINDOW_S: Final = 20.0
RUN_TIMEOUT_S: Final = 150.0


def start_and_end(folder: Path, ranks: int, *, partitioned: bool) -> tuple[float, float]:
    """Seconds from the start to the first request, and from the last answer to the end of all ranks."""
    with running_fleet(folder / "fleet", plain_fleet(SERVERS, latency_s=0.02), ROWS) as fleet:
        job = make_job(
            folder, fleet.table_path, downloader_parameters={"default_rate_limit": RATE_PER_S}, checkpoint_interval_s=60
        )
        if partitioned:
            job.run(1, "--plan")
        began_s = time.monotonic()
        process = job.start(ranks)
        _end(process, job)
        gone_s = time.monotonic()
        log = fleet.finished_log()
    first_s = next(event.time_s for event in log if event.kind is EventKind.REQUEST)
    last_s = max(event.time_s for event in log if event.kind is EventKind.ANSWER)
    print(
        f"{ranks} ranks, partitioned before: {partitioned}: first request after {first_s - began_s:.2f} s, "
        f"gone {gone_s - last_s:.2f} s after the last answer, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return first_s - began_s, gone_s - last_s


def _end(process: subprocess.Popen[str], job: Job) -> None:
    try:
        printed, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    finally:
        job.close()
    if process.returncode:
        raise RuntimeError(f"the run ended with {process.returncode}:\n{printed}")


def waiting(folder: Path) -> dict[str, float]:
    """What many ranks cost of which one has a little to do."""
    rows = int(SLOW_RATE_PER_S * (SETTLE_S + WINDOW_S + 5.0))
    with running_fleet(folder / "fleet", plain_fleet(1), rows) as fleet:
        job = make_job(folder, fleet.table_path, downloader_parameters={"default_rate_limit": SLOW_RATE_PER_S})
        began_s = time.monotonic()
        process = job.start(MANY_RANKS)
        wait_until(lambda: _requests(fleet) > 0, process, timeout_s=60)
        started_s = time.monotonic() - began_s
        time.sleep(SETTLE_S)
        numbers = numbers_of(ranks_of(process))
        before = _cpu_s(numbers)
        time.sleep(WINDOW_S)
        after = _cpu_s(numbers)
        _end(process, job)
    shares = {numbers[pid]: (after[pid] - before[pid]) / WINDOW_S for pid in numbers}
    # One of the others downloads.
    idle = sorted(share for number, share in shares.items() if number > 0)[:-1]
    return {
        "rank0_cpu": shares[0],
        "idle_cpu": idle[-1],
        "idle_cpu_median": statistics.median(idle),
        "started_64_s": started_s,
    }


def _requests(fleet: RunningFleet) -> int:
    return sum(event.kind is EventKind.REQUEST for event in read_log(fleet.log_path))


def _cpu_s(pids: dict[int, int]) -> dict[int, float]:
    found = {pid: usage_of(pid) for pid in pids}
    return {pid: usage.cpu_s for pid, usage in found.items() if usage is not None}


def _starts_and_ends(folder: Path, repeat: int) -> dict[str, dict[str, float]]:
    """Medians and worst of both, for each number of ranks, with the partitioning and without."""
    cases = [(ranks, partitioned) for ranks in RANKS for partitioned in (False, True)]
    runs: dict[tuple[int, bool], list[tuple[float, float]]] = {case: [] for case in cases}
    for number in range(repeat):
        for ranks, partitioned in cases:
            place = folder / f"{number}-{ranks}-{partitioned}"
            runs[ranks, partitioned].append(start_and_end(place, ranks, partitioned=partitioned))
    found = {}
    for (ranks, partitioned), pairs in runs.items():
        firsts, ends = zip(*pairs, strict=True)
        found[f"{ranks} ranks{', partitioned before' if partitioned else ''}"] = {
            "first_request_s": statistics.median(firsts),
            "first_request_worst_s": max(firsts),
            "gone_s": statistics.median(ends),
            "gone_worst_s": max(ends),
        }
    return found


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start_end", description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", choices=["start", "waiting"], help="one half of it")
    options = parser.parse_args(argv)
    cache_bytecode()
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="ddmpi-start-") as name:
        if options.only != "waiting":
            figures = _starts_and_ends(Path(name), options.repeat)
        if options.only != "start":
            figures["waiting"] = waiting(Path(name) / "many")
    rounded = {case: {key: round(value, 4) for key, value in each.items()} for case, each in figures.items()}
    print(json.dumps({**rounded, "load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main(sys.argv[1:])
