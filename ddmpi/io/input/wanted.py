"""What the config asks of a table, and what comes of that over the columns that its files have.

Whatever was named has to exist in some file; what has to be in every file is said file by file. Names that nobody wrote
(``license`` and the like, which are defaults) may be absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from ddmpi.config.columns import RENAMED, Source, Split, makes_items, parse_template
from ddmpi.config.row_filter import RowFilter
from ddmpi.core.records import REQUEST_HEADERS, RESULT_COLUMNS
from ddmpi.core.rules.column_types import is_open, settled_type
from ddmpi.errors import InputError
from ddmpi.io.input.agreement import agreed_types
from ddmpi.io.input.columns import Shaping
from ddmpi.io.input.expressions import Expression, FirstOf, Reference, Resolver, columns_of
from ddmpi.io.input.paths import did_you_mean, listed
from ddmpi.io.input.rows import BASE_COLUMNS, TEXT_COLUMNS
from ddmpi.io.sources.source_file import SourceFile


@dataclass(frozen=True)
class Wanted:
    """The columns that a table is to have."""

    columns: Mapping[str, Sequence[Source]]
    """Ours; identifier is among them."""
    kept: Mapping[str, Sequence[Source]] | None
    """Those beside ours; None = all that the files have."""
    row_filter: RowFilter | None
    base_url: str | None
    required: frozenset[str]
    """Names of ours of which all sources must exist."""

    @property
    def url_column(self) -> str:
        """The name of the column of a file that has only one, without a name."""
        first = self.columns["identifier"][0]
        if isinstance(first, Split):
            return first.column
        try:
            template = parse_template(str(first))
        except ValueError:
            template = None
        return template.references[0] if template is not None and template.references else str(first)

    @property
    def may_come_late(self) -> list[str]:
        """Columns that need not be there, and are text where they turn up only later in a file."""
        unwritten = [sources for ours, sources in self.columns.items() if ours not in {"identifier", *self.required}]
        optional = frozenset() if self.row_filter is None else self.row_filter.optional
        return [*(source for source in chain(*unwritten) if isinstance(source, str)), *sorted(optional)]


def shape_of(wanted: Wanted, sources: Sequence[SourceFile]) -> Shaping:
    """Return how these files become the table. Raises InputError: see ``open_input``."""
    is_guessed = any(source.schema_is_guessed for source in sources)
    names = dict.fromkeys(chain.from_iterable([*source.schema.names, *sorted(source.doubled)] for source in sources))
    found = list(names)
    if is_guessed:
        names |= dict.fromkeys(wanted.may_come_late)
    resolver = Resolver(names)
    made = _made(wanted, resolver, list(names))
    for key, missing in (("", resolver.missing), ("filter: ", _missing_in_filter(wanted, names))):
        if missing:
            told = ", ".join(f"{name}{did_you_mean(name, found)}" for name in dict.fromkeys(missing))
            hint = (
                ". Write columns: {identifier: ...}, with the one that has the URLs" if "identifier" in missing else ""
            )
            raise InputError(f"{sources[0].path}: {key}no column {told}; found: {listed(found)}{hint}")
    used = columns_of(list(made.values())) | (wanted.row_filter.columns if wanted.row_filter else frozenset())
    used |= {resolver.items.column} if resolver.items else frozenset()
    types = agreed_types(sources, used)
    _check_known(types, made, sources)
    types = {name: settled_type(type_) for name, type_ in types.items()}
    if is_guessed:
        types |= {name: pa.string() for name in wanted.may_come_late if name in used and name not in types}
    numbers_items = any(map(makes_items, wanted.columns["identifier"]))
    shaping = Shaping(made, types, resolver.items, wanted.row_filter, wanted.base_url, numbers_items)
    for source in sources:
        _check_file(source, shaping)
    _check_types(sources[0], shaping)
    return shaping


def _check_known(
    types: Mapping[str, pa.DataType], made: Mapping[str, Expression], sources: Sequence[SourceFile]
) -> None:
    """Raise InputError where a column had no value in the rows that were looked at, and there are others. What is text
    in the end need not be known: it is text."""
    texts = {
        expression.column
        for ours, expression in made.items()
        if ours in TEXT_COLUMNS and isinstance(expression, Reference) and not expression.steps
    }
    unknown = [name for name, type_ in types.items() if is_open(type_) and name not in texts]
    partly_seen = [source for source in sources if source.schema_is_guessed and not source.is_looked_through]
    if unknown and partly_seen:
        raise InputError(f"{partly_seen[0].path}: {', '.join(unknown)}: no values in the first rows")


def _made(wanted: Wanted, resolver: Resolver, names: Sequence[str]) -> dict[str, Expression]:
    """Return the columns of ours, the identifier first: it decides what rows there are."""
    made: dict[str, Expression] = {}
    for ours in sorted(wanted.columns, key=lambda name: name != "identifier"):
        is_required = ours in wanted.required
        key = "columns.headers" if ours == REQUEST_HEADERS else f"columns.{ours}"
        expression = resolver.expression(wanted.columns[ours], key, all_must_exist=is_required)
        if expression is not None:
            made[ours] = expression
        elif ours == "identifier" and not is_required:
            resolver.missing.append(" or ".join(str(source) for source in wanted.columns[ours]))
    for ours, sources in (_all(made, names) if wanted.kept is None else wanted.kept).items():
        _check_name(ours, list(wanted.kept or ()))
        expression = resolver.expression(sources, f"keep_columns.{ours}", all_must_exist=True)
        if expression is not None:
            made[ours] = expression
    return made


def _all(made: Mapping[str, Expression], names: Sequence[str]) -> dict[str, list[Source]]:
    """Return all columns that do not stand among ours as they are, and that no header is made of."""
    ours = {expression.column for expression in made.values() if isinstance(expression, Reference)}
    if REQUEST_HEADERS in made:
        ours |= made[REQUEST_HEADERS].columns
    kept: dict[str, list[Source]] = {}
    for name in names:
        if name not in ours:
            kept[f"{RENAMED}{name}" if name in RESULT_COLUMNS else name] = [name]
    if len(kept) < len(set(names) - ours):
        raise InputError(f"keep_columns: all: columns with and without {RENAMED} have one name; please list them")
    return kept


def _check_name(name: str, kept: Sequence[str]) -> None:
    if name in BASE_COLUMNS or kept.count(name) > 1:
        raise InputError(f"keep_columns: {name}: each column once, and none of {BASE_COLUMNS}")


def _missing_in_filter(wanted: Wanted, names: Mapping[str, object]) -> list[str]:
    if wanted.row_filter is None:
        return []
    return sorted(wanted.row_filter.columns - wanted.row_filter.optional - names.keys())


def _check_file(source: SourceFile, shaping: Shaping) -> None:
    """A file without what rows are judged by would lose all of its rows."""
    if source.schema_is_guessed:
        return
    names = set(source.schema.names)
    identifier = shaping.made["identifier"]
    ways = identifier.of if isinstance(identifier, FirstOf) else (identifier,)
    needed = [_columns_behind(way, shaping) for way in ways]
    missing = sorted(needed[0] - names) if not any(columns <= names for columns in needed) else []
    if shaping.row_filter is not None:
        missing += sorted(shaping.row_filter.columns - shaping.row_filter.optional - names)
    if missing:
        told = ", ".join(f"{name}{did_you_mean(name, names)}" for name in missing)
        raise InputError(f"{source.path}: no column {told}, which other files have; found: {listed(names)}")


def _columns_behind(expression: Expression, shaping: Shaping) -> frozenset[str]:
    """Return the columns of a file that an expression needs, those of items included."""
    own = expression.columns & shaping.types.keys()
    has_items = shaping.items is not None and own != expression.columns
    return own | {shaping.items.column} if has_items and shaping.items is not None else own


def _check_types(source: SourceFile, shaping: Shaping) -> None:
    try:
        shaping.schema()
    except InputError as error:
        raise InputError(f"{source.path}: {error}") from error
