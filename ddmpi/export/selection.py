"""Which rows are exported: decided from a row group's columns before any image is read, then from the image.

Files that have the same bytes are found on all ranks together: each rank reads the digests of its share of the parts
and sends each to the rank that its first bytes name; equal ones meet there, and the smallest row number stays. 128 bits
of the digest are compared: among a billion files two different ones that agree in them are expected with a probability
below 1e-20.

Invariant: each row is exported, or left out for exactly one reason; the first one in the order of ``_objections``
counts, and what is seen in the image comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.export.options import Options
from ddmpi.export.plan import reading
from ddmpi.export.target import Picture
from ddmpi.io.folder.layout import Layout
from ddmpi.io.mpi.launcher import Ranks
from ddmpi.io.results.digests import make_digest
from ddmpi.io.results.images import DecodeError, Shrunk, make_shrink
from ddmpi.io.results.schema import ROW_NUMBER

Mask = npt.NDArray[np.bool_]
_LARGEST_SIDE: Final = 65_535
"""Of a JPEG; with it nothing is ever shrunk: decoding is what is wanted."""
_HEX_DIGITS: Final = 32

Entries = npt.NDArray[np.uint64]
"""(n, 3): two halves of the digest, row number."""


def find_duplicates(
    layout: Layout, parts: Sequence[str], ranks: Ranks, replaced: Mapping[str, IntArray]
) -> npt.NDArray[np.int64]:
    """Return the sorted row numbers of all files whose bytes an earlier row has, on all ranks; ``replaced`` as
    ``plan.replaced_rows`` has it. Collective. Raises StorageError: a part cannot be read."""
    return find_later_rows(lambda part: current(_entries(layout, part), replaced.get(part)), parts, ranks)


def current(entries: Entries, replaced: IntArray | None) -> Entries:
    """Return the entries without those of rows whose file of that part does not count."""
    return entries if replaced is None else entries[~np.isin(entries[:, 2].astype(np.int64), replaced)]


def find_later_rows(entries_of: Callable[[str], Entries], parts: Sequence[str], ranks: Ranks) -> npt.NDArray[np.int64]:
    """Return the sorted row numbers of all entries of the parts but the first row of each digest, on all ranks.
    Collective; raises what ``entries_of`` does."""
    own = [entries_of(part) for part in parts[ranks.Get_rank() :: ranks.Get_size()]]
    entries = np.concatenate([np.empty((0, 3), np.uint64), *own])
    owners = entries[:, 0] % np.uint64(ranks.Get_size())
    sent = [entries[owners == rank] for rank in range(ranks.Get_size())]
    received: Entries = np.concatenate(ranks.alltoall(sent))
    found: list[npt.NDArray[np.int64]] = ranks.allgather(later_rows(received))
    return np.sort(np.concatenate(found))


def later_rows(entries: Entries) -> npt.NDArray[np.int64]:
    """Return row numbers of all entries but the first row of each digest."""
    order = np.lexsort((entries[:, 2], entries[:, 1], entries[:, 0]))
    first, second, rows = entries[order].T
    is_later = np.zeros(rows.size, np.bool_)
    is_later[1:] = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
    found: npt.NDArray[np.int64] = rows[is_later].astype(np.int64)
    return found


def _entries(layout: Layout, part: str) -> Entries:
    with reading(layout, part) as path:
        table = pq.read_table(path, columns=["hashsum_original", ROW_NUMBER], partitioning=None)
    digests = "".join(str(digest)[:_HEX_DIGITS] for digest in table.column("hashsum_original").to_pylist())
    halves = np.frombuffer(bytes.fromhex(digests), ">u8").reshape(-1, 2)
    rows = table.column(ROW_NUMBER).to_numpy()
    return np.column_stack([halves.astype(np.uint64), rows.astype(np.uint64)])


def choose(rows: pa.Table, options: Options, duplicates: npt.NDArray[np.int64]) -> tuple[Mask, dict[str, int]]:
    """Return (n,) which rows to export as far as their columns tell, and how many are left out by reason. ``rows`` need
    not have the image; ``duplicates`` are sorted row numbers."""
    kept = np.ones(rows.num_rows, np.bool_)
    left_out: dict[str, int] = {}
    for reason, applies in _objections(rows, options, duplicates):
        found = kept & applies
        if found.any():
            left_out[reason] = int(np.count_nonzero(found))
        kept &= ~applies
    return kept, left_out


def _objections(rows: pa.Table, options: Options, duplicates: npt.NDArray[np.int64]) -> list[tuple[str, Mask]]:
    found: list[tuple[str, Mask]] = []
    size_bytes = rows.column("bytes").to_numpy()
    if options.min_bytes:
        found.append(("too_few_bytes", size_bytes < options.min_bytes))
    if options.max_bytes:
        found.append(("too_many_bytes", size_bytes > options.max_bytes))
    if options.min_side:
        shortest = _shortest_side(rows)
        found += [("unknown_size", shortest < 0), ("too_small", shortest < options.min_side)]
    if duplicates.size:
        numbers = rows.column(ROW_NUMBER).to_numpy()
        places = np.minimum(np.searchsorted(duplicates, numbers), duplicates.size - 1)
        found.append(("duplicate", duplicates[places] == numbers))
    return found


def _shortest_side(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return (n,) pixels of the stored image, -1 where its header was not understood."""
    sizes = pc.coalesce(rows.column("resized_size"), rows.column("original_size")).to_pylist()
    return np.array([min(size) if size else -1 for size in sizes], np.int64)


def make_look(options: Options, algorithm: str) -> Callable[[bytes, str], Picture | str]:
    """Return a function of a body and the digest that it must have: the image to export, or the reason to leave it out.
    Raises SetupError: images are to be decoded, or hashed, and a library for that is not installed."""
    shrink = make_shrink(options.resize or _LARGEST_SIDE) if options.resize or options.check else None
    digest = make_digest(algorithm)

    def look(body: bytes, stated: str) -> Picture | str:
        if options.check and digest(body) != stated:
            return "damaged"
        if shrink is None:
            return Picture(body)
        try:
            shrunk: Shrunk = shrink(body)
        except DecodeError:
            return "undecodable"
        if not options.resize:
            return Picture(body)
        return Picture(shrunk.image, shrunk.resized_size, digest(shrunk.image))

    return look
