"""What a program costs, measured from outside: its processor time, memory and wall clock."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.whole.job import Job, descendants_of, finish, ranks_of

SAMPLE_INTERVAL_S: Final = 0.02
"""A process's counters vanish with it: so much of its time may be missed."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def cache_bytecode() -> None:
    """Let the programs that are started from here on keep their bytecode, as they do unless they are told not to."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@dataclass(frozen=True)
class Usage:
    """Of one process, or of a command and the children that it waited for (memory: of the largest one)."""

    cpu_s: float
    peak_rss_mb: float


@dataclass(frozen=True)
class Ended:
    """A command that ended well."""

    wall_s: float
    usage: Usage
    printed: str


def run(command: Sequence[str], printed_to: Path, folder: Path) -> Ended:
    """Run a command in ``folder`` to its end. Raises RuntimeError with what it printed where it fails."""
    started = time.monotonic()
    with printed_to.open("wb") as sink:
        process = subprocess.Popen(command, cwd=folder, stdout=sink, stderr=subprocess.STDOUT)
    peak_rss_mb = 0.0
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        # Not ru_maxrss: what this process held when it started the command counts there (Linux, exec).
        peak_rss_mb = max(peak_rss_mb, *_peaks_mb([process.pid, *descendants_of(process.pid)]))
        time.sleep(SAMPLE_INTERVAL_S)
    _, status, used = ended
    wall_s = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    printed = printed_to.read_text(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}:\n{printed[-3000:]}")
    return Ended(wall_s, Usage(used.ru_utime + used.ru_stime, peak_rss_mb), printed)


def _peaks_mb(pids: Iterable[int]) -> list[float]:
    found = [usage_of(pid) for pid in pids]
    return [0.0, *(usage.peak_rss_mb for usage in found if usage is not None)]


def run_job(job: Job, ranks: int, timeout_s: float) -> tuple[dict[int, Usage], str]:
    """Run a job to its end: the usage of each rank, and what it printed. Raises TimeoutError, or RuntimeError where the
    run fails."""
    process = job.start(ranks)
    try:
        usages = watch_ranks(process, timeout_s)
        code, printed = finish(process)
    finally:
        job.close()
    if code:
        raise RuntimeError(f"exit code {code}:\n{printed[-3000:]}")
    return usages, printed


def watch_ranks(mpiexec: subprocess.Popen[str], timeout_s: float) -> dict[int, Usage]:
    """The usage of each rank below mpiexec by its number, as last seen before it ended.

    Raises TimeoutError.
    """
    usages: dict[int, Usage] = {}
    numbers: dict[int, int] = {}
    deadline = time.monotonic() + timeout_s
    while mpiexec.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done after {timeout_s:.0f} s")
        if not numbers or not any(Path(f"/proc/{pid}").exists() for pid in numbers):
            numbers = numbers_of(ranks_of(mpiexec))
        for pid, number in numbers.items():
            usage = usage_of(pid)
            if usage is not None:
                usages[number] = usage
        time.sleep(SAMPLE_INTERVAL_S)
    return usages


def numbers_of(pids: Iterable[int]) -> dict[int, int]:
    """The number of each rank by its pid; none until all of them are known."""
    found = {pid: _environment(pid).get("PMI_RANK", "") for pid in pids}
    sizes = {_environment(pid).get("PMI_SIZE", "") for pid in found}
    complete = sizes == {str(len(found))}
    return {pid: int(number) for pid, number in found.items()} if complete else {}


def _environment(pid: int) -> Mapping[str, str]:
    try:
        entries = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def usage_of(pid: int) -> Usage | None:
    """A process's usage so far; None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    peak = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    if not peak:  # a zombie: its memory is gone
        return None
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS_PER_S, int(peak[0]) / 1024)
