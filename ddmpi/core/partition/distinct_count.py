"""How many different URLs there are, from their 64-bit hashes, in bounded memory. Pure.

Up to ``most`` different hashes all are kept, and the count is exact. Of more only those are kept whose upper bits are
zero: one in two, four, eight ... (adaptive sampling, Wegman 1984; Flajolet 1990), which errs by about 1.2 / sqrt(most).

Invariant: the count follows from the set of hashes alone, not from their order or number.
"""

from __future__ import annotations

import numpy as np

from ddmpi.core.partition.sections import Hashes


class DistinctCount:
    """Counts different hashes, which have to be spread evenly; takes up to some 16 bytes for each of ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._level = 0
        self._kept: Hashes = np.zeros(0, np.uint64)
        self._new: list[Hashes] = []
        self._new_count = 0

    def __repr__(self) -> str:
        return f"<DistinctCount: {self.count}{'' if self.is_exact else ' about'}>"

    def add(self, hashes: Hashes) -> None:
        """Count these as well."""
        sampled = self._sampled(hashes)
        self._new.append(sampled)
        self._new_count += len(sampled)
        if self._new_count > self._most:
            self._fold()

    @property
    def count(self) -> int:
        """How many different ones there are, or about how many, if it is not exact."""
        self._fold()
        return len(self._kept) << self._level

    @property
    def is_exact(self) -> bool:
        self._fold()
        return self._level == 0

    def _fold(self) -> None:
        self._kept = np.unique(np.concatenate([self._kept, *self._new]))
        self._new, self._new_count = [], 0
        while len(self._kept) > self._most:
            self._level += 1
            self._kept = self._sampled(self._kept)

    def _sampled(self, hashes: Hashes) -> Hashes:
        return hashes if not self._level else hashes[hashes >> np.uint64(64 - self._level) == 0]
