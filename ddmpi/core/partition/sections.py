"""Which rows of a large server share a batch, where URLs stand in several of its rows: all rows of a URL do. Pure.

Decides from a 64-bit hash of each row's URL. A server that fits into a batch needs none of it; one that does not keeps
the order of the input, unless URLs of it repeat. Then its rows are cut into *sections*, ranges of hashes: all rows of a
URL are in one, and a section has no more rows than a batch, unless that is one URL's. Within a section the order is
the input's.

Must not know where rows wait, or what hashes are made of. Invariants: the sections follow from the rows alone, and not
from their order; equal hashes of a server are in one section.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from ddmpi.core.arrays import IntArray

Hashes: TypeAlias = npt.NDArray[np.uint64]
Sorted: TypeAlias = Hashes
Int32Array: TypeAlias = npt.NDArray[np.int32]

MOST_ROWS: Final = 100_000
"""A batch has no more rows of one URL, some 30 MB, whatever ``batch_size`` says: a URL of more is fetched again for
each further batch."""


def repeated(hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Return (n,) which of the hashes stand there more than once."""
    ordered = np.sort(hashes)
    doubled = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(doubled):
        return np.zeros(len(hashes), np.bool_)
    found: npt.NDArray[np.bool_] = doubled[np.minimum(np.searchsorted(doubled, hashes), len(doubled) - 1)] == hashes
    return found


@dataclass(frozen=True)
class Sections:
    """The sections of the servers that have more than one, in the order of these servers, then of the hashes.

    A row's *key* is a word: its server's place among these in the upper bits, and below what fits of its hash.
    """

    places: IntArray
    """(S + 1,) by server, its place among those with sections; -1: it has none. The last entry is for refused rows,
    whose server is -1."""
    starts: Sorted
    """(k,) the smallest key of each section."""
    rows: IntArray
    """(k,) rows of each section."""

    @classmethod
    def none(cls, servers: int) -> Sections:
        """No server has any."""
        return cls(np.full(servers + 1, -1), np.zeros(0, np.uint64), np.zeros(0, np.int64))

    @cached_property
    def _firsts(self) -> IntArray:
        """(c,) by place, the number of the server's first section."""
        places = np.arange(int(self.places.max()) + 1, dtype=np.uint64)
        return np.searchsorted(self.starts, places << _hash_bits(len(places)))

    @cached_property
    def counts(self) -> IntArray:
        """(S + 1,) by server, how many sections it has, 1 where it is not cut."""
        counts = np.ones(len(self.places), np.int64)
        counts[self.places >= 0] = np.diff(np.append(self._firsts, len(self.rows)))[self.places[self.places >= 0]]
        return counts

    def numbers(self, servers: Int32Array, hashes: Hashes) -> Int32Array:
        """Return (n,) for rows by their servers and hashes, in which of the server's sections each is, from 0."""
        numbers = np.zeros(len(servers), np.int32)
        if len(self.rows):
            rows = np.flatnonzero(self.places[servers] >= 0)
            places = self.places[servers[rows]]
            keys = keys_of(places, hashes[rows], len(self._firsts))
            numbers[rows] = np.searchsorted(self.starts, keys, side="right") - 1 - self._firsts[places]
        return numbers

    def batch_rows(self, batch_size: int) -> tuple[IntArray, IntArray]:
        """Return the rows of each batch of these servers, in order; and (c,) by place how many batches it has."""
        most = np.where(self.rows > batch_size, max(batch_size, MOST_ROWS), batch_size)
        pieces = -(-self.rows // most)
        owners = np.repeat(np.arange(len(self.rows)), pieces)
        before = (np.arange(len(owners)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * most[owners]
        batches = np.add.reduceat(pieces, self._firsts) if len(self.rows) else pieces
        return np.minimum(most[owners], self.rows[owners] - before), batches


def keys_of(places: IntArray, hashes: Hashes, servers: int) -> Hashes:
    """Return the keys of rows of ``servers`` servers with sections, by the places of these and the hashes."""
    bits = _hash_bits(servers)
    keys: Hashes = (places.astype(np.uint64) << bits) | (hashes >> (np.uint64(64) - bits))
    return keys


def nominal_positions(places: IntArray, hashes: Hashes, rows: IntArray) -> npt.NDArray[np.float64]:
    """Return about where each row would be if all were sorted by their keys, going by the rows of each server alone
    (``rows``, by place). Rows with the same key are at the same position, those with a larger one at none before."""
    bits = _hash_bits(len(rows))
    share = (hashes >> (np.uint64(64) - bits)) / 2.0 ** int(bits)
    positions: npt.NDArray[np.float64] = np.cumsum(rows)[places] - rows[places] * (1 - share)
    return positions


def _hash_bits(servers: int) -> np.uint64:
    """Return how many bits of a key are a hash's: at least one is the place's, for a shift by 64 is none."""
    bits: np.uint64 = np.uint64(64 - max(1, servers.bit_length()))
    return bits


def cut_sections(keys: Sorted, servers: int, batch_size: int) -> tuple[Sorted, IntArray]:
    """Cut rows, of which these are the keys, into sections of up to ``batch_size`` rows; return their smallest keys and
    their rows. Rows with the same key stay together, however many they are."""
    firsts = np.flatnonzero(np.append(np.ones(min(len(keys), 1), np.bool_), keys[1:] != keys[:-1]))
    owners = keys[firsts] >> _hash_bits(servers)
    segment_ends = np.append(np.flatnonzero(owners[1:] != owners[:-1]) + 1, len(firsts))
    begun = np.fromiter(fill(np.append(firsts[1:], len(keys)), segment_ends, batch_size), np.int64)
    return keys[firsts[begun]], np.diff(np.append(firsts[begun], len(keys)))


def fill(ends: IntArray, segment_ends: IntArray, most_rows: int) -> Iterator[int]:
    """Yield where each container begins, when each takes as many things of its segment as fit, but one in any case.
    ``ends`` are the things' rows, added up."""
    start = 0
    for segment_end in segment_ends.tolist():
        while start < segment_end:
            yield start
            before = int(ends[start - 1]) if start else 0
            start = min(max(start + 1, int(np.searchsorted(ends, before + most_rows, side="right"))), segment_end)
