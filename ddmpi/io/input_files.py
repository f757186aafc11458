"""Which files the input consists of, and the columns that their folders' names give them."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from ddmpi.errors import InputError

_NULL: Final = "__HIVE_DEFAULT_PARTITION__"
"""What writers of partitioned data sets put for null."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file, and the values of columns that stand in its folders' names (``year=2024/kind=a%20b``)."""

    path: Path
    folder_columns: Mapping[str, str | None] = field(default_factory=dict)


def list_files(path: str, is_known_kind: Callable[[Path], bool]) -> list[InputFile]:
    """The input files behind a file name, a folder (searched through) or a glob, in name order.

    In folders, names that begin with ``.`` or ``_`` and files of unknown kinds are passed over, as dataset readers do.
    Folders' names count from the given folder on, or from the first folder of a glob that is not written out.
    Raises InputError if there is none.
    """
    given = Path(path)
    if given.is_dir():
        root = given
        found = [file for file in given.rglob("*") if file.is_file() and _is_data(file, given, is_known_kind)]
    elif given.exists():
        root = given.parent
        found = [given]
    else:
        root = _written_out(given)
        found = [Path(name) for name in glob.glob(path, recursive=True) if Path(name).is_file()]  # noqa: PTH207
    if not found:
        raise InputError(f"{path}: no such file, and no input file matches")
    return [InputFile(file, _folder_columns(file.relative_to(root))) for file in sorted(found, key=str)]


def _is_data(file: Path, folder: Path, is_known_kind: Callable[[Path], bool]) -> bool:
    hidden = any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    return not hidden and is_known_kind(file)


def _written_out(pattern: Path) -> Path:
    """The folders of a glob up to the first one with a wildcard."""
    for number, part in enumerate(pattern.parts):
        if glob.has_magic(part):
            return Path(*pattern.parts[:number])
    return pattern.parent


def _folder_columns(relative: Path) -> dict[str, str | None]:
    pairs = [part.split("=", 1) for part in relative.parts[:-1] if "=" in part]
    return {unquote(name): None if value == _NULL else unquote(value) for name, value in pairs if name}
