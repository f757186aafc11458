"""Stage one: an input table becomes the urls folder, clustered by server.

Two steps, whatever the size: count the rows of each server and find URLs that repeat, which decides where every row
goes (``partition``, ``sections``, ``placement``); then carry the rows there. A table that fits the budget is kept in
memory between the two. Of a larger one the first step reads only the URLs; the second reads all of it, and the rows
wait in scratch files, some per output file. The output is the same either way.
"""

from __future__ import annotations

import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.arrays import IntArray
from ddmpi.core.partition.partition import Cut, ServerTable, cut_batches
from ddmpi.core.partition.placement import Destinations, lay_out
from ddmpi.core.partition.sections import Hashes, Sections
from ddmpi.core.partition.server_patterns import matching_servers
from ddmpi.core.records import MANY_SERVERS
from ddmpi.errors import InputError, Interrupted, StorageError
from ddmpi.io.folder.disk_errors import one_line
from ddmpi.io.folder.durable import make_folders, publish
from ddmpi.io.input.rows import asked_urls
from ddmpi.io.input.table import InputTable, RawRows
from ddmpi.io.input.uuids import hash_texts
from ddmpi.io.urls.address_grouping import AddressGrouping
from ddmpi.io.urls.files import PlacedRows, UrlsFiles
from ddmpi.io.urls.index import UrlsIndex, write_index
from ddmpi.io.urls.row_keys import COMPARED_BYTES, RowKeys
from ddmpi.io.urls.server_tally import REFUSED, Numbers, ServerTally
from ddmpi.io.urls.spill import Spill
from ddmpi.io.urls.workers import Workers, recycled_memory

DEFAULT_MEMORY_BYTES: Final = 1 << 30
BUCKET_ROWS: Final = 128 * 1024
"""Rows sorted at once where all are in memory anyway: small, so that what is in work beside them is small too."""
LEAST_COMPARED_ROWS: Final = 1 << 18
"""Rows of which hashes are compared at once, whatever the budget: a few megabytes."""
BUCKET_BYTES: Final = 1 << 28
"""Wide rows are fewer: one array of strings cannot hold more than 2 GB."""


@dataclass(frozen=True, slots=True)
class PartitionSummary:
    """What the input was made of. ``rows`` counts refused rows too, but none that the filter left out."""

    rows: int
    dropped: int
    """Rows that the filter left out."""
    servers: int
    batches: int
    rejected: dict[str, int]
    """Refused rows by the first word of the reason (see ``urls.Rejected``)."""
    largest: list[tuple[str, int]]
    """The ten servers with the most rows, largest first."""
    seconds: float


def partition_input(
    table: InputTable,
    folder: Path,
    *,
    batch_size: int,
    small_rows: int,
    group_of: Callable[[str], str] | None = None,
    grouped: Sequence[str] = ("*",),
    by_address: AddressGrouping | None = None,
    earlier: UrlsIndex | None = None,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    on_counted: Callable[[int, Mapping[str, int]], None] = lambda _rows, _refused: None,
    on_progress: Callable[[PartitionProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> PartitionSummary:
    """Make ``folder`` from the table, whole or not at all; one that exists is replaced.

    ``on_counted`` is told after the first step how many rows there are, and how many of them are refused, by reason; it
    may raise. ``on_progress`` is told often how far it is: a row counts half when its server is counted, half when it
    is written. About ``memory_bytes`` of rows are kept in memory at most, apart from one batch or file in work per
    thread.
    ``group_of`` says which server group a server is in, its own name if it is on its own (None: they all are); it is
    asked once per server of those that the patterns ``grouped`` mean, the others are on their own, unless
    ``by_address`` says otherwise. With ``earlier`` the table's rows come after those of that index, and ``folder`` is
    its ``next_addition``.

    Raises:
        InputError: the input is damaged, or changed meanwhile.
        StorageError: writing failed.
        Interrupted: ``should_stop`` turned true.
    """

    def groups_of(names: pa.Array[Any]) -> pa.Array[Any]:
        by_name = groups_by_name(group_of, grouped, names)
        return by_name if by_address is None else by_address.groups_of(names, by_name)

    started = time.monotonic()
    staging = folder.with_name(f".{folder.name}.partial")
    replaced = folder.with_name(f".{folder.name}.replaced")
    job = _Job(table, staging, memory_bytes, on_counted, on_progress, should_stop)
    try:
        for leftover in (staging, replaced):
            if leftover.exists():
                shutil.rmtree(leftover)
        make_folders(staging)
        if table.has_headers:
            staging.chmod(0o700)
        with recycled_memory(), closing(Workers()) as workers:
            cut = job.run(workers, batch_size, small_rows, groups_of, earlier or UrlsIndex(folder))
        if by_address is not None:
            by_address.write(staging)
        if folder.exists():
            folder.rename(replaced)
        publish(staging, folder)
        if replaced.exists():
            shutil.rmtree(replaced)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {one_line(error)}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # gone after success; after a failure the next start tries again
    return _summary(job, len(cut), time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """How far the stage is. ``rows`` of ``total`` are done; the total is None until it is known."""

    rows: int
    total: int | None


class _Counted(NamedTuple):
    """A batch after the first step; ``rows`` are None where they are read again."""

    rows: pa.RecordBatch | None
    servers: pa.DictionaryArray[Any, Any]
    rejects: pa.Array[Any]
    hashes: Hashes
    dropped: int


class _Placed(NamedTuple):
    """A batch in the second step, as it was kept or as it was read again, and where its rows go."""

    batch: pa.RecordBatch | RawRows
    numbers: Numbers
    rows: IntArray
    positions: IntArray


@dataclass(slots=True)
class _Job:
    """One run of ``partition_input``, between an empty staging folder and a full one."""

    table: InputTable
    staging: Path
    memory_bytes: int
    on_counted: Callable[[int, Mapping[str, int]], None]
    on_progress: Callable[[PartitionProgress], None]
    should_stop: Callable[[], bool]
    tally: ServerTally = field(default_factory=ServerTally)
    kept: deque[pa.RecordBatch] | None = field(default_factory=deque)
    """All rows, in input order, after the first step; None if they do not fit."""
    _sample: pa.RecordBatch | None = None
    _expected_bytes: int = 0
    dropped: int = 0
    """Rows that the filter left out."""
    _halves_done: int = 0
    _total: int | None = None

    def run(
        self,
        workers: Workers,
        batch_size: int,
        small_rows: int,
        groups_of: Callable[[pa.Array[Any]], pa.Array[Any]],
        earlier: UrlsIndex,
    ) -> Cut:
        most_compared = max(LEAST_COMPARED_ROWS, self.memory_bytes // COMPARED_BYTES)
        with RowKeys(self.staging, most_compared, lambda: self._advance(0)) as keys:
            self._count_servers(workers, keys)
            self.on_counted(int(self.tally.rows.sum()), self.tally.rejected)
            known = self.tally.names.slice(1)
            servers = ServerTable(known, self.tally.rows[1:], earlier.groups_of(known, groups_of))
            refused = int(self.tally.rows[REFUSED])
            packs = int(earlier.partitions_of(pa.array([MANY_SERVERS]))[0])
            urls = keys.count_urls(servers)
            sections = keys.sections(servers, urls, batch_size)
            cut = cut_batches(
                servers,
                invalid_rows=refused,
                batch_size=batch_size,
                small_rows=small_rows,
                first_pack=packs,
                sections=sections,
            )
            layout = lay_out(cut.rows)
            # Numbers of the servers by position in the output, the refused rows last.
            ranked = np.append(cut.order + 1, REFUSED)
            names = pa.concat_arrays([servers.names.take(cut.order), pa.nulls(1, pa.string())])
            files = UrlsFiles(
                self.staging,
                layout=layout,
                table=self.table,
                names=names,
                rows=self.tally.rows[ranked],
                bucket_rows=self._rows_per_bucket(workers.threads),
                sample=self._sample,
            )
            spill = self._fill_spill(workers, self._placed_rows(keys, ranked, sections), files.bucket_starts)
        self._write_files(workers, files, spill)
        input_rows = int(self.tally.rows.sum()) + self.dropped
        write_index(self.staging, cut, layout, servers, urls, input_rows=input_rows, earlier=earlier)
        return cut

    def _count_servers(self, workers: Workers, keys: RowKeys) -> None:
        self._sample = self.table.sample()
        self._expected_bytes = self.table.expected_bytes(self._sample)
        if self._expected_bytes > self.memory_bytes:
            self.kept = None
        self._total = self.table.rows
        kept_bytes = 0
        count = self._count_urls if self.kept is None else self._count_rows
        for counted in workers.map(count, self.table.raw(urls_only=self.kept is None, joined=True)):
            self.tally.add(counted.servers, counted.rejects)
            keys.add_hashes(counted.hashes)
            if self.kept is not None and counted.rows is not None:
                self.kept.append(counted.rows)
                kept_bytes += counted.rows.nbytes
                if kept_bytes > self.memory_bytes:
                    self.kept = None
            if self.tally.is_full:
                keys.add_numbers(self.tally.fold())
            self.dropped += counted.dropped
            self._advance(len(counted.servers) + 2 * counted.dropped)
        keys.add_numbers(self.tally.fold())
        self._total = int(self.tally.rows.sum()) + self.dropped

    def _count_urls(self, raw: RawRows) -> _Counted:
        return _Counted(None, *self.table.servers(raw), raw.dropped)

    def _count_rows(self, raw: RawRows) -> _Counted:
        bare = self.table.bare(raw)
        hashes = hash_texts(asked_urls(bare.rows))
        return _Counted(bare.rows, bare.servers, bare.rows.column("reject"), hashes, raw.dropped)

    def _rows_per_bucket(self, threads: int) -> int:
        """Return how many rows are reordered at once: from scratch files as many as the budget has room for."""
        row_bytes = max(1, self._expected_bytes // max(1, int(self.tally.rows.sum())))
        rows = BUCKET_ROWS
        if self.kept is None:
            rows = max(rows, self.memory_bytes // threads // 4 // row_bytes)
        return max(1, min(rows, BUCKET_BYTES // row_bytes))

    def _fill_spill(self, workers: Workers, placed_rows: Iterator[_Placed], bucket_starts: IntArray) -> Spill:
        spill = Spill(self.staging, self.memory_bytes // 3 if self.kept is None else math.inf, workers.pool.submit)

        def split(placed: _Placed) -> list[tuple[int, pa.RecordBatch]]:
            rows = placed.batch
            if isinstance(rows, RawRows):
                rows = self.table.bare(rows, pa.array(placed.numbers == REFUSED)).rows
            return PlacedRows(rows, placed.rows, placed.positions).split(bucket_starts)

        for pieces in workers.map(split, placed_rows):
            for bucket, piece in pieces:
                spill.put(bucket, piece)
            self._advance(0)
        spill.finish()
        return spill

    def _placed_rows(self, keys: RowKeys, ranked: IntArray, sections: Sections) -> Iterator[_Placed]:
        """Yield all rows: the kept ones, which are let go one by one, or read again."""
        counts = sections.counts[ranked - 1]
        rows = np.repeat(self.tally.rows[ranked], counts)
        rows[np.repeat(sections.places[ranked - 1] >= 0, counts)] = sections.rows
        ranks = np.empty(len(ranked), dtype=np.int32)
        ranks[ranked] = np.cumsum(counts) - counts
        destinations = Destinations(rows)
        keys.rewind()
        source: Iterator[pa.RecordBatch | RawRows] = (
            self.table.raw(joined=True) if self.kept is None else _drain(self.kept)
        )
        for batch in source:
            count = batch.num_rows if isinstance(batch, pa.RecordBatch) else len(batch.row_numbers)
            known = keys.take(count)
            if len(known.numbers) != count:
                break
            sections_of = sections.numbers(known.numbers - 1, known.hashes)
            yield _Placed(batch, known.numbers, *destinations.take(ranks[known.numbers] + sections_of))
        if not destinations.complete:
            raise InputError(f"{self.table.name}: changed while it was read: other rows the second time")

    def _write_files(self, workers: Workers, files: UrlsFiles, spill: Spill) -> None:
        for rows in workers.map(lambda file: files.write(file, spill), range(files.count)):
            self._advance(rows)

    def _advance(self, rows: int) -> None:
        if self.should_stop():
            raise Interrupted("stopped while the input was being partitioned; run the same command again")
        self._halves_done += rows
        self.on_progress(PartitionProgress(self._halves_done // 2, self._total))


def _drain(kept: deque[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    while kept:
        yield kept.popleft()


def groups_by_name(
    group_of: Callable[[str], str] | None, grouped: Sequence[str], names: pa.Array[Any]
) -> pa.Array[Any]:
    """Return (n,) the groups that rules put these servers into, null for those on their own."""
    alone = pa.nulls(len(names), pa.string())
    if group_of is None or not grouped:
        return alone
    is_asked = matching_servers(names, grouped)
    asked = (str(name) for name in names.filter(pa.array(is_asked)))
    groups = [None if (group := group_of(name)) == name else group for name in asked]
    answer: pa.Array[Any] = pc.replace_with_mask(alone, pa.array(is_asked), pa.array(groups, pa.string()))
    return answer


def _summary(job: _Job, batches: int, seconds: float) -> PartitionSummary:
    tally = job.tally
    return PartitionSummary(
        rows=int(tally.rows.sum()),
        dropped=job.dropped,
        servers=len(tally.names) - 1,
        batches=batches,
        rejected=dict(sorted(tally.rejected.items())),
        largest=largest_servers(tally.names.slice(1), tally.rows[1:]),
        seconds=seconds,
    )


def largest_servers(names: pa.Array[Any], rows: IntArray) -> list[tuple[str, int]]:
    """Return the ten with the most rows, largest first; of equal ones the first by name."""
    table = pa.table({"name": names, "rows": pa.array(rows)})
    keys = [("rows", "descending"), ("name", "ascending")]
    chosen = pc.select_k_unstable(table, k=10, sort_keys=keys)  # type: ignore[call-overload]  # the stubs forget tables
    return [(row["name"], row["rows"]) for row in table.take(chosen).to_pylist()]
