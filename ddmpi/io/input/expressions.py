"""What a column of ours is made of, over the columns that a table has: references, templates, the first with a value.

``Resolver`` decides what a text of the config means, since that depends on the columns: a column whose name is the
whole text, else a template if it has braces, else a path from a column into its structs. The expressions are then
evaluated batch by batch. Paths behind ``[]`` look into items (see ``items``), which stand in columns of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final, TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.config.columns import Constant, Source, Split, Template, parse_template, split_path
from ddmpi.core.rules.json_cells import EACH
from ddmpi.errors import InputError
from ddmpi.io.input.items import Items, item_column
from ddmpi.io.input.paths import Array, decoded, descend
from ddmpi.io.input.rows import as_text, is_text

_EXACT_FLOAT: Final = float(1 << 53)


@dataclass(frozen=True)
class Reference:
    """A column, or a field in it."""

    column: str
    steps: tuple[str, ...] = ()
    shown: str = ""

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({self.column})

    def evaluate(self, rows: pa.RecordBatch) -> Array:
        """Return the values, of the type that they have. Raises InputError: no such field."""
        return descend(rows.column(self.column), self.steps, self.shown)


@dataclass(frozen=True)
class Fixed:
    """One text in all rows."""

    value: str
    columns: frozenset[str] = frozenset()

    def evaluate(self, rows: pa.RecordBatch) -> Array:
        return pa.repeat(pa.scalar(self.value), rows.num_rows)


@dataclass(frozen=True)
class Filled:
    """A template: null where one of its references has no value."""

    literals: tuple[str, ...]
    references: tuple[Reference, ...]

    @property
    def columns(self) -> frozenset[str]:
        return frozenset().union(*(reference.columns for reference in self.references))

    def evaluate(self, rows: pa.RecordBatch) -> Array:
        """Return the texts as bytes: values stand in them as they are, nothing is percent-encoded."""
        parts: list[Array] = [pa.scalar(self.literals[0].encode())]
        for reference, literal in zip(self.references, self.literals[1:], strict=True):
            parts += [_no_empty(as_bytes(reference.evaluate(rows))), pa.scalar(literal.encode())]
        parts = [part for part in parts if not isinstance(part, pa.Scalar) or part.as_py()]
        return pc.binary_join_element_wise(*parts, pa.scalar(b""))

    def reasons(self, rows: pa.RecordBatch) -> Array:
        """Return why there is no URL: which reference has no value; null where all have one."""
        reasons: Array = pa.nulls(rows.num_rows, pa.string())
        for reference in reversed(self.references):
            missing = pc.is_null(_no_empty(as_bytes(reference.evaluate(rows))))
            reasons = pc.if_else(missing, f"null_url: {reference.shown} has no value", reasons)
        return reasons


@dataclass(frozen=True)
class FirstOf:
    """Of several the first that has a value; an empty text is none."""

    of: tuple[Expression, ...]

    @property
    def columns(self) -> frozenset[str]:
        return frozenset().union(*(expression.columns for expression in self.of))

    def evaluate(self, rows: pa.RecordBatch) -> Array:
        """Return texts as bytes."""
        return pc.coalesce(*(_no_empty(as_bytes(expression.evaluate(rows))) for expression in self.of))


Expression: TypeAlias = Reference | Fixed | Filled | FirstOf


def as_bytes(values: Array) -> Array:
    """Return values of any column with a text form as bytes; broken characters are still to be found in them. A whole
    number in a column of floats, as pandas makes them of numbers and nulls, is written as one."""
    values = decoded(values)
    if pa.types.is_floating(values.type):
        return _float_texts(values).cast(pa.binary())
    return (values if is_text(values.type) else as_text(values)[0]).cast(pa.binary())


def _float_texts(values: Array) -> Array:
    values = values.cast(pa.float64())
    floored: Array = pc.floor(values)
    is_exact: Array = cast("Array", pc).less(pc.abs(values), _EXACT_FLOAT)
    whole: Array = pc.and_(pc.equal(floored, values), is_exact)
    whole = whole.fill_null(False)
    numbers = pc.if_else(whole, values, pa.scalar(None, pa.float64())).cast(pa.int64())
    return pc.if_else(whole, numbers.cast(pa.string()), values.cast(pa.string()))


def _no_empty(texts: Array) -> Array:
    empty = pc.equal(texts, pa.scalar(b""))
    if not pc.any(empty, min_count=0).as_py():
        return texts
    return pc.if_else(empty, pa.scalar(None, pa.binary()), texts)


class Resolver:
    """Says what sources mean over the columns ``names``. The first source with ``[]`` or a split decides of what rows
    are made: that of the identifier has to be asked first. ``missing`` gathers what no column is found for."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._separator: str | None = None
        self._items: tuple[str, tuple[str, ...]] | None = None
        self._shown = ""
        self._inner: dict[str, tuple[str, ...]] = {}
        self.missing: list[str] = []

    @property
    def items(self) -> Items | None:
        """What rows are made of, if not of rows."""
        if self._items is None:
            return None
        return Items(*self._items, tuple(self._inner.values()), self._separator, self._shown)

    def expression(self, sources: Sequence[Source], key: str, *, all_must_exist: bool) -> Expression | None:
        """Return what the column ``key`` is made of; None if none of the columns exists. What is missing is noted if
        all must exist. Raises InputError: a text that can mean nothing."""
        made, missing = [], []
        for source in sources:
            lacking: list[str] = []
            expression = self._one(source, key, lacking)
            missing += lacking
            if not lacking:
                made.append(expression)
        if all_must_exist:
            self.missing += missing
        if not made:
            return None
        return made[0] if len(made) == 1 and len(sources) == 1 else FirstOf(tuple(made))

    def _one(self, source: Source, key: str, lacking: list[str]) -> Expression:
        if isinstance(source, Constant):
            return Fixed(source.value)
        if isinstance(source, Split):
            return self._split(source, key, lacking)
        template = None if source in self._names else _template(source, key)
        if template is None:
            return self._reference(source, key, lacking)
        if not template.references:
            raise InputError(f"{key}: {source} names no column; one text for all rows is {{value: ...}}")
        return Filled(template.literals, tuple(self._reference(part, key, lacking) for part in template.references))

    def _split(self, source: Split, key: str, lacking: list[str]) -> Reference:
        found = self._reference(source.column, key, lacking)
        if not lacking:
            self._make_items(found.column, found.steps, key, f"{key}: split of {source.column}", source.split)
        return self._inner_reference((), source.column)

    def _reference(self, path: str, key: str, lacking: list[str]) -> Reference:
        column, steps = next(self._candidates(path), ("", ()))
        if not column:
            lacking.append(path)
        if EACH not in steps:
            return Reference(column, steps, path)
        end = len(steps) - steps[::-1].index(EACH)
        self._make_items(column, steps[:end], key, path, None)
        return self._inner_reference(steps[end:], path)

    def _candidates(self, path: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield columns that a path may begin with, the longest name first, and the steps that follow."""
        ends = [place for place in range(len(path)) if path[place] == "." or path.startswith(EACH, place)]
        for end in [len(path), *reversed(ends)]:
            if path[:end] in self._names:
                yield path[:end], split_path(path[end:])

    def _make_items(self, column: str, steps: tuple[str, ...], key: str, shown: str, separator: str | None) -> None:
        wanted = (column, steps)
        if self._items is None and key == "columns.identifier":
            self._items, self._shown, self._separator = wanted, shown, separator
        elif self._items is None:
            raise InputError(f"{key}: {shown}: only columns.identifier makes rows, and it does not here")
        elif (self._items, self._separator) != (wanted, separator):
            raise InputError(f"{key}: {shown}: rows are made of one list, and columns.identifier has {self._shown}")

    def _inner_reference(self, steps: tuple[str, ...], shown: str) -> Reference:
        name = item_column(steps)
        self._inner[name] = steps
        return Reference(name, (), shown)


def _template(text: str, key: str) -> Template | None:
    try:
        return parse_template(text)
    except ValueError as error:
        raise InputError(f"{key}: no column {text}, and not {error}") from error


def columns_of(expressions: Collection[Expression]) -> frozenset[str]:
    """Return the columns that these look at."""
    return reduce(frozenset.union, (expression.columns for expression in expressions), frozenset())
