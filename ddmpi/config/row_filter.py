"""A small language for the rows to take: ``type == "StillImage" or (type is null and contains(format, "image"))``.

Decides what such a text means, and which rows of arrow columns it keeps. Python's parser reads it, and nothing of it is
ever evaluated as Python: every node of the syntax tree is looked at, and what is not listed here is refused.
Must not know: files, configs, where columns come from.

    COLUMN  "text"  5  -1.5  true  false       a column by its name (``column("a name")`` where it is no word)
    == != < <= > >=                            one comparison, not a chain
    COLUMN is null, COLUMN is not null         (``None`` is the same)
    COLUMN in ["a", "b"], COLUMN not in [...]
    contains(COLUMN, "text"), starts_with(COLUMN, "text"), ends_with(COLUMN, "text")
    lower(COLUMN), text(COLUMN), number(COLUMN)         number: null where a text is none
    spdx(COLUMN)                               the license that a text names, null where that cannot be told
    optional(COLUMN)                           null in all rows where the input has no such column
    and, or, not, ( )

Invariants: null compares as in SQL, with neither true nor false as the result; a row is kept if the whole is true.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Array: TypeAlias = Any
"""An arrow array or scalar: the stubs of pyarrow.compute have no overload for "either"."""
Columns: TypeAlias = Mapping[str, Array]
_Evaluate: TypeAlias = Callable[[Columns], Array]

MAX_CHARS: Final = 10_000
_NUMBER: Final = r"^\s*[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$"
_CONSTANT_NAMES: Final = frozenset({"null", "true", "false"})

_COMPARISONS: Final[dict[type[ast.cmpop], Callable[[Array, Array], Array]]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_TEXT_TESTS: Final[dict[str, Callable[..., Array]]] = {
    "contains": pc.match_substring,
    "starts_with": pc.starts_with,
    "ends_with": pc.ends_with,
}


@dataclass(frozen=True)
class RowFilter:
    """A parsed filter; made by ``parse_filter``."""

    text: str
    columns: frozenset[str]
    """All columns that it looks at."""
    optional: frozenset[str]
    """Columns of these that need not be there."""
    _evaluate: _Evaluate

    def keeps(self, columns: Columns, rows: int) -> npt.NDArray[np.bool_]:
        """Return (n,) which rows to keep. ``columns`` has those that are there, of ``rows`` values each. Raises
        pa.ArrowException: a column's type does not go with what it is compared with."""
        absent = {name: pa.nulls(rows, pa.string()) for name in self.optional - columns.keys()}
        result = self._evaluate({**columns, **absent})
        if not pa.types.is_boolean(result.type):
            raise pa.ArrowTypeError(f"the filter is no condition, but {result.type}")
        if isinstance(result, pa.Scalar):
            return np.full(rows, result.as_py() is True)
        return np.asarray(pc.fill_null(result, False)).astype(np.bool_)


def parse_filter(text: str) -> RowFilter:
    """Read a filter. Raises ValueError: what is wrong with it, for the person who wrote it."""
    if len(text) > MAX_CHARS:
        raise ValueError(f"a filter of at most {MAX_CHARS} characters")
    try:
        tree = ast.parse(" ".join(text.split("\n")).strip(), mode="eval")
        parser = _Parser()
        evaluate = parser.condition(tree.body)
        return RowFilter(text, frozenset(parser.columns), frozenset(parser.columns - parser.required), evaluate)
    except SyntaxError as error:
        equals = "; to compare, write ==" if re.search(r"(?<![=!<>])=(?!=)", text) else ""
        raise ValueError(
            f"a filter such as 'type == \"StillImage\"': {error.msg} at character {error.offset}{equals}"
        ) from None
    except (RecursionError, MemoryError):
        raise ValueError("a filter that is not nested so deeply") from None


class _Parser:
    """Turns one syntax tree into a function, and notes the columns."""

    def __init__(self) -> None:
        self.columns: set[str] = set()
        self.required: set[str] = set()

    def condition(self, node: ast.expr) -> _Evaluate:
        match node:
            case ast.BoolOp(op=op, values=values):
                combine = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
                parts = [self.condition(value) for value in values]
                return lambda columns: reduce(combine, (part(columns) for part in parts))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.condition(operand)
                return lambda columns: pc.invert(inner(columns))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self._comparison(left, op, right)
            case ast.Compare():
                raise ValueError("one comparison at a time, joined by 'and': " + ast.unparse(node))
            case ast.Call(func=ast.Name(id=name), args=[value, text], keywords=[]) if name in _TEXT_TESTS:
                test, texts, pattern = _TEXT_TESTS[name], self._value(value), _text_of(text)
                return lambda columns: test(texts(columns), pattern=pattern)
            case _:
                return self._value(node)

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Evaluate:
        value = self._value(left)
        if isinstance(op, (ast.Is, ast.IsNot)):
            if not _is_null(right):
                raise ValueError(f"'is null' or 'is not null' instead of 'is {ast.unparse(right)}'")
            test = pc.is_null if isinstance(op, ast.Is) else pc.is_valid
            return lambda columns: test(value(columns))
        if isinstance(op, (ast.In, ast.NotIn)):
            return _membership(value, _constants_of(right), is_in=isinstance(op, ast.In))
        if _is_null(right):
            raise ValueError("'is null' or 'is not null': nothing is equal to null, not even null")
        return _compared(value, op, self._value(right), (ast.unparse(left), ast.unparse(right)))

    def _value(self, node: ast.expr) -> _Evaluate:
        match node:
            case ast.Name(id=name) if name.lower() not in _CONSTANT_NAMES:
                return self._column(name)
            case ast.Call(func=ast.Name(id="column"), args=[ast.Constant(value=str(name))], keywords=[]):
                return self._column(name)
            case ast.Call(func=ast.Name(id="optional"), args=[argument], keywords=[]):
                required = set(self.required)
                column = self._value(argument)
                self.required = required
                return column
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _CONVERSIONS:
                convert, given = _CONVERSIONS[name], self._value(argument)
                return lambda columns: convert(given(columns))
            case _:
                constant = _constant_of(node)
                return lambda _: constant

    def _column(self, name: str) -> _Evaluate:
        self.columns.add(name)
        self.required.add(name)
        return lambda columns: columns[name]


_OPERATORS: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}


def _compared(value: _Evaluate, op: ast.cmpop, other: _Evaluate, told: tuple[str, str]) -> _Evaluate:
    compare, sign = _COMPARISONS[type(op)], _OPERATORS[type(op)]

    def evaluate(columns: Columns) -> Array:
        one, two = value(columns), other(columns)
        for text, number, sides in ((one, two, ("number({})", "{}")), (two, one, ("{}", "number({})"))):
            if pa.types.is_string(text.type) and _is_number(number.type):
                written = f" {sign} ".join(side.format(name) for side, name in zip(sides, told, strict=True))
                raise pa.ArrowTypeError(f"a text is compared with a number: write {written}")
        return compare(one, two)

    return evaluate


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def _membership(value: _Evaluate, members: Array, *, is_in: bool) -> _Evaluate:
    def evaluate(columns: Columns) -> Array:
        values = value(columns)
        found = pc.is_in(values, value_set=members.cast(values.type))
        return pc.if_else(pc.is_valid(values), found if is_in else pc.invert(found), pa.scalar(None, pa.bool_()))

    return evaluate


def _as_number(values: Array) -> Array:
    if not pa.types.is_string(values.type):
        return values
    is_number = pc.match_substring_regex(values, pattern=_NUMBER)
    return pc.utf8_trim_whitespace(pc.if_else(is_number, values, pa.scalar(None, pa.string()))).cast(pa.float64())


def _as_license(values: Array) -> Array:
    from ddmpi.core.licenses import spdx_of  # noqa: PLC0415  # its tables take a while to build, and few filters ask

    if isinstance(values, pa.Scalar):
        return pa.scalar(spdx_of(str(values)), pa.string())
    texts = values.cast(pa.string()).dictionary_encode()  # a table has few licenses, in many rows
    names = [None if text is None else spdx_of(text) for text in texts.dictionary.to_pylist()]
    return pa.array(names, pa.string()).take(texts.indices)


_CONVERSIONS: Final[dict[str, Callable[[Array], Array]]] = {
    "lower": pc.utf8_lower,
    "text": lambda values: values.cast(pa.string()),
    "spdx": _as_license,
    "number": _as_number,
}


def _is_null(node: ast.expr) -> bool:
    name = node.id.lower() if isinstance(node, ast.Name) else ""
    return name == "null" or (isinstance(node, ast.Constant) and node.value is None)


def _constants_of(node: ast.expr) -> Array:
    if not isinstance(node, (ast.List, ast.Tuple)) or not node.elts:
        raise ValueError(f'a list such as ["a", "b"] after \'in\' instead of {ast.unparse(node)}')
    members = [_constant_of(element).as_py() for element in node.elts]
    if len({type(member) for member in members}) > 1:
        raise ValueError(f"only texts or only numbers in {ast.unparse(node)}")
    return pa.array(members)


def _constant_of(node: ast.expr) -> Array:
    match node:
        case ast.Name(id=name) if name.lower() in {"true", "false"}:
            return pa.scalar(name.lower() == "true")
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return _scalar(value)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return _scalar(-value)
        case _:
            known = "a column, a text, a number or one of the known functions"
            raise ValueError(f"{known} instead of {ast.unparse(node)!r}")


def _scalar(value: bool | float | str) -> Array:
    try:
        return pa.scalar(value)
    except (OverflowError, pa.ArrowInvalid):
        raise ValueError(f"a number of 64 bits instead of {value!r}") from None


def _text_of(node: ast.expr) -> str:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        raise ValueError(f"a text in quotes instead of {ast.unparse(node)}")
    return node.value
