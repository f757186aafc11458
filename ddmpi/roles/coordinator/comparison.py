"""The comparison of the files with what the table promised of them, read back from the results when all is final."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddmpi.core.licenses import spdx_of
from ddmpi.core.records import BatchRef
from ddmpi.core.stats.comparison import CLASSES, Comparison, class_of_error, class_of_success
from ddmpi.io.folder.durable import csv_bytes, write_atomically
from ddmpi.io.folder.layout import Layout, part_of
from ddmpi.io.folder.markers import parts_of
from ddmpi.io.results.damage import read_columns
from ddmpi.io.results.outcomes import outcomes_of
from ddmpi.io.results.promises import promises_of
from ddmpi.io.results.schema import MISMATCH, ROW_NUMBER
from ddmpi.roles.coordinator.run_state import RunState

OTHER: Final = "other"
MOST_TEXTS: Final = 1_000
"""Licenses that are no known ones and have lines of their own: where each row names its author, there are as many as
rows."""
_MOST_CHARS: Final = 200
_TOUCH_BATCHES: Final = 1_000
"""Between heartbeats of the lock: some seconds, of the minutes that they may take."""


class Licenses:
    """Names the licenses of the lines."""

    def __init__(self) -> None:
        self._texts: set[str] = set()

    def name_of(self, text: str) -> str:
        """Return the SPDX identifier, or the text where it names none, or ``OTHER`` after ``MOST_TEXTS`` of these."""
        named = spdx_of(text)
        if named is not None:
            return named
        text = text[:_MOST_CHARS]
        if len(self._texts) < MOST_TEXTS:
            self._texts.add(text)
        return text if not text or text in self._texts else OTHER


def compare(state: RunState) -> Comparison:
    """Return what has become of all rows that have an outcome, and write it to comparison.csv.

    Raises:
        StorageError: a part cannot be read, or the file not be written.
        OutputError: the urls folder cannot be read.
    """
    found, licenses = Comparison(), Licenses()
    for batch_id in range(len(state.table)):
        if batch_id % _TOUCH_BATCHES == 0 and state.lock is not None:
            state.lock.touch()
        found.add(_classes(state, state.table.ref(batch_id), licenses))
    names = ("server_name", "license", "rows", *CLASSES)
    lines = ((line.server_name, line.license, line.rows, *line.counts) for line in found.lines())
    write_atomically(state.layout.comparison, csv_bytes(names, lines), state.layout.temporary)
    return found


def _classes(state: RunState, batch: BatchRef, names: Licenses) -> Iterator[tuple[str, str, str]]:
    """Yield server, license and class of the rows of a batch."""
    parts = parts_of(state.layout, batch)
    outcomes = outcomes_of(state.layout, parts)
    if not len(outcomes.rows):
        return
    expected = state.config.expected
    inputs = state.reader.read(batch, [ROW_NUMBER, "server_name", "license", *expected.columns])
    promises = promises_of(expected, inputs, state.config.downloader_parameters.hash_algorithm)
    promised: Any = pc.or_(pc.is_valid(promises.column("size")), pc.is_valid(promises.column("digest")))
    numbers = inputs.column(ROW_NUMBER).to_numpy()
    order = np.argsort(numbers)
    places = order[np.searchsorted(numbers[order], outcomes.rows)].tolist()
    servers, licenses = (inputs.column(name).to_pylist() for name in ("server_name", "license"))
    is_promised, marks = promised.to_pylist(), _marks(state.layout, parts)
    rows = zip(outcomes.rows.tolist(), places, outcomes.kinds, outcomes.codes.tolist(), strict=True)
    for number, place, kind, code in rows:
        if kind:
            class_ = class_of_error(kind, code)
        else:
            class_ = class_of_success(marks.get(number), is_promised=is_promised[place])
        yield servers[place] or "", names.name_of(licenses[place] or ""), class_


def _marks(layout: Layout, parts: tuple[str, ...]) -> dict[int, str]:
    """Return what is not as promised, by row number."""
    marks: dict[int, str] = {}
    for part in parts:
        if part_of(part).kind == "successes" and MISMATCH in pq.read_schema(layout.root / part).names:
            table = read_columns(layout, part, [ROW_NUMBER, MISMATCH])
            told = table.filter(pc.is_valid(table.column(MISMATCH))).to_pylist()
            marks |= {row[ROW_NUMBER]: row[MISMATCH] for row in told}
    return marks
