"""Are limits kept over the runs of a job? ``python -m benchmarks.limits_over_lives``.

A server that allows 0.1 requests/s, one that allows 1,000 bytes/s, and a quick one beside them. The job is stopped
softly (SIGTERM) and killed (SIGKILL to one rank) in turn, after random times, and started again at once. Over the
whole time, by the servers' own log: the most by which a window that begins at any request exceeds ``limit * seconds``,
for the first server in requests (its burst is 1), for the second in bodies of the largest size (one for each connection
may be on its way). ``used`` is what was sent of what the limit allowed: a run that starts waits for one request, and
for one body. Prints one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.fleet.log import Event, EventKind
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import ServerSpec
from tests.whole.job import Job, make_job, ranks_of, wait_until

RATE_PER_S: Final = 0.1
BYTES_PER_S: Final = 1_000.0
CONNECTIONS: Final = 8
SLOW, NARROW, QUICK = "127.16.0.1", "127.16.0.2", "127.16.0.3"
LIVES_S: Final = (4.0, 16.0)
ROWS: Final = 6_000
RANKS: Final = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns 0 if no window of either server has more than its limit allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=5, help="soft stops, and as many kills")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(argv)
    rng = random.Random(given.seed)
    specs = [ServerSpec(SLOW), ServerSpec(NARROW, latency_s=0.3), ServerSpec(QUICK, row_weight=20.0)]
    with (
        tempfile.TemporaryDirectory(prefix="ddmpi-lives-") as folder,
        running_fleet(Path(folder) / "fleet", specs, ROWS) as fleet,
    ):
        job = job_of(Path(folder), fleet)
        for number in range(2 * given.stops):
            live(job, rng.uniform(*LIVES_S), signal.SIGKILL if number % 2 else signal.SIGTERM)
        log = fleet.finished_log()
    requests, bodies = sent_by(log, SLOW), sent_by(log, NARROW)
    largest = max(size for _, size in bodies)
    excess = excess_of([(at, 1.0) for at, _ in requests], RATE_PER_S)
    excess_bodies = excess_of(bodies, BYTES_PER_S) / largest
    found = {
        "lives": 2 * given.stops,
        "requests": len(requests),
        "excess_requests": round(excess, 3),
        "used_of_rate": used(requests, [1.0] * len(requests), RATE_PER_S),
        "bodies": len(bodies),
        "excess_bodies": round(excess_bodies, 3),
        "used_of_bytes": used(bodies, [size for _, size in bodies], BYTES_PER_S),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(found))
    return 0 if excess <= 1.0 and excess_bodies <= CONNECTIONS else 1


def job_of(folder: Path, fleet: RunningFleet) -> Job:
    rules = [
        {"match": f"{SLOW}:*", "rate_limit": RATE_PER_S},
        {"match": f"{NARROW}:*", "bytes_per_second": BYTES_PER_S, "max_connections": CONNECTIONS},
    ]
    return make_job(folder / "job", fleet.table_path, servers=rules, checkpoint_interval_s=60)


def live(job: Job, seconds: float, number: signal.Signals) -> None:
    """Run the job for so long from its first commit-free moment on, then send the signal and wait for its end."""
    process = job.start(RANKS)
    wait_until(lambda: len(ranks_of(process)) == RANKS, process, timeout_s=60)
    time.sleep(seconds)
    if process.poll() is not None:
        raise RuntimeError(f"the run ended too early:\n{process.communicate()[0][-3000:]}")
    if number is signal.SIGKILL:
        os.kill(ranks_of(process)[-1], number)
    else:
        process.send_signal(number)
    process.communicate(timeout=120)


def sent_by(log: Sequence[Event], address: str) -> list[tuple[float, float]]:
    """When each request of a server came, and how many bytes its answer had."""
    sent: dict[int, list[float]] = {}
    found: list[tuple[float, float]] = []
    for event in log:
        if event.server.startswith(f"{address}:"):
            if event.kind is EventKind.REQUEST:
                sent[event.connection] = [event.time_s]
            elif event.kind is EventKind.ANSWER:
                found.append((sent[event.connection][0], float(event.size_bytes)))
    return sorted(found)


def excess_of(sent: Sequence[tuple[float, float]], limit_per_s: float) -> float:
    """The most that any window from one request to another holds beyond ``limit * seconds``."""
    worst = level = 0.0
    before = sent[0][0]
    for at, amount in sent:
        level = max(0.0, level - (at - before) * limit_per_s) + amount
        worst, before = max(worst, level), at
    return worst


def used(sent: Sequence[tuple[float, float]], amounts: Sequence[float], limit_per_s: float) -> float:
    return round(sum(amounts[:-1]) / ((sent[-1][0] - sent[0][0]) * limit_per_s), 3)


if __name__ == "__main__":
    sys.exit(main())
