"""Which rows of a batch have an outcome, and which files, read back from its parts: where a restart goes on.

Of several outcomes of a row the newest epoch's counts; the older ones are errors that were fetched again, files that a
refresh has found changed, and checks. A check counts as a success, as its row has a file, and only together with that
one: without it the row has no outcome.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.core.partition.server_patterns import matching_servers
from ddmpi.core.records import BatchRef
from ddmpi.core.rules.retry_filter import choice_of
from ddmpi.core.stats.comparison import UNCHANGED
from ddmpi.io.folder.layout import Layout, PartKind, part_of
from ddmpi.io.results.damage import PART_ERRORS, read_columns
from ddmpi.io.results.schema import CHECK, FILE_EPOCH, ROW_NUMBER

FETCHED_AT: Final = "fetched_at"
ALWAYS_US: Final = np.iinfo(np.int64).min
"""The time of an outcome that has none: it was there before any other."""
_MOST_EPOCHS: Final = 1 << 20
_CACHE_BYTES: Final = 32 << 20
_NO_ROWS: Final = np.empty(0, np.int64)
_OF_FILE: Final = ("final_url", "etag", "last_modified")
_IN_FILES: Final[dict[str, pa.DataType]] = {
    ROW_NUMBER: pa.int64(),
    **dict.fromkeys(("hashsum_original", *_OF_FILE), pa.string()),
    "epoch": pa.int64(),
}
_IN_CHECKS: Final[dict[str, pa.DataType]] = {
    ROW_NUMBER: pa.int64(),
    FILE_EPOCH: pa.int64(),
    **dict.fromkeys((CHECK, *_OF_FILE), pa.string()),
    "epoch": pa.int64(),
}
_COLUMNS: Final[dict[PartKind, list[str]]] = {
    "successes": [],
    "errors": ["error_kind", "error_code"],
    "checks": [FILE_EPOCH, CHECK, "error_kind", "error_code"],
}
"""What is read beside row numbers and times."""


@dataclass(frozen=True)
class Outcomes:
    """The outcomes that count, by row number, each once."""

    rows: IntArray
    """(n,) sorted row numbers."""
    kinds: Sequence[str]
    """(n,) the error's kind, "" for a success and for a check."""
    codes: IntArray
    """(n,) the error's code, 0 for a success and for a check."""
    epochs: IntArray
    """(n,) the run that it is from."""
    file_epochs: IntArray
    """(n,) the run that the row's file is from; 0 for an error."""
    checks: Sequence[str]
    """(n,) what a check has found; "" for what is none."""
    times_us: IntArray
    """(n,) when it came (microseconds since 1970); ``ALWAYS_US`` where that is not known, or was not asked."""

    def are_stale(self, before: float, epoch: int) -> npt.NDArray[np.bool_]:
        """Return (n,) which are files that were last asked for before that moment (seconds since 1970), by runs before
        ``epoch``; 0: none."""
        known = (self.times_us != ALWAYS_US) & (self.file_epochs > 0)
        stale: npt.NDArray[np.bool_] = known & (self.times_us < round(before * 1e6)) & (self.epochs < epoch)
        return stale

    def to_retry(self, retry: Sequence[str], epoch: int, rows: pa.Table | None = None) -> npt.NDArray[np.bool_]:
        """Return (n,) which errors of runs before ``epoch`` these words mean (see ``retry_filter``); of none, none.
        ``rows`` (row_number, server_name) tells the servers, where the words name some."""
        if not retry:
            return np.zeros(len(self.rows), np.bool_)
        choice = choice_of(retry)
        kinds_and_codes = zip(self.kinds, self.codes.tolist(), strict=True)
        meant = np.array([bool(kind) and choice.means(kind, code) for kind, code in kinds_and_codes], np.bool_)
        if choice.servers and rows is not None:
            numbers = rows.column(ROW_NUMBER).to_numpy()
            meant &= np.isin(self.rows, numbers[matching_servers(rows.column("server_name"), choice.servers)])
        return meant & (self.epochs < epoch)

    def count_kinds(self) -> dict[str, int]:
        counts = Counter(self.kinds)
        del counts[""]
        return dict(counts)

    @property
    def successes(self) -> int:
        """Rows that were fetched."""
        return self.kinds.count("")

    @property
    def errors(self) -> int:
        """Rows that failed."""
        return len(self.rows) - self.successes


def outcomes_of(layout: Layout, parts: Sequence[str], *, times: bool = False) -> Outcomes:
    """Return the outcomes in these parts (paths relative to the output folder); ``times``: with when they came. Raises
    as ``read_columns``."""
    tables = [_read(layout, part, times=times) for part in parts]
    found = _joined(tables)
    newest = _newest(found.rows, found.epochs)
    is_check = found.are_checks[newest]
    has_file = np.isin(_keys(found.rows, found.file_epochs)[newest], found.success_keys)
    chosen = newest[~is_check | has_file]
    kinds = [kind for table in tables for kind in table.kinds]
    checks = [check for table in tables for check in table.checks]
    places = chosen.tolist()
    return Outcomes(
        found.rows[chosen],
        [kinds[place] for place in places],
        found.codes[chosen],
        found.epochs[chosen],
        found.file_epochs[chosen],
        [checks[place] for place in places],
        found.times_us[chosen],
    )


def superseded_rows(layout: Layout, parts: Sequence[str], at: float | None = None) -> dict[int, IntArray]:
    """Return by epoch the rows of a batch whose success or error of that run does not count: a later one does, or it
    came after ``at`` (seconds since 1970; None: no matter when). Parts as for ``outcomes_of``.

    Without ``at`` opens no part where all are of one epoch, since a run gives a row one outcome. Raises as
    ``read_columns``.
    """
    if at is None and len({part_of(part).epoch for part in parts}) < 2:
        return {}
    found = _joined([_read(layout, part, times=at is not None) for part in parts])
    counts = np.ones(len(found.rows), np.bool_) if at is None else found.times_us <= round(at * 1e6)
    considered = np.flatnonzero(counts)
    newest = considered[_newest(found.rows[considered], found.epochs[considered])]
    # Of a check the file counts that it is about.
    shown = np.where(found.file_epochs > 0, found.file_epochs, found.epochs)[newest]
    counting = _keys(found.rows[newest], shown)
    old = ~found.are_checks & ~(counts & np.isin(_keys(found.rows, found.epochs), counting))
    return {int(epoch): found.rows[old & (found.epochs == epoch)] for epoch in np.unique(found.epochs[old])}


def oldest_us(layout: Layout, part: str) -> int | None:
    """Return when the oldest outcome of a part came (microseconds since 1970), as its footer says; None where it does
    not say, or cannot be read: whether it is damaged is found by whoever reads its rows."""
    try:
        metadata = pq.read_metadata(layout.root / part)
        place = metadata.schema.names.index(FETCHED_AT)
        groups = [metadata.row_group(number).column(place) for number in range(metadata.num_row_groups)]
    except (*PART_ERRORS, ValueError):
        return None
    stated = [group.statistics for group in groups]
    lowest = [int(each.min_raw or 0) for each in stated if each is not None and each.has_min_max]
    return min(lowest) if lowest and len(lowest) == len(stated) else None


class _Part(NamedTuple):
    """The outcomes in one part, n rows; in all arrays."""

    rows: IntArray
    epochs: IntArray
    file_epochs: IntArray
    codes: IntArray
    times_us: IntArray
    kinds: Sequence[str]
    checks: Sequence[str]
    are_checks: npt.NDArray[np.bool_]

    @property
    def success_keys(self) -> IntArray:
        """Rows and runs of all files."""
        are_files = ~self.are_checks & (self.file_epochs > 0)
        return _keys(self.rows[are_files], self.epochs[are_files])


def _read(layout: Layout, part: str, *, times: bool) -> _Part:
    name = part_of(part)
    table = read_columns(layout, part, [ROW_NUMBER, *_COLUMNS[name.kind], *[FETCHED_AT] * times])
    count = len(table)
    rows: IntArray = table.column(ROW_NUMBER).to_numpy()
    epochs = np.full(count, name.epoch, np.int64)
    times_us = np.full(count, ALWAYS_US, np.int64)
    if times:
        given: Any = table.column(FETCHED_AT).cast(pa.int64())
        times_us = given.fill_null(ALWAYS_US).to_numpy()
    nothing, none = [""] * count, np.zeros(count, np.int64)
    no_check = np.zeros(count, np.bool_)
    if name.kind == "successes":
        return _Part(rows, epochs, epochs, none, times_us, nothing, nothing, no_check)
    if name.kind == "errors":
        kinds = [str(kind) for kind in table.column("error_kind").to_pylist()]
        codes = table.column("error_code").to_numpy().astype(np.int64)
        return _Part(rows, epochs, none, codes, times_us, kinds, nothing, no_check)
    of_files = table.column(FILE_EPOCH).to_numpy().astype(np.int64)
    checks = [str(check) for check in table.column(CHECK).to_pylist()]
    return _Part(rows, epochs, of_files, none, times_us, nothing, checks, ~no_check)


def _joined(tables: Sequence[_Part]) -> _Part:
    """Return the numbers of all parts together, without their texts."""
    empty = _Part(_NO_ROWS, _NO_ROWS, _NO_ROWS, _NO_ROWS, _NO_ROWS, (), (), np.zeros(0, np.bool_))
    rows, epochs, file_epochs, codes, times_us = (
        np.concatenate([getattr(table, name) for table in (empty, *tables)]) for name in _Part._fields[:5]
    )
    are_checks = np.concatenate([table.are_checks for table in (empty, *tables)])
    return _Part(rows, epochs, file_epochs, codes, times_us, (), (), are_checks)


def _newest(rows: IntArray, epochs: IntArray) -> IntArray:
    """Return where the newest outcome of each row is, in the order of the row numbers."""
    order = np.lexsort((epochs, rows))
    last = np.append(rows[order][1:] != rows[order][:-1], np.ones(min(len(rows), 1), np.bool_))
    newest: IntArray = order[last].astype(np.int64)
    return newest


def _keys(rows: IntArray, epochs: IntArray) -> IntArray:
    """Return one number for each pair."""
    return rows * _MOST_EPOCHS + epochs


# ---- files


class RowReader(Protocol):
    """Reads a batch's input rows (schema of the urls files, kept columns included), from any thread."""

    def read(self, batch: BatchRef, columns: Sequence[str] | None = None) -> pa.Table: ...


class EarlierFile(NamedTuple):
    """The file that a row has, and what its server gave to tell whether it has changed."""

    epoch: int
    """The run that it is from."""
    hashsum: str
    url: str
    etag: str
    last_modified: str


class BatchFiles:
    """The files that the rows of a batch have, by index in the batch.

    Args:
        table: (n,) columns of ``EarlierFile``, null for rows that have none.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        # A value of a chunked column costs twice as much.
        self._columns: list[Any] = [table.column(name).combine_chunks() for name in EarlierFile._fields]

    def file(self, place: int) -> EarlierFile | None:
        """Return the file of a row."""
        epoch, *texts = (column[place].as_py() for column in self._columns)
        return None if epoch is None else EarlierFile(epoch, *(text or "" for text in texts))

    def structs(self, places: IntArray) -> pa.StructArray:
        """Return (n,) the files of these rows, with all fields null for rows that have none."""
        table = self.table.take(places)
        columns = [table.column(name).combine_chunks() for name in EarlierFile._fields]
        return pa.StructArray.from_arrays(columns, names=list(EarlierFile._fields))


class EarlierFiles:
    """What rows have already, of the batches of which rows come in; read once per batch. May be used from several
    threads."""

    def __init__(self, layout: Layout, reader: RowReader) -> None:
        self._layout = layout
        self._reader = reader
        self._known: OrderedDict[tuple[int, tuple[str, ...]], BatchFiles] = OrderedDict()
        self._size_bytes = 0
        self._lock = threading.Lock()

    def of(self, batch: BatchRef) -> BatchFiles | None:
        """Return the files of a batch; None where no row that is to be fetched can have one. Raises as
        ``read_columns``, and OutputError: the urls folder cannot be read."""
        # Asked for each URL, of any run: a part's name is not parsed here.
        if not batch.stale_before and not any("/checks-e" in part for part in batch.parts):
            return None
        key = (batch.batch_id, batch.parts)
        with self._lock:
            files = self._known.pop(key, None)
            if files is None:
                files = _files_of(self._layout, batch, self._reader)
                self._size_bytes += files.table.nbytes
            self._known[key] = files
            while self._size_bytes > _CACHE_BYTES and len(self._known) > 1:
                _, dropped = self._known.popitem(last=False)
                self._size_bytes -= dropped.table.nbytes
        return files


def _files_of(layout: Layout, batch: BatchRef, reader: RowReader) -> BatchFiles:
    """Read the newest file of each row, and what the newest check has added to it."""
    files = _newest_rows(layout, batch.parts, "successes", pa.schema(_IN_FILES))
    checks = _newest_rows(layout, batch.parts, "checks", pa.schema(_IN_CHECKS))
    rows, epochs = (files.column(name).to_numpy() for name in (ROW_NUMBER, "epoch"))
    checked = _keys(*(checks.column(name).to_numpy() for name in (ROW_NUMBER, FILE_EPOCH)))
    at = pc.index_in(pa.array(_keys(rows, epochs)), value_set=pa.array(checked))
    newer = checks.take(at)
    columns: dict[str, Any] = {"epoch": files.column("epoch"), "hashsum": files.column("hashsum_original")}
    for name, column in (("url", "final_url"), ("etag", "etag"), ("last_modified", "last_modified")):
        columns[name] = pc.if_else(pc.is_valid(at), newer.column(column), files.column(column))
    numbers = reader.read(batch, [ROW_NUMBER]).column(ROW_NUMBER)
    places = pc.index_in(numbers, value_set=pa.array(rows))
    return BatchFiles(pa.table(columns).take(places).combine_chunks())


def _newest_rows(layout: Layout, parts: Sequence[str], kind: PartKind, schema: pa.Schema) -> pa.Table:
    """Return the newest row of each row number in the parts of a kind, of checks those of unchanged files alone."""
    tables = [schema.empty_table()]
    for part in parts:
        name = part_of(part)
        if name.kind == kind:
            table = read_columns(layout, part, [column for column in schema.names if column != "epoch"])
            if kind == "checks":
                table = table.filter(pc.field(CHECK) == UNCHANGED)
            epochs = pa.array(np.full(len(table), name.epoch, np.int64))
            tables.append(table.append_column("epoch", epochs).cast(schema))
    found = pa.concat_tables(tables)
    return found.take(_newest(found.column(ROW_NUMBER).to_numpy(), found.column("epoch").to_numpy()))


def is_on(servers: pa.ChunkedArray[pa.StringScalar], names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return (n,) which of the rows are on one of these servers."""
    return np.asarray(pc.is_in(servers, value_set=pa.array(names, pa.string())))
