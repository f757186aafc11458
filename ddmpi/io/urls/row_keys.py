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
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
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
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115  # closed by __exit__
        self._unnumbered: list[Hashes] = []

    def __enter__(self) -> RowKeys:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()

    def add_hashes(self, hashes: Hashes) -> None:
        """Add a batch of rows, whose numbers come with the next ``add_numbers``."""
        self._unnumbered.append(hashes)

    def add_numbers(self, batches: Sequence[Numbers]) -> None:
        """Complete all batches that were added."""
        for numbers, hashes in zip(batches, self._unnumbered, strict=True):
            rows = np.empty(len(numbers), _ROW)
            rows["number"], rows["hash"] = numbers, hashes
            self._file.write(rows.tobytes())
        self._unnumbered.clear()

    def rewind(self) -> None:
        """Have ``take`` begin with the first row."""
        self._file.seek(0)

    def take(self, count: int) -> Keys:
        """Return the keys of the next ``count`` rows, or of fewer if there are no more."""
        return _keys_in(np.frombuffer(self._file.read(count * _ROW.itemsize), _ROW))

    # ---- what follows from them

    def count_urls(self, servers: ServerTable) -> IntArray:
        """Return (S,) how many different URLs each server has."""
        urls: IntArray = servers.rows.copy()
        for numbers, hashes in self._compared(servers, np.flatnonzero(servers.rows > 1)):
            doubled = repeated(hashes)
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
        found = [
            cut_sections(np.sort(keys_of(places[numbers - 1], hashes, len(chosen))), len(chosen), batch_size)
            for numbers, hashes in self._compared(servers, chosen)
        ]
        starts, rows = (np.concatenate(each) for each in zip(*found, strict=True))
        return Sections(places, starts, rows)

    def _compared(self, servers: ServerTable, chosen: IntArray) -> Iterator[Keys]:
        """Yield all rows of the chosen servers, in the order of the servers and hashes but for those that come at once.
        Rows with the same server and hash come at once."""
        places, rows = _places(chosen, len(servers.rows)), servers.rows[chosen]
        blocks = (block[places[block["number"] - 1] >= 0] for block in self._blocks())
        count = -(-int(rows.sum()) // self._most_rows)
        if count == 1:
            yield _keys_in(np.concatenate(list(blocks)))
        if count <= 1:
            return
        with ExitStack() as stack:
            files = [stack.enter_context(TemporaryFile(dir=self._folder)) for _ in range(count)]
            for block in blocks:
                positions = nominal_positions(places[block["number"] - 1], block["hash"], rows)
                # numpy sorts 16-bit keys by radix, and there are no more files than descriptors
                numbers = np.minimum(positions // self._most_rows, count - 1).astype(np.uint16)
                order = np.argsort(numbers, kind="stable")
                ends = np.searchsorted(numbers[order], np.arange(count), side="right")
                for file, rows_of_file in zip(files, np.split(block[order], ends[:-1]), strict=True):
                    file.write(rows_of_file.tobytes())
            for file in files:
                self._look()
                file.seek(0)
                yield _keys_in(np.frombuffer(file.read(), _ROW))

    def _blocks(self) -> Iterator[npt.NDArray[Any]]:
        self.rewind()
        while len(block := np.frombuffer(self._file.read(_BLOCK_ROWS * _ROW.itemsize), _ROW)):
            self._look()
            yield block


def _keys_in(rows: npt.NDArray[Any]) -> Keys:
    return Keys(rows["number"], rows["hash"])


def _places(chosen: IntArray, servers: int) -> IntArray:
    """Return by server (refused rows, -1, last) its place among the chosen ones, -1: it is none."""
    places = np.full(servers + 1, -1)
    places[chosen] = np.arange(len(chosen))
    return places
