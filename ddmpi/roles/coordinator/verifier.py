"""Stage 4: are the rows of a batch really in the files? One batch at a time, as they become complete.

Nothing that was counted is believed here: only what can be read back.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

import numpy as np

from ddmpi.core.ledger.batch_counts import BatchContent
from ddmpi.core.records import BatchRef
from ddmpi.io.folder.schedules import VerificationRow, last_number, verified_batches, write_verification
from ddmpi.io.results.verification import BatchCheck, check_batch
from ddmpi.roles.coordinator.run_state import RunState

log = logging.getLogger(__name__)


MOST_MENDS: Final = 3
"""A batch is not fetched again more often in one run: its files do not stay as they were written."""


class Verifier:
    def __init__(self, state: RunState) -> None:
        self._state = state
        self._queue: deque[tuple[int, int]] = deque()
        self._members: dict[int, set[int]] = {}
        self._rows: dict[int, list[VerificationRow]] = {}
        self._closed: set[int] = set()
        self.next_number = last_number(state.layout) + 1
        """The first number of a big batch that is still free."""
        self._mended: Counter[int] = Counter()

    def add(self, number: int, batch_id: int) -> None:
        """Verify this batch of a big batch."""
        self._queue.append((number, batch_id))
        self._members.setdefault(number, set()).add(batch_id)

    def close(self, number: int) -> None:
        """The big batch has no more batches to verify: write its verification.csv after the last one. Raises
        StorageError: the file cannot be written."""
        self._closed.add(number)
        self._write_if_done(number)

    def _write_if_done(self, number: int) -> None:
        rows = self._rows.get(number, [])
        if number in self._closed and len(rows) >= len(self._members.get(number, ())):
            write_verification(self._state.layout, number, rows)
            self._closed.discard(number)
            self._members.pop(number, None)
            self._rows.pop(number, None)

    def add_unverified(self) -> None:
        """Verify batches that an earlier run completed and did not come to verify: they get a number of their own."""
        state, counts = self._state, self._state.counts
        verified = verified_batches(state.layout)
        final = counts.successes + counts.errors
        refs = [state.table.ref(b) for b in np.flatnonzero((final >= counts.rows) & (final > 0)).tolist()]
        missing = [ref.batch_id for ref in refs if (ref.server_name, ref.partition_id) not in verified]
        if missing:
            for batch_id in missing:
                self.add(self.next_number, batch_id)
            self.close(self.next_number)
            self.next_number += 1

    @property
    def is_idle(self) -> bool:
        """Nothing waits to be verified."""
        return not self._queue

    def add_rest(self, big_batches: Iterable[tuple[int, tuple[int, ...]]]) -> None:
        """Verify the batches of big batches (number, batches) that did not end, as far as they are. Raises
        StorageError: see ``close``."""
        for number, batch_ids in big_batches:
            for batch_id in set(batch_ids) - self._members.get(number, set()):
                self.add(number, batch_id)
            self.close(number)

    def step(self) -> BatchContent | str | None:
        """Verify one batch; return what its files really hold, if they lack some of its rows that were counted: these
        are to be fetched again. Parts that cannot be read are set aside before.

        Where that does not help, as the files contradict each other or are damaged again and again, return what a
        person has to look at; None where nothing is wrong. Raises StorageError: the disk fails.
        """
        if not self._queue:
            return None
        number, batch_id = self._queue.popleft()
        state = self._state
        ref = state.table.ref(batch_id)
        check = check_batch(state.layout, state.reader, ref, int(state.table.ignored_rows[batch_id]))
        self._rows.setdefault(number, []).append(_row(ref, check))
        self._write_if_done(number)
        if check.ok and check.successes + check.errors >= state.counts.final(batch_id):
            return None
        text = f"batch {batch_id} is damaged: {describe(check)}"
        log.error("%s", text)
        self._mended[batch_id] += 1
        if check.doubled or check.unknown or self._mended[batch_id] > MOST_MENDS:
            return text
        state.remove_marker(batch_id)
        return state.content(batch_id)


def _row(ref: BatchRef, check: BatchCheck) -> VerificationRow:
    status = "damaged" if not check.ok else "pending" if check.pending else "completed"
    return VerificationRow(
        ref.server_name, ref.partition_id, status, check.rows - check.ignored, check.successes, check.errors,
        check.pending,
    )  # fmt: skip


def describe(check: BatchCheck) -> str:
    """What is wrong, in one line."""
    problems = [*check.unreadable, *check.damaged, check.marker]
    problems += [f"{check.pending} rows missing"] if check.pending else []
    problems += [f"{check.doubled} rows doubled"] if check.doubled else []
    problems += [f"{check.unknown} rows of no batch"] if check.unknown else []
    problems += [f"the files of {check.fileless} rows are missing, of which there are checks"] if check.fileless else []
    return "; ".join(problem for problem in problems if problem)
