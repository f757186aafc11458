"""Files that have the same bytes, found on all ranks together.

Each rank reads the digests of its share of the parts and sends each to the rank that its first bytes name; equal ones
meet there. Of equal ones the smallest row number stays. 128 bits of the digest are compared: among a billion files two
different ones that agree in them are expected with a probability below 1e-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from ddmpi.export.parts import reading
from ddmpi.io.results.schema import ROW_NUMBER

if TYPE_CHECKING:
    from ddmpi.io.folder.layout import Layout
    from ddmpi.io.mpi.comm import Ranks

_HEX_DIGITS: Final = 32

Entries = npt.NDArray[np.uint64]
"""(n, 3): two halves of the digest, row number."""


def find_duplicates(layout: Layout, parts: Sequence[str], ranks: Ranks) -> npt.NDArray[np.int64]:
    """Sorted row numbers of all files whose bytes an earlier row has; the same on all ranks. Collective.

    Raises:
        StorageError: a part cannot be read.
    """
    own = [_entries(layout, part) for part in parts[ranks.Get_rank() :: ranks.Get_size()]]
    entries = np.concatenate([np.empty((0, 3), np.uint64), *own])
    owners = entries[:, 0] % np.uint64(ranks.Get_size())
    sent = [entries[owners == rank] for rank in range(ranks.Get_size())]
    received: Entries = np.concatenate(ranks.alltoall(sent))
    found: list[npt.NDArray[np.int64]] = ranks.allgather(later_rows(received))
    rows: npt.NDArray[np.int64] = np.concatenate(found)
    rows.sort()
    return rows


def later_rows(entries: Entries) -> npt.NDArray[np.int64]:
    """Row numbers of all entries but the first row of each digest."""
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
