"""The servers of a table while it is counted, with a number and their rows each. Number 0 stands for refused rows.

A million servers are an Arrow column here, not a million objects: the names of some record batches are gathered, then
joined with the known ones (``fold``), which costs a look at every known name. Hence the numbers of a batch's rows come
some batches later; they wait on disk for the second step, which may be a second pass over the input.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.arrays import IntArray
from ddmpi.core.records import INVALID_SERVER

REFUSED: Final = 0
FOLD_BATCHES: Final = 32
"""Batches that are gathered at most: some 4 million rows, whose codes take 16 MB."""
FOLD_NAMES: Final = 1 << 18
"""Names that are gathered about: more than most tables have servers."""

Numbers: TypeAlias = npt.NDArray[np.int32]


class ServerTally:
    """Counts rows per server, and refused rows per reason."""

    def __init__(self) -> None:
        self.names: pa.Array[Any] = pa.array([INVALID_SERVER], pa.string())
        """By number."""
        self.rows: IntArray = np.zeros(1, np.int64)
        """By number."""
        self.rejected: Counter[str] = Counter()
        """Refused rows by the first word of the reason."""
        self._gathered: list[pa.DictionaryArray[Any, Any]] = []
        self._gathered_names = 0

    def __repr__(self) -> str:
        return f"<ServerTally: {len(self.names) - 1} servers, {self.rows.sum()} rows, {self.rows[REFUSED]} refused>"

    def add(self, servers: pa.DictionaryArray[Any, Any], rejects: pa.Array[Any]) -> None:
        """Gather a batch's servers (null for refused rows), and count why rows are refused (null for all others)."""
        self._gathered.append(servers)
        self._gathered_names += len(servers.dictionary)
        if servers.null_count:
            # Reasons have details: they are few, but for a table that is refused as a whole.
            counted = pc.value_counts(rejects.drop_null())
            reasons, counts = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
            for reason, count in zip(reasons, counts, strict=True):
                self.rejected[str(reason).partition(":")[0]] += int(count or 0)

    @property
    def is_full(self) -> bool:
        return len(self._gathered) >= FOLD_BATCHES or self._gathered_names >= max(FOLD_NAMES, len(self.names))

    def fold(self) -> list[Numbers]:
        """Count what was gathered; returns the number of each row's server, batch by batch."""
        if not self._gathered:
            return []
        unified = pa.chunked_array(self._gathered).unify_dictionaries()
        chunks = cast("list[pa.DictionaryArray[Any, Any]]", unified.chunks)
        self._gathered, self._gathered_names = [], 0
        names: Any = chunks[0].dictionary
        known = pc.index_in(names, value_set=self.names)
        is_new = pc.is_null(known)
        numbers = np.append(np.asarray(known.fill_null(0)), REFUSED).astype(np.int32)
        new = names.filter(is_new)
        numbers[np.flatnonzero(np.asarray(is_new))] = np.arange(len(self.names), len(self.names) + len(new))
        self.names = pa.concat_arrays([self.names, new])
        folded = [numbers[np.asarray(chunk.indices.fill_null(len(names)))] for chunk in chunks]
        self.rows = np.append(self.rows, np.zeros(len(new), np.int64))
        for batch in folded:
            self.rows += np.bincount(batch, minlength=len(self.rows))
        return folded
