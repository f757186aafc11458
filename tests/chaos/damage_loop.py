"""Damage parts of jobs that run: ``python -m tests.chaos.damage_loop --times 200``.

In each job one part is cut off, deleted or has a byte flipped, at a random moment: before its batch is verified, while
it is, or after. The run has to end whole (0, and every body as served), or with 75 and the name of the damage; what it
can no longer see, because it had verified the batch already, ``--verify --rehash`` has to name. Then what it names is
removed, as docs/troubleshooting.md says, and the next run has to make the job whole. The last line is JSON; exit code 1
if any of that is not so.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos.evidence import examine
from tests.fleet.process import running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import Job, ends_within, finish, make_job, parts

ROWS = 240
SERVERS = 4
RATE_PER_S = 20.0
LONGEST_WAIT_S = 1.5
"""From the first part to the damage: the job lasts twice as long."""
RANKS = (1, 2, 3)


def cut_off(part: Path, rng: random.Random) -> None:
    """Lose the end of the file."""
    with part.open("r+b") as file:
        file.truncate(rng.randrange(part.stat().st_size))


def delete(part: Path, rng: random.Random) -> None:
    part.unlink()


def flip(part: Path, rng: random.Random) -> None:
    """Change one bit of the file."""
    with part.open("r+b") as file:
        place = rng.randrange(part.stat().st_size)
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes((byte ^ 1 << rng.randrange(8),)))


WAYS: tuple[Callable[[Path, random.Random], None], ...] = (cut_off, delete, flip)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=2, help="jobs that run beside each other (default 2)")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="ddmpi-damage-") as name, ThreadPoolExecutor(given.at_once) as pool:

        def attempt(number: int) -> str:
            folder = Path(name) / f"job{number}"
            try:
                return one_job(folder, random.Random(given.seed * 1_000_000 + number))
            except AssertionError as error:
                print(f"job {number}: {error}", flush=True)
                return "wrong"
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        endings = Counter(pool.map(attempt, range(given.times)))
    print(json.dumps({"times": given.times, **dict(sorted(endings.items()))}))
    return int(endings["wrong"] > 0)


def one_job(folder: Path, rng: random.Random) -> str:
    """Damage one part of a job; return how that was noticed. Raises AssertionError: it was not, or not mended."""
    with running_fleet(folder / "fleet", plain_fleet(SERVERS), ROWS) as fleet:
        limits = {"default_rate_limit": RATE_PER_S, "batch_size": 60}
        job = make_job(folder, fleet.table_path, downloader_parameters=limits, profiling={"mode": "uniform"})
        try:
            damaged, way, code, printed = run_damaged(job, rng)
            ending = "mended"
            if code != 0:
                assert code == 75, f"{way}: exit code {code}\n{printed}"
                assert "damaged" in printed or damaged.name in printed, f"{way} is not named:\n{printed}"
                ending = "told"
                code, printed = job.run(rng.choice(RANKS))
                assert code == 0, f"after {way}: exit code {code}\n{printed}"
            code, printed = job.run(1, "--verify", "--rehash")
            if code != 0:
                place = damaged.parent.name.removeprefix("partition_id=")
                assert f"partition {place}: " in printed, f"{way} of {damaged}: not named by --verify\n{printed}"
                ending = "verified"
                mend_by_hand(job, damaged)
                code, printed = job.run(rng.choice(RANKS))
                assert code == 0, f"after {way} and --verify: exit code {code}\n{printed}"
                code, printed = job.run(1, "--verify", "--rehash")
                assert code == 0, f"after {way} of {damaged}, and another run:\n{printed}"
            evidence = examine(job, fleet)
            assert evidence.is_sound, f"{way}: {evidence}"
            assert evidence.lost(ROWS) == 0, f"{way}: {evidence.lost(ROWS)} rows are lost"
        finally:
            job.close()
    return ending


def run_damaged(job: Job, rng: random.Random) -> tuple[Path, str, int, str]:
    """Start the job, damage a part of it, and wait for its end: the part, what was done to it, exit code and text."""
    process = job.start(rng.choice(RANKS))
    while not parts(job) and not ends_within(process, 0.02):
        pass
    ends_within(process, rng.uniform(0.0, LONGEST_WAIT_S))
    damaged, damage = rng.choice(sorted(parts(job))), rng.choice(WAYS)
    damage(damaged, rng)
    code, printed = finish(process)
    return damaged, damage.__name__, code, printed


def mend_by_hand(job: Job, damaged: Path) -> None:
    """Remove what ``--verify`` has named: the part, if it is there, and the marker of its batch."""
    damaged.unlink(missing_ok=True)
    (job.output / "batches" / damaged.parent.relative_to(damaged.parents[2]) / "completed").unlink()


if __name__ == "__main__":
    sys.exit(main())
