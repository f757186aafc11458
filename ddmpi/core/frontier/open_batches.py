"""The batches that a rank has rows of, and how many: so that a batch's parts close when the last one leaves. Pure."""

from __future__ import annotations

from ddmpi.core.records import BatchRef


class OpenBatches:
    """Counts of rows that are here, by batch. A batch stays known after its last row: its results may still come."""

    def __init__(self) -> None:
        self._refs: dict[int, BatchRef] = {}
        self._rows: dict[int, int] = {}

    def add(self, ref: BatchRef, rows: int) -> None:
        """So many rows of the batch have come."""
        self._refs[ref.batch_id] = ref
        self._rows[ref.batch_id] = self._rows.get(ref.batch_id, 0) + rows

    def add_errand(self, ref: BatchRef) -> None:
        """One row has come on its own. Where the batch is known, what is known of its parts is newer."""
        self._refs.setdefault(ref.batch_id, ref)
        self._rows[ref.batch_id] = self._rows.get(ref.batch_id, 0) + 1

    def remove(self, batch_id: int) -> None:
        """One row has left: it is final, pending or somebody else's."""
        self._rows[batch_id] -= 1

    def ended(self, batch_id: int) -> bool:
        """Whether the last row of the batch has left; true once."""
        if self._rows.get(batch_id) != 0:
            return False
        del self._rows[batch_id]
        return True

    def __getitem__(self, batch_id: int) -> BatchRef:
        return self._refs[batch_id]
