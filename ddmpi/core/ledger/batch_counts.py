"""How many rows of each batch are final, by which parts, and how many failed in which way. Pure.

The one place where these numbers live on rank 0: the ledger decides by them, markers, checkpoint and report are made of
them. They change by published parts (``add_part``) and by what was read back from files (``set``), by nothing else.

Invariants: a batch has at most as many outcomes as rows; a batch is *complete* once all of its rows are final and that
was noted (``complete``): its parts are then forgotten. Between the two its marker is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ddmpi.core.arrays import IntArray
from ddmpi.core.protocol import PartReport
from ddmpi.errors import TransitionError


@dataclass(frozen=True)
class BatchContent:
    """What the parts of one batch hold, as read back."""

    batch_id: int
    successes: int
    errors: int
    kinds: Mapping[str, int] = field(default_factory=dict)
    """Errors by kind."""
    parts: tuple[str, ...] = ()
    """Paths of the parts; none where a marker speaks for them."""


class BatchCounts:
    """The counts of all B batches.

    Args:
        rows: (B,) rows of each batch that are, or are to become, final. Kept, and changed in place.
        successes, errors: (B,) those that are final already, none if left out.
        parts: published parts of the batches that are begun and not complete.
    """

    def __init__(
        self,
        rows: IntArray,
        successes: IntArray | None = None,
        errors: IntArray | None = None,
        parts: Mapping[int, list[str]] | None = None,
    ) -> None:
        self.rows = rows
        self.successes = np.zeros_like(rows) if successes is None else successes.copy()
        self.errors = np.zeros_like(rows) if errors is None else errors.copy()
        self._is_complete = self.successes + self.errors >= rows
        self.parts = {batch: list(paths) for batch, paths in (parts or {}).items() if not self._is_complete[batch]}
        """Published parts of the batches that are begun and not complete."""
        self._kinds: dict[str, IntArray] = {}  # (B,) errors of each kind
        self.incomplete = int(np.count_nonzero(~self._is_complete))
        """Batches that are not complete."""

    # ---- what changes them

    def add_part(self, part: PartReport) -> None:
        """Count a published part. Raises TransitionError: the batch would have more outcomes than rows."""
        batch_id = part.batch_id
        paths = self.parts.setdefault(batch_id, [])
        paths.append(part.path)
        final, rows = self.final(batch_id) + part.rows, int(self.rows[batch_id])
        if final > rows:
            raise TransitionError(f"batch {batch_id} has {rows} rows and {final} outcomes: {paths}")
        (self.errors if part.is_errors else self.successes)[batch_id] += part.rows
        for kind, count in part.kinds.items():
            self._of_kind(kind)[batch_id] += count

    def set(self, content: BatchContent, rows: int | None = None) -> None:
        """Replace all that was counted of a batch; ``rows`` replaces its number of rows too. The batch is complete if
        all rows are final and no parts are given."""
        batch_id = content.batch_id
        if rows is not None:
            self.rows[batch_id] = rows
        self.successes[batch_id], self.errors[batch_id] = content.successes, content.errors
        for column in self._kinds.values():
            column[batch_id] = 0
        for kind, count in content.kinds.items():
            self._of_kind(kind)[batch_id] = count
        self.parts.pop(batch_id, None)
        if content.parts:
            self.parts[batch_id] = list(content.parts)
        self._note_complete(batch_id, is_complete=not content.parts and not self.is_open(batch_id))

    def complete(self, batch_id: int) -> None:
        """Note that all rows of the batch are final, and forget its parts."""
        self.parts.pop(batch_id, None)
        self._note_complete(batch_id, is_complete=True)

    def _note_complete(self, batch_id: int, *, is_complete: bool) -> None:
        self.incomplete += int(self._is_complete[batch_id]) - int(is_complete)
        self._is_complete[batch_id] = is_complete

    def _of_kind(self, kind: str) -> IntArray:
        if kind not in self._kinds:
            self._kinds[kind] = np.zeros_like(self.rows)
        return self._kinds[kind]

    # ---- what they say

    def final(self, batch_id: int) -> int:
        """Return the rows of the batch that have an outcome in a published part."""
        return int(self.successes[batch_id] + self.errors[batch_id])

    def is_open(self, batch_id: int) -> bool:
        """Whether the batch has rows without an outcome."""
        return self.final(batch_id) < int(self.rows[batch_id])

    def is_complete(self, batch_id: int) -> bool:
        """Whether every row of the batch is final, and that was noted."""
        return bool(self._is_complete[batch_id])

    def due(self) -> list[int]:
        """Return the batches whose rows are all final, and which are not complete: their marker is due."""
        return [batch_id for batch_id in self.parts if not self.is_open(batch_id)]

    def incomplete_batches(self) -> IntArray:
        """Return the ids of the batches that are not complete, ascending."""
        return np.flatnonzero(~self._is_complete).astype(np.int64)

    def rows_left(self) -> IntArray:
        """(B,) rows of each batch without an outcome."""
        return self.rows - self.successes - self.errors

    @property
    def rows_final(self) -> int:
        """Rows with an outcome in a published part."""
        return int(self.successes.sum() + self.errors.sum())

    @property
    def pending(self) -> int:
        """Rows that are to become final and are not."""
        return int(self.rows.sum()) - self.rows_final

    def kinds_of(self, batch_id: int) -> dict[str, int]:
        return {kind: int(column[batch_id]) for kind, column in self._kinds.items() if column[batch_id]}

    @property
    def error_kinds(self) -> dict[str, int]:
        """Errors of all batches by kind, in the order of the kinds' names."""
        totals = {kind: int(column.sum()) for kind, column in sorted(self._kinds.items())}
        return {kind: total for kind, total in totals.items() if total}

    def __len__(self) -> int:
        return len(self.rows)

    # ---- for checks

    def validate(self) -> None:
        """Check the invariants. Raises AssertionError: the counts do not add up."""
        if self.incomplete != int(np.count_nonzero(~self._is_complete)):
            raise AssertionError("the incomplete batches do not add up")
        if (self.rows_left() < 0).any() or (self.rows_left()[self._is_complete] > 0).any():
            raise AssertionError("a batch has more outcomes than rows, or is complete with fewer")
