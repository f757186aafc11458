"""The server and a hash of the URL of each row, in scratch files between the two steps: twelve bytes a row.

From them follow the sections of servers (see ``core.partition.sections``). Rows whose hashes have to be compared may be
more than fit into memory: then they are dealt out to files first, by their keys, and looked at file by file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Final, NamedTuple

import numpy as np
import pyarrow.compute as pc

from ddmpi.core.arrays import IntArray
from ddmpi.core.partition.partition import ServerTable
from ddmpi.core.partition.sections import Hashes, Sections, cut_sections, keys_of, nominal_positions, repeated
from ddmpi.io.urls.server_tally import Numbers

_ROW: Final = np.dtype([("number", np.int32), ("hash", np.uint64)])
_BLOCK_ROWS: Final = 1 << 18
COMPARED_BYTES: Final = 32
"""What a row takes in memory while its hash is compared."""


class Keys(NamedTuple):
    """(n,) servers' numbers as ``ServerTally`` gives them, and hashes."""

    numbers: Numbers
    hashes: Hashes


class RowKeys:
    """The keys of all rows, in input order. A context manager.

    Args:
        most_rows: how many are compared at once; the number of scratch files follows from it.
        look: called now and then; may raise.
    """

    def __init__(self, folder: Path, most_rows: int, look: Callable[[], None] = lambda: None) -> None:
        self._folder = folder
        self._most_rows = most_rows
        self._look = look
        self._rows = 0
        with ExitStack() as stack:
            self._numbers = stack.enter_context(TemporaryFile(dir=folder))
            self._hashes = stack.enter_context(TemporaryFile(dir=folder))
            self._files = stack.pop_all()

    def __enter__(self) -> RowKeys:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._files.close()

    def add_hashes(self, hashes: Hashes) -> None:
        """Add a batch of rows, whose numbers come with a later ``add_numbers``."""
        self._rows += len(hashes)
        self._hashes.write(hashes.tobytes())

    def add_numbers(self, batches: Sequence[Numbers]) -> None:
        """Add the numbers of the next batches."""
        self._numbers.writelines(batch.tobytes() for batch in batches)

    def rewind(self) -> None:
        """Have ``take`` begin with the first row."""
        self._numbers.seek(0)
        self._hashes.seek(0)

    def take(self, count: int) -> Keys:
        """Return the keys of the next ``count`` rows, or of fewer if there are no more."""
        numbers = np.frombuffer(self._numbers.read(4 * count), np.int32)
        return Keys(numbers, np.frombuffer(self._hashes.read(8 * count), np.uint64))

    # ---- what follows from them

    def count_urls(self, servers: ServerTable) -> IntArray:
        """Return (S,) how many different URLs each server has."""
        urls: IntArray = servers.rows.copy()
        for numbers, hashes in self._compared(servers, np.flatnonzero(servers.rows > 1)):
            doubled = repeated(hashes) & (numbers > 0)
            owners = numbers[doubled] - 1
            _, firsts = np.unique(hashes[doubled], return_index=True)
            urls -= np.bincount(owners, minlength=len(urls)) - np.bincount(owners[firsts], minlength=len(urls))
        return urls

    def sections(self, servers: ServerTable, urls: IntArray, batch_size: int) -> Sections:
        """Return the sections of the servers that have more rows than a batch, and ``urls`` in several of them."""
        chosen = np.flatnonzero((servers.rows > batch_size) & (urls < servers.rows))
        if not len(chosen):
            return Sections.none(len(servers.rows))
        chosen = chosen[np.asarray(pc.sort_indices(servers.names.take(chosen))).astype(np.int64)]
        places = _places(chosen, len(servers.rows))
        found = []
        for numbers, hashes in self._compared(servers, chosen):
            owners = places[numbers - 1]
            keys = keys_of(owners[owners >= 0], hashes[owners >= 0], len(chosen))
            found.append(cut_sections(np.sort(keys), len(chosen), batch_size))
        starts, rows = (np.concatenate(each) for each in zip(*found, strict=True))
        return Sections(places, starts, rows)

    def _compared(self, servers: ServerTable, chosen: IntArray) -> Iterator[Keys]:
        """Yield at least the rows of the chosen servers, in the order of the servers and hashes but for those that come
        at once. Rows with the same server and hash come at once."""
        self.rewind()
        if self._rows <= self._most_rows:
            yield self.take(self._rows)
            return
        places, rows = _places(chosen, len(servers.rows)), servers.rows[chosen]
        count = -(-int(rows.sum()) // self._most_rows)
        with ExitStack() as stack:
            files = [stack.enter_context(TemporaryFile(dir=self._folder)) for _ in range(count)]
            while count and len((block := self.take(_BLOCK_ROWS)).numbers):
                self._look()
                owners = places[block.numbers - 1]
                dealt = np.empty(int(np.count_nonzero(owners >= 0)), _ROW)
                dealt["number"], dealt["hash"] = block.numbers[owners >= 0], block.hashes[owners >= 0]
                positions = nominal_positions(owners[owners >= 0], dealt["hash"], rows)
                # numpy sorts 16-bit keys by radix, and there are no more files than descriptors
                numbers = np.minimum(positions // self._most_rows, count - 1).astype(np.uint16)
                order = np.argsort(numbers, kind="stable")
                ends = np.searchsorted(numbers[order], np.arange(count), side="right")
                for file, rows_of_file in zip(files, np.split(dealt[order], ends[:-1]), strict=True):
                    file.write(rows_of_file.tobytes())
            for file in files:
                self._look()
                file.seek(0)
                rows_of_file = np.frombuffer(file.read(), _ROW)
                yield Keys(rows_of_file["number"], rows_of_file["hash"])


def _places(chosen: IntArray, servers: int) -> IntArray:
    """Return by server (refused rows, -1, last) its place among the chosen ones, -1: it is none."""
    places = np.full(servers + 1, -1)
    places[chosen] = np.arange(len(chosen))
    return places
