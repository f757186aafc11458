"""Paths that are made of columns: ``{species}/{uuid}.{ext}`` for each row.

Values come from tables and must not lead out of the folder, nor meet a name that some file system takes for something
else. What a value may not have in a path becomes ``_``; so does ``~``, which stands before the row number where the
same path was given twice: with it no two are the same, also where case is not told apart.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import string
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ddmpi.export.samples import sample_name
from ddmpi.export.selection import Entries
from ddmpi.io.results.schema import ROW_NUMBER

_ENDING: Final = ".{ext}"
_NO_VALUE: Final = "none"
_FORBIDDEN: Final = re.compile(r'[<>:"/\\|?*~]')
"""What Windows takes in no name, and ours."""
_DEVICES: Final = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.ASCII)
"""Of Windows: https://learn.microsoft.com/windows/win32/fileio/naming-a-file."""
_OURS: Final = frozenset({"export.json", "metadata.jsonl"})
_LONGEST_BYTES: Final = 200
"""Of a name, in UTF-8; the row number and the ending fit beside it into the 255 of all file systems."""


class PathTemplate:
    """A template, read once. ``columns`` are those that it names.

    Raises:
        argparse.ArgumentTypeError: it makes no sense.
    """

    def __init__(self, text: str) -> None:
        if not text.endswith(_ENDING) or text == _ENDING:
            raise argparse.ArgumentTypeError(f"--path {text}: it has to end with .{{ext}}, as in {{uuid}}.{{ext}}")
        try:
            self._names = [_pieces(name) for name in text.removesuffix(_ENDING).split("/")]
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"--path {text}: {error}") from error
        self.columns = sorted({column for name in self._names for _, column in name if column})

    def stems(self, rows: pa.Table) -> list[str]:
        """Return (n,) paths of rows, without their ending."""
        columns = {column: rows.column(column).to_pylist() for column in self.columns}
        return [
            "/".join(
                _safe("".join(text + _text(columns[column][row]) if column else text for text, column in name), depth)
                for depth, name in enumerate(self._names)
            )
            for row in range(len(rows))
        ]

    def entries(self, rows: pa.Table) -> Entries:
        """Return (n, 3): a digest of each path as file systems compare them that know no case, and the row number."""
        keys = b"".join(hashlib.sha256(stem.casefold().encode()).digest()[:16] for stem in self.stems(rows))
        halves = np.frombuffer(keys, ">u8").reshape(-1, 2).astype(np.uint64)
        return np.column_stack([halves, rows.column(ROW_NUMBER).to_numpy().astype(np.uint64)])


def marked(stem: str, row_number: int) -> str:
    """Return the path of a row whose own an earlier row has."""
    return f"{stem}~{sample_name(row_number)}"


def _pieces(name: str) -> Sequence[tuple[str, str | None]]:
    """Return (text, column after it or None) of a part of a template between slashes."""
    pieces = []
    for text, column, form, conversion in string.Formatter().parse(name):
        if column is not None and (not column or form or conversion or column == "ext"):
            raise ValueError("only names of columns may stand in {}, and {ext} at the end")
        pieces.append((text, column))
    return pieces


def _text(value: Any) -> str:
    return _NO_VALUE if value is None or value == "" else str(value)


def _safe(name: str, depth: int) -> str:
    if not (name.isascii() and name.isprintable()):  # of most there is nothing to look up, letter by letter
        name = unicodedata.normalize("NFC", name)
        name = "".join("_" if unicodedata.category(letter)[0] == "C" else letter for letter in name)
    name = _FORBIDDEN.sub("_", name).strip(" ")
    name = name.encode()[:_LONGEST_BYTES].decode(errors="ignore").rstrip(" .")
    if not name or name.startswith(".") or _DEVICES.fullmatch(name) or (depth == 0 and name.casefold() in _OURS):
        name = f"_{name}"
    return name
