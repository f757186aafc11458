"""The table of URLs as it comes in: ``open_input``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa

from ddmpi.config.row_filter import RowFilter
from ddmpi.core.arrays import IntArray
from ddmpi.errors import InputError
from ddmpi.io.input.columns import Shaping, joined_name
from ddmpi.io.input.files import InputPath, list_files
from ddmpi.io.input.formats import SourceFile, is_known_kind, naming, open_source
from ddmpi.io.input.mirrors import MIRRORS_FIELD
from ddmpi.io.input.rows import (
    BASE_COLUMNS,
    TEXT_COLUMNS,
    BareRows,
    Dictionary,
    UrlFacts,
    bare_rows,
    complete,
    is_text,
    url_facts,
    urls_schema,
)


class RawRows(NamedTuple):
    """Some rows with the types that their file has, and where they stand in the input."""

    path: InputPath
    rows: pa.RecordBatch
    row_numbers: IntArray
    dropped: int
    """Rows beside these that the filter left out."""
    end: int
    """Where in the input they end, in rows, those that were left out included."""


class InputTable:
    """A table of URLs in one or more files of one kind; made by ``open_input``. ``texts`` maps our names of columns to
    the input's, without those that the input does not have."""

    def __init__(
        self,
        name: str,
        sources: Sequence[SourceFile],
        *,
        texts: Mapping[str, str],
        keep: Sequence[str],
        shaping: Shaping,
        first_row: int = 0,
    ) -> None:
        self.name = name
        self._first_row = first_row
        self._shaping = shaping
        self._sources = sources
        self._texts = dict(texts)
        self._keep = list(keep)
        self._kept_fields = [sources[0].schema.field(column) for column in keep]
        if shaping.mirrored is not None:
            self._kept_fields.append(MIRRORS_FIELD)
        self.schema = urls_schema(self._kept_fields)
        repeated = frozenset.intersection(*(source.repeated for source in sources)) - {self._texts["identifier"]}
        self._dictionaries = {column: Dictionary() for column in sorted(repeated.intersection(self._columns()))}

    def __repr__(self) -> str:
        return f"<InputTable {self.name}: {len(self._sources)} files, {self.rows or 'unknown'} rows>"

    @property
    def rows(self) -> int | None:
        """The number of rows, before any filter, where it is known without reading (Parquet), else None."""
        counts = [source.row_count for source in self._sources]
        known = sum(count for count in counts if count is not None)
        return None if None in counts else max(0, known - self._first_row)

    def after(self, rows: int) -> InputTable:
        """Return this table without its first rows; the others keep their numbers."""
        return InputTable(
            self.name, self._sources, texts=self._texts, keep=self._keep, shaping=self._shaping, first_row=rows
        )

    def sample(self) -> pa.RecordBatch | None:
        """Return the first rows, normalized; None if there are none. Raises InputError."""
        first = next(self.raw(), None)
        return None if first is None else self.bare(first).rows

    def expected_bytes(self, sample: pa.RecordBatch | None) -> int:
        """Return about how much memory all rows take, given the first of them. Raises InputError. What a file says of
        itself is no more than a hint: values that repeat take next to nothing there."""
        columns = self._shaping.sources_of(self._columns())
        hint = sum(source.expected_bytes(columns) for source in self._sources)
        if not sample or self.rows is None:
            return hint
        return max(hint, self.rows * sample.nbytes // sample.num_rows)

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
        columns = [self._texts["identifier"]] if urls_only else self._columns()
        as_dictionary = [] if urls_only else list(self._dictionaries)
        first_row = 0
        for source in self._sources:
            if source.row_count is not None and first_row + source.row_count <= self._first_row:
                first_row += source.row_count
                continue
            for rows in source.batches(self._shaping.sources_of(columns), as_dictionary):
                if up_to is not None and first_row >= up_to:
                    return
                end = first_row + rows.num_rows
                known = max(0, self._first_row - first_row)
                if known < rows.num_rows:
                    with naming(source.path):
                        taken, numbers = self._shaping.shape(rows.slice(known), first_row + known, columns)
                    yield RawRows(source.path, taken, numbers, rows.num_rows - known - len(numbers), end)
                first_row = end

    def servers(self, raw: RawRows) -> UrlFacts:
        """Return what is known of each row's URL. Raises InputError; may be called from any thread."""
        with naming(raw.path):
            return url_facts(raw.rows.column(self._texts["identifier"]))

    def bare(self, raw: RawRows, refused: pa.Array[Any] | None = None) -> BareRows:
        """Return what ``raw`` gave, normalized (see ``rows``). Raises InputError; may be called from any thread."""
        with naming(raw.path):
            return bare_rows(
                raw.rows, raw.row_numbers, self._texts, self._kept_fields, self._dictionaries, refused=refused
            )

    def complete(self, bare: pa.Table, servers: pa.Array[Any]) -> pa.Table:
        """Return rows of ``schema``, from bare ones and the names of their servers. May be called from any thread."""
        named = {**self._texts, **{column: column for column in self._keep}}
        dictionaries = {ours: self._dictionaries[name] for ours, name in named.items() if name in self._dictionaries}
        return complete(bare, servers, self.schema, dictionaries)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows, in order, with the columns of ``schema``. Raises InputError."""
        for raw in self.raw():
            bare = self.bare(raw)
            servers = bare.servers.cast(pa.string())
            yield from self.complete(pa.Table.from_batches([bare.rows]), servers).to_batches()

    def _columns(self) -> list[str]:
        return list(dict.fromkeys([*self._texts.values(), *(field.name for field in self._kept_fields)]))


def open_input(
    path: str,
    columns: Mapping[str, str | Sequence[str]],
    keep_columns: Sequence[str],
    row_filter: RowFilter | None = None,
    *,
    mirrors: bool = False,
) -> InputTable:
    """Open a file, folder or glob. ``columns`` maps our names (see ``TEXT_COLUMNS``) to the input's; of several names
    the first value that is not null counts, and those that the input does not have are passed over.

    Only ``identifier`` must exist; a column that does not is null. ``keep_columns`` are carried along as they are. With
    ``mirrors`` its further values are kept, too (see ``mirrors``).
    Raises InputError: no file, an unknown kind, a damaged file, several schemas, missing columns or wrong types.
    """
    named = {name: _as_tuple(columns[name]) for name in TEXT_COLUMNS if name in columns}
    named.setdefault("identifier", ("identifier",))
    looked_at = () if row_filter is None else tuple(sorted(row_filter.columns))
    may_come_late = [*chain.from_iterable(named.values()), *looked_at]
    sources = [open_source(file, named["identifier"][0], may_come_late) for file in list_files(path, is_known_kind)]
    first = sources[0]
    present = {name: _present(first, theirs) for name, theirs in named.items()}
    missing = [] if present["identifier"] else [" or ".join(named["identifier"])]
    missing += [name for name in keep_columns if name not in first.schema.names]
    if missing:
        raise InputError(f"{first.path}: no column {', '.join(missing)}; found: {', '.join(first.schema.names)}")
    for name, theirs in present.items():
        _check_types(first, theirs, must_be_text=name == "identifier")
    _check_kept(keep_columns)
    used = [*chain.from_iterable(present.values()), *keep_columns, *looked_at]
    for source in sources[1:]:
        _check_same(first, source, used)
    mirrored = joined_name(present["identifier"]) if mirrors else None
    joined = {joined_name(it): it for it in present.values() if len(it) > 1 or (mirrored == joined_name(it))}
    shaping = Shaping(_full_schema(first, looked_at), joined, row_filter, mirrored)
    texts = {name: joined_name(theirs) for name, theirs in present.items() if theirs}
    return InputTable(path, sources, texts=texts, keep=keep_columns, shaping=shaping)


def _as_tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _present(source: SourceFile, names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that the file has, or that may turn up later in it."""
    return tuple(name for name in names if source.schema_is_guessed or name in source.schema.names)


def _full_schema(source: SourceFile, looked_at: Sequence[str]) -> pa.Schema:
    """Return the file's columns, and those of the filter that may turn up later in it: they are text."""
    late = [name for name in looked_at if source.schema_is_guessed and name not in source.schema.names]
    return pa.schema([*source.schema, *(pa.field(name, pa.string()) for name in late)])


def _check_types(source: SourceFile, columns: Sequence[str], *, must_be_text: bool) -> None:
    for name in [name for name in columns if name in source.schema.names]:
        type_ = source.schema.field(name).type
        if must_be_text and not is_text(type_):
            raise InputError(f"{source.path}: column {name} must be text (URLs), but is {type_}")
        if pa.types.is_nested(type_):
            raise InputError(f"{source.path}: column {name} has no text form: {type_}")


def _check_kept(keep: Sequence[str]) -> None:
    taken = [name for name in keep if name in BASE_COLUMNS]
    if taken or len(set(keep)) != len(keep):
        raise InputError(f"keep_columns: {', '.join(taken or keep)}: each column once, and none of {BASE_COLUMNS}")


def _check_same(first: SourceFile, other: SourceFile, used: Sequence[str]) -> None:
    def types(source: SourceFile) -> dict[str, str]:
        fields = {field.name: str(field.type) for field in source.schema}
        return {name: fields[name] for name in used if name in fields} if source.schema_is_guessed else fields

    ours, theirs = types(first), types(other)
    differences = [
        f"{name}: {ours.get(name, 'absent')} / {theirs.get(name, 'absent')}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    if differences:
        raise InputError(f"{other.path}: other columns than in {first.path}: {'; '.join(differences)}")
