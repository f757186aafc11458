"""What a simulation shows to whoever watches it."""

from __future__ import annotations

from collections.abc import Sequence

from ddmpi.core.protocol import Handoff
from ddmpi.core.records import Answer, Failure, Task

COORDINATOR = -1
"""In place of a rank."""


class Witness:
    """Whoever watches a simulation: the tests check the laws in a subclass. This one looks away."""

    def stepped(self, rank: int) -> None:
        """A rank (or ``COORDINATOR``) has had its turn: its state machine may have changed, and no other one."""

    def loaded(self, rank: int, batch_id: int, rows: Sequence[int]) -> None:
        """The open rows of a batch have come to a rank."""

    def started(self, now: float, rank: int, task: Task, lane_id: int) -> None:
        """A request starts under the share of this lane."""

    def opened(self, now: float, server: str) -> None:
        """A request opens a connection, in place of one that was kept."""

    def answered(self, now: float, rank: int, answer: Answer) -> None:
        """A request has ended."""

    def withdrawn(self, batch_id: int) -> None:
        """Nobody works on the batch any more: samples of it that have no outcome are fetched again with the others."""

    def decided(self, rank: int, batch_id: int, row: int, failure: Failure | None) -> None:
        """A row has its outcome, which is not durable yet: it is an error by this failure, or a success."""

    def handed_off(self, rank: int, handoff: Handoff) -> None:
        """A row leaves the rank."""
