"""What this program asks of any scheduler. Each one's file knows its commands; ``detection`` knows its environment.

A scheduler is asked by its own command-line programs, which every site has and which need no library. None of them is
waited for longer than ``ANSWER_TIMEOUT_S``: a controller that is down must not hold up a job.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple, Protocol

ANSWER_TIMEOUT_S: Final = 10.0


class Answer(NamedTuple):
    """What a command has said."""

    printed: str = ""
    problem: str = ""
    """Why it failed; "" if it ended with exit code 0."""


class JobEnd(NamedTuple):
    """When the scheduler ends the job."""

    at: float | None = None
    """Seconds since 1970; None: never, or unknown."""
    problem: str = ""
    """Why it is unknown; "" if it is known, or if the job has no time limit."""


class Scheduler(Protocol):
    """The scheduler of this process's job."""

    name: str
    """As people call it."""
    job_id: str
    """As its commands take it."""
    keeps_id: bool
    """Whether a job that is put back keeps its id; else another job with the same script follows it."""

    def end(self) -> JobEnd:
        """Return when the job's allocation ends."""

    def is_gone(self, job_id: str) -> bool | None:
        """Return whether a job has ended; None where that cannot be told."""

    def objection(self) -> str:
        """Return why the job cannot be put back into the queue; "" if it can."""

    def put_back(self, begin: float | None, script: Path | None) -> str:
        """Have the job start again; returns what went wrong, or "".

        Args:
            begin: not before then, seconds since 1970; None = as soon as the scheduler likes.
            script: the job script, needed where the job does not keep its id.
        """


def call(*command: str, stdin: Path | None = None) -> Answer:
    """Return what a program answers within ``ANSWER_TIMEOUT_S``, or that it does not; ``stdin``: a file for it to
    read."""
    name = command[0]
    program = shutil.which(name)
    if program is None:
        return Answer(problem=f"{name} is not on the PATH")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            input=b"" if stdin is None else stdin.read_bytes(),
            capture_output=True,
            timeout=ANSWER_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(problem=f"{name} does not answer")
    except OSError as error:
        return Answer(problem=f"{name} cannot be started: {error}")
    printed, complained = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    if done.returncode:
        return Answer(printed, complained.strip() or f"{name} ended with exit code {done.returncode}")
    return Answer(printed)
