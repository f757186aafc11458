"""Flux: ``flux job timeleft`` says how long a job may still run, ``flux batch`` starts the next one after it.

A batch job of Flux is an instance of its own. Its commands ask that instance; with ``--parent`` they ask the one that
runs it, which knows it by the attribute ``jobid``. A job cannot be put back into Flux's queue under its id. Not tested
with a real one: the tests have recorded answers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ddmpi.io.schedulers.scheduler import JobEnd, call

NO_LIMIT: Final = 2**32 - 1
"""UINT_MAX: what ``flux job timeleft`` prints for a job without a time limit (its manual page)."""


class Flux:
    """This process's job under Flux."""

    name = "Flux"
    keeps_id = False

    def __init__(self, environment: Mapping[str, str]) -> None:  # noqa: ARG002  # as the others; Flux reads FLUX_URI
        self.job_id = ""
        """In a batch job no variable has it, and the id of a task in it means nothing outside."""

    def end(self) -> JobEnd:
        """Return when the time limit is reached."""
        answer = call("flux", "job", "timeleft")
        printed = answer.printed.strip()
        if answer.problem:
            return JobEnd(problem=answer.problem)
        if not printed.isdigit():
            return JobEnd(problem=f"flux job timeleft says {printed[:80]!r}")
        return JobEnd() if int(printed) >= NO_LIMIT else JobEnd(time.time() + int(printed))

    def is_gone(self, job_id: str) -> bool | None:  # noqa: ARG002
        """Return None: locks have no job's id under Flux."""
        return None

    def objection(self) -> str:
        """Return "": it is found out when the next job is submitted."""
        return ""

    def put_back(self, begin: float | None, script: Path | None) -> str:
        """Submit the script again to the instance that runs this job, to start after this job's end."""
        if script is None:
            return "Flux needs the job script to submit it again"
        job = call("flux", "getattr", "jobid")
        if job.problem:
            return f"it is no batch job: {job.problem}"
        after = [f"--dependency=afterany:{job.printed.strip()}"]
        if begin is not None:
            after.append(f"--dependency=begin-time:{begin:.0f}")
        return call("flux", "--parent", "batch", *after, str(script)).problem
