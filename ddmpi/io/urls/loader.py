"""Batches from the urls folder to the frontier, read in a thread so that the loop never waits for a disk.

A loaded batch stays in its Arrow columns; ``take`` turns a few rows at a time into Python objects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ddmpi.core.records import INVALID_SERVER, BatchRef
from ddmpi.core.rules.urls import Rejected, parse_url
from ddmpi.io.folder.layout import Layout
from ddmpi.io.results.outcomes import is_on, outcomes_of
from ddmpi.io.results.parts import RowReader

Column: TypeAlias = "pa.ChunkedArray[pa.StringScalar]"


@dataclass(eq=False)
class BatchRows:
    """The rows of a batch that have no outcome yet: the frontier's cursor."""

    _rows: npt.NDArray[np.int64]
    _urls: Column
    _servers: Column
    _next: int = 0

    @property
    def left(self) -> int:
        """Rows not taken yet."""
        return len(self._rows) - self._next

    def take(self, n: int) -> list[tuple[int, str, str]]:
        """Return up to ``n`` rows as (index in the batch, URL to fetch, server)."""
        start, stop = self._next, min(len(self._rows), self._next + n)
        self._next = stop
        urls = self._urls.slice(start, stop - start).to_pylist()
        servers = self._servers.slice(start, stop - start).to_pylist()
        rows = self._rows[start:stop].tolist()
        return [(row, _request_url(url), str(server)) for row, url, server in zip(rows, urls, servers, strict=True)]


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
        rows = BatchRows(open_rows, table.column("identifier"), table.column("server_name"))
        return Loaded(lane_id, batch, rows, refused)

    def _open_rows(self, batch: BatchRef, table: pa.Table) -> npt.NDArray[np.int64]:
        """Return the indexes of the rows without an outcome in the batch's parts, or a few of them for sampling."""
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
        if not batch.sample_rows or len(rows) <= batch.sample_rows:
            return rows
        # Evenly spread: neighbors in a table are often alike.
        return rows[np.linspace(0, len(rows) - 1, batch.sample_rows).astype(np.int64)]

    def close(self) -> None:
        """End the thread; what is being read is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
