"""Which scheduler's job this process is part of, by the variables that it sets in its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ddmpi.io.schedulers.flux import Flux
from ddmpi.io.schedulers.lsf import Lsf
from ddmpi.io.schedulers.pbs import Pbs
from ddmpi.io.schedulers.scheduler import Scheduler
from ddmpi.io.schedulers.slurm import Slurm

SCHEDULERS: Mapping[str, Callable[[Mapping[str, str]], Scheduler]] = {
    "FLUX_URI": Flux,
    "SLURM_JOB_ID": Slurm,
    "PBS_JOBID": Pbs,
    "LSB_JOBID": Lsf,
}
"""By the variable that gives it away. Flux first: its instances run within jobs of the others."""


def schedulers_of(environment: Mapping[str, str]) -> list[Scheduler]:
    """Return the schedulers of the jobs that this process is part of, the innermost first."""
    return [made(environment) for name, made in SCHEDULERS.items() if environment.get(name)]


def scheduler_of(environment: Mapping[str, str]) -> Scheduler | None:
    """Return the scheduler of this process's job, None outside any."""
    return next(iter(schedulers_of(environment)), None)


def job_of(environment: Mapping[str, str]) -> str:
    """Return this process's job as locks and logs name it, such as "7" or "PBS 1008.head"; "" outside any. An id alone
    is Slurm's, as in the locks of older releases."""
    scheduler = scheduler_of(environment)
    if scheduler is None or not scheduler.job_id:
        return ""
    return scheduler.job_id if scheduler.name == Slurm.name else f"{scheduler.name} {scheduler.job_id}"


def job_is_gone(job: str) -> bool | None:
    """Return whether a job, as ``job_of`` names it, has ended; None where that cannot be told."""
    name, _, job_id = job.rpartition(" ")
    asked = next((made({}) for made in SCHEDULERS.values() if made({}).name == (name or Slurm.name)), None)
    return None if asked is None else asked.is_gone(job_id)


def seconds_left(
    configured: float | None, margin_s: float, environment: Mapping[str, str], say: Callable[[str], object]
) -> float | None:
    """Return seconds until the run has to stop, None without a walltime; negative when it is too late.

    Args:
        configured: the end of the allocation from the config, seconds since 1970; None = ask the scheduler.
        margin_s: how long before the end the run stops.
        say: is told, once, that the scheduler does not say when the job ends.
    """
    end = configured
    if end is None:
        ends = {scheduler.name: scheduler.end() for scheduler in schedulers_of(environment)}
        end = min((found.at for found in ends.values() if found.at is not None), default=None)
        problems = [f"{name} does not say when this job ends ({it.problem})" for name, it in ends.items() if it.problem]
        if end is None and problems:
            say(
                f"Warning: {problems[0]}: the run will not stop softly before its time limit. Set walltime.end_time, "
                "or have the job sent SIGUSR1 in time."
            )
    return None if end is None else end - margin_s - time.time()
