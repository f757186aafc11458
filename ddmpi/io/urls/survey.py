"""The account of an input before anything is done with it: rows, refusals, URLs and servers, file by file.

It reads the URLs of all rows once, as the first step of the partition does, and writes nothing. Memory is bounded: of
rows only counts and a few examples are kept, of URLs hashes (see ``distinct_count``), of servers names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.partition.distinct_count import DistinctCount
from ddmpi.core.rules.url_advice import advice
from ddmpi.core.rules.urls import Parsed, parse_url
from ddmpi.errors import InputError, Interrupted
from ddmpi.io.input.table import InputTable, RawRows
from ddmpi.io.urls.server_tally import REFUSED, ServerTally
from ddmpi.io.urls.workers import Workers, recycled_memory

SHOWN_URLS: Final = 3
_HASH_BYTES: Final = 64
"""What a different URL may take of the budget while they are counted."""
_SHOWN_CHARS: Final = 120
_LOOKED_AT: Final = 1 << 21
"""Rows in which examples of refused ones are looked for."""


class Example(NamedTuple):
    """A row that is refused, by its number (from 0), and what it has for a URL."""

    row_number: int
    url: str | None

    def __str__(self) -> str:
        return f"row {self.row_number:,}: {_shown(self.url)}"


@dataclass
class Refusals:
    """Refused rows by reason, the first word of it, and an example of each."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, Example] = field(default_factory=dict)
    hints: dict[str, str] = field(default_factory=dict)
    """By reason, what the user may have meant, if that can be guessed."""

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def lines(self) -> Iterator[str]:
        """Yield a line for each reason, the most frequent first."""
        for reason, count in sorted(self.counts.items(), key=lambda item: -item[1]):
            example = f", e.g. {self.examples[reason]}" if reason in self.examples else ""
            yield f"{reason} {count:,}{example}"
        for hint in sorted({hint for hint in self.hints.values() if hint}):
            yield f"perhaps {hint}"


@dataclass
class FileAccount:
    """What one file of the input holds."""

    path: str
    rows: int = 0
    """Those that are taken, refused ones included."""
    filtered: int = 0
    """Those that the filter leaves out."""
    first_filtered: int | None = None
    """The number of the first row that the filter leaves out."""
    refusals: Refusals = field(default_factory=Refusals)
    urls: list[str] = field(default_factory=list)
    """The first ones, as they will be asked."""


@dataclass
class Survey:
    """What an input holds."""

    files: list[FileAccount]
    servers: ServerTally
    urls: DistinctCount

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def refused(self) -> int:
        return int(self.servers.rows[REFUSED])

    @property
    def server_count(self) -> int:
        return len(self.servers.names) - 1

    @property
    def refusals(self) -> Refusals:
        """Those of all files, with the first examples."""
        found = Refusals()
        for file in self.files:
            for reason, count in file.refusals.counts.items():
                found.counts[reason] = found.counts.get(reason, 0) + count
                found.examples.setdefault(reason, file.refusals.examples[reason])
                found.hints.setdefault(reason, file.refusals.hints.get(reason, ""))
        return found


class _Looked(NamedTuple):
    raw: RawRows
    servers: pa.DictionaryArray[Any, Any]
    rejects: pa.Array[Any]
    hashes: Any


def survey(
    table: InputTable,
    memory_bytes: int,
    *,
    on_rows: Callable[[int], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Survey:
    """Read the URLs of all rows.

    Args:
        on_rows: told how many rows are read.

    Raises:
        InputError: the input is damaged.
        Interrupted: ``should_stop`` turned true.
    """
    files = {path: FileAccount(path) for path in table.paths}
    found = Survey(list(files.values()), ServerTally(), DistinctCount(max(1, memory_bytes // _HASH_BYTES)))

    def look(raw: RawRows) -> _Looked:
        return _Looked(raw, *table.servers(raw))

    rows = 0
    with recycled_memory(), closing(Workers()) as workers:
        for looked in workers.map(look, table.raw(urls_only=True)):
            if should_stop():
                raise Interrupted("stopped while the input was read")
            _add(table, files[str(looked.raw.path)], looked)
            found.servers.add(looked.servers, looked.rejects)
            if found.servers.is_full:
                found.servers.fold()
            found.urls.add(looked.hashes[np.asarray(pc.is_valid(looked.servers))])
            rows = looked.raw.end
            on_rows(rows)
        found.servers.fold()
    _add_hints(table, [file.refusals for file in found.files])
    return found


def _add(table: InputTable, file: FileAccount, looked: _Looked) -> None:
    raw = looked.raw
    file.rows += len(raw.row_numbers)
    if raw.dropped and file.first_filtered is None:
        file.first_filtered = _first_missing(raw)
    file.filtered += raw.dropped
    if looked.servers.null_count:
        _add_refused(table, file.refusals, raw, looked.rejects)
    if len(file.urls) < SHOWN_URLS and looked.servers.null_count < len(looked.servers):
        places = np.flatnonzero(np.asarray(pc.is_valid(looked.servers)))[: SHOWN_URLS - len(file.urls)]
        parsed = map(parse_url, table.urls(raw, pa.array(places)).to_pylist())
        file.urls += [url.url for url in parsed if isinstance(url, Parsed)]


def _first_missing(raw: RawRows) -> int:
    """Return the number of the first row of this batch that the filter left out."""
    first = raw.end - len(raw.row_numbers) - raw.dropped
    gaps = np.flatnonzero(raw.row_numbers != np.arange(first, first + len(raw.row_numbers)))
    return first + (int(gaps[0]) if len(gaps) else len(raw.row_numbers))


def _add_refused(table: InputTable, refusals: Refusals, raw: RawRows, rejects: pa.Array[Any]) -> None:
    counted = pc.value_counts(rejects.drop_null())
    for text, count in zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True):
        reason = str(text).partition(":")[0]
        refusals.counts[reason] = refusals.counts.get(reason, 0) + int(count or 0)
        if reason not in refusals.examples:
            place = pc.index(rejects, text).as_py()
            refusals.examples[reason] = Example(
                int(raw.row_numbers[place]), table.urls(raw, pa.array([place]))[0].as_py()
            )


def _add_hints(table: InputTable, accounts: list[Refusals]) -> None:
    """Find out what may have been meant, from the whole row of the first example of each reason."""
    wanted: dict[str, int] = {}
    for refusals in accounts:
        for reason, example in refusals.examples.items():
            wanted.setdefault(reason, example.row_number)
    hints = {}
    for reason, number in wanted.items():
        if number < _LOOKED_AT:
            row = table.row(number)
            column = table.url_column
            hints[reason] = advice(row.get(column), column, {name: row[name] for name in row if name != column})
    for refusals in accounts:
        refusals.hints = {reason: hints.get(reason, "") for reason in refusals.counts}


def is_mostly_refused(rows: int, refused: int) -> bool:
    """Return whether more than half of the rows are refused: so many are a mistake in the config, not in the table."""
    return 2 * refused > rows


def check_refused(table: InputTable, rows: int, refused: Mapping[str, int]) -> None:
    """Raise InputError if more than half of the rows are refused, with reasons, examples and what may have been meant.

    Args:
        rows: of the table, those that the filter leaves out not counted.
        refused: how many of them are refused, by reason.
    """
    if not is_mostly_refused(rows, sum(refused.values())):
        return
    refusals = _with_examples(table, refused)
    _add_hints(table, [refusals])
    raise InputError(refused_text(table.name, rows, refusals))


def refused_text(name: str, rows: int, refusals: Refusals, *, with_reasons: bool = True) -> str:
    """Return what is said of a table of which too many rows are refused."""
    share = "all" if refusals.total == rows else f"{refusals.total:,} of"
    lines = [f"{name}: {share} {rows:,} rows are refused: what they have for a URL cannot be asked for"]
    lines += [f"  {line}" for line in refusals.lines() if with_reasons]
    return "\n".join([*lines, "allow_refused: true takes the table as it is: these rows become errors"])


def _with_examples(table: InputTable, refused: Mapping[str, int]) -> Refusals:
    """Return the counts, with examples from the first rows of the table."""
    found = Refusals()
    for raw in table.raw(urls_only=True):
        _add_refused(table, found, raw, table.servers(raw).rejects)
        if raw.end > _LOOKED_AT or found.examples.keys() >= refused.keys():
            break
    found.counts = dict(refused)
    return found


def _shown(url: str | None) -> str:
    if url is None:
        return "nothing"
    return repr(url if len(url) <= _SHOWN_CHARS else f"{url[:_SHOWN_CHARS]}...")
