"""The processes of a job, and how they are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.whole.job import children_of, ranks_of

ORPHAN_TIMEOUT_S = 10.0
"""How long a rank may outlive what was killed. It takes milliseconds; a loaded machine may need longer to say so."""
_RANK_VARIABLES = ("PMI_RANK=", "OMPI_COMM_WORLD_RANK=", "PMIX_RANK=")


def kill_something(process: subprocess.Popen[str], rng: random.Random) -> str:
    """SIGKILL to one rank, to rank 0, to all ranks, to the launcher, or to its proxy, which starts the ranks.

    Returns what was killed, after all ranks have ended. Raises AssertionError where one of them outlives the job.
    """
    ranks = ranks_of(process)
    proxies = children_of(process.pid)
    choices = {"launcher": [process.pid]}
    if ranks:
        choices |= {"rank": [rng.choice(ranks)], "all ranks": ranks}
        choices |= {"rank 0": [pid for pid in ranks if rank_number(pid) == 0] or ranks[:1]}
    # Without ranks nothing of ours is there yet, and MPICH 5.0's mpiexec waits for ever for a proxy killed that early.
    if proxies and ranks:
        choices["proxy"] = proxies[:1]
    kind = rng.choice(sorted(choices))
    segments = shared_segments(ranks)
    for pid in choices[kind]:
        kill(pid)
    for pid in ranks:
        await_end(pid)
    for segment in segments:
        segment.unlink(missing_ok=True)
    return kind


def shared_segments(pids: Sequence[int]) -> set[Path]:
    """What MPI has in the machine's shared memory for these processes: nobody else removes it when they are killed."""
    found = set()
    for pid in pids:
        try:
            maps = Path(f"/proc/{pid}/maps").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found |= {Path(line.split(maxsplit=5)[5]) for line in maps.splitlines() if " /dev/shm/" in line}
    return {path for path in found if path.exists()}


def rank_number(pid: int) -> int | None:
    """Which rank a process is, by the variable of its launcher; None where it has ended or is none."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    numbers = [line.partition("=")[2] for line in environment if line.startswith(_RANK_VARIABLES)]
    return int(numbers[0]) if numbers else None


def kill(pid: int) -> None:
    """SIGKILL, unless the process fell with another one."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def await_end(pid: int) -> None:
    """Nobody tells an orphan to end: it has to notice by itself. Raises AssertionError where it does not."""
    deadline = time.monotonic() + ORPHAN_TIMEOUT_S
    while _is_rank(pid):
        if time.monotonic() > deadline:
            raise AssertionError(f"rank {pid} outlived its job")
        time.sleep(0.01)


def _is_rank(pid: int) -> bool:
    # The command line of a process that has ended, and that nobody has waited for, is empty.
    try:
        return b"ddmpi" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
