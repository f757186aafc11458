"""What Slurm knows of a job: when its allocation ends, whether it is gone; and the request to put it back.

Asked of ``squeue`` and ``scontrol`` where they exist.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TypeAlias

ANSWER_TIMEOUT_S = 10.0
JobFields: TypeAlias = Mapping[str, str]
_GONE = "Invalid job id specified"


def end_time(environment: Mapping[str, str]) -> float | None:
    """Return when this job's allocation ends (seconds since 1970), None outside Slurm or without a limit. Slurm sets
    ``SLURM_JOB_END_TIME`` from 23.02 on; before, the controller has to be asked."""
    known = environment.get("SLURM_JOB_END_TIME", "")
    if known.isdigit():
        return float(known)
    job_id = environment.get("SLURM_JOB_ID", "")
    answer = _squeue(job_id, "%e") if job_id else None
    if answer is None or answer.returncode:
        return None
    try:
        # squeue prints local time without a zone.
        return datetime.fromisoformat(answer.stdout.strip()).astimezone().timestamp()
    except ValueError:
        return None


def seconds_left(configured: float | None, margin_s: float, environment: Mapping[str, str]) -> float | None:
    """Return seconds until the run has to stop, None without a walltime; negative when it is too late.

    Args:
        configured: the end of the allocation from the config, seconds since 1970; None = ask Slurm.
        margin_s: how long before the end the run stops.
    """
    end = configured if configured is not None else end_time(environment)
    return None if end is None else end - margin_s - time.time()


def job_is_gone(job_id: str) -> bool | None:
    """Return whether a job has ended; None where that cannot be told."""
    answer = _squeue(job_id, "%T")
    if answer is None:
        return None
    if answer.returncode:
        return True if _GONE in answer.stderr else None
    return not answer.stdout.strip()


def job_fields(job_id: str) -> JobFields | None:
    """Return what ``scontrol show job`` says, by name; None where that cannot be told."""
    answer = _call("scontrol", "--oneliner", "show", "job", job_id)
    if answer is None or answer.returncode:
        return None
    return dict(field.partition("=")[::2] for field in answer.stdout.split() if "=" in field)


def requeue(job_id: str) -> str:
    """Put a job back into the queue, which ends its processes; "" or why Slurm did not."""
    answer = _call("scontrol", "requeue", job_id)
    if answer is None:
        return "scontrol does not answer"
    return answer.stderr.strip() if answer.returncode else ""


def _squeue(job_id: str, wanted: str) -> subprocess.CompletedProcess[str] | None:
    if not job_id.replace("_", "").isalnum():
        return None
    return _call("squeue", "--noheader", "--jobs", job_id, "--format", wanted)


def _call(name: str, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    """Return the answer of one of Slurm's programs, None where there is none."""
    program = shutil.which(name)
    if program is None:
        return None
    try:
        return subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None
