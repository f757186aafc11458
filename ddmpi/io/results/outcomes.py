"""Which rows of a batch have an outcome, read back from its parts: where a restart goes on.

Of several outcomes of a row the newest epoch's counts; the older ones are errors that were fetched again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.arrays import IntArray
from ddmpi.core.partition.server_patterns import matching_servers
from ddmpi.core.rules.retry_filter import choice_of
from ddmpi.io.folder.layout import Layout, part_of
from ddmpi.io.results.damage import read_columns
from ddmpi.io.results.schema import ROW_NUMBER


@dataclass(frozen=True)
class Outcomes:
    """The outcomes that count, by row number, each once."""

    rows: IntArray
    """(n,) sorted row numbers."""
    kinds: Sequence[str]
    """(n,) the error's kind, "" for a success."""
    codes: IntArray
    """(n,) the error's code, 0 for a success."""
    epochs: IntArray
    """(n,) the run that it is from."""

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


def outcomes_of(layout: Layout, parts: Sequence[str]) -> Outcomes:
    """Return the outcomes in these parts (paths relative to the output folder). Raises as ``read_columns``."""
    tables = [_read(layout, part) for part in parts]
    rows = np.concatenate([table[0] for table in tables] or [np.empty(0, np.int64)])
    epochs = np.repeat([part_of(part).epoch for part in parts], [len(table[0]) for table in tables]).astype(np.int64)
    kinds = [kind for table in tables for kind in table[1]]
    codes = np.concatenate([table[2] for table in tables] or [np.empty(0, np.int64)])
    order = np.lexsort((epochs, rows))
    newest = order[np.append(rows[order][1:] != rows[order][:-1], np.ones(min(len(rows), 1), np.bool_))]
    return Outcomes(rows[newest], [kinds[i] for i in newest.tolist()], codes[newest], epochs[newest])


def superseded_rows(layout: Layout, parts: Sequence[str]) -> dict[int, IntArray]:
    """Return by epoch the rows of a batch whose outcomes a later epoch has replaced; parts as for ``outcomes_of``.

    Opens no part where all are of one epoch, since a run gives a row one outcome. Raises as ``read_columns``.
    """
    of_parts = [part_of(part).epoch for part in parts]
    if len(set(of_parts)) < 2:
        return {}
    numbers = [read_columns(layout, part, [ROW_NUMBER]).column(ROW_NUMBER).to_numpy() for part in parts]
    rows = np.concatenate(numbers)
    epochs = np.repeat(of_parts, [len(each) for each in numbers]).astype(np.int64)
    order = np.lexsort((epochs, rows))
    rows, epochs = rows[order], epochs[order]
    newest = epochs[np.searchsorted(rows, rows, side="right") - 1]
    old = epochs < newest
    return {int(epoch): rows[old & (epochs == epoch)] for epoch in np.unique(epochs[old])}


def _read(layout: Layout, part: str) -> tuple[IntArray, list[str], IntArray]:
    """Return row numbers, kinds and codes of one part."""
    is_errors = part_of(part).kind == "errors"
    table = read_columns(layout, part, [ROW_NUMBER, "error_kind", "error_code"] if is_errors else [ROW_NUMBER])
    rows: IntArray = table.column(ROW_NUMBER).to_numpy()
    if not is_errors:
        return rows, [""] * len(rows), np.zeros(len(rows), np.int64)
    kinds = [str(kind) for kind in table.column("error_kind").to_pylist()]
    return rows, kinds, table.column("error_code").to_numpy().astype(np.int64)


def is_on(servers: pa.ChunkedArray[pa.StringScalar], names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return (n,) which of the rows are on one of these servers."""
    return np.asarray(pc.is_in(servers, value_set=pa.array(names, pa.string())))
