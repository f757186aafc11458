"""LSF: ``bjobs -o time_left`` says how long a job may still run, ``bsub`` starts the next one after it.

``brequeue`` and exit codes in ``bsub -Q`` keep the id, but start the job at once: neither takes a time to begin at.
Not tested with a real one: the tests have recorded answers.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from ddmpi.io.schedulers.scheduler import JobEnd, call

_LEFT = re.compile(r"(?P<hours>\d+):(?P<minutes>\d+)\s+(?P<kind>[LEX])")
"""Hours and minutes; L: of the run limit. E and X are of the estimate in ``bsub -We``, which ends nothing."""
_ENDED = frozenset({"DONE", "EXIT"})


class Lsf:
    """This process's job under LSF."""

    name = "LSF"
    keeps_id = False

    def __init__(self, environment: Mapping[str, str]) -> None:
        index = environment.get("LSB_JOBINDEX", "")
        self.job_id = environment.get("LSB_JOBID", "") + (f"[{index}]" if index not in {"", "0"} else "")
        self._is_interactive = environment.get("LSB_INTERACTIVE", "") == "Y"

    def end(self) -> JobEnd:
        """Return when the run limit is reached, to the minute."""
        answer = call("bjobs", "-noheader", "-o", "time_left", self.job_id)
        printed = answer.printed.strip()
        if answer.problem:
            return JobEnd(problem=answer.problem)
        if printed == "-":
            return JobEnd()
        left = _LEFT.fullmatch(printed)
        if left is None:
            return JobEnd(problem=f"bjobs says {printed[:80]!r}")
        if left["kind"] != "L":
            return JobEnd(problem="bjobs tells the estimated run time (bsub -We) in place of the limit")
        return JobEnd(time.time() + 3600.0 * int(left["hours"]) + 60.0 * int(left["minutes"]))

    def is_gone(self, job_id: str) -> bool | None:
        """Return whether a job has ended; None where that cannot be told."""
        answer = call("bjobs", "-noheader", "-o", "stat", job_id)
        if "is not found" in answer.problem + answer.printed:
            return True
        return None if answer.problem else answer.printed.strip() in _ENDED

    def objection(self) -> str:
        """Return why the job cannot be followed by another one."""
        return "it is an interactive job" if self._is_interactive else ""

    def put_back(self, begin: float | None, script: Path | None) -> str:
        """Submit the script again, to start after this job's end."""
        if script is None:
            return "LSF needs the job script to submit it again"
        # bsub takes local time, in whole minutes.
        minute = None if begin is None else datetime.fromtimestamp(60.0 * math.ceil(begin / 60.0))  # noqa: DTZ006
        when = [] if minute is None else ["-b", minute.strftime("%Y:%m:%d:%H:%M")]
        return call("bsub", *when, "-w", f"ended({self.job_id})", stdin=script).problem
