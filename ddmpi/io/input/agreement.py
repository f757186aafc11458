"""The types that the used columns of a table have, over all of its files, and in which form they travel.

Numbers widen, null fits every type, and text is text, in whatever form a file has it. Columns that nobody uses may
differ, and are not looked at. What not every reader of Parquet knows is decoded: dictionaries, views, run lengths,
extension types (a UUID becomes text).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.errors import InputError
from ddmpi.io.input.uuids import format_uuids

Array: TypeAlias = Any


class HasColumns(Protocol):
    """A file of the input, as far as it is looked at here."""

    path: Any
    schema: pa.Schema
    doubled: frozenset[str]


def agreed_types(sources: Sequence[HasColumns], used: Collection[str]) -> dict[str, pa.DataType]:
    """Return a type for each used column that some file has. Raises InputError: two files cannot agree, or one has two
    columns of the name."""
    types: dict[str, pa.DataType] = {}
    first: dict[str, HasColumns] = {}
    for source in sources:
        doubled = sorted(source.doubled.intersection(used))
        if doubled:
            raise InputError(f"{source.path}: more than one column is named {', '.join(doubled)}")
        for name in source.schema.names:
            if name not in used:
                continue
            own = plain_type(source.schema.field(name).type)
            known = first.setdefault(name, source)
            common = common_type(types.get(name, own), own)
            if common is None:
                raise InputError(
                    f"{source.path}: other columns than in {known.path}: {name}: {types[name]} / {own}; "
                    "what is used has to be of one type in all files"
                )
            types[name] = common
    return {name: _settled(type_) for name, type_ in types.items()}


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the narrowest type for values of both, which are plain; None: there is none."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for is_kind, widest in ((_is_string, pa.string()), (_is_bytes, pa.binary())):
        if is_kind(one) and is_kind(other):
            return widest
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return _common_struct(one, other)
    if _is_list(one) and _is_list(other):
        inner = common_type(cast("Any", one).value_type, cast("Any", other).value_type)
        return None if inner is None else pa.list_(inner)
    return _widened(one, other)


def _widened(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Let arrow decide for numbers and times, which it widens without loss of range."""
    if not (_widens(one) and _widens(other)):
        return None
    try:
        (field,) = pa.unify_schemas([pa.schema([("x", one)]), pa.schema([("x", other)])], promote_options="permissive")
    except pa.ArrowException:
        return None
    return field.type


def _common_struct(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    fields: dict[str, pa.DataType] = {field.name: field.type for field in cast("Any", one)}
    for field in cast("Any", other):
        common = common_type(fields.get(field.name, field.type), field.type)
        if common is None:
            return None
        fields[field.name] = common
    return pa.struct(list(fields.items()))


def plain_type(type_: pa.DataType) -> pa.DataType:
    """Return the type in which values of a type travel: one that every reader of Parquet knows."""
    if isinstance(type_, pa.BaseExtensionType):
        return pa.string() if _is_uuid(type_) else plain_type(type_.storage_type)
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return plain_type(cast("Any", type_).value_type)
    if pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_binary_view(type_):
        return pa.binary()
    return _rebuilt(type_, plain_type)


def _settled(type_: pa.DataType) -> pa.DataType:
    """Return a type for columns that are null in all files: text, which is what takes most."""
    return pa.string() if pa.types.is_null(type_) else _rebuilt(type_, _settled)


def _rebuilt(type_: pa.DataType, inner: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return a nested type with other types inside."""
    known = cast("Any", type_)
    if pa.types.is_map(type_):
        return pa.map_(inner(known.key_type), inner(known.item_type))
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(inner(known.value_type), known.list_size)
    if pa.types.is_large_list(type_) or pa.types.is_large_list_view(type_):
        return pa.large_list(inner(known.value_type))
    if pa.types.is_list(type_) or pa.types.is_list_view(type_):
        return pa.list_(inner(known.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(inner(field.type)) for field in known])
    return type_


def as_type(values: Array, wanted: pa.DataType) -> Array:
    """Return values in the type that the table has agreed on. Texts stay bytes where they come as such (broken
    characters are still to be found), and in their dictionary. Raises pa.ArrowException: a value has no
    place in that type."""
    if values.type == wanted or (pa.types.is_string(wanted) and _is_bytes(values.type)):
        return values
    if isinstance(values, pa.DictionaryArray):
        if pa.types.is_string(wanted) and values.type.value_type == wanted:
            return values
        return as_type(values.dictionary_decode(), wanted)
    if pa.types.is_run_end_encoded(values.type):
        return as_type(pc.run_end_decode(values), wanted)
    if isinstance(values, pa.ExtensionArray):
        is_text = _is_uuid(values.type)
        return as_type(format_uuids(values.storage) if is_text else values.storage, wanted)
    return values.cast(wanted)


def with_types(rows: pa.RecordBatch, columns: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """Return these columns of some rows in their types, null where the file does not have them."""
    arrays = [
        as_type(rows.column(name), types[name]) if name in rows.schema.names else pa.nulls(rows.num_rows, types[name])
        for name in columns
    ]
    if not arrays:  # a batch without columns has no rows either
        return rows
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _is_uuid(type_: pa.DataType) -> bool:
    return isinstance(type_, pa.BaseExtensionType) and type_.extension_name == "arrow.uuid"


def _is_string(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_))


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _widens(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_temporal)
    return any(kind(type_) for kind in kinds)
