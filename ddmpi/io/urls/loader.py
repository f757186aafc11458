"""Batches from the urls folder to the frontier, read in a thread so that the loop never waits for a disk.

A loaded batch stays in its Arrow columns; ``take`` turns a few rows at a time into Python objects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from ddmpi.core.arrays import IntArray
from ddmpi.core.records import INVALID_SERVER, BatchRef
from ddmpi.core.rules.urls import Rejected, parse_url
from ddmpi.io.folder.layout import Layout
from ddmpi.io.results.outcomes import is_on, outcomes_of
from ddmpi.io.results.parts import RowReader

Column: TypeAlias = "pa.ChunkedArray[pa.StringScalar]"


@dataclass(eq=False)
class BatchRows:
    """The rows of a batch that have no outcome yet, those with the same URL together: the frontier's cursor."""

    _urls: pa.Array[Any]
    """(u,) the different ones, in random order; ``_servers`` likewise. Neighbors in a table are often alike: where a
    server refuses the first thousand, the others would wait for them."""
    _servers: Column
    _rows: IntArray
    """(n,) indexes in the batch, those of ``_urls[i]`` from ``_starts[i]`` on."""
    _starts: IntArray
    _next: int = 0

    @classmethod
    def of(cls, rows: IntArray, table: pa.Table, most_urls: int, seed: int) -> BatchRows:
        """Group rows by their URL, as the text that it is. ``table`` has them at these indexes of the batch. Of more
        than ``most_urls`` (0: all) take so many; ``seed`` decides their order."""
        encoded: Any = table.column("identifier").combine_chunks().dictionary_encode()
        chosen = np.random.default_rng(seed).permutation(len(encoded.dictionary))[: most_urls or None]
        numbers = np.full(len(encoded.dictionary), -1)
        numbers[chosen] = np.arange(len(chosen))
        codes = numbers[np.asarray(encoded.indices)]
        order = np.argsort(codes, kind="stable")
        order = order[np.searchsorted(codes[order], 0) :]
        starts = np.searchsorted(codes[order], np.arange(len(chosen) + 1))
        servers = table.column("server_name").take(order[starts[:-1]])
        return cls(encoded.dictionary.take(chosen), servers, rows[order], starts)

    @property
    def left(self) -> int:
        """URLs not taken yet."""
        return len(self._urls) - self._next

    def take(self, n: int) -> list[tuple[int, str, str, tuple[int, ...]]]:
        """Return up to ``n`` URLs as (first row's index in the batch, URL to fetch, server, its other rows)."""
        start, stop = self._next, min(len(self._urls), self._next + n)
        self._next = stop
        urls = self._urls.slice(start, stop - start).to_pylist()
        servers = self._servers.slice(start, stop - start).to_pylist()
        bounds = self._starts[start : stop + 1]
        rows = self._rows[bounds[0] : bounds[-1]].tolist()
        places = pairwise((bounds - bounds[0]).tolist())
        return [
            (rows[first], _request_url(url), str(server), tuple(rows[first + 1 : end]))
            for url, server, (first, end) in zip(urls, servers, places, strict=True)
        ]


def _request_url(url: str | None) -> str:
    parsed = parse_url(url)
    if isinstance(parsed, Rejected):
        raise RuntimeError(
            f"a row of a valid batch has a refused URL ({parsed.reason}): the urls folder is inconsistent"
        )
    return parsed.url


@dataclass(frozen=True)
class Loaded:
    """A batch that was read. ``refused`` are rows without an acceptable URL: (index in the batch, reason)."""

    lane_id: int
    batch: BatchRef
    rows: BatchRows
    refused: Sequence[tuple[int, str]]


class Loader:
    """Reads batches in one thread; ``take_loaded`` gives what is ready."""

    def __init__(self, layout: Layout, reader: RowReader, epoch: int, on_loaded: Callable[[], None]) -> None:
        self._layout = layout
        self._epoch = epoch
        self._reader = reader
        self._on_loaded = on_loaded
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._done: deque[Future[Loaded]] = deque()

    def load(self, lane_id: int, batch: BatchRef) -> None:
        self._pool.submit(self._load, lane_id, batch).add_done_callback(self._finish)

    def _finish(self, future: Future[Loaded]) -> None:
        self._done.append(future)
        self._on_loaded()

    def take_loaded(self) -> list[Loaded]:
        """Return the batches that are ready. Raises StorageError: the batch or one of its parts cannot be read."""
        loaded = []
        while self._done:
            loaded.append(self._done.popleft().result())
        return loaded

    def _load(self, lane_id: int, batch: BatchRef) -> Loaded:
        is_refused = batch.server_name == INVALID_SERVER
        columns = ["row_number", "identifier", "server_name"] + (["reject"] if is_refused else [])
        table = self._reader.read(batch, columns)
        open_rows = self._open_rows(batch, table)
        refused: list[tuple[int, str]] = []
        if is_refused:
            reasons = table.column("reject").take(open_rows).to_pylist()
            refused = [(int(row), str(reason)) for row, reason in zip(open_rows, reasons, strict=True)]
            open_rows = open_rows[:0]
        if len(open_rows) != len(table):
            table = table.take(open_rows)
        return Loaded(lane_id, batch, BatchRows.of(open_rows, table, batch.sample_rows, batch.batch_id), refused)

    def _open_rows(self, batch: BatchRef, table: pa.Table) -> IntArray:
        """Return the indexes of the rows without an outcome in the batch's parts."""
        rows = np.arange(len(table), dtype=np.int64)
        if batch.parts:
            numbers = table.column("row_number").to_numpy()
            outcomes = outcomes_of(self._layout, batch.parts)
            final = outcomes.rows[~outcomes.to_retry(batch.retry, self._epoch, table)]
            rows = rows[~np.isin(numbers, final)]
        if batch.ignored:
            rows = rows[~is_on(table.column("server_name"), batch.ignored)[rows]]
        if batch.decided:
            rows = rows[~np.isin(rows, batch.decided)]
        return rows

    def close(self) -> None:
        """End the thread; what is being read is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
