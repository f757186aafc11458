"""The values of a column that repeats a few of them: rows then carry four bytes each instead of a text.

Licenses, sources and the like are half of a table's text and say little. A vocabulary only grows, so that codes stay
what they are; it is for columns of which the file itself says that there are few values (``SourceFile.repeated``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

Array: TypeAlias = "pa.Array[Any]"


class Vocabulary:
    """The texts of one column. May be used from several threads; which code a text gets depends on who comes first."""

    def __init__(self) -> None:
        self._texts: Array = pa.array([], pa.string())
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Vocabulary: {len(self._texts)} texts>"

    def codes(self, values: pa.DictionaryArray[Any, Any], as_text: Callable[[Array], Array]) -> Array:
        """One int32 per value, null for null. ``as_text`` makes strings of the array's dictionary, of whatever type."""
        own = as_text(values.dictionary)
        with self._lock:
            known = pc.index_in(own, value_set=self._texts)
            if known.null_count:
                new = pc.unique(own.filter(pc.is_null(known)).drop_null())
                self._texts = pa.concat_arrays([self._texts, new])
                known = pc.index_in(own, value_set=self._texts)
        return known.take(values.indices)

    def texts(self, codes: Array) -> Array:
        """The values that these codes stand for."""
        return self._texts.take(codes)
