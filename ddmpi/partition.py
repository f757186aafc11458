"""Rows to servers, servers to batches, batches to places in files.

Decides: which server each row belongs to, which rows form a batch, and where in ``urls/`` every row goes. All of it
follows from the rows per server alone, so it is the same at every run, whatever fits into memory.
Must not know: files, formats, threads, rates. It works on arrow and numpy arrays.

Invariants: batches cover all rows, once; their rows are consecutive in the output, servers in name order, large ones
first, then packed small ones, then refused rows; a batch lies within one row group, a row group within one file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.records import INVALID_SERVER, MANY_SERVERS
from ddmpi.urls import (
    PLAIN_MAX_SERVER_CHARS,
    PLAIN_MAX_URL_BYTES,
    PLAIN_NOT_ENDING,
    PLAIN_URL,
    Parsed,
    parse_url,
)

ROW_GROUP_ROWS: Final = 10_000
"""A row group is closed once it has so many rows: what one read of a batch decodes at least."""
FILE_ROWS: Final = 1_000_000
"""About what a file has at most: few files for the metadata server, enough of them to write in parallel."""

IntArray: TypeAlias = npt.NDArray[np.int64]


class Servers(NamedTuple):
    """Per row of the input: the server (null if refused) and why the URL is refused (null if it is not). Strings."""

    names: pa.Array[Any]
    rejects: pa.Array[Any]


def servers_of(urls: pa.Array[Any] | pa.ChunkedArray[Any]) -> Servers:
    """What ``parse_url`` says of each URL (string or large_string, valid UTF-8); plain ones are seen to by arrow."""
    if isinstance(urls, pa.ChunkedArray):
        parts = [servers_of(chunk) for chunk in urls.chunks] or [servers_of(pa.array([], pa.string()))]
        return Servers(
            pa.concat_arrays([part.names for part in parts]), pa.concat_arrays([part.rejects for part in parts])
        )
    names = pc.extract_regex(urls, pattern="^https?://(?P<server>[^/]*)").field("server").cast(pa.string())
    odd = _odd_rows(urls, names)
    if not pc.any(odd, min_count=0).as_py():
        return Servers(names, pa.nulls(len(urls), pa.string()))
    answers = [parse_url(url) for url in urls.filter(odd).to_pylist()]
    odd_names = pa.array([answer.server if isinstance(answer, Parsed) else None for answer in answers], pa.string())
    odd_rejects = pa.array([None if isinstance(answer, Parsed) else answer.reason for answer in answers], pa.string())
    return Servers(
        pc.replace_with_mask(names, odd, odd_names),
        pc.replace_with_mask(pa.nulls(len(urls), pa.string()), odd, odd_rejects),
    )


def _odd_rows(urls: Any, names: Any) -> Any:
    # Any, since the stubs of pyarrow.compute have no overload for "string or large_string"
    plain = pc.match_substring_regex(urls, pattern=PLAIN_URL)
    plain = pc.and_(plain, pc.less_equal(pc.binary_length(urls), PLAIN_MAX_URL_BYTES))  # type: ignore[call-overload]
    plain = pc.and_(plain, pc.less_equal(pc.binary_length(names), PLAIN_MAX_SERVER_CHARS))  # type: ignore[call-overload]
    for ending in PLAIN_NOT_ENDING:
        plain = pc.and_not(plain, pc.ends_with(names, pattern=ending))
    return pc.invert(pc.fill_null(plain, False))


class ServerRows(NamedTuple):
    """A server, how many rows it has, and its pace group (its own name if no rule joins it with others)."""

    name: str
    rows: int
    group: str


class Batch(NamedTuple):
    """Some consecutive rows of the output; its id is its position in ``Cut.batches``."""

    server_name: str
    group: str
    partition_id: int
    rows: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The batches, and for each server (by its index in the input of ``cut_batches``) where it went."""

    batches: list[Batch]
    order: list[int]
    """Indices of the servers in the order of their rows in the output; refused rows follow."""
    first_batch: list[int]
    batch_counts: list[int]


def cut_batches(servers: Sequence[ServerRows], *, invalid_rows: int, batch_size: int, small_rows: int) -> Cut:
    """Cut servers into batches of up to ``batch_size`` rows; pack those with fewer than ``small_rows`` rows.

    A server whose group is not its own name is packed only with servers of that group. A server that has more rows
    than a batch holds is never packed, whatever ``small_rows`` says. Raises ValueError if ``batch_size`` < 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} < 1")
    cut = Cut([], [], [0] * len(servers), [0] * len(servers))
    small = []
    for index in sorted(range(len(servers)), key=servers.__getitem__):
        server = servers[index]
        if server.rows < small_rows and server.rows <= batch_size:
            small.append(index)
        else:
            _add_large(cut, index, server, _pieces(server.rows, batch_size))

    def joint_group(index: int) -> str:
        return "" if servers[index].group == servers[index].name else servers[index].group

    small.sort(key=joint_group)  # stable: by name within a group, those on their own first
    partition_id = 0
    for group, members in groupby(small, key=joint_group):
        for pack in _packs(members, servers, batch_size):
            rows = sum(servers[index].rows for index in pack)
            _add_pack(cut, pack, Batch(MANY_SERVERS, group or f"{MANY_SERVERS}/{partition_id}", partition_id, rows))
            partition_id += 1
    for partition_id, piece in enumerate(_pieces(invalid_rows, batch_size)):
        cut.batches.append(Batch(INVALID_SERVER, INVALID_SERVER, partition_id, piece))
    return cut


def _pieces(rows: int, batch_size: int) -> list[int]:
    return [min(batch_size, rows - start) for start in range(0, rows, batch_size)]


def _packs(indices: Iterator[int], servers: Sequence[ServerRows], batch_size: int) -> Iterator[list[int]]:
    pack: list[int] = []
    filled = 0
    for index in indices:
        if pack and filled + servers[index].rows > batch_size:
            yield pack
            pack, filled = [], 0
        pack.append(index)
        filled += servers[index].rows
    if pack:
        yield pack


def _add_large(cut: Cut, index: int, server: ServerRows, pieces: Sequence[int]) -> None:
    cut.order.append(index)
    cut.first_batch[index] = len(cut.batches)
    cut.batch_counts[index] = len(pieces)
    cut.batches.extend(
        Batch(server.name, server.group, partition_id, piece) for partition_id, piece in enumerate(pieces)
    )


def _add_pack(cut: Cut, pack: Sequence[int], batch: Batch) -> None:
    for index in pack:
        cut.order.append(index)
        cut.first_batch[index] = len(cut.batches)
        cut.batch_counts[index] = 1
    cut.batches.append(batch)


class Place(NamedTuple):
    """Where a batch's rows are: ``offset`` counts from the row group's first row, ``first_row`` from the file's."""

    file: int
    row_group: int
    offset: int
    first_row: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A place for each batch, and the rows of each row group of each file."""

    places: list[Place]
    files: list[list[int]]


def lay_out(batches: Sequence[Batch]) -> Layout:
    """Fill row groups and files with batches, in order; each is closed once it is full (see the constants).

    There are at most ``rows / FILE_ROWS + 2`` files, of about the same size; an even number, for two threads to share.
    """
    layout = Layout([], [])
    total = sum(batch.rows for batch in batches)
    files = max(1, -(-total // FILE_ROWS))
    full_rows = max(1, -(-total // (files + files % 2 if files > 1 else 1)))
    file_rows = full_rows
    group_rows = ROW_GROUP_ROWS
    for batch in batches:
        if group_rows >= ROW_GROUP_ROWS and file_rows >= full_rows:
            layout.files.append([])
            file_rows = 0
        if group_rows >= ROW_GROUP_ROWS:
            layout.files[-1].append(0)
            group_rows = 0
        groups = layout.files[-1]
        layout.places.append(Place(len(layout.files) - 1, len(groups) - 1, group_rows, file_rows))
        groups[-1] += batch.rows
        group_rows += batch.rows
        file_rows += batch.rows
    return layout


class Destinations:
    """Hands out output positions to rows that come in input order. ``ranks`` are servers' positions in the output."""

    def __init__(self, rows_by_rank: npt.ArrayLike) -> None:
        rows = np.asarray(rows_by_rank, dtype=np.int64)
        self._ends: IntArray = np.cumsum(rows, dtype=np.int64)
        self._next: IntArray = self._ends - rows
        self._sort_type = np.uint16 if len(rows) <= 0x10000 else np.uint32

    def take(self, ranks: npt.NDArray[np.int32]) -> tuple[IntArray, IntArray]:
        """``(rows, positions)``: the rows with a rank (-1 is none), sorted by their positions in the output."""
        chosen = np.flatnonzero(ranks >= 0)
        # numpy sorts 16-bit keys by radix, four times as fast as wider ones
        chosen = chosen[np.argsort(ranks[chosen].astype(self._sort_type), kind="stable")]
        if not len(chosen):
            return chosen, chosen
        ranked = ranks[chosen]
        starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))
        counts = np.diff(np.append(starts, len(ranked)))
        heads = ranked[starts]
        positions = np.arange(len(ranked), dtype=np.int64) + np.repeat(self._next[heads] - starts, counts)
        self._next[heads] += counts
        return chosen, positions

    @property
    def complete(self) -> bool:
        """Whether every position was handed out exactly once."""
        return bool(np.array_equal(self._next, self._ends))
