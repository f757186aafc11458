"""Of several URLs of a row the one that is asked first, and its mirrors: those to ask when that one fails for good.

Decides by the URLs' form alone: the first that is acceptable counts as first, and without any the first that is there.
The others follow in the table's order, refused ones too, since the row's error is to name them. A mirror that is
refused for a user name and a password stays refused without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.partition.partition import servers_of
from ddmpi.core.records import MIRRORS
from ddmpi.io.input.rows import CREDENTIALS, Array, as_text

MIRRORS_FIELD: Final = pa.field(MIRRORS, pa.list_(pa.string()))

_NO_TEXT: Final = pa.scalar("")
_Flags = npt.NDArray[np.bool_]


class _Texts(NamedTuple):
    """The URLs of one column. ``is_broken`` are those that are not UTF-8."""

    values: Array
    is_there: _Flags
    is_broken: _Flags


def first_and_mirrors(urls: Sequence[Array]) -> tuple[Array, Array]:
    """Return (n,) the URL that is asked first, as bytes, and the others (list of texts, null where there is none).

    Args:
        urls: columns of (n,) texts or bytes, in the order in which they are to be tried. An empty one is none, and one
            that is there already is not asked twice.
    """
    texts = [_texts_of(column) for column in urls]
    first = _firsts(texts)
    octets = [column.cast(pa.binary()) for column in urls]
    chosen: Array = pc.choose(pa.array(first), *octets)
    return chosen, _others(texts, first)


def _texts_of(column: Array) -> _Texts:
    values, broken = as_text(column)
    is_there = np.asarray(pc.not_equal(pc.utf8_trim_whitespace(values), _NO_TEXT).fill_null(False))
    is_broken = np.zeros(len(values), np.bool_) if broken is None else np.asarray(broken)
    return _Texts(values, is_there, is_broken)


def _firsts(texts: Sequence[_Texts]) -> npt.NDArray[np.int64]:
    """Return (n,) in which column the URL is that is asked first."""
    is_there = np.stack([column.is_there for column in texts])
    first: npt.NDArray[np.int64] = is_there.argmax(axis=0)
    is_open: _Flags = np.asarray(is_there.any(axis=0))
    for place, column in enumerate(texts):
        looked_at = np.flatnonzero(is_open & column.is_there)
        if len(looked_at):
            rejects = servers_of(column.values.take(looked_at)).rejects
            accepted = looked_at[np.asarray(pc.is_null(rejects)) & ~column.is_broken[looked_at]]
            first[accepted] = place
            is_open[accepted] = False
    return first


def _others(texts: Sequence[_Texts], first: npt.NDArray[np.int64]) -> Array:
    rows, columns = len(first), len(texts)
    is_mirror = np.stack([column.is_there for column in texts], axis=1)
    is_mirror[np.arange(rows), first] = False
    for earlier, later in combinations(range(columns), 2):
        same = pc.equal(texts[earlier].values, texts[later].values).fill_null(False)
        is_mirror[np.asarray(same), later] = False
    places = np.flatnonzero(is_mirror.ravel())
    values = pa.concat_arrays([column.values for column in texts]).take(places % columns * rows + places // columns)
    counts = is_mirror.sum(axis=1)
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32(), mask=np.append(counts == 0, False))
    return pa.ListArray.from_arrays(offsets, _without_passwords(values))


def _without_passwords(values: Array) -> Array:
    """Put stars in the place of what may be a password; none of these URLs is ever asked."""
    if not pc.any(pc.match_substring(values, "@"), min_count=0).as_py():
        return values
    masked: pa.Array[Any] = pc.replace_substring_regex(values, pattern=CREDENTIALS, replacement=r"\1***@")
    return masked
