"""From the rows that a file has to those that the table has: filtered, made of items, with the columns that are ours.

Numbers of rows count what is made: items, where rows are made of items, before any filter. So a row keeps its number
whatever the filter says, and whatever batches the rows come in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.config.row_filter import RowFilter
from ddmpi.core.arrays import IntArray
from ddmpi.core.records import MIRRORS, REQUEST_HEADERS, REQUESTED
from ddmpi.core.rules.column_types import plain_type
from ddmpi.core.rules.relative_urls import resolve
from ddmpi.errors import InputError
from ddmpi.io.input.agreement import nulls, with_types
from ddmpi.io.input.expressions import Expression, Filled, FirstOf, Reference, as_bytes, columns_of
from ddmpi.io.input.items import FoundItems, Items, Places, item_column, places_of, taken
from ddmpi.io.input.mirrors import first_and_mirrors
from ddmpi.io.input.paths import Array
from ddmpi.io.input.request_headers import can_be_headers, header_texts
from ddmpi.io.input.rewriting import Rewriter, without_same
from ddmpi.io.input.rows import ITEM_NUMBER, REASON, TEXT_COLUMNS, as_text, is_text
from ddmpi.io.sources.source_file import BAD_LINE, BATCH_BYTES, BATCH_ROWS


class Shaped(NamedTuple):
    """Some rows of the table, and where they stand in it."""

    make: Callable[[], pa.RecordBatch]
    """Makes the rows, which may be done in any thread. Raises pa.ArrowException: a column has no text form."""
    numbers: IntArray
    dropped: int
    """Rows beside these that the filter left out."""
    end: int
    """Where in the input they end, in rows, those that were left out included."""


class _Span(NamedTuple):
    """Where rows begin, and the first row of the input that is taken."""

    first: int
    first_taken: int


@dataclass(frozen=True)
class Shaping:
    """What is done to the rows of every file of one table."""

    made: Mapping[str, Expression]
    """Columns of ours; identifier is among them."""
    types: Mapping[str, pa.DataType]
    """Of the columns of the files that are used."""
    items: Items | None
    row_filter: RowFilter | None
    base_url: str | None
    numbers_items: bool = False
    """Whether rows have the number of their item, also where each has one."""
    has_mirrors: bool = False
    """Whether the further URLs of a row are kept, in a column of their own."""
    rewriter: Rewriter | None = None
    """What makes other URLs of them, which are asked for."""

    @property
    def plain(self) -> dict[str, str]:
        """Columns of ours that are one column of the input as it is, and which."""
        made = {ours: expression for ours, expression in self.made.items() if isinstance(expression, Reference)}
        own = {ours: expression.column for ours, expression in made.items() if not expression.steps}
        return {ours: theirs for ours, theirs in own.items() if theirs in self.types}

    @property
    def url_columns(self) -> list[str]:
        """Columns of ours from which it follows what is asked for, and whether it can be."""
        needs_ids = self.rewriter is not None and self.rewriter.needs_ids
        others = {"source_id": needs_ids, REQUEST_HEADERS: True}
        return ["identifier", *(name for name, is_needed in others.items() if is_needed and name in self.made)]

    @property
    def keeps_mirrors(self) -> bool:
        """Whether rows have a column of further URLs: the table's own is one, where a smaller copy may be refused."""
        return self.has_mirrors or (self.rewriter is not None and self.rewriter.falls_back)

    @property
    def uuids_repeat(self) -> bool:
        """Whether all items of a row have the uuid of the row."""
        return self.items is not None and "uuid" in self.made and self.made["uuid"].columns <= self.types.keys()

    def uses(self) -> dict[str, list[str]]:
        """Return what each column of the files that is used is used for: our names, ``kept``, ``filter``."""
        uses: dict[str, list[str]] = {}
        for ours, expression in self.made.items():
            names = expression.columns & self.types.keys()
            if self.items is not None and names != expression.columns:
                names |= {self.items.column}
            for name in sorted(names):
                use = "headers" if ours == REQUEST_HEADERS else ours if ours in TEXT_COLUMNS else "kept"
                uses.setdefault(name, []).append(use)
        for name in sorted(self.row_filter.columns) if self.row_filter is not None else ():
            uses.setdefault(name, []).append("filter")
        return uses

    def schema(self) -> pa.Schema:
        """Return the columns of ours, in the types that they come in.

        Raises:
            InputError: the filter is no condition on columns of these types, or a path leads nowhere.
        """
        empty = pa.RecordBatch.from_arrays([nulls(0, type_) for type_ in self.types.values()], list(self.types))
        if self.row_filter is not None:
            check_filter(self.row_filter, self.types)
        if self.items is not None:
            found = self.items.find(empty)
            empty = self._with_items(empty, found, places_of(found.counts), list(self.made))
        return pa.schema([(name, _type_of(name, expression, empty)) for name, expression in self.made.items()])

    def sources_of(self, columns: Sequence[str]) -> list[str]:
        """Return the columns of a file that these of ours are made from, and those that the filter looks at."""
        needed = columns_of([self.made[column] for column in columns])
        if self.items is not None:
            needed |= {self.items.column}
        if self.row_filter is not None:
            needed |= self.row_filter.columns
        return [name for name in self.types if name in needed]

    def shape(
        self, rows: pa.RecordBatch, first_row: int, columns: Sequence[str], first_taken: int = 0
    ) -> Iterator[Shaped]:
        """Yield these columns of ours for some rows of the input (see ``agreed``), which begin with row ``first_row``;
        without those before row ``first_taken``, and those that the filter leaves out. Raises InputError,
        pa.ArrowException: a value has no text form."""
        kept = self._kept(rows)
        if self.items is None:
            numbers = np.arange(first_row, first_row + rows.num_rows, dtype=np.int64)
            chosen = numbers >= first_taken if kept is None else kept & (numbers >= first_taken)
            dropped = int((numbers >= first_taken).sum() - chosen.sum())
            if not chosen.all():
                rows, numbers = rows.filter(pa.array(chosen)), numbers[chosen]
            items = np.zeros(len(numbers), np.int32) if self.numbers_items else None
            yield Shaped(partial(self._columns, rows, columns, items), numbers, dropped, first_row + len(chosen))
        else:
            yield from self._of_items(rows, kept, _Span(first_row, first_taken), columns)

    def agreed(self, rows: pa.RecordBatch, sources: Sequence[str]) -> pa.RecordBatch:
        """Return these columns of a file (see ``sources_of``), in the types that all files have. Raises
        pa.ArrowException: a value has no place in its column's type."""
        agreed = with_types(rows, sources, self.types)
        return agreed.append_column(BAD_LINE, rows.column(BAD_LINE)) if BAD_LINE in rows.schema.names else agreed

    def _kept(self, rows: pa.RecordBatch) -> npt.NDArray[np.bool_] | None:
        if self.row_filter is None:
            return None
        names = [name for name in rows.schema.names if name in self.row_filter.columns]
        kept = self.row_filter.keeps({name: comparable(rows.column(name)) for name in names}, rows.num_rows)
        if BAD_LINE in rows.schema.names:  # nothing is known of such a row that could leave it out
            kept = kept | np.asarray(pc.is_valid(rows.column(BAD_LINE)))
        return kept

    def _of_items(
        self, rows: pa.RecordBatch, kept: npt.NDArray[np.bool_] | None, span: _Span, columns: Sequence[str]
    ) -> Iterator[Shaped]:
        found = cast("Items", self.items).find(rows)
        places = places_of(found.counts)
        numbers = np.arange(span.first, span.first + len(places.rows), dtype=np.int64)
        is_new = numbers >= span.first_taken
        chosen = is_new if kept is None else is_new & kept[places.rows]
        dropped = int(is_new.sum()) - int(chosen.sum())
        end = span.first + len(numbers)
        if not chosen.all():
            places, numbers = Places(*(each[chosen] for each in places)), numbers[chosen]
        step = _piece_rows(rows)
        for start in range(0, max(1, len(numbers)), step):
            piece = slice(start, start + step)
            is_last = start + step >= len(numbers)
            yield Shaped(
                partial(self._made_of_items, rows, found, Places(*(each[piece] for each in places)), columns),
                numbers[piece],
                dropped if is_last else 0,
                end if is_last else int(numbers[piece][-1]) + 1,
            )

    def _made_of_items(
        self, rows: pa.RecordBatch, found: FoundItems, places: Places, columns: Sequence[str]
    ) -> pa.RecordBatch:
        made = self._with_items(rows, found, places, columns)
        return self._columns(made, columns, places.numbers.astype(np.int32))

    def _with_items(
        self, rows: pa.RecordBatch, found: FoundItems, places: Places, columns: Sequence[str]
    ) -> pa.RecordBatch:
        """Return what ``columns`` need of rows and items, repeated."""
        needed = columns_of([self.made[column] for column in columns]) | {BAD_LINE}
        arrays = {name: taken(rows.column(name), places.rows) for name in rows.schema.names if name in needed}
        arrays |= {name: taken(values, places.items) for name, values in found.columns.items()}
        if found.is_broken is not None:
            arrays[_BROKEN] = found.is_broken.take(pa.array(places.rows))
        return pa.RecordBatch.from_pydict(arrays)

    def _columns(
        self, rows: pa.RecordBatch, columns: Sequence[str], item_numbers: npt.NDArray[np.int32] | None
    ) -> pa.RecordBatch:
        made = {column: self.made[column].evaluate(rows) for column in columns if column != "identifier"}
        if REQUEST_HEADERS in made:
            made[REQUEST_HEADERS] = header_texts(made[REQUEST_HEADERS])
        if "identifier" in columns:
            made |= self._urls(rows, made.get("source_id"))
        reasons = self._reasons(rows) if made["identifier"].null_count else None
        if reasons is not None:
            made[REASON] = pc.if_else(pc.is_null(made["identifier"]), reasons, pa.scalar(None, pa.string()))
        if item_numbers is not None:
            made[ITEM_NUMBER] = pa.array(item_numbers)
        return pa.RecordBatch.from_pydict(made)

    def _urls(self, rows: pa.RecordBatch, source_ids: Array | None) -> dict[str, Array]:
        """Return the URL of each row, what is asked for instead of it, and its mirrors, where there are such."""
        identifier = self.made["identifier"]
        if self.has_mirrors and isinstance(identifier, FirstOf):
            urls = [self._resolved(as_bytes(url.evaluate(rows))) for url in identifier.of]
            first, mirrors = first_and_mirrors(urls)
            made = {"identifier": first, MIRRORS: mirrors}
        else:
            urls = [self._resolved(identifier.evaluate(rows))]
            made = {"identifier": urls[0]}
        if self.rewriter is not None:
            first, mirrors = first_and_mirrors([made for url in urls for made in self.rewriter.asked(url, source_ids)])
            made[REQUESTED] = without_same(first, made["identifier"])
            made |= {MIRRORS: mirrors} if self.keeps_mirrors else {}
        return made

    def _resolved(self, urls: Array) -> Array:
        return urls if self.base_url is None else resolve(as_bytes(urls), self.base_url)

    def _reasons(self, rows: pa.RecordBatch) -> Array | None:
        """Return what is to be said of rows without a URL; None: nothing but that."""
        reasons: list[Array] = []
        if BAD_LINE in rows.schema.names:
            told: Array = rows.column(BAD_LINE)
            reasons.append(pc.binary_join_element_wise("bad_line: ", told, ""))
        if self.items is not None and _BROKEN in rows.schema.names:
            text = f"null_url: {self.items.shown}: the cell is no JSON array or object"
            reasons.append(pc.if_else(rows.column(_BROKEN), text, pa.scalar(None, pa.string())))
        if isinstance(self.made["identifier"], Filled):
            reasons.append(self.made["identifier"].reasons(rows))
        return pc.coalesce(*reasons) if reasons else None


_BROKEN: Final = item_column(["", "broken"])
"""Rows whose cell is no JSON: no path within items is written so."""


def _piece_rows(rows: pa.RecordBatch) -> int:
    """Return how many rows are made at once: a row that is repeated may be wide."""
    row_bytes = rows.nbytes / max(1, rows.num_rows)
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(1.0, row_bytes))))


def _type_of(name: str, expression: Expression, empty: pa.RecordBatch) -> pa.DataType:
    try:
        type_ = plain_type(expression.evaluate(empty).type)
    except pa.ArrowException as error:
        raise InputError(
            f"columns.{name}: one of its columns has no text form: {' '.join(str(error).split())}"
        ) from error
    if name == REQUEST_HEADERS:
        if not can_be_headers(type_):
            raise InputError(
                f"columns.headers: a map, a struct or JSON objects of texts is expected, but it is {type_}"
            )
        return pa.string()
    if name == "identifier" and not is_text(type_):
        hint = f"; for a row for each element write {_shown(expression)}[]" if _has_elements(type_) else ""
        raise InputError(f"column {_shown(expression)} must be text (URLs), but is {type_}{hint}")
    if name in TEXT_COLUMNS and pa.types.is_nested(type_):
        raise InputError(f"column {_shown(expression)} has no text form: {type_}")
    # Made texts come as bytes: broken characters are still to be found.
    return type_ if isinstance(expression, Reference) else pa.string()


def _shown(expression: Expression) -> str:
    return expression.shown if isinstance(expression, Reference) else " or ".join(sorted(expression.columns))


def _has_elements(type_: pa.DataType) -> bool:
    return bool(pa.types.is_nested(type_) and not pa.types.is_struct(type_))


def check_filter(row_filter: RowFilter, types: Mapping[str, pa.DataType]) -> None:
    """Raise InputError where the filter needs a column that is absent, or one of another type."""
    missing = sorted(row_filter.columns - row_filter.optional - set(types))
    if missing:
        raise InputError(f"filter: no column {', '.join(missing)}")
    present = {name: comparable(nulls(0, types[name])) for name in row_filter.columns if name in types}
    try:
        row_filter.keeps(present, 0)
    except pa.ArrowException as error:
        raise InputError(f"filter: {' '.join(str(error).split())}") from error


def comparable(values: Array) -> Array:
    """Return texts of any kind as strings, which is what filters compare, and other values as they are."""
    return as_text(values)[0] if isinstance(values, pa.DictionaryArray) or is_text(values.type) else values
