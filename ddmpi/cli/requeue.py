"""Back into the queue: ``python -m ddmpi.cli.requeue CONFIG CODE [SCRIPT]``, which run.sh and the job scripts of
``configs/cluster`` call when a run in a batch job has ended.

A run that stopped before all rows were final (exit code 75), or that lost a rank, its launcher or a node, is to be
started again with the same command. The scheduler does that: not before the first server that is waited for may be
asked again, and for as long as waiting can make rows final. Not so if a user cancelled the job, if only servers are
left that the operator holds, if ``MOST_FRUITLESS`` runs in a row got nothing done and no server says why, or if no row
has become final for ``LONGEST_S``: these have a reason that people must look at.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ddmpi.config import config as config_module
from ddmpi.core.records import UNDECODABLE
from ddmpi.errors import EXIT_BUG, EXIT_DONE, EXIT_PENDING, EXIT_SETUP, DdmpiError
from ddmpi.io.folder.checkpoint import Checkpoint, load
from ddmpi.io.folder.disk_errors import read_bytes
from ddmpi.io.folder.durable import write_atomically
from ddmpi.io.folder.layout import Layout, configured_layout
from ddmpi.io.folder.lock import STALE_AFTER_S
from ddmpi.io.mpi.launcher import complain
from ddmpi.io.schedulers.detection import scheduler_of
from ddmpi.io.schedulers.scheduler import Scheduler
from ddmpi.report.formats import counted
from ddmpi.report.pending import clock

MOST_FRUITLESS: Final = 3
"""Times in a row that a job goes back although no server is waited for and no row has become final."""
LONGEST_S: Final = 7 * 86_400.0
"""So long a job goes back without a row more: several times the longest pause (``backoff.cap_s``, a day)."""
HOPELESS: Final = frozenset({EXIT_DONE, EXIT_BUG, EXIT_SETUP, 126, 127})
"""Codes after which the command would end alike again; the last two are a shell's: it found no launcher."""
_LET_GO_S: Final = STALE_AFTER_S + 60.0
"""After a hard end another job gets the output folder only when the lock's last sign of life is old."""


class Progress(msgspec.Struct, frozen=True):
    """What a run has left, as its checkpoint says."""

    rows: int = 0
    """Rows that are final."""
    pending: int = 0
    waiting: int = 0
    """Pending rows whose server is waited for."""
    until: float = 0.0
    """When the first of these servers may be asked again, seconds since 1970; 0 = nobody knows."""

    @property
    def waits(self) -> bool:
        """Whether all rows that are left wait for servers, and one of these will be asked again."""
        return 0 < self.pending <= self.waiting and self.until > 0


class Attempts(msgspec.Struct, frozen=True):
    """What a job's requeues have brought so far; kept in the output folder."""

    job_id: str
    rows: int = 0
    """Rows that were final when it was put back last."""
    fruitless: int = 0
    """How often in a row it was put back without having got further, and without a server that is waited for."""
    since: float = 0.0
    """When it was put back first with that many rows, seconds since 1970."""
    times: int = 0
    begin: float = 0.0
    """When it may start again, seconds since 1970; 0 = as soon as the scheduler likes."""
    reason: str = ""
    """Why it was not put back."""


def progress_of(checkpoint: Checkpoint | None) -> Progress:
    """Return what the checkpoint says of the rows; nothing is final without one."""
    if checkpoint is None or not checkpoint.counters:
        return Progress()
    counters, waiting = checkpoint.counters, checkpoint.waiting
    final = counters.get("successes", 0) + counters.get("errors", 0)
    pending = counters.get("rows", 0) - counters.get("ignored", 0) - final
    return Progress(final, max(0, pending), waiting.rows, waiting.until)


def next_attempts(before: Attempts | None, job_id: str, progress: Progress, code: int, now: float) -> Attempts:
    """Return what is remembered of a run that has ended with ``code``. It is not held against a run that all rows
    which are left wait for servers."""
    begin = max(now, progress.until) if progress.waits else 0.0
    times = 1 if before is None else before.times + 1
    if before is None or progress.rows != before.rows:  # fewer: --retry-failed
        return Attempts(job_id, progress.rows, since=now, times=times, begin=begin)
    excused = code == EXIT_PENDING and progress.waits
    fruitless = 0 if excused else before.fruitless + 1
    return Attempts(job_id, progress.rows, fruitless, before.since or now, times, begin)


def objection(code: int, progress: Progress, attempts: Attempts, now: float) -> str:
    """Return why starting the run again would not help; "" if it would."""
    waits_for_nobody = 0 < progress.pending <= progress.waiting and not progress.until
    objections = (
        (code in HOPELESS, "it would end in the same way again"),
        (
            code == EXIT_PENDING and waits_for_nobody,
            f"only rows of servers that control.yaml holds are left ({progress.pending:,}); edit it, then submit the "
            "job again",
        ),
        (
            attempts.fruitless >= MOST_FRUITLESS,
            f"it was put back {attempts.fruitless} times without a row more, and waits for no server; see the log of "
            "the last run",
        ),
        (
            now - attempts.since >= LONGEST_S,
            f"no row has become final since {clock(attempts.since, now)}; give the servers up that are waited for "
            "(ddmpi status CONFIG names them), or submit the job again",
        ),
    )
    return next((text for applies, text in objections if applies), "")


def queue_text(attempts: Attempts, now: float) -> str:
    """Return what ``--status`` says of the job's place in the queue."""
    if attempts.reason:
        return f"job {attempts.job_id} was not put back: {attempts.reason}"
    begin = f", not to start before {clock(attempts.begin, now)}" if attempts.begin > now else ""
    return (
        f"job {attempts.job_id} goes back until no row is pending; put back {counted(attempts.times, 'time')}{begin}; "
        f"stays out if no further row is final by {clock(attempts.since + LONGEST_S, now)}"
    )


def read_attempts(layout: Layout) -> Attempts | None:
    """Return what is known of the job's requeues, None if it was never put back."""
    data = read_bytes(_path(layout))
    try:
        return None if data is None else msgspec.json.decode(data, type=Attempts)
    except UNDECODABLE:
        return None


def main(argv: Sequence[str]) -> int:
    """Have this job start again or say why not; returns 0 if it does. Slurm ends all its processes then: this one
    lives on through SIGTERM, to name the time before which the job may not start."""
    code = int(argv[1])
    script = Path(argv[2]) if len(argv) > 2 else None
    scheduler = scheduler_of(os.environ)
    if scheduler is None:
        return 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        layout = configured_layout(config_module.load(Path(argv[0])))
        if code == EXIT_DONE:
            _path(layout).unlink(missing_ok=True)
            return 1
        reason = _put_back(layout, code, script, scheduler)
    except DdmpiError as error:
        reason = str(error)
    if reason:
        complain(f"{_named(scheduler)} is not put back into the queue: {reason}")
    return 1 if reason else 0


def _named(scheduler: Scheduler) -> str:
    return f"job {scheduler.job_id}" if scheduler.job_id else f"the job under {scheduler.name}"


def _put_back(layout: Layout, code: int, script: Path | None, scheduler: Scheduler) -> str:
    now = time.time()
    checkpoint, _ = load(layout)
    progress = progress_of(checkpoint)
    before = read_attempts(layout)
    if before is not None and (before.reason or (scheduler.keeps_id and before.job_id != scheduler.job_id)):
        before = None  # somebody has submitted it anew
    attempts = next_attempts(before, scheduler.job_id, progress, code, now)
    if code != EXIT_PENDING and not scheduler.keeps_id:
        attempts = msgspec.structs.replace(attempts, begin=max(attempts.begin, now + _LET_GO_S))
    reason = objection(code, progress, attempts, now) or scheduler.objection()
    if layout.logs.exists():  # else the run has not come so far as to make it
        _write(layout, msgspec.structs.replace(attempts, reason=reason))
    if reason:
        return reason
    begin = f", not to start before {clock(attempts.begin, now)}" if attempts.begin > now else ""
    complain(
        f"{counted(progress.rows, 'row')} final, {progress.pending:,} pending; {_named(scheduler)} goes back into the "
        f"queue by itself{begin} ({scheduler.name}; put back {counted(attempts.times, 'time')} so far)"
    )
    reason = scheduler.put_back(attempts.begin or None, script)
    if reason:
        _write(layout, msgspec.structs.replace(attempts, reason=reason))
    return reason


def _write(layout: Layout, attempts: Attempts) -> None:
    write_atomically(_path(layout), msgspec.json.encode(attempts), layout.temporary)


def _path(layout: Layout) -> Path:
    return layout.logs / "requeues.json"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
