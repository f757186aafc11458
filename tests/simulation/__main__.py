"""``python -m tests.simulation [--seeds 300] [--from SEED] [--processes N]``: new random jobs under the laws.

Without ``--from`` the seeds follow from the commit, so that each commit is tried with others. A failure prints how to
play it again. Exit code 1 if a law was broken.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.laws.lives import play

ROOT = Path(__file__).resolve().parents[2]
CHUNK = 10


def commit() -> str:
    """The commit that is checked out, with a mark where files have changed; "unknown" outside a repository."""
    described = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    told = subprocess.run(described, cwd=ROOT, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"


def attempt(seed: int) -> str:
    """What goes wrong with this seed, with its traceback; empty where nothing does."""
    try:
        play(seed)
    except Exception:  # noqa: BLE001  # whatever it is, it is what was looked for
        return traceback.format_exc()
    return ""


def main() -> int:
    """Play the seeds; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, metavar="N")
    parser.add_argument("--from", dest="first", type=int, metavar="SEED", help="default: from the commit")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    given = parser.parse_args()
    here = commit()
    first = int.from_bytes(here.encode()[:6], "big") % 10**9 if given.first is None else given.first
    sys.stdout.write(f"{given.seeds} seeds from {first}, commit {here}\n")
    failed = 0
    with ProcessPoolExecutor(given.processes) as pool:
        seeds = range(first, first + given.seeds)
        for seed, found in zip(seeds, pool.map(attempt, seeds, chunksize=CHUNK), strict=True):
            if found:
                failed += 1
                again = f"again: git checkout {here} && python -m tests.simulation --seeds 1 --from {seed}"
                sys.stdout.write(f"\nseed {seed}:\n{found}{again}\n")
    sys.stdout.write(f"{given.seeds - failed} passed, {failed} failed\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
