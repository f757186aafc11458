"""Paths into the values of a column: fields of structs, and of JSON in a cell."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.near_names import near_names
from ddmpi.core.rules.json_cells import cell_fields
from ddmpi.errors import InputError
from ddmpi.io.input.rows import is_text

Array: TypeAlias = Any
"""An arrow array: the stubs of pyarrow.compute have no overload for arrays of any type."""

_SHOWN_NAMES: Final = 60


def descend(values: Array, steps: Sequence[str], shown: str) -> Array:
    """Return what a path leads to in each value; null where it ends early. ``shown`` is the path for messages. Raises
    InputError: there is no such field."""
    for place, step in enumerate(steps):
        values = decoded(values)
        if is_text(values.type):
            return cell_fields(values, steps[place:])
        values = field_of(values, step, shown)
    return values


def field_of(values: Array, name: str, shown: str) -> Array:
    """Return a field of structs; null where the struct is. Raises InputError: there is no such field."""
    if not pa.types.is_struct(values.type):
        raise InputError(f"{shown}: {values.type} has no field {name}")
    place = values.type.get_field_index(name)
    if place < 0:
        names = [field.name for field in values.type]
        raise InputError(f"{shown}: no field {name}{did_you_mean(name, names)}; found: {listed(names)}")
    return pc.struct_field(values, [place])


def decoded(values: Array) -> Array:
    """Return values that are not in a dictionary."""
    return values.dictionary_decode() if isinstance(values, pa.DictionaryArray) else values


def did_you_mean(name: str, names: Collection[str]) -> str:
    """Return `` (did you mean ...?)`` with the names that are written most alike, or nothing."""
    near = near_names(name, names, most=3)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def listed(names: Collection[str]) -> str:
    """Return names for a message, not more than a person reads."""
    shown = ", ".join(list(names)[:_SHOWN_NAMES])
    return shown if len(names) <= _SHOWN_NAMES else f"{shown} and {len(names) - _SHOWN_NAMES} more"
