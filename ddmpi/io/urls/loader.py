"""Batches from the urls folder to the frontier, read in a thread so that the loop never waits for a disk.

A loaded batch stays in its Arrow columns; ``take`` turns a few rows at a time into Python objects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import Any, Final, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.arrays import IntArray
from ddmpi.core.records import (
    INVALID_SERVER,
    MIRRORS,
    REQUEST_HEADERS,
    REQUESTED,
    BatchRef,
    ErrorKind,
    Failure,
    Taken,
    Validators,
    error_code,
)
from ddmpi.core.rules.urls import Rejected, parse_url
from ddmpi.core.rules.verdict import one_line
from ddmpi.io.folder.layout import Layout
from ddmpi.io.forget.names import FAILURE, read_forgotten
from ddmpi.io.input.rows import BAD_ENCODING, asked_urls
from ddmpi.io.results.outcomes import EarlierFiles, RowReader, is_on, outcomes_of

FILES: Final = "files"
"""The column of what is known of the files that rows have already."""
Column: TypeAlias = "pa.ChunkedArray[pa.StringScalar]"


@dataclass(eq=False)
class BatchRows:
    """The rows of a batch that have no outcome yet, those with the same URL (and mirrors, and headers) together: the
    frontier's cursor."""

    _urls: pa.Array[Any]
    """(u,) the different ones, in random order; ``_servers`` likewise. Neighbors in a table are often alike: where a
    server refuses the first thousand, the others would wait for them."""
    _servers: Column
    _rows: IntArray
    """(n,) indexes in the batch, those of ``_urls[i]`` from ``_starts[i]`` on."""
    _starts: IntArray
    _mirrors: pa.ChunkedArray[Any] | None
    _headers: pa.ChunkedArray[Any] | None = None
    _files: pa.ChunkedArray[Any] | None = None
    """What is known of the file that the rows have already."""
    _next: int = 0

    @classmethod
    def of(cls, rows: IntArray, table: pa.Table, most_urls: int, seed: int, alike_by: Sequence[str] = ()) -> BatchRows:
        """Group rows by their URL, as the text that it is. ``table`` has them at these indexes of the batch. Of more
        than ``most_urls`` (0: all) take so many; ``seed`` decides their order. Rows of a group are the same in the
        columns ``alike_by``, too."""
        encoded: Any = table.column("identifier").combine_chunks().dictionary_encode()
        codes, count = np.asarray(encoded.indices), len(encoded.dictionary)
        for name in alike_by:
            codes, count = _refined(codes, table.column(name))
        chosen = np.random.default_rng(seed).permutation(count)[: most_urls or None]
        numbers = np.full(count, -1)
        numbers[chosen] = np.arange(len(chosen))
        codes = numbers[codes]
        order = np.argsort(codes, kind="stable")
        order = order[np.searchsorted(codes[order], 0) :]
        starts = np.searchsorted(codes[order], np.arange(len(chosen) + 1))
        firsts = table.take(order[starts[:-1]])
        mirrors = firsts.column(MIRRORS) if MIRRORS in table.column_names else None
        headers = firsts.column(REQUEST_HEADERS) if REQUEST_HEADERS in table.column_names else None
        files = firsts.column(FILES) if FILES in table.column_names else None
        urls = firsts.column("identifier").combine_chunks()
        return cls(urls, firsts.column("server_name"), rows[order], starts, mirrors, headers, files)

    @property
    def left(self) -> int:
        """URLs not taken yet."""
        return len(self._urls) - self._next

    def take(self, n: int) -> list[Taken]:
        """Return up to ``n`` URLs as (first row's index in the batch, URL to fetch, server, its other rows, its
        mirrors, its headers, what is known of the file that its rows have)."""
        start, stop = self._next, min(len(self._urls), self._next + n)
        self._next = stop
        urls = cast("list[str]", self._urls.slice(start, stop - start).to_pylist())
        servers = cast("list[str]", self._servers.slice(start, stop - start).to_pylist())
        bounds = self._starts[start : stop + 1]
        rows = self._rows[bounds[0] : bounds[-1]].tolist()
        places = pairwise((bounds - bounds[0]).tolist())
        mirrors, headers, files = (
            repeat(None, len(urls)) if column is None else column.slice(start, stop - start).to_pylist()
            for column in (self._mirrors, self._headers, self._files)
        )
        return [
            (
                rows[first],
                _request_url(url, server),
                server,
                tuple(rows[first + 1 : end]),
                tuple(others or ()),
                own or "",
                None if file is None else _validators(file),
            )
            for url, server, (first, end), others, own, file in zip(
                urls, servers, places, mirrors, headers, files, strict=True
            )
        ]


def _validators(file: Mapping[str, Any]) -> Validators | None:
    """Return what a file's server gave to tell whether it has changed, as far as a header may hold it; None where there
    is no file."""
    if file["epoch"] is None:
        return None
    etag, last_modified = (
        text if text and text.isascii() and text.isprintable() else "" for text in (file["etag"], file["last_modified"])
    )
    return Validators(file["url"] or "", etag, last_modified)


def _refined(codes: IntArray, values: pa.ChunkedArray[Any]) -> tuple[IntArray, int]:
    """Return (n,) codes of rows that had the same code and have the same value, and how many codes there are."""
    whole: Any = values
    if pa.types.is_list(values.type):
        # A byte that no UTF-8 has stands between them.
        whole = pc.binary_join(values.cast(pa.list_(pa.binary())), b"\xff")
    if pa.types.is_struct(values.type):
        texts = [pc.struct_field(values, index).cast(pa.string()) for index in range(values.type.num_fields)]
        # Neither is part of a header or URL.
        whole = pc.binary_join_element_wise(*texts, "\0", null_handling="replace", null_replacement="\1")
    encoded: Any = whole.combine_chunks().dictionary_encode(null_encoding="encode")
    pairs = codes.astype(np.int64) * len(encoded.dictionary) + np.asarray(encoded.indices)
    found, refined = np.unique(pairs, return_inverse=True)
    return refined, len(found)


def _request_url(url: str, server: str) -> str:
    """Return what is fetched for an accepted URL, whose server is known. Most URLs are in that form already."""
    if url.isascii() and "#" not in url and url.startswith((f"http://{server}/", f"https://{server}/")):
        return url.rstrip()
    parsed = parse_url(url)
    if isinstance(parsed, Rejected):
        raise RuntimeError(
            f"a row of a valid batch has a refused URL ({parsed.reason}): the urls folder is inconsistent"
        )
    return parsed.url


def _reasons(refused: pa.Table) -> list[str]:
    """Return why these rows are refused, those of their mirrors included."""
    reasons = [str(reason) for reason in refused.column("reject").to_pylist()]
    if MIRRORS not in refused.column_names:
        return reasons
    return [
        "; then ".join([reason, *(f"{one_line(url)}: refused: {_objection(url)}" for url in mirrors or ())])
        for reason, mirrors in zip(reasons, refused.column(MIRRORS).to_pylist(), strict=True)
    ]


def _objection(url: str) -> str:
    parsed = parse_url(url)
    return parsed.reason if isinstance(parsed, Rejected) else BAD_ENCODING


def _bad_url(reason: str) -> Failure:
    return Failure(ErrorKind.BAD_URL, error_code(ErrorKind.BAD_URL, 0), reason)


@dataclass(frozen=True)
class Loaded:
    """A batch that was read. ``refused`` are rows that are not asked for: those without an acceptable URL, and those
    that were withdrawn: (index in the batch, why)."""

    lane_id: int
    batch: BatchRef
    rows: BatchRows
    refused: Sequence[tuple[int, Failure]]


class Loader:
    """Reads batches in one thread; ``take_loaded`` gives what is ready."""

    def __init__(
        self,
        layout: Layout,
        reader: RowReader,
        epoch: int,
        on_loaded: Callable[[], None],
        alike_by: Sequence[str] = (),
        *,
        rewrites: bool = False,
        earlier: EarlierFiles | None = None,
    ) -> None:
        """
        Args:
            alike_by: rows with the same URL are fetched once if they are the same in these columns, too: their
                headers, their mirrors, and what else decides whether a mirror is asked.
            rewrites: whether another URL may be asked for than the table's.
            earlier: the files that rows have already, where somebody else reads them too.

        Raises:
            StorageError: what was withdrawn cannot be read.
        """
        self._layout = layout
        self._forgotten = read_forgotten(layout.forgotten)
        self._rewrites = rewrites
        self._alike_by = alike_by
        self._epoch = epoch
        self._reader = reader
        self._on_loaded = on_loaded
        self._earlier = earlier or EarlierFiles(layout, reader)
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
        columns = ["row_number", "identifier", "server_name", *(["reject"] if is_refused else []), *self._alike_by]
        table = self._reader.read(batch, columns + [REQUESTED] * self._rewrites + ["uuid"] * bool(self._forgotten))
        is_forgotten = self._forgotten.may_not_be_fetched(table) if self._forgotten else None
        if self._rewrites:
            table = table.set_column(columns.index("identifier"), "identifier", asked_urls(table))
        open_rows = self._open_rows(batch, table)
        refused: list[tuple[int, Failure]] = []
        if is_forgotten is not None:
            # A sample leaves them out: whoever reads all of the batch stores what they are.
            gone = open_rows[is_forgotten[open_rows]] if not batch.sample_rows else open_rows[:0]
            refused = [(row, FAILURE) for row in gone.tolist()]
            open_rows = open_rows[~is_forgotten[open_rows]]
        if is_refused:
            reasons = _reasons(table.take(open_rows))
            refused += [(row, _bad_url(reason)) for row, reason in zip(open_rows.tolist(), reasons, strict=True)]
            open_rows = open_rows[:0]
        if len(open_rows) != len(table):
            table = table.take(open_rows)
        alike_by = self._alike_by
        files = self._earlier.of(batch)
        if files is not None:
            # One request is for rows with the same file: else it would ask for another one of these.
            table = table.append_column(FILES, files.structs(open_rows))
            alike_by = (*alike_by, FILES)
        rows = BatchRows.of(open_rows, table, batch.sample_rows, batch.batch_id, alike_by)
        return Loaded(lane_id, batch, rows, refused)

    def _open_rows(self, batch: BatchRef, table: pa.Table) -> IntArray:
        """Return the indexes of the rows without an outcome in the batch's parts."""
        rows = np.arange(len(table), dtype=np.int64)
        if batch.parts:
            numbers = table.column("row_number").to_numpy()
            outcomes = outcomes_of(self._layout, batch.parts, times=batch.stale_before > 0)
            again = outcomes.to_retry(batch.retry, self._epoch, table)
            if batch.stale_before:
                again |= outcomes.are_stale(batch.stale_before, self._epoch)
            final = outcomes.rows[~again]
            rows = rows[~np.isin(numbers, final)]
        if batch.ignored:
            rows = rows[~is_on(table.column("server_name"), batch.ignored)[rows]]
        if batch.decided:
            rows = rows[~np.isin(rows, batch.decided)]
        return rows

    def close(self) -> None:
        """End the thread; what is being read is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
