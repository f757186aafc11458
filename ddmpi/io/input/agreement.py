"""The types that the used columns of a table have over all of its files (see ``column_types``), and their values.

Columns that nobody uses may differ, and are not looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.rules.column_types import common_type, is_bytes, is_uuid, plain_type
from ddmpi.errors import InputError
from ddmpi.io.input.uuids import format_uuids

Array: TypeAlias = Any


class HasColumns(Protocol):
    """A file of the input, as far as it is looked at here."""

    path: Any
    schema: pa.Schema
    doubled: frozenset[str]


def agreed_types(sources: Sequence[HasColumns], used: Collection[str]) -> dict[str, pa.DataType]:
    """Return a type for each used column that some file has: null where all its values are.

    Raises:
        InputError: two files cannot agree, or one has two columns of the name.
    """
    types: dict[str, pa.DataType] = {}
    first: dict[str, HasColumns] = {}
    for source in sources:
        doubled = sorted(source.doubled.intersection(used))
        if doubled:
            raise InputError(f"{source.path}: more than one column is named {', '.join(doubled)}")
        for name in source.schema.names:
            if name not in used:
                continue
            type_ = source.schema.field(name).type
            if type_ == types.get(name):  # as in nearly all of many files
                continue
            own = plain_type(type_)
            known = first.setdefault(name, source)
            common = common_type(types.get(name, own), own)
            if common is None:
                raise InputError(
                    f"{source.path}: other columns than in {known.path}: {name}: {types[name]} / {own}; "
                    "what is used has to be of one type in all files"
                )
            types[name] = common
    return types


def as_type(values: Array, wanted: pa.DataType) -> Array:
    """Return values in the type that the table has agreed on. Texts stay bytes where they come as such (broken
    characters are still to be found), and in their dictionary. Raises pa.ArrowException: a value has no
    place in that type."""
    if values.type == wanted or (pa.types.is_string(wanted) and is_bytes(values.type)):
        return values
    if isinstance(values, pa.DictionaryArray):
        if pa.types.is_string(wanted) and values.type.value_type == wanted:
            return values
        return as_type(values.dictionary_decode(), wanted)
    if pa.types.is_run_end_encoded(values.type):
        return as_type(cast("Any", pc).run_end_decode(values), wanted)
    if isinstance(values, pa.ExtensionArray):
        is_text = is_uuid(values.type)
        return as_type(format_uuids(values.storage) if is_text else values.storage, wanted)
    return values.cast(wanted)


def nulls(size: int, type_: pa.DataType) -> Array:
    """Return so many nulls of a type."""
    return cast("Any", pa).nulls(size, type_)


def with_types(rows: pa.RecordBatch, columns: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """Return these columns of some rows in their types, null where the file does not have them."""
    arrays = [
        as_type(rows.column(name), types[name]) if name in rows.schema.names else nulls(rows.num_rows, types[name])
        for name in columns
    ]
    if not arrays:  # a batch without columns has no rows either
        return rows
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))
