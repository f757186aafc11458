"""Slurm: ``squeue`` says when a job ends, ``scontrol`` puts it back into the queue, under the same id."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from ddmpi.io.schedulers.scheduler import Answer, JobEnd, call

LEAST_DELAY_S: Final = 10.0
"""From a requeue to the next start. A node counts the time of a job's credential in seconds, and may take a new one for
that of the job that it has just ended; Slurm's own delay is two minutes."""
_GONE = "Invalid job id specified"
_NO_LIMIT = frozenset({"NONE", "N/A", "Unknown", ""})


class Slurm:
    """This process's job under Slurm."""

    name = "Slurm"
    keeps_id = True

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.job_id = environment.get("SLURM_JOB_ID", "")
        self._end = environment.get("SLURM_JOB_END_TIME", "")

    def end(self) -> JobEnd:
        """Return when the job's allocation ends. Slurm sets ``SLURM_JOB_END_TIME`` from 23.02 on; before, the
        controller has to be asked."""
        if self._end.isdigit():
            return JobEnd(float(self._end))
        answer = _squeue(self.job_id, "%e")
        printed = answer.printed.strip()
        if answer.problem:
            return JobEnd(problem=answer.problem)
        if printed in _NO_LIMIT:
            return JobEnd()
        try:
            # squeue prints local time without a zone.
            return JobEnd(datetime.fromisoformat(printed).astimezone().timestamp())
        except ValueError:
            return JobEnd(problem=f"squeue says {printed[:80]!r}")

    def is_gone(self, job_id: str) -> bool | None:
        """Return whether a job has ended; None where that cannot be told."""
        answer = _squeue(job_id, "%T")
        if answer.problem:
            return True if _GONE in answer.problem else None
        return not answer.printed.strip()

    def objection(self) -> str:
        """Return why the job cannot be put back: Slurm is ending it, or it may not be requeued."""
        answer = call("scontrol", "--oneliner", "show", "job", self.job_id)
        if answer.problem:
            return f"Slurm does not say what it thinks of the job: {answer.problem}"
        job = dict(field.partition("=")[::2] for field in answer.printed.split() if "=" in field)
        objections = (
            (job.get("JobState") != "RUNNING", f"Slurm is ending it: {job.get('JobState')}"),
            (job.get("BatchFlag") != "1", "it was not started by sbatch"),
            (job.get("Requeue") != "1", "Slurm may not requeue it (sbatch --requeue allows that)"),
        )
        return next((text for applies, text in objections if applies), "")

    def put_back(self, begin: float | None, script: Path | None) -> str:  # noqa: ARG002  # Slurm has the script
        """Put the job back into the queue, which ends its processes: those that ignore SIGTERM within ``KillWait``
        (30 s). The time before which it may not start can be set only then, while it is no longer running."""
        problem = call("scontrol", "requeue", self.job_id).problem
        if problem or begin is None:
            return problem
        # scontrol takes local time.
        start = datetime.fromtimestamp(max(begin, time.time() + LEAST_DELAY_S)).strftime("%Y-%m-%dT%H:%M:%S")  # noqa: DTZ006
        problem = call("scontrol", "update", f"JobId={self.job_id}", f"StartTime={start}").problem
        return f"it is, but may start in two minutes already: {problem}" if problem else ""


def _squeue(job_id: str, wanted: str) -> Answer:
    if not job_id.replace("_", "").isalnum():
        return Answer(problem=f"{job_id!r} is no job id")
    return call("squeue", "--noheader", "--jobs", job_id, "--format", wanted)
