"""What has become of files, read back from the results when all is final: compared with what the table promised of
them, and with what they were before a refresh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.core.licenses import spdx_of
from ddmpi.core.records import BatchRef
from ddmpi.core.stats.comparison import REFRESHED, Comparison, class_of_error, class_of_success
from ddmpi.io.folder.durable import csv_bytes, write_atomically
from ddmpi.io.folder.layout import Layout, part_of
from ddmpi.io.folder.markers import parts_of
from ddmpi.io.results.damage import read_columns
from ddmpi.io.results.outcomes import outcomes_of, superseded_rows
from ddmpi.io.results.promises import promises_of
from ddmpi.io.results.schema import MISMATCH, ROW_NUMBER
from ddmpi.roles.coordinator.run_state import TOUCH_BATCHES, RunState

OTHER: Final = "other"
MOST_TEXTS: Final = 1_000
"""Licenses that are no known ones and have lines of their own: where each row names its author, there are as many as
rows."""
_MOST_CHARS: Final = 200


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
    return _written(state, Comparison(), _classes, state.layout.comparison)


def refreshed(state: RunState) -> Comparison:
    """Return what the refresh of this run, and of those before it that it goes on with, has found of all files, and
    write it to refresh.csv. Raises as ``compare``."""
    return _written(state, Comparison(REFRESHED), _found, state.layout.refreshed)


def _written(
    state: RunState,
    found: Comparison,
    classes_of: Callable[[RunState, BatchRef, Licenses], Iterator[tuple[str, str, str]]],
    path: Path,
) -> Comparison:
    licenses = Licenses()
    for batch_id in range(len(state.table)):
        if batch_id % TOUCH_BATCHES == 0 and state.lock is not None:
            state.lock.touch()
        found.add(classes_of(state, state.table.ref(batch_id), licenses))
    names = ("server_name", "license", "rows", *found.classes)
    lines = ((line.server_name, line.license, line.rows, *line.counts) for line in found.lines())
    write_atomically(path, csv_bytes(names, lines), state.layout.temporary)
    return found


def _found(state: RunState, batch: BatchRef, names: Licenses) -> Iterator[tuple[str, str, str]]:
    """Yield server, license and class of the rows of a batch whose files were asked for since the refresh began."""
    parts = parts_of(state.layout, batch)
    outcomes = outcomes_of(state.layout, parts, times=True)
    is_found = (outcomes.file_epochs > 0) & (outcomes.times_us >= round(state.stale_before * 1e6))
    if not is_found.any():
        return
    files = [part for part in parts if part_of(part).kind == "successes"]
    replaced = np.concatenate([np.empty(0, np.int64), *superseded_rows(state.layout, files).values()])
    is_changed = np.isin(outcomes.rows, replaced).tolist()
    inputs = state.reader.read(batch, [ROW_NUMBER, "server_name", "license"])
    places = _places(inputs, outcomes.rows)
    servers, licenses = (inputs.column(name).to_pylist() for name in ("server_name", "license"))
    for at in np.flatnonzero(is_found).tolist():
        class_ = outcomes.checks[at] or ("changed" if is_changed[at] else "new")
        yield servers[places[at]] or "", names.name_of(licenses[places[at]] or ""), class_


def _places(inputs: pa.Table, rows: IntArray) -> list[int]:
    """Return where these row numbers are in the input."""
    numbers = inputs.column(ROW_NUMBER).to_numpy()
    order = np.argsort(numbers)
    places: list[int] = order[np.searchsorted(numbers[order], rows)].tolist()
    return places


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
    places = _places(inputs, outcomes.rows)
    servers, licenses = (inputs.column(name).to_pylist() for name in ("server_name", "license"))
    is_promised, marks = promised.to_pylist(), _marks(state.layout, parts)
    files = zip(outcomes.rows.tolist(), outcomes.file_epochs.tolist(), strict=True)
    rows = zip(files, places, outcomes.kinds, outcomes.codes.tolist(), strict=True)
    for file, place, kind, code in rows:
        if kind:
            class_ = class_of_error(kind, code)
        else:
            class_ = class_of_success(marks.get(file), is_promised=is_promised[place])
        yield servers[place] or "", names.name_of(licenses[place] or ""), class_


def _marks(layout: Layout, parts: tuple[str, ...]) -> dict[tuple[int, int], str]:
    """Return what is not as promised, by row number and run."""
    marks: dict[tuple[int, int], str] = {}
    for part in parts:
        if part_of(part).kind == "successes" and MISMATCH in pq.read_schema(layout.root / part).names:
            table = read_columns(layout, part, [ROW_NUMBER, MISMATCH])
            told = table.filter(pc.is_valid(table.column(MISMATCH))).to_pylist()
            marks |= {(row[ROW_NUMBER], part_of(part).epoch): row[MISMATCH] for row in told}
    return marks
