"""How a run ends on rank 0: why it stops, which ranks have finished, and the code that all of them exit with.

A stop is soft: each rank commits what it has and says so, and none is waited for longer than ``FINISH_TIMEOUT_S``. The
first reason counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from ddmpi.core.protocol import Exit, Stop, StopReason
from ddmpi.errors import EXIT_DONE, EXIT_PENDING

GRACE_S = 8.0
"""What requests in flight get at a soft stop: with the commit of the parts it stays below 20 s."""
FINISH_TIMEOUT_S = 18.0
"""A rank that has not finished so long after ``Stop`` is left behind: its open parts are lost, nothing else."""


class SoftStop:
    """The end of one run.

    Args:
        workers: the ranks that have to finish.
    """

    def __init__(self, workers: Sequence[int]) -> None:
        self.reason: StopReason | None = None
        """Why the run stops, None while it does not."""
        self.failure = ""
        """What went wrong on some rank, for the person who started the run."""
        self.is_readonly = False
        """Rank 0 itself cannot write."""
        self._unfinished = dict.fromkeys(workers)
        self._deadline = 0.0

    def begin(self, reason: StopReason, now: float) -> Stop:
        """The run stops from now on; what all ranks have to be told."""
        self.reason = reason
        self._deadline = now + FINISH_TIMEOUT_S
        return Stop(reason, 0.0 if reason is StopReason.DONE else GRACE_S)

    def finished(self, rank: int) -> None:
        """The rank has committed what it had, and does nothing more."""
        self._unfinished.pop(rank, None)

    @property
    def unfinished(self) -> list[int]:
        """The ranks that have not finished."""
        return list(self._unfinished)

    def is_over(self, now: float) -> bool:
        """Whether no rank is waited for any longer."""
        return not self._unfinished or now >= self._deadline

    def ending(self, pending_rows: int) -> Exit:
        """What all ranks end with."""
        return Exit(EXIT_DONE if pending_rows == 0 and not self.failure else EXIT_PENDING, self.failure)
