"""Thrift's compact protocol, in which Parquet has its metadata: structs as dictionaries, and back to the same bytes.

Knows no struct of Parquet's: a field that a newer Arrow writes comes through as it is. The protocol is
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md; maps, which Parquet does not use, are
left out.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias


class Kind(IntEnum):
    """Types of a field, and of the elements of a list."""

    TRUE = 1
    FALSE = 2
    BYTE = 3
    I16 = 4
    I32 = 5
    I64 = 6
    DOUBLE = 7
    BINARY = 8
    LIST = 9
    SET = 10
    STRUCT = 12


class Field(NamedTuple):
    """A value and its type: a number, bytes, a ``Struct``, or ``Elements``."""

    kind: int
    value: Any


class Elements(NamedTuple):
    """The values of a list, all of one type."""

    kind: int
    values: list[Any]


Struct: TypeAlias = "dict[int, Field]"
"""By the fields' numbers, in the order in which they stand. A struct in it may be left as the bytes that it is."""

ANY_DEPTH: Final = -1

_MOST_SHORT: Final = 15
_NUMBERS: Final = frozenset({Kind.I16, Kind.I32, Kind.I64})
_BOOLS: Final = frozenset({Kind.TRUE, Kind.FALSE})
_DOUBLE: Final = struct.Struct("<d")


def decode(data: bytes, depth: int = ANY_DEPTH) -> Struct:
    """Return the struct that these bytes begin with; structs more than ``depth`` deep in it stay bytes. Raises
    ValueError: they are none."""
    try:
        return _Reader(data, depth).struct()
    except (IndexError, struct.error) as error:
        raise ValueError("the metadata ends early") from error


def encode(fields: Struct) -> bytes:
    """Return the struct's bytes."""
    out = bytearray()
    _put_struct(out, fields)
    return bytes(out)


def i32(value: int) -> Field:
    return Field(Kind.I32, value)


def i64(value: int) -> Field:
    return Field(Kind.I64, value)


def of_structs(values: Sequence[Struct]) -> Field:
    """Return a list of structs as a field."""
    return Field(Kind.LIST, Elements(Kind.STRUCT, list(values)))


def varint(value: int) -> bytes:
    """Return a number of seven bits a byte, the lowest first (ULEB128). Parquet's run lengths are written so, too."""
    out = bytearray()
    _put_varint(out, value)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes, depth: int) -> None:
        self._data = data
        self._depth = depth
        self._at = 0

    def struct(self) -> Struct:
        fields: Struct = {}
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 0x0F
            number = number + step if step else self._number()
            fields[number] = Field(kind, kind == Kind.TRUE if kind in _BOOLS else self._value(kind))
        return fields

    def _value(self, kind: int) -> Any:  # as the kind says
        if kind in _NUMBERS:
            return self._number()
        if kind == Kind.BINARY:
            return self._bytes(self._varint())
        if kind == Kind.STRUCT:
            return self._inner_struct()
        if kind in {Kind.LIST, Kind.SET}:
            return self._elements()
        if kind == Kind.DOUBLE:
            return _DOUBLE.unpack(self._bytes(8))[0]
        if kind == Kind.BYTE or kind in _BOOLS:
            return self._byte()
        raise ValueError(f"no value of type {kind} can be read")

    def _inner_struct(self) -> Struct | bytes:
        if not self._depth:
            return self._bytes(_end_of_struct(self._data, self._at) - self._at)
        self._depth -= 1
        fields = self.struct()
        self._depth += 1
        return fields

    def _elements(self) -> Elements:
        head = self._byte()
        count, kind = head >> 4, head & 0x0F
        if count == _MOST_SHORT:
            count = self._varint()
        return Elements(kind, [self._value(kind) for _ in range(count)])

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _bytes(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._data):
            raise IndexError(self._at)
        return self._data[self._at - count : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def _number(self) -> int:
        raw = self._varint()
        return (raw >> 1) ^ -(raw & 1)


def _end_of_struct(data: bytes, at: int) -> int:
    """Return where the struct ends that begins here: many times as fast as to read it."""
    while head := data[at]:
        at += 1
        if not head >> 4:
            at = _end_of_number(data, at)
        kind = head & 0x0F
        if kind in _NUMBERS:  # as most: a call for each would take as long again
            while data[at] & 0x80:
                at += 1
            at += 1
        elif kind not in _BOOLS:
            at = _end_of(data, at, kind)
    return at + 1


def _end_of(data: bytes, at: int, kind: int) -> int:
    if kind in _NUMBERS:
        return _end_of_number(data, at)
    if kind == Kind.STRUCT:
        return _end_of_struct(data, at)
    if kind == Kind.DOUBLE:
        return at + 8
    if kind == Kind.BYTE or kind in _BOOLS:
        return at + 1
    if kind not in {Kind.BINARY, Kind.LIST, Kind.SET}:
        raise ValueError(f"no value of type {kind} can be read")
    of = 0
    if kind != Kind.BINARY:
        count, of = data[at] >> 4, data[at] & 0x0F
        at += 1
    if kind == Kind.BINARY or count == _MOST_SHORT:
        start, at = at, _end_of_number(data, at)
        count = _number_in(data[start:at])
    if kind == Kind.BINARY:
        return at + count
    for _ in range(count):
        at = _end_of(data, at, of)
    return at


def _end_of_number(data: bytes, at: int) -> int:
    while data[at] & 0x80:
        at += 1
    return at + 1


def _number_in(raw: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(raw))


def _put_struct(out: bytearray, fields: Struct) -> None:
    before = 0
    for number, (kind, value) in fields.items():
        step = number - before
        if 0 < step <= _MOST_SHORT:
            out.append(step << 4 | kind)
        else:
            out.append(kind)
            _put_number(out, number)
        before = number
        if kind not in _BOOLS:
            _put_value(out, kind, value)
    out.append(0)


def _put_value(out: bytearray, kind: int, value: Any) -> None:  # as the kind says
    if kind in _NUMBERS:
        _put_number(out, value)
    elif kind == Kind.BINARY:
        _put_varint(out, len(value))
        out += value
    elif kind == Kind.STRUCT:
        if isinstance(value, bytes):
            out += value
        else:
            _put_struct(out, value)
    elif kind in {Kind.LIST, Kind.SET}:
        _put_elements(out, value)
    elif kind == Kind.DOUBLE:
        out += _DOUBLE.pack(value)
    else:
        out.append(value)


def _put_elements(out: bytearray, elements: Elements) -> None:
    count = len(elements.values)
    if count < _MOST_SHORT:
        out.append(count << 4 | elements.kind)
    else:
        out.append(_MOST_SHORT << 4 | elements.kind)
        _put_varint(out, count)
    for value in elements.values:
        _put_value(out, elements.kind, value)


def _put_number(out: bytearray, value: int) -> None:
    _put_varint(out, value << 1 if value >= 0 else (-value << 1) - 1)


def _put_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
