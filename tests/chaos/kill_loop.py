"""Kill jobs at random again and again, restart them with another number of ranks, and count what that cost.

``python -m tests.chaos.kill_loop --kills 1000``: each job is killed (SIGKILL of one rank, of rank 0, of all ranks, of
mpiexec, or of the proxy that starts the ranks) at random moments, and restarted until it has had its share of kills;
then it may end, and is held against what the fleet served. The last line is JSON; exit code 1 if anything was lost,
doubled, unreadable or wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.evidence import examine, repeated_requests, served_rows
from tests.chaos.victims import kill_something
from tests.fleet.log import Event, read_log
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import ServerSpec, plain_address, plain_fleet
from tests.whole.job import Job, ends_within, finish, make_job, parts

LOGGER = logging.getLogger(__name__)

ROWS = 2_000
SERVERS = 20
RATE_PER_S = 30.0
KILLS_PER_JOB = 10
RANKS = (1, 2, 2, 3, 4)
START_SHARE = 0.25
"""Of the kills come at any moment after the start, which takes a second or two; the others after a first request."""
LONGEST_START_S = 2.0
LONGEST_WORK_S = 1.5


@dataclass
class Account:
    """What all jobs together cost."""

    kills: int = 0
    lost: int = 0
    doubled: int = 0
    unreadable: int = 0
    wrong_bytes: int = 0
    repeated_requests: int = 0
    repeated_s: list[float] = field(default_factory=list)
    """Per kill: the work that has to be done again, in seconds at the rate of the killed run."""
    kinds: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_kill(self, kind: str, repeated_s: float) -> None:
        """One more kill."""
        with self._lock:
            self.kills += 1
            self.kinds[kind] += 1
            self.repeated_s.append(repeated_s)

    def note_job(self, job: Job, fleet: RunningFleet, log: Sequence[Event]) -> None:
        """A job has come to its end."""
        evidence = examine(job, fleet)
        for problem in (*evidence.unreadable, *evidence.wrong):
            LOGGER.error("%s", problem)
        with self._lock:
            self.jobs += 1
            self.lost += evidence.lost(ROWS)
            self.doubled += evidence.doubled
            self.unreadable += len(evidence.unreadable)
            self.wrong_bytes += len(evidence.wrong)
            self.repeated_requests += repeated_requests(log)

    def note_unreadable(self, count: int) -> None:
        """Parts that a kill has damaged."""
        with self._lock:
            self.unreadable += count

    def line(self) -> str:
        """The result as JSON."""
        return json.dumps(
            {
                "kills": self.kills,
                "lost": self.lost,
                "doubled": self.doubled,
                "unreadable": self.unreadable,
                "wrong_bytes": self.wrong_bytes,
                "repeated_requests": self.repeated_requests,
                "repeated_s_median": round(statistics.median(self.repeated_s), 2) if self.repeated_s else 0.0,
            }
        )

    @property
    def is_clean(self) -> bool:
        """Nothing was damaged."""
        return not (self.lost or self.doubled or self.unreadable or self.wrong_bytes)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=2, help="jobs that run beside each other (default 2)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further job after so long")
    given = parser.parse_args(argv)
    account = Account()
    started_at = time.monotonic()
    numbers = iter(range(sys.maxsize))
    with tempfile.TemporaryDirectory(prefix="ddmpi-kills-") as name, ThreadPoolExecutor(given.at_once) as pool:

        def torment_some() -> None:
            while account.kills < given.kills and time.monotonic() - started_at < given.seconds:
                number = next(numbers)
                rng = random.Random(given.seed * 1_000_000 + number)
                torment(Path(name) / f"job{number}", rng, account, given.kills)

        for tormentor in [pool.submit(torment_some) for _ in range(given.at_once)]:
            tormentor.result()
    took_s, worst_s = time.monotonic() - started_at, max(account.repeated_s, default=0.0)
    print(f"{account.jobs} jobs, {took_s:.0f} s, killed: {dict(account.kinds)}, at worst {worst_s:.2f} s repeated")
    print(account.line())
    return 0 if account.is_clean else 1


def torment(folder: Path, rng: random.Random, account: Account, kills: int) -> None:
    """One job, from its first start to its complete end; no kill once all jobs have had so many.

    Raises AssertionError where a run ends as it must not.
    """
    redirector = ServerSpec(plain_address(SERVERS), redirect_to=plain_address(0))
    with running_fleet(folder / "fleet", [*plain_fleet(SERVERS, latency_s=0.003), redirector], ROWS) as fleet:
        job = make_job(folder, fleet.table_path, downloader_parameters={"default_rate_limit": RATE_PER_S})
        try:
            for _ in range(KILLS_PER_JOB):
                if account.kills >= kills or not kill_once(job, fleet, rng, account):
                    break
            code, printed = job.run(rng.choice(RANKS))
            verified, found = job.run(1, "--verify", "--rehash")
        finally:
            job.close()
        log = fleet.finished_log()
    if code != 0:
        raise AssertionError(f"the last run ended with {code}:\n{printed}")
    if verified != 0:
        raise AssertionError(f"--verify ended with {verified}:\n{found}")
    account.note_job(job, fleet, log)


def kill_once(job: Job, fleet: RunningFleet, rng: random.Random, account: Account) -> bool:
    """Start the job and kill it at a random moment; False if it ended before. Raises AssertionError."""
    before = parts(job)
    started_at = time.monotonic()
    process = job.start(rng.choice(RANKS))
    if rng.random() < START_SHARE:
        has_ended = ends_within(process, rng.uniform(0.0, LONGEST_START_S))
    else:
        has_ended = _await_request(process, fleet) or ends_within(process, rng.uniform(0.0, LONGEST_WORK_S))
    if has_ended:
        code, printed = finish(process)
        if code not in {0, 75}:
            raise AssertionError(f"the run ended with {code} before it was killed:\n{printed}")
        return False
    kind = kill_something(process, rng)
    finish(process)
    account.note_unreadable(len(examine(job, fleet, seen=before).unreadable))
    account.note_kill(kind, repeated_s(job, fleet, started_at))
    return True


def _await_request(process: subprocess.Popen[str], fleet: RunningFleet) -> bool:
    """Wait for the run's first request; True if the run ends without one."""
    size_bytes = fleet.log_path.stat().st_size
    while fleet.log_path.stat().st_size == size_bytes:
        if ends_within(process, 0.02):
            return True
    return False


def repeated_s(job: Job, fleet: RunningFleet, started_at: float) -> float:
    """Seconds of fetching, at the rate of the run that began at ``started_at``, whose results no part holds."""
    log = [event for event in read_log(fleet.log_path) if event.time_s >= started_at]
    answered = served_rows(log)
    if not answered:
        return 0.0
    uncommitted = len(answered.keys() - examine(job, fleet).outcomes.keys())
    fetching_s = log[-1].time_s - log[0].time_s
    return fetching_s * uncommitted / len(answered)


if __name__ == "__main__":
    sys.exit(main())
