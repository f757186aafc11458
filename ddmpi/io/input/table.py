"""The table of URLs as it comes in: ``open_input``."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ddmpi.config.columns import Source, as_list, kept_sources
from ddmpi.config.input_section import InputSection
from ddmpi.config.row_filter import RowFilter
from ddmpi.core.arrays import IntArray
from ddmpi.core.records import REQUEST_HEADERS
from ddmpi.errors import InputError
from ddmpi.io.input.columns import Shaping
from ddmpi.io.input.mirrors import MIRRORS_FIELD
from ddmpi.io.input.rewriting import Rewriter
from ddmpi.io.input.rows import (
    REQUESTED_FIELD,
    TEXT_COLUMNS,
    BareRows,
    Dictionary,
    UrlFacts,
    as_text,
    asked_urls,
    bare_rows,
    complete,
    url_facts,
    urls_schema,
    without_credentials,
)
from ddmpi.io.input.wanted import Wanted, shape_of
from ddmpi.io.sources.files import InputPath, list_files
from ddmpi.io.sources.joining import ReadRows, join_small
from ddmpi.io.sources.opening import describe, is_known_kind, open_sources
from ddmpi.io.sources.source_file import Reading, SourceFile, naming


class RawRows(NamedTuple):
    """Some rows before they are normalized, and where they stand in the input."""

    path: InputPath | str
    """The file that they are from, or which files if they are joined (see ``raw``)."""
    make: Callable[[], pa.RecordBatch]
    """Makes the rows, with our columns in the types that the files have: once, in the thread that needs them."""
    row_numbers: IntArray
    dropped: int
    """Rows beside these that the filter left out."""
    end: int
    """Where in the input they end, in rows, those that were left out included."""


class InputTable:
    """A table of URLs in one or more files of one kind; made by ``open_input``."""

    def __init__(
        self,
        name: str,
        sources: Sequence[SourceFile],
        *,
        shaping: Shaping,
        first_row: int = 0,
        chosen: IntArray | None = None,
        passed_over: str = "",
    ) -> None:
        self.name = name
        self.passed_over = passed_over
        """What is said of files that lie beside those of the table, and are not read; "" if there are none."""
        self._repairs: list[tuple[str, int]] = []
        self._first_row = first_row
        self._chosen = chosen
        self._shaping = shaping
        self._sources = sources
        self._kept_fields = [field for field in shaping.schema() if field.name not in TEXT_COLUMNS]
        if shaping.keeps_mirrors:
            self._kept_fields.append(MIRRORS_FIELD)
        if shaping.rewriter is not None:
            self._kept_fields.append(REQUESTED_FIELD)
        self.schema = urls_schema(self._kept_fields, has_items=shaping.numbers_items)
        repeated = frozenset.intersection(*(source.repeated for source in sources))
        self._repeated = {ours: theirs for ours, theirs in shaping.plain.items() if theirs in repeated}
        for made_anew in ("identifier", REQUEST_HEADERS):
            self._repeated.pop(made_anew, None)
        if shaping.uuids_repeat:
            self._repeated.pop("uuid", None)
        self._dictionaries = {ours: Dictionary() for ours in sorted(self._repeated)}

    def __repr__(self) -> str:
        return f"<InputTable {self.name}: {len(self._sources)} files, {self.rows or 'unknown'} rows>"

    @property
    def rows(self) -> int | None:
        """The number of rows, before any filter, where it is known without reading (Parquet), else None."""
        if self._chosen is not None:
            return len(self._chosen)
        counts = [source.row_count for source in self._sources]
        known = sum(count for count in counts if count is not None)
        return None if None in counts or self._shaping.items is not None else max(0, known - self._first_row)

    def after(self, rows: int) -> InputTable:
        """Return this table without its first rows; the others keep their numbers."""
        return InputTable(self.name, self._sources, shaping=self._shaping, first_row=rows, passed_over=self.passed_over)

    def only(self, row_numbers: IntArray) -> InputTable:
        """Return this table with no other rows than these (ascending); they keep their numbers."""
        return InputTable(
            self.name, self._sources, shaping=self._shaping, chosen=row_numbers, passed_over=self.passed_over
        )

    @property
    def paths(self) -> list[str]:
        """The names of the files, in order."""
        return [str(source.path) for source in self._sources]

    @property
    def has_headers(self) -> bool:
        """Whether rows bring headers of their own, which may be secrets."""
        return REQUEST_HEADERS in self.schema.names

    @property
    def url_column(self) -> str:
        """The name of the input's column with the URL; ours where it is made of several, or of parts of one."""
        return self._shaping.plain.get("identifier", "identifier")

    def columns_of(self, path: str) -> list[tuple[str, str, str]]:
        """Return name, type and use of each column of a file; the use is "" where there is none."""
        source = next(source for source in self._sources if str(source.path) == path)
        uses = self._shaping.uses()
        return [(field.name, str(field.type), ", ".join(uses.get(field.name, ()))) for field in source.schema]

    def row(self, number: int) -> dict[str, str | None]:
        """Return the texts of one row by the input's names of columns, those that are not used included; without those
        that have no text form. Empty if there is no such row, or rows are made of items. Raises InputError."""
        first_row = 0
        for source in self._sources if self._shaping.items is None else ():
            if source.row_count is not None and first_row + source.row_count <= number:
                first_row += source.row_count
                continue
            for rows in source.batches(source.schema.names):
                if number < first_row + rows.num_rows:
                    row = rows.slice(number - first_row, 1)
                    return {name: _one_text(row.column(name)) for name in row.schema.names}
                first_row += rows.num_rows
        return {}

    @property
    def repaired(self) -> Counter[str]:
        """By column, in how many of the values that ``bare`` has seen something was no UTF-8. URLs are not among them:
        they are refused."""
        counts: Counter[str] = Counter()
        for column, count in self._repairs:
            counts[column] += count
        return counts

    def descriptions(self) -> list[str]:
        """Return how the files are read, a line for those that are read alike."""
        return describe(self._sources, self._shaping.sources_of(list(self._shaping.made)))

    def sample(self) -> pa.RecordBatch | None:
        """Return the first rows, normalized; None if there are none. Raises InputError."""
        first = next(self.raw(), None)
        rows = None if first is None else self.bare(first).rows
        self._repairs.clear()  # the rows come once more
        return rows

    def expected_bytes(self, sample: pa.RecordBatch | None) -> int:
        """Return about how much memory all rows take, given the first of them. Raises InputError. What a file says of
        itself is no more than a hint: values that repeat take next to nothing there."""
        if self._chosen is not None:
            return 0 if not sample else len(self._chosen) * sample.nbytes // sample.num_rows
        columns = self._shaping.sources_of(list(self._shaping.made))
        hint = sum(source.expected_bytes(columns) for source in self._sources)
        rows = self.rows if self._shaping.items is None else self._expected_items()
        if not sample or rows is None:
            return hint
        return max(hint, rows * sample.nbytes // sample.num_rows)

    def _expected_items(self) -> int | None:
        """Return about how many rows all rows become, if the others are like the first; None: it cannot be told."""
        counts = [source.row_count for source in self._sources]
        known = sum(count for count in counts if count is not None)
        columns = self._shaping.url_columns
        first = next(self._sources[0].batches(self._shaping.sources_of(columns)), None)
        if None in counts or not first or not first.num_rows:
            return None
        with naming(self._sources[0].path):
            agreed = self._shaping.agreed(first, self._shaping.sources_of(columns))
            *_, last = self._shaping.shape(agreed, 0, columns)
        return known * last.end // first.num_rows

    def fingerprint(self) -> str:
        """Return a digest of the files' names, sizes, modification times, columns and (Parquet) numbers of rows."""
        facts = [
            [
                source.path.name,
                source.size_bytes,
                source.mtime_ns,
                source.row_count,
                str(source.schema.remove_metadata()),
                *([source.folder_columns] if source.folder_columns else []),
                *([source.unusual] if source.unusual else []),
            ]
            for source in self._sources
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def raw(self, *, urls_only: bool = False, up_to: int | None = None, joined: bool = False) -> Iterator[RawRows]:
        """Yield all rows that are taken, in order, with all columns that matter or only the URLs. Raises InputError.

        Args:
            up_to: end with the rows among which is that before this one.
            joined: have rows of neighboring small files come together: each call of arrow costs some microseconds,
                however few the rows are.
        """
        taken = self._taken(urls_only=urls_only, up_to=up_to, joined=joined)
        return taken if self._chosen is None else _chosen_of(taken, self._chosen)

    def _taken(self, *, urls_only: bool, up_to: int | None, joined: bool) -> Iterator[RawRows]:
        columns = self._shaping.url_columns if urls_only else list(self._shaping.made)
        passed_over, first_row = self._passed_over()
        read = self._read(
            self._sources[passed_over:], columns, [] if urls_only else sorted(set(self._repeated.values()))
        )
        for path, rows in join_small(read) if joined else read:
            if up_to is not None and first_row >= up_to:
                return
            with naming(path):
                for shaped in self._shaping.shape(rows, first_row, columns, self._first_row):
                    first_row = shaped.end
                    if first_row > self._first_row:
                        yield RawRows(path, *shaped)

    def _passed_over(self) -> tuple[int, int]:
        """Return how many files, and rows in them, come before the first row that is taken, as far as it is known."""
        rows = 0
        for place, source in enumerate(self._sources):
            count = None if self._shaping.items is not None else source.row_count
            if count is None or rows + count > self._first_row:
                return place, rows
            rows += count
        return len(self._sources), rows

    def _read(
        self, sources: Sequence[SourceFile], columns: Sequence[str], as_dictionary: Sequence[str]
    ) -> Iterator[ReadRows]:
        wanted = self._shaping.sources_of(columns)
        for source in sources:
            present = wanted if source.schema_is_guessed else [name for name in wanted if name in source.schema.names]
            for rows in source.batches(present, as_dictionary):
                with naming(source.path):
                    agreed = self._shaping.agreed(rows, wanted)
                yield ReadRows(source.path, agreed)

    def urls(self, raw: RawRows, places: pa.Array[Any]) -> pa.Array[Any]:
        """Return what is asked for in some rows of ``raw``, as texts and without passwords. Raises InputError."""
        with naming(raw.path):
            texts, _ = as_text(asked_urls(raw.make()).take(places))
            return without_credentials(texts)

    def servers(self, raw: RawRows) -> UrlFacts:
        """Return what is known of each row's URL. Raises InputError; may be called from any thread."""
        with naming(raw.path):
            return url_facts(raw.make())

    def bare(self, raw: RawRows, refused: pa.Array[Any] | None = None) -> BareRows:
        """Return what ``raw`` gave, normalized (see ``rows``). Raises InputError; may be called from any thread."""
        with naming(raw.path):
            return bare_rows(
                raw.make(), raw.row_numbers, self._kept_fields, self._dictionaries, refused=refused,
                uuids_repeat=self._shaping.uuids_repeat,
                on_repaired=lambda column, count: self._repairs.append((column, count)),
            )  # fmt: skip

    def complete(self, bare: pa.Table, servers: pa.Array[Any]) -> pa.Table:
        """Return rows of ``schema``, from bare ones and the names of their servers. May be called from any thread."""
        return complete(bare, servers, self.schema, self._dictionaries)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows, in order, with the columns of ``schema``. Raises InputError."""
        for raw in self.raw():
            bare = self.bare(raw)
            servers = bare.servers.cast(pa.string())
            yield from self.complete(pa.Table.from_batches([bare.rows]), servers).to_batches()


def _chosen_of(taken: Iterator[RawRows], chosen: IntArray) -> Iterator[RawRows]:
    """Yield the chosen ones of some rows; none are counted as left out by the filter."""
    last = int(chosen[-1]) if len(chosen) else -1
    for raw in taken:
        is_chosen = np.isin(raw.row_numbers, chosen)
        if is_chosen.any():
            make = partial(_made_and_chosen, raw.make, pa.array(is_chosen))
            yield RawRows(raw.path, make, raw.row_numbers[is_chosen], 0, raw.end)
        if raw.end > last:
            return


def _made_and_chosen(make: Callable[[], pa.RecordBatch], is_chosen: pa.Array[Any]) -> pa.RecordBatch:
    return make().filter(is_chosen)


def _one_text(values: pa.Array[Any]) -> str | None:
    if pa.types.is_nested(values.type):
        return None
    text: str | None = without_credentials(as_text(values)[0])[0].as_py()
    return text


def open_input(
    path: str,
    columns: Mapping[str, Source | Sequence[Source]],
    keep_columns: str | Sequence[str] | Mapping[str, Source | Sequence[Source]],
    row_filter: RowFilter | None = None,
    reading: InputSection = InputSection(),  # noqa: B008  # frozen
    *,
    base_url: str | None = None,
    required: Collection[str] = (),
    mirrors: bool = False,
    rewriter: Rewriter | None = None,
) -> InputTable:
    """Open a file, folder or glob.

    Args:
        columns: what our columns (see ``TEXT_COLUMNS``) are made of; identifier is among them, by default the column
            of this name. One that is made of nothing that exists is null. Beside them headers, which must exist.
        keep_columns: what is carried along beside them, as in the config.
        reading: how the files are read.
        base_url: what relative URLs are resolved against.
        required: names of ours for which all that they name must exist; identifier is one of them if it names one.
        mirrors: whether the further values of identifier are kept (see ``mirrors``).
        rewriter: makes other URLs of them, which are asked for.

    Raises:
        InputError: no file, an unknown kind, a damaged file, missing columns, or types that do not fit.
    """
    named = {name: as_list(columns[name]) for name in TEXT_COLUMNS if name in columns}
    named.setdefault("identifier", ["identifier"])
    if "headers" in columns:
        named[REQUEST_HEADERS] = as_list(columns["headers"])
        required = {REQUEST_HEADERS, *required}
    wanted = Wanted(named, kept_sources(keep_columns), row_filter, base_url, frozenset(required))
    listing = list_files(path, is_known_kind)
    sources = open_sources(listing.files, Reading(reading, wanted.url_column, wanted.may_come_late))
    guessed = [source for source in sources if source.schema_is_guessed]
    try:
        if wanted.kept is None:
            _look_through(guessed)
        shaping = shape_of(wanted, sources)
    except InputError:
        if not guessed:
            raise
        _look_through(guessed)
        shaping = shape_of(wanted, sources)
    for source in guessed:
        source.read_as(shaping.types)
    shaping = replace(shaping, has_mirrors=mirrors, rewriter=rewriter)
    if rewriter is not None and rewriter.needs_ids and "source_id" not in shaping.made:
        raise InputError(f"{path}: servers.rewrite: gbif-cache needs the column gbifID, as columns.source_id")
    return InputTable(path, sources, shaping=shaping, passed_over=listing.told())


def _look_through(sources: Sequence[SourceFile]) -> None:
    """What is not seen at once may come later: only then can it be said that it is missing."""
    for source in sources:
        source.look_through()
