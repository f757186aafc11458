"""Back into Slurm's queue: ``python -m ddmpi.cli.requeue CONFIG CODE``, which run.sh calls when a submitted run ended.

A run that stopped before all rows were final (exit code 75), or that lost a rank, its launcher or a node, is to be
started again with the same command. Slurm can do that with the job as it is. Not so if a user cancelled the job,
and not for ever: a job that is put back several times and gets nothing done has a reason that people must look at.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ddmpi.config import config as config_module
from ddmpi.core.records import UNDECODABLE
from ddmpi.errors import EXIT_BUG, EXIT_DONE, EXIT_SETUP, DdmpiError
from ddmpi.io import slurm
from ddmpi.io.folder.checkpoint import load
from ddmpi.io.folder.disk_errors import read_bytes
from ddmpi.io.folder.durable import write_atomically
from ddmpi.io.folder.layout import configured_layout
from ddmpi.io.mpi.launcher import complain
from ddmpi.report.formats import counted

MOST_FRUITLESS: Final = 3
"""Times in a row that a job goes back without a row more: servers that are parked get their time, a fault ends."""
HOPELESS: Final = frozenset({EXIT_DONE, EXIT_BUG, EXIT_SETUP, 126, 127})
"""Codes after which the command would end alike again; the last two are a shell's: it found no launcher."""


class Attempts(msgspec.Struct, frozen=True):
    """What a job's requeues have brought so far; kept in the output folder."""

    job_id: str
    rows: int = 0
    """Rows that were final when it was put back last."""
    fruitless: int = 0
    """How often in a row it was put back without having got further."""


def next_attempts(before: Attempts | None, job_id: str, rows: int) -> Attempts:
    """Return what is remembered of a run that has ended with ``rows`` final rows."""
    if before is None or before.job_id != job_id or rows > before.rows:
        return Attempts(job_id, rows)
    return Attempts(job_id, rows, before.fruitless + 1)


def objection(code: int, job: slurm.JobFields | None, attempts: Attempts) -> str:
    """Return why the job does not go back; "" if it does.

    Args:
        code: what the launcher ended with.
        job: what Slurm says of it, None where that cannot be told.
    """
    if job is None:
        return "Slurm does not say what it thinks of the job"
    objections = (
        (code in HOPELESS, "it would end in the same way again"),
        (job.get("JobState") != "RUNNING", f"Slurm is ending it: {job.get('JobState')}"),
        (job.get("BatchFlag") != "1", "it was not started by sbatch"),
        (job.get("Requeue") != "1", "Slurm may not requeue it (sbatch --requeue allows that)"),
        (
            attempts.fruitless >= MOST_FRUITLESS,
            f"it was put back {attempts.fruitless} times without a row more; see the log of the last run",
        ),
    )
    return next((text for applies, text in objections if applies), "")


def main(argv: Sequence[str]) -> int:
    """Requeue this job or say why not; returns 0 if it goes back. Slurm ends all its processes then, this one too."""
    config_path, code = argv[0], int(argv[1])
    job_id = os.environ.get("SLURM_JOB_ID", "")
    if code == EXIT_DONE or not job_id:
        return 1
    try:
        reason = _put_back(config_path, code, job_id)
    except DdmpiError as error:
        reason = str(error)
    if reason:
        complain(f"job {job_id} is not put back into the queue: {reason}")
    return 1 if reason else 0


def _put_back(config_path: str, code: int, job_id: str) -> str:
    config = config_module.load(Path(config_path))
    layout = configured_layout(config)
    path = layout.logs / "requeues.json"
    checkpoint, _ = load(layout)
    counters = checkpoint.counters if checkpoint is not None else {}
    rows = counters.get("successes", 0) + counters.get("errors", 0)
    attempts = next_attempts(_read(path), job_id, rows)
    reason = objection(code, slurm.job_fields(job_id), attempts)
    if reason:
        return reason
    write_atomically(path, msgspec.json.encode(attempts), layout.temporary)
    complain(f"{counted(rows, 'row')} final; job {job_id} goes back into the queue")
    return slurm.requeue(job_id)


def _read(path: Path) -> Attempts | None:
    data = read_bytes(path)
    try:
        return None if data is None else msgspec.json.decode(data, type=Attempts)
    except UNDECODABLE:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
