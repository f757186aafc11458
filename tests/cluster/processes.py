"""Processes of a Slurm job, by their environment: all nodes of the cluster are on one machine."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.victims import kill


def ranks_of_job(job_id: str) -> dict[int, str]:
    """The running ranks of a job: pid and node."""
    return {
        pid: environment["SLURMD_NODENAME"]
        for pid, environment in _environments(job_id).items()
        if "SLURMD_NODENAME" in environment and _is_rank(pid)
    }


def kill_all_on(node: str, job_id: str) -> None:
    """SIGKILL all that a node has running of a job, and Slurm's own process above it, as if it lost its power."""
    processes = [pid for pid, it in _environments(job_id).items() if it.get("SLURMD_NODENAME") == node]
    parents = {_parent_of(pid) for pid in processes}
    for pid in [*(parent for parent in parents if _command(parent).startswith(b"slurmstepd")), *processes]:
        kill(pid)


def _environments(job_id: str) -> dict[int, dict[str, str]]:
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines = (process / "environ").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is another user's
        environment = dict(line.partition("=")[::2] for line in lines)
        if environment.get("SLURM_JOB_ID") == job_id:
            found[int(process.name)] = environment
    return found


def _is_rank(pid: int) -> bool:
    words = _command(pid).split(b"\0")
    return words[0].endswith(b"python") and b"ddmpi" in words


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _parent_of(pid: int) -> int:
    try:
        # Fields of proc(5), counted after the name, which may hold blanks.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
