"""When a rank's parts close: with the last row of their batch, with their lane, and at the checkpoint interval.

Invariant: a kill costs no more work than ``checkpoint_interval_s``. All parts are asked to close every half of it, and
while they are not all durable another half later (the disk is behind), no request starts.
"""

from __future__ import annotations

from ddmpi.core.frontier.interface import LaneEnded
from ddmpi.io.results.writer import ResultWriter


class PartClosing:
    """The closing of one rank's parts. ``now`` is seconds, monotonic."""

    def __init__(self, writer: ResultWriter, checkpoint_interval_s: float, now: float) -> None:
        self._writer = writer
        # A part may close one interval late (see is_behind): two of these are what a kill may cost.
        self._interval_s = checkpoint_interval_s / 2
        self._close_at = now + self._interval_s
        self._closing: int | None = None  # the ticket of the last closing of all parts, until they are durable
        self._draining: dict[int, LaneEnded] = {}

    def close_batch(self, batch_id: int) -> None:
        """No row of the batch is left here."""
        self._writer.close_parts((batch_id,))

    def close_lane(self, ended: LaneEnded) -> None:
        """No row of the lane is left here; ``closed`` gives it back."""
        self._draining[self._writer.close_parts(ended.batch_ids)] = ended

    def close_all_if_due(self, now: float) -> None:
        """Close all parts, one closing after the other."""
        if now >= self._close_at and self._closing is None:
            self._close_at = now + self._interval_s
            self._closing = self._writer.close_parts()

    def is_behind(self, now: float) -> bool:
        """Whether the disk is an interval behind: a kill would cost more work than the interval allows."""
        return self._closing is not None and now >= self._close_at

    def closed(self, ticket: int) -> LaneEnded | None:
        """The writer has done what it was asked; the lane of which all is committed now."""
        if ticket == self._closing:
            self._closing = None
        return self._draining.pop(ticket, None)
