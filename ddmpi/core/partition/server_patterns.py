"""Which of many servers are meant by patterns: those of the ignored table, or of the ``servers`` rules. Pure.

Must not know what becomes of the servers. Invariant: a pattern is a name, or a glob over the whole name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_WILD = re.compile(r"[*?]")
_HEADERS = frozenset({"server_name", "servername"})


def patterns_in(text: str) -> list[str]:
    """The column ``server_name`` of a CSV file, or its first one where no header says so, in lower case: names of
    servers, and globs. The header is no name."""
    lines = [[cell.strip().strip('"').strip().lower() for cell in line.split(",")] for line in text.splitlines()]
    header = lines[0] if lines else []
    place = next((place for place, name in enumerate(header) if name in _HEADERS), 0)
    names = [cells[place] for cells in lines if len(cells) > place]
    return [name for name in dict.fromkeys(names) if name and name not in _HEADERS and not name.startswith("#")]


def matching_servers(names: pa.Array[Any] | pa.ChunkedArray[Any], patterns: Iterable[str]) -> npt.NDArray[np.bool_]:
    """(n,) which of these canonical server names are meant. Arrow looks for all plain names at once and for globs one
    by one; Python only for sets such as ``[ab]``."""
    wanted = list(dict.fromkeys(patterns))
    found = np.asarray(pc.is_in(names, value_set=pa.array(wanted, pa.string())))
    for pattern in wanted:
        if "[" in pattern:
            found = found | np.fromiter((fnmatchcase(str(name), pattern) for name in names), np.bool_, len(names))
        elif pattern.startswith("*") and not _WILD.search(pattern, 1):
            found = found | np.asarray(pc.ends_with(names, pattern=pattern[1:]))
        elif _WILD.search(pattern):
            found = found | np.asarray(pc.match_substring_regex(names, pattern=_as_regex(pattern)))
    return found


def _as_regex(glob: str) -> str:
    """For RE2, which has no atomic groups as ``fnmatch.translate`` makes them."""
    return "^" + re.escape(glob).replace(r"\*", ".*").replace(r"\?", ".") + "$"
