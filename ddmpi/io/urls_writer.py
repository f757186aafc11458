"""Stage one: an input table becomes the urls folder, clustered by server.

Two steps, whatever the size: count the rows of each server, which decides where every row goes (``partition``); then
carry the rows there. A table that fits the budget is kept in memory between the two, a larger one is read again and
its rows wait in scratch files, one per output file. The output is the same either way.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from ddmpi.errors import EXIT_PENDING, DdmpiError, InputError, StorageError
from ddmpi.io.durable import make_folders, publish
from ddmpi.io.server_tally import REFUSED, ServerTally
from ddmpi.io.shelves import DiskShelves, MemoryShelves, Shelves
from ddmpi.io.sources import one_line
from ddmpi.io.tables import InputTable, RawRows
from ddmpi.io.url_rows import BareRows
from ddmpi.io.urls_files import PlacedRows, UrlsFiles, write_index
from ddmpi.io.workers import Workers
from ddmpi.partition import Cut, Destinations, IntArray, ServerRows, cut_batches, lay_out

DEFAULT_MEMORY_BYTES: Final = 1 << 30
SHELF_ROWS: Final = 256 * 1024
"""Rows sorted at once where all are in memory anyway: small, so that what is in work beside them is small too."""


_BATCHES_PER_RELEASE: Final = 4
"""While batches are traded for pieces, the allocator (mimalloc) keeps what batches leave: 1.23 GB instead of 1.09 at
the peak for 5 million rows that take 0.6. Every 4th time costs nothing that shows, every time doubles the step."""


class Interrupted(DdmpiError):  # noqa: N818  # it is no error: the user asked for it
    """``should_stop`` turned true; the urls folder is as it was before."""

    exit_code = EXIT_PENDING


@dataclass(frozen=True, slots=True)
class PartitionSummary:
    """What the input was made of. ``rows`` counts all of its rows, ignored and refused ones too."""

    rows: int
    servers: int
    """Servers that have batches: not those ignored."""
    batches: int
    rejected: dict[str, int]
    """Refused rows by the first word of the reason (see ``urls.Rejected``)."""
    ignored: dict[str, int]
    """Rows left out, by server."""
    largest: list[tuple[str, int]]
    """The ten servers with the most rows, largest first."""
    seconds: float

    @property
    def ignored_rows(self) -> int:
        return sum(self.ignored.values())


def partition_input(
    table: InputTable,
    folder: Path,
    *,
    batch_size: int,
    small_rows: int,
    group_of: Callable[[str], str],
    ignored: Callable[[str], bool],
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    on_progress: Callable[[int], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> PartitionSummary:
    """Make ``folder`` from the table, whole or not at all; one that exists is replaced.

    ``on_progress`` gets a number of rows that grows up to all rows: a row counts half when read, half when written.
    About ``memory_bytes`` of rows are kept in memory at most, apart from one batch or file in work per thread.
    ``group_of`` and ``ignored`` are asked once per server.

    Raises:
        InputError: the input is damaged, or changed meanwhile.
        StorageError: writing failed.
        Interrupted: ``should_stop`` turned true.
    """
    started = time.monotonic()
    staging = folder.with_name(f".{folder.name}.partial")
    replaced = folder.with_name(f".{folder.name}.replaced")
    job = _Job(table, staging, memory_bytes, ServerTally(group_of, ignored), on_progress, should_stop)
    try:
        for leftover in (staging, replaced):
            if leftover.exists():
                shutil.rmtree(leftover)
        make_folders(staging)
        with Workers() as workers:
            cut = job.run(workers, batch_size, small_rows)
        if folder.exists():
            folder.rename(replaced)
        publish(staging, folder)
        if replaced.exists():
            shutil.rmtree(replaced)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {one_line(error)}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # gone after success; after a failure the next start tries again
    return _summary(job.tally, len(cut.batches), time.monotonic() - started)


@dataclass(slots=True)
class _Job:
    """One run of ``partition_input``, between an empty staging folder and a full one."""

    table: InputTable
    staging: Path
    memory_bytes: int
    tally: ServerTally
    on_progress: Callable[[int], None]
    should_stop: Callable[[], bool]
    kept: deque[BareRows] | None = field(default_factory=deque)
    """All rows, in input order, after the first pass; None if they do not fit."""
    _halves_done: int = 0

    def run(self, workers: Workers, batch_size: int, small_rows: int) -> Cut:
        self._count_servers(workers)
        tally = self.tally
        chosen = [n for n in range(len(tally.names)) if n != REFUSED and not tally.is_ignored[n]]
        servers = [ServerRows(tally.names[n], tally.rows[n], tally.groups[n]) for n in chosen]
        cut = cut_batches(servers, invalid_rows=tally.rows[REFUSED], batch_size=batch_size, small_rows=small_rows)
        layout = lay_out(cut.batches)
        # Numbers of the servers by position in the output, the refused rows last.
        ranked = [*(chosen[index] for index in cut.order), REFUSED]
        files = UrlsFiles(
            self.staging,
            layout,
            self.table.schema,
            [(None if n == REFUSED else tally.names[n], tally.rows[n]) for n in ranked],
            SHELF_ROWS if self.kept is not None else None,
        )
        self._write_files(workers, files, self._fill_shelves(workers, ranked, files.shelf_starts))
        write_index(self.staging, cut, layout, servers)
        return cut

    def _count_servers(self, workers: Workers) -> None:
        urls_only = self.table.expected_bytes > self.memory_bytes
        if urls_only:
            self.kept = None
        kept_bytes = 0
        for bare in self._read(workers, urls_only=urls_only):
            self.tally.count(bare)
            if self.kept is not None:
                self.kept.append(bare)
                kept_bytes += bare.rows.nbytes + bare.servers.nbytes
                if kept_bytes > self.memory_bytes:
                    self.kept = None
            self._advance(bare.rows.num_rows)

    def _read(self, workers: Workers, *, urls_only: bool) -> Iterator[BareRows]:
        def normalize(raw: RawRows) -> BareRows:
            return self.table.bare(raw, urls_only=urls_only)

        return workers.map(normalize, self.table.raw(urls_only=urls_only))

    def _fill_shelves(self, workers: Workers, ranked: list[int], shelf_starts: IntArray) -> Shelves:
        shelves: Shelves = MemoryShelves()
        if self.kept is None:
            shelves = DiskShelves(self.staging, self.memory_bytes)
        placed_rows = self._placed_rows(workers, ranked)
        for done, pieces in enumerate(workers.map(lambda placed: placed.split(shelf_starts), placed_rows), start=1):
            for shelf, piece in pieces:
                shelves.put(shelf, piece)
            if done % _BATCHES_PER_RELEASE == 0:
                pa.default_memory_pool().release_unused()
            self._advance(0)
        shelves.finish()
        return shelves

    def _placed_rows(self, workers: Workers, ranked: list[int]) -> Iterator[PlacedRows]:
        """All rows that have a place in the output: the kept ones, which are let go one by one, or read again."""
        ranks = np.full(len(self.tally.names), -1, dtype=np.int32)
        ranks[ranked] = np.arange(len(ranked), dtype=np.int32)
        destinations = Destinations([self.tally.rows[n] for n in ranked])
        source = self._read(workers, urls_only=False) if self.kept is None else _drain(self.kept)
        for bare in source:
            numbers = self.tally.numbers(bare.servers)
            if len(self.tally.names) != len(ranks):
                break
            yield PlacedRows(bare.rows, *destinations.take(ranks[numbers]))
        if not destinations.complete:
            raise InputError(f"{self.table.name}: changed while it was read: other rows the second time")

    def _write_files(self, workers: Workers, files: UrlsFiles, shelves: Shelves) -> None:
        for rows in workers.map(lambda file: files.write(file, shelves), range(files.count)):
            self._advance(rows)
        self.on_progress(sum(self.tally.rows))

    def _advance(self, rows: int) -> None:
        if self.should_stop():
            raise Interrupted("stopped while the input was being partitioned; run the same command again")
        self._halves_done += rows
        self.on_progress(self._halves_done // 2)


def _drain(kept: deque[BareRows]) -> Iterator[BareRows]:
    while kept:
        yield kept.popleft()


def _summary(tally: ServerTally, batches: int, seconds: float) -> PartitionSummary:
    servers = range(REFUSED + 1, len(tally.names))
    by_size = sorted((-tally.rows[n], tally.names[n]) for n in servers if not tally.is_ignored[n])
    return PartitionSummary(
        rows=sum(tally.rows),
        servers=len(by_size),
        batches=batches,
        rejected=dict(sorted(tally.rejected.items())),
        ignored={tally.names[n]: tally.rows[n] for n in servers if tally.is_ignored[n]},
        largest=[(name, -negative) for negative, name in by_size[:10]],
        seconds=seconds,
    )
