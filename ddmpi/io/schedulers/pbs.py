"""PBS Pro and OpenPBS: ``qstat -f -F json`` says when a job ends, ``qsub`` starts the next one after it.

``qrerun`` would keep the id, but is for managers and operators alone (its manual page), and no exit code has a job
requeued without a hook of the site's. Not tested with a real one: the tests have recorded answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ddmpi.core.records import UNDECODABLE
from ddmpi.io.schedulers.scheduler import JobEnd, call

_GONE = ("Unknown Job Id", "Job has finished")


class Pbs:
    """This process's job under PBS."""

    name = "PBS"
    keeps_id = False

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.job_id = environment.get("PBS_JOBID", "")
        self._kind = environment.get("PBS_ENVIRONMENT", "")

    def end(self) -> JobEnd:
        """Return when the job's walltime is over: its start and ``Resource_List.walltime``. What is used of it lags
        behind by minutes."""
        answer = call("qstat", "-f", "-F", "json", self.job_id)
        if answer.problem:
            return JobEnd(problem=answer.problem)
        try:
            return _end_of(msgspec.json.decode(answer.printed)["Jobs"])
        except (*UNDECODABLE, KeyError, TypeError, ValueError, StopIteration) as error:
            return JobEnd(problem=f"the answer of qstat cannot be read: {error!r}")

    def is_gone(self, job_id: str) -> bool | None:
        """Return whether a job has ended; None where that cannot be told."""
        problem = call("qstat", job_id).problem
        return (True if any(text in problem for text in _GONE) else None) if problem else False

    def objection(self) -> str:
        """Return why the job cannot be followed by another one."""
        return "" if self._kind == "PBS_BATCH" else "it is no batch job"

    def put_back(self, begin: float | None, script: Path | None) -> str:
        """Submit the script again, to start after this job's end."""
        if script is None:
            return "PBS needs the job script to submit it again"
        # qsub takes local time.
        when = [] if begin is None else ["-a", datetime.fromtimestamp(begin).strftime("%Y%m%d%H%M.%S")]  # noqa: DTZ006
        return call("qsub", *when, "-W", f"depend=afterany:{self.job_id}", str(script)).problem


def _end_of(jobs: Mapping[str, Any]) -> JobEnd:
    """The one job of an answer; raises KeyError, ValueError, TypeError or StopIteration for another form."""
    job = next(iter(jobs.values()))
    walltime = job["Resource_List"].get("walltime")
    if walltime is None:
        return JobEnd()
    started = datetime.strptime(job["stime"], "%a %b %d %H:%M:%S %Y").astimezone()  # local time
    seconds = 0
    for part in str(walltime).split(":"):
        seconds = 60 * seconds + int(part)
    return JobEnd(started.timestamp() + seconds)
