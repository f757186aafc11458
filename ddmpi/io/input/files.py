"""Which files the input consists of, and the columns that their folders' names give them.

A path without ``://`` is one of this machine's; a URI names objects of a store (see ``object_store``), which are listed
and read where they are.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path, PurePath, PurePosixPath
from typing import Final
from urllib.parse import unquote

import pyarrow.fs

from ddmpi.errors import InputError, SetupError
from ddmpi.io.store.object_store import STORE_ERRORS, is_uri, open_store, place_of, store_reason

_NULL: Final = "__HIVE_DEFAULT_PARTITION__"
"""What writers of partitioned data sets put for null."""


@dataclass(frozen=True)
class StoredFile:
    """An object of a store, as far as it is named like a ``Path``."""

    files: pyarrow.fs.FileSystem
    path: str
    scheme: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


InputPath = Path | StoredFile


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file, and the values of columns that stand in its folders' names (``year=2024/kind=a%20b``)."""

    path: InputPath
    folder_columns: Mapping[str, str | None] = field(default_factory=dict)


def size_and_time(path: InputPath) -> tuple[int, int]:
    """Return bytes, and nanoseconds since 1970 of the last change. Raises OSError."""
    if isinstance(path, StoredFile):
        found = path.files.get_file_info(path.path)
        if found.type is not pyarrow.fs.FileType.File:
            raise FileNotFoundError(f"no such object: {path}")
        return int(found.size), int(found.mtime_ns or 0)
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def list_files(path: str, is_known_kind: Callable[[PurePath], bool]) -> list[InputFile]:
    """Return the input files behind a file name, a folder (searched through) or a glob, in name order, or behind a URI.

    In folders, names that begin with ``.`` or ``_`` and files of unknown kinds are passed over, as dataset readers do.
    Folders' names count from the given folder on, or from the first folder of a glob that is not written out.
    Raises InputError if there is none.
    """
    found = _stored_files(path, is_known_kind) if is_uri(path) else _local_files(path, is_known_kind)
    if not found:
        raise InputError(f"{place_of(path) if is_uri(path) else path}: no such file, and no input file matches")
    return sorted(found, key=lambda file: str(file.path))


def _local_files(path: str, is_known_kind: Callable[[PurePath], bool]) -> list[InputFile]:
    given = Path(path)
    if given.is_dir():
        root = given
        found = [
            file for file in given.rglob("*") if file.is_file() and _is_data(file.relative_to(given), is_known_kind)
        ]
    elif given.exists():
        root = given.parent
        found = [given]
    else:
        root = Path(*takewhile(lambda name: not glob.has_magic(name), given.parts))
        found = [Path(name) for name in glob.glob(path, recursive=True) if Path(name).is_file()]  # noqa: PTH207
    return [InputFile(file, _folder_columns(file.relative_to(root))) for file in found]


def _stored_files(uri: str, is_known_kind: Callable[[PurePath], bool]) -> list[InputFile]:
    place, question_mark, options = uri.partition("?")
    scheme, _, rest = place.partition("://")
    names = rest.rstrip("/").split("/")
    fixed = list(takewhile(lambda name: not glob.has_magic(name), names))
    pattern = [unquote(name) for name in names[len(fixed) :]]
    try:
        files, root = open_store(f"{scheme}://{'/'.join(fixed)}{question_mark}{options}")
        if not pattern and files.get_file_info(root).type is pyarrow.fs.FileType.File:
            return [InputFile(StoredFile(files, root, scheme))]
        return [
            InputFile(StoredFile(files, f"{root}/{inner}", scheme), _folder_columns(inner))
            for inner in _objects(files, root)
            if (_matches(inner.parts, pattern) if pattern else _is_data(inner, is_known_kind))
        ]
    except STORE_ERRORS as error:
        raise InputError(f"{place}: {store_reason(error)}") from error
    except SetupError as error:
        raise InputError(f"path_to_input: {error}") from error


def _objects(files: pyarrow.fs.FileSystem, root: str) -> Iterator[PurePosixPath]:
    """Yield all objects below ``root``, relative to it."""
    for info in files.get_file_info(pyarrow.fs.FileSelector(root, recursive=True)):
        if info.type is pyarrow.fs.FileType.File:
            yield PurePosixPath(info.path).relative_to(root)


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Match as ``glob`` does: a wildcard stays within a name, ``**`` means folders, and neither finds hidden names."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        here = _matches(names, pattern[1:]) if len(pattern) > 1 else len(names) == 1 and _is_shown(names[0])
        return here or (bool(names) and _is_shown(names[0]) and _matches(names[1:], pattern))
    if not names or not (_is_shown(names[0]) or pattern[0].startswith(".")):
        return False
    return fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _is_shown(name: str) -> bool:
    return not name.startswith(".")


def _is_data(inner: PurePath, is_known_kind: Callable[[PurePath], bool]) -> bool:
    hidden = any(part.startswith((".", "_")) for part in inner.parts)
    return not hidden and is_known_kind(inner)


def _folder_columns(relative: PurePath) -> dict[str, str | None]:
    pairs = [part.split("=", 1) for part in relative.parts[:-1] if "=" in part]
    return {unquote(name): None if value == _NULL else unquote(value) for name, value in pairs if name}
