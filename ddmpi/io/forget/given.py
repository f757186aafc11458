"""The file that says what is withdrawn: uuids or URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ddmpi.config.input_section import InputSection
from ddmpi.errors import InputError
from ddmpi.io.sources.files import InputFile
from ddmpi.io.sources.opening import format_of, open_source
from ddmpi.io.sources.source_file import Reading

_COLUMNS: Final = ("uuid", "identifier", "url")


def given_names(path: Path) -> frozenset[str]:
    """Return the names in a file: one a line, or the first of the columns uuid, identifier and url that a table has.

    Raises:
        InputError: the file cannot be read, has no such column, or names nothing.
    """
    lines = InputSection(format="txt")
    keys = InputSection() if format_of(path, InputSection()) else lines
    source = open_source(InputFile(path), Reading(keys, text_column=_COLUMNS[0]))
    column = next((name for name in _COLUMNS if name in source.schema.names), None)
    if column is None:
        raise InputError(f"{path}: no column {', '.join(_COLUMNS[:-1])} or {_COLUMNS[-1]}")
    values = (value for batch in source.batches([column]) for value in batch.column(0).to_pylist())
    names = frozenset(name for value in values if (name := _text(value)))
    if not names:
        raise InputError(f"{path}: names nothing")
    return names


def _text(value: object) -> str:
    """Return a value as the results have it, "" for none: text files are read as bytes."""
    if value is None:
        return ""
    return (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip()
