"""When rank 0 writes the checkpoint: now and then, and soon after a server has asked for a long pause.

Decides the times only; what a checkpoint holds is ``run_state``'s.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from ddmpi.core.protocol import LaneReport
from ddmpi.core.records import PaceState
from ddmpi.roles.coordinator.run_state import RunState

INTERVAL_S = 10.0
LONG_PAUSE_S = 5.0
"""A pause that is longer is saved at once: whoever goes on after a kill must keep it."""
SAVE_AT_ONCE_S = 1.0
SAVES_SHARE = 0.05
"""At once means so long after the last checkpoint, or when those take up no more than this share of the time."""


class Checkpointing:
    """The checkpoints of one run. All times are seconds, monotonic."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._due_at = 0.0
        self._may_save_at = 0.0

    def begin(self, now: float) -> None:
        """The run begins; initialization has written a checkpoint."""
        self._due_at = now + INTERVAL_S

    def heed(self, reports: Iterable[LaneReport]) -> None:
        """Hurry where these reports tell of a long pause."""
        if any(pace.wait_s > LONG_PAUSE_S for report in reports for pace in report.paces.values()):
            self._due_at = min(self._due_at, self._may_save_at)

    def is_due(self, now: float) -> bool:
        """Whether it is time for ``save``."""
        return now >= self._due_at

    def save(self, paces: dict[str, PaceState], now: float) -> None:
        """Write a checkpoint with these paces.

        Raises:
            StorageError: it cannot be written; the one before it is still there.
        """
        self._due_at = now + INTERVAL_S
        began_at = time.monotonic()
        self._state.save(paces)
        took_s = time.monotonic() - began_at
        self._may_save_at = now + max(SAVE_AT_ONCE_S, took_s / SAVES_SHARE)
