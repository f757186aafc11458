"""Types of columns: what two files' types have in common, and which types travel.

Numbers widen, null fits every type, and text is text, in whatever form a file has it. What not every reader of Parquet
knows is decoded: dictionaries, views, run lengths, extension types (a UUID becomes text).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pyarrow as pa


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the narrowest type for values of both, which are plain; None: there is none."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for is_kind, widest in ((_is_string, pa.string()), (is_bytes, pa.binary())):
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
    return cast("pa.DataType", field.type)


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
        return pa.string() if is_uuid(type_) else plain_type(type_.storage_type)
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return plain_type(cast("Any", type_).value_type)
    if pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_binary_view(type_):
        return pa.binary()
    return _rebuilt(type_, _plain_inside)


def _plain_inside(type_: pa.DataType) -> pa.DataType:
    """Return what travels within lists and structs, where arrow cannot make texts of UUIDs: their bytes."""
    return pa.binary(16) if is_uuid(type_) else plain_type(type_)


def is_open(type_: pa.DataType) -> bool:
    """Return whether a type has nulls alone somewhere: it may still become any other there."""
    return settled_type(type_) != type_


def settled_type(type_: pa.DataType) -> pa.DataType:
    """Return a type for columns that are null in all files: text, which is what takes most."""
    return pa.string() if pa.types.is_null(type_) else _rebuilt(type_, settled_type)


def _rebuilt(type_: pa.DataType, inner: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return a nested type with other types inside."""
    known = cast("Any", type_)
    if pa.types.is_map(type_):
        return cast("pa.DataType", pa.map_(inner(known.key_type), inner(known.item_type)))
    if pa.types.is_fixed_size_list(type_):
        return cast("pa.DataType", pa.list_(inner(known.value_type), known.list_size))
    if pa.types.is_large_list(type_) or pa.types.is_large_list_view(type_):
        return pa.large_list(inner(known.value_type))
    if pa.types.is_list(type_) or pa.types.is_list_view(type_):
        return pa.list_(inner(known.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(inner(field.type)) for field in known])
    return type_


def is_uuid(type_: pa.DataType) -> bool:
    """Return whether values are UUIDs by their type, not only by their looks."""
    return isinstance(type_, pa.BaseExtensionType) and type_.extension_name == "arrow.uuid"


def _is_string(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def is_bytes(type_: pa.DataType) -> bool:
    """Return whether values are plain bytes of any length."""
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_))


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _widens(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_temporal)
    return any(kind(type_) for kind in kinds)
