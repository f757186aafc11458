"""Kill a job at random again and again, restart it with another number of ranks, and count what that cost.

``python -m tests.chaos.kill_loop --kills 50``: jobs over a fleet are started one after the other; each is killed
(SIGKILL of one rank, of all ranks, of mpiexec, or of the launcher's proxy) at random moments and restarted until it has
had its share of kills, then left to end, and checked against the fleet: every row once, every body as served.
Prints one JSON line last; exits with 1 if anything was lost, doubled, unreadable or wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fleet.log import Event, EventKind, read_log
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import ServerSpec, plain_address, plain_fleet
from tests.fleet.table import row_of
from tests.job import Job, assert_bodies_as_served, children_of, finish, make_job, outcomes, parts, ranks_of

ROWS = 3000
SERVERS = 20
RATE = 30.0
KILLS_PER_JOB = 10
LONGEST_LIFE_S = 6.0


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
    kinds: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """The result as JSON."""
        median = round(statistics.median(self.repeated_s), 2) if self.repeated_s else 0.0
        return json.dumps(
            {
                "kills": self.kills,
                "lost": self.lost,
                "doubled": self.doubled,
                "unreadable": self.unreadable,
                "wrong_bytes": self.wrong_bytes,
                "repeated_requests": self.repeated_requests,
                "repeated_s_median": median,
                "kinds": dict(self.kinds),
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
    given = parser.parse_args(argv)
    rng, account = random.Random(given.seed), Account()
    with tempfile.TemporaryDirectory(prefix="ddmpi-kills-") as name:
        while account.kills < given.kills:
            folder = Path(name) / f"job{account.kills}"
            torment(folder, rng, account, min(KILLS_PER_JOB, given.kills - account.kills))
    print(account.line())
    return 0 if account.is_clean else 1


def torment(folder: Path, rng: random.Random, account: Account, kills: int) -> None:
    """One job, from its first start to its complete end."""
    redirector = ServerSpec(plain_address(SERVERS), redirect_to=plain_address(0))
    with running_fleet(folder / "fleet", [*plain_fleet(SERVERS, latency_s=0.003), redirector], ROWS) as fleet:
        job = make_job(folder, fleet.table_path, downloader_parameters={"default_rate_limit": RATE})
        try:
            for _ in range(kills):
                if not kill_once(job, fleet, rng, account):
                    break
            code, printed = job.run(rng.randint(1, 4))
        finally:
            job.close()
        log = fleet.finished_log()
    if code != 0:
        raise AssertionError(f"the last run ended with {code}:\n{printed}")
    check(job, fleet, log, account)


def kill_once(job: Job, fleet: RunningFleet, rng: random.Random, account: Account) -> bool:
    """Start the job and kill it at a random moment; False if it ended before."""
    process = job.start(rng.randint(2, 4))
    started_at = time.monotonic()
    try:
        code = process.wait(rng.uniform(0.0, LONGEST_LIFE_S))
    except subprocess.TimeoutExpired:
        ranks = ranks_of(process)
        kind = kill_something(process, ranks, rng)
    else:
        if code not in {0, 75}:
            raise AssertionError(f"the run ended with {code} before it was killed:\n{process.communicate()[0]}")
        process.communicate()
        return False
    finish(process)
    for pid in ranks:
        await_end(pid)
    account.kills += 1
    account.kinds[kind] += 1
    account.unreadable += sum(not is_readable(part) for part in parts(job))
    note_repeated(job, fleet, time.monotonic() - started_at, account)
    return True


def kill_something(process: subprocess.Popen[str], ranks: Sequence[int], rng: random.Random) -> str:
    """SIGKILL to a rank, all ranks, the launcher or its proxy."""
    proxies = children_of(process.pid)
    choices = {"mpiexec": [process.pid]}
    if ranks:
        choices |= {"rank": [rng.choice(ranks)], "all": list(ranks)}
    if proxies:
        choices["proxy"] = proxies[:1]
    kind = rng.choice(sorted(choices))
    for pid in choices[kind]:
        kill(pid)
    return kind


def kill(pid: int) -> None:
    """SIGKILL, unless the process fell with another one."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def await_end(pid: int) -> None:
    """An orphan has to end by itself (its parent's death is its end)."""
    deadline = time.monotonic() + 10.0
    while Path(f"/proc/{pid}").exists() and b"ddmpi" in Path(f"/proc/{pid}/cmdline").read_bytes():
        if time.monotonic() > deadline:
            raise AssertionError(f"rank {pid} outlived its job")
        time.sleep(0.01)


def is_readable(part: Path) -> bool:
    """Whether a published part is whole."""
    try:
        pq.read_table(part, partitioning=None)
    except (OSError, pa.ArrowException):
        return False
    return True


def note_repeated(job: Job, fleet: RunningFleet, life_s: float, account: Account) -> None:
    """Work that this kill cost: answers that no part holds, in seconds at the rate at which the run made them."""
    answered = served_rows(read_log(fleet.log_path))
    uncommitted = len(answered.keys() - outcomes(job).keys())
    if answered:
        account.repeated_s.append(life_s * uncommitted / max(1, sum(answered.values())))


def served_rows(log: Sequence[Event]) -> Counter[int]:
    """How often each row's file was sent whole."""
    return Counter(
        row_of(event.path)
        for event in log
        if event.kind is EventKind.ANSWER and event.status == 200 and event.note == "whole"
    )


def check(job: Job, fleet: RunningFleet, log: Sequence[Event], account: Account) -> None:
    """The finished job against what the fleet served."""
    found = outcomes(job)
    account.lost += ROWS - len(found)
    account.doubled += sum(count - 1 for count in found.values())
    account.repeated_requests += sum(count - 1 for count in served_rows(log).values())
    try:
        assert_bodies_as_served(job, fleet)
    except AssertionError as error:
        account.wrong_bytes += 1
        print(error, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
