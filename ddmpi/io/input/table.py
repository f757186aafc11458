"""The table of URLs as it comes in: ``open_input``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from ddmpi.config.columns import Source, as_list, kept_sources
from ddmpi.config.row_filter import RowFilter
from ddmpi.core.arrays import IntArray
from ddmpi.errors import InputError
from ddmpi.io.input.columns import Shaping
from ddmpi.io.input.files import InputPath, list_files
from ddmpi.io.input.formats import SourceFile, is_known_kind, naming, open_source
from ddmpi.io.input.rows import (
    TEXT_COLUMNS,
    BareRows,
    Dictionary,
    UrlFacts,
    bare_rows,
    complete,
    url_facts,
    urls_schema,
)
from ddmpi.io.input.wanted import Wanted, shape_of


class RawRows(NamedTuple):
    """Some rows before they are normalized, and where they stand in the input."""

    path: InputPath
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
    ) -> None:
        self.name = name
        self._first_row = first_row
        self._shaping = shaping
        self._sources = sources
        self._kept_fields = [field for field in shaping.schema() if field.name not in TEXT_COLUMNS]
        self.schema = urls_schema(self._kept_fields, has_items=shaping.numbers_items)
        repeated = frozenset.intersection(*(source.repeated for source in sources))
        self._repeated = {ours: theirs for ours, theirs in shaping.plain.items() if theirs in repeated}
        self._repeated.pop("identifier", None)
        self._dictionaries = {ours: Dictionary() for ours in sorted(self._repeated)}

    def __repr__(self) -> str:
        return f"<InputTable {self.name}: {len(self._sources)} files, {self.rows or 'unknown'} rows>"

    @property
    def rows(self) -> int | None:
        """The number of rows, before any filter, where it is known without reading (Parquet), else None."""
        counts = [source.row_count for source in self._sources]
        known = sum(count for count in counts if count is not None)
        return None if None in counts or self._shaping.items is not None else max(0, known - self._first_row)

    def after(self, rows: int) -> InputTable:
        """Return this table without its first rows; the others keep their numbers."""
        return InputTable(self.name, self._sources, shaping=self._shaping, first_row=rows)

    def sample(self) -> pa.RecordBatch | None:
        """Return the first rows, normalized; None if there are none. Raises InputError."""
        first = next(self.raw(), None)
        return None if first is None else self.bare(first).rows

    def expected_bytes(self, sample: pa.RecordBatch | None) -> int:
        """Return about how much memory all rows take, given the first of them. Raises InputError. What a file says of
        itself is no more than a hint: values that repeat take next to nothing there."""
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
        first = next(self._sources[0].batches(self._shaping.sources_of(["identifier"])), None)
        if None in counts or not first or not first.num_rows:
            return None
        with naming(self._sources[0].path):
            *_, last = self._shaping.shape(first, 0, ["identifier"])
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
            ]
            for source in self._sources
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def raw(self, *, urls_only: bool = False, up_to: int | None = None) -> Iterator[RawRows]:
        """Yield all rows that are taken, in order, with all columns that matter or only the URLs. Raises InputError.
        Ends with the rows among which is that before row ``up_to``, if it is given."""
        columns = ["identifier"] if urls_only else list(self._shaping.made)
        wanted = self._shaping.sources_of(columns)
        as_dictionary = [] if urls_only else sorted(set(self._repeated.values()))
        first_row = 0
        for source in self._sources:
            count = None if self._shaping.items is not None else source.row_count
            if count is not None and first_row + count <= self._first_row:
                first_row += count
                continue
            present = [name for name in wanted if source.schema_is_guessed or name in source.schema.names]
            for rows in source.batches(present, as_dictionary):
                if up_to is not None and first_row >= up_to:
                    return
                with naming(source.path):
                    for shaped in self._shaping.shape(rows, first_row, columns, self._first_row):
                        first_row = shaped.end
                        if first_row > self._first_row:
                            yield RawRows(source.path, *shaped)

    def servers(self, raw: RawRows) -> UrlFacts:
        """Return what is known of each row's URL. Raises InputError; may be called from any thread."""
        with naming(raw.path):
            return url_facts(raw.make())

    def bare(self, raw: RawRows, refused: pa.Array[Any] | None = None) -> BareRows:
        """Return what ``raw`` gave, normalized (see ``rows``). Raises InputError; may be called from any thread."""
        with naming(raw.path):
            return bare_rows(raw.make(), raw.row_numbers, self._kept_fields, self._dictionaries, refused=refused)

    def complete(self, bare: pa.Table, servers: pa.Array[Any]) -> pa.Table:
        """Return rows of ``schema``, from bare ones and the names of their servers. May be called from any thread."""
        return complete(bare, servers, self.schema, self._dictionaries, uuids_repeat=self._shaping.uuids_repeat)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows, in order, with the columns of ``schema``. Raises InputError."""
        for raw in self.raw():
            bare = self.bare(raw)
            servers = bare.servers.cast(pa.string())
            yield from self.complete(pa.Table.from_batches([bare.rows]), servers).to_batches()


def open_input(
    path: str,
    columns: Mapping[str, Source | Sequence[Source]],
    keep_columns: str | Sequence[str] | Mapping[str, Source | Sequence[Source]],
    row_filter: RowFilter | None = None,
    *,
    base_url: str | None = None,
    required: Collection[str] = (),
) -> InputTable:
    """Open a file, folder or glob.

    Args:
        columns: what our columns (see ``TEXT_COLUMNS``) are made of; identifier is among them, by default the column
            of this name. One that is made of nothing that exists is null.
        keep_columns: what is carried along beside them, as in the config.
        base_url: what relative URLs are resolved against.
        required: names of ours for which all that they name must exist; identifier is one of them if it names one.

    Raises:
        InputError: no file, an unknown kind, a damaged file, missing columns, or types that do not fit.
    """
    named = {name: as_list(columns[name]) for name in TEXT_COLUMNS if name in columns}
    named.setdefault("identifier", ["identifier"])
    wanted = Wanted(named, kept_sources(keep_columns), row_filter, base_url, frozenset(required))
    sources = [open_source(file, wanted.url_column, wanted.may_come_late) for file in list_files(path, is_known_kind)]
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
    return InputTable(path, sources, shaping=shaping)


def _look_through(sources: Sequence[SourceFile]) -> None:
    """What is not seen at once may come later: only then can it be said that it is missing."""
    for source in sources:
        source.look_through()
