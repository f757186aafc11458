"""Stop jobs softly again and again: ``python -m tests.chaos.soft_stop --stops 200``.

Each job is stopped at random moments while it fetches, by TERM, INT or USR1 to the launcher, by three TERMs within
milliseconds (as Slurm sends them), or by a second signal during the stop, and started again with another number of
ranks. One of its servers answers late: requests to it are in flight at each stop, and in every fifth job they are not
answered in the time that they get. Each stop has to end with 75 within 20 s on all ranks; at the end every row is
there, as served, and none was fetched twice. The last line is JSON; exit code 1 if any of that is not so.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos.evidence import examine, repeated_requests
from tests.chaos.victims import await_end
from tests.fleet.log import EventKind, read_log
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import ServerSpec, plain_fleet
from tests.whole.job import Job, ends_within, finish, make_job, ranks_of

ROWS = 1_500
SERVERS = 20
RATE_PER_S = 10.0
STOPS_PER_JOB = 10
RANKS = (1, 2, 2, 3, 4)
LONGEST_WORK_S = 1.0
LIMIT_S = 20.0
LATE_S = 1.5
TOO_LATE_S = 15.0
"""Longer than requests in flight get at a stop."""
WAYS: dict[str, tuple[tuple[float, signal.Signals], ...]] = {
    "TERM": ((0.0, signal.SIGTERM),),
    "INT": ((0.0, signal.SIGINT),),
    "USR1": ((0.0, signal.SIGUSR1),),
    "three TERMs": ((0.0, signal.SIGTERM), (0.003, signal.SIGTERM), (0.003, signal.SIGTERM)),
    "TERM, then USR1": ((0.0, signal.SIGTERM), (0.3, signal.SIGUSR1)),
}
"""Signals, and the seconds before each of them. (A second INT would have mpiexec itself end the ranks.)"""


@dataclass
class Account:
    """How all stops went."""

    stops: int = 0
    not_75: int = 0
    late: int = 0
    slowest_s: float = 0.0
    lost: int = 0
    repeated_requests: int = 0
    unsound: int = 0
    """Jobs with doubled rows, errors, unreadable parts or wrong bodies."""
    ways: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_stop(self, way: str, code: int, seconds: float, printed: str) -> None:
        """One more stop."""
        with self._lock:
            self.stops += 1
            self.ways[way] += 1
            self.slowest_s = max(self.slowest_s, seconds)
            self.late += seconds > LIMIT_S
            self.not_75 += code != 75
        if code != 75:
            print(f"{way}: exit code {code}\n{printed}", flush=True)

    def note_job(self, job: Job, fleet: RunningFleet) -> None:
        """A job has come to its end."""
        repeated = repeated_requests(fleet.finished_log())
        evidence = examine(job, fleet)
        with self._lock:
            self.lost += evidence.lost(ROWS)
            self.repeated_requests += repeated
            self.unsound += not evidence.is_sound
        if not evidence.is_sound:
            print(evidence, flush=True)

    @property
    def is_clean(self) -> bool:
        """Every stop was soft."""
        return not (self.not_75 or self.late or self.lost or self.repeated_requests or self.unsound)

    def line(self) -> str:
        """The result as JSON."""
        names = ("stops", "not_75", "late", "slowest_s", "lost", "repeated_requests", "unsound")
        return json.dumps({name: round(getattr(self, name), 2) for name in names})


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=2, help="jobs that run beside each other (default 2)")
    given = parser.parse_args(argv)
    account = Account()
    numbers = iter(range(sys.maxsize))
    with tempfile.TemporaryDirectory(prefix="ddmpi-stops-") as name, ThreadPoolExecutor(given.at_once) as pool:

        def stop_some() -> None:
            while account.stops < given.stops:
                number = next(numbers)
                rng = random.Random(given.seed * 1_000_000 + number)
                interrupt(Path(name) / f"job{number}", rng, account, given.stops, is_too_late=number % 5 == 1)

        for worker in [pool.submit(stop_some) for _ in range(given.at_once)]:
            worker.result()
    print(f"by {dict(account.ways)}")
    print(account.line())
    return 0 if account.is_clean else 1


def interrupt(folder: Path, rng: random.Random, account: Account, stops: int, *, is_too_late: bool) -> None:
    """One job, from its first start to its complete end. Raises AssertionError where the last run does not end well."""
    with running_fleet(folder / "fleet", servers(TOO_LATE_S if is_too_late else LATE_S), ROWS) as fleet:
        job = make_job(
            folder,
            fleet.table_path,
            downloader_parameters={"default_rate_limit": RATE_PER_S, "stall_timeout_s": 30, "total_timeout_s": 60},
            profiling={"mode": "uniform"},
        )
        try:
            for _ in range(STOPS_PER_JOB):
                if account.stops >= stops or not stop_once(job, fleet, rng, account):
                    break
            code, printed = job.run(rng.choice(RANKS))
        finally:
            job.close()
        if code != 0:
            raise AssertionError(f"the last run ended with {code}:\n{printed}")
        account.note_job(job, fleet)


def servers(late_s: float) -> list[ServerSpec]:
    """The fleet: its first server has few rows and answers late."""
    first, *others = plain_fleet(SERVERS, latency_s=0.05)
    return [replace(first, latency_s=late_s, row_weight=0.2), *others]


def stop_once(job: Job, fleet: RunningFleet, rng: random.Random, account: Account) -> bool:
    """Start the job and stop it at a random moment; False if it came to its end instead. Raises AssertionError."""
    before = _requests(fleet)
    process = job.start(rng.choice(RANKS))
    while _requests(fleet) == before and not ends_within(process, 0.05):
        pass
    if ends_within(process, rng.uniform(0.0, LONGEST_WORK_S)):
        code, printed = finish(process)
        if code != 0:
            raise AssertionError(f"the run ended with {code} before it was stopped:\n{printed}")
        return False
    ranks = ranks_of(process)
    way = rng.choice(sorted(WAYS))
    stopped_at = time.monotonic()
    for pause_s, number in WAYS[way]:
        time.sleep(pause_s)
        process.send_signal(number)  # does nothing once it has ended
    code, printed = finish(process)
    for pid in ranks:
        await_end(pid)
    account.note_stop(way, code, time.monotonic() - stopped_at, printed)
    return True


def _requests(fleet: RunningFleet) -> int:
    """So far. The end of a run's connections may be logged only after the next one has started."""
    return sum(event.kind is EventKind.REQUEST for event in read_log(fleet.log_path))


if __name__ == "__main__":
    sys.exit(main())
