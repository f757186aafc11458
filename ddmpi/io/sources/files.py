"""Which files the input consists of, and the columns that their folders' names give them.

A path without ``://`` is one of this machine's; a URI names objects of a store (see ``object_store``), which are listed
and read where they are.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path, PurePath, PurePosixPath
from typing import Final, TypeVar
from urllib.parse import unquote

import pyarrow.fs

from ddmpi.core.near_names import near_names
from ddmpi.errors import InputError, SetupError
from ddmpi.io.store.object_store import STORE_ERRORS, is_uri, open_store, place_of, store_reason
from ddmpi.report.formats import counted

_Inner = TypeVar("_Inner", bound=PurePath)
_MOST_NAMED: Final = 5
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


@dataclass(frozen=True)
class Listing:
    """The files of an input in the order of their names, and the names of those that lie beside them and are none."""

    files: Sequence[InputFile]
    passed_over: Sequence[str] = ()

    def stamp(self) -> str:
        """Return a digest of the files' names, sizes and times. Raises InputError: one is not there any more."""
        digest = hashlib.sha256()
        try:
            for file in self.files:
                digest.update(repr((str(file.path), *size_and_time(file.path))).encode())
        except OSError as error:
            raise InputError(str(error)) from error
        return digest.hexdigest()

    def told(self) -> str:
        """Return what is said of the files that are passed over; "" if there are none."""
        if not self.passed_over:
            return ""
        named = ", ".join(self.passed_over[:_MOST_NAMED])
        more = f" and {len(self.passed_over) - _MOST_NAMED:,} more" if len(self.passed_over) > _MOST_NAMED else ""
        count, verb = counted(len(self.passed_over), "file"), "is" if len(self.passed_over) == 1 else "are"
        return f"{count} of other kinds {verb} passed over: {named}{more}"


def list_files(path: str, is_known_kind: Callable[[PurePath], bool]) -> Listing:
    """Return the input files behind a file name, a folder (searched through) or a glob, in name order, or behind a URI.

    In folders, names that begin with ``.`` or ``_`` and files of unknown kinds are passed over, as dataset readers do,
    and so are JSON documents beside tables of another kind: those are about the tables. Links to folders are followed,
    each folder once. Folders' names count from the given folder on, or from the first folder of a glob that is not
    written out. Raises InputError if there is none.
    """
    try:
        found, others = _stored_files(path, is_known_kind) if is_uri(path) else _local_files(path, is_known_kind)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    files = sorted(found, key=lambda file: str(file.path))
    listing = Listing(files, sorted(others))
    if not files:
        beside = f" ({listing.told()})" if others else ""
        if is_uri(path):
            raise InputError(f"{place_of(path)}: no such file, and no input file matches{beside}")
        raise InputError(f"{path}: no such file, and no input file matches{beside}{_where(Path(path))}")
    return listing


def _where(path: Path) -> str:
    """Return where a missing file was looked for, and which one there is called much alike."""
    folder = next((parent for parent in path.absolute().parents if parent.is_dir()), Path("/"))
    if path.is_dir():
        return ""
    near = near_names(path.name, [entry.name for entry in folder.iterdir()]) if folder == path.absolute().parent else []
    return f"; looked in {folder}" + (f": did you mean {path.with_name(near[0])}?" if near else "")


def _local_files(path: str, is_known_kind: Callable[[PurePath], bool]) -> tuple[list[InputFile], list[str]]:
    given = Path(path)
    if given.is_dir():
        inner, others = _sifted([file.relative_to(given) for file in _files_below(given)], is_known_kind)
        return [InputFile(given / file, _folder_columns(file)) for file in inner], others
    if given.exists():
        return [InputFile(given)], []
    root = Path(*takewhile(lambda name: not glob.has_magic(name), given.parts))
    found = [Path(name) for name in glob.glob(path, recursive=True) if Path(name).is_file()]  # noqa: PTH207
    return [InputFile(file, _folder_columns(file.relative_to(root))) for file in found], []


def _files_below(root: Path) -> Iterator[Path]:
    """Yield all files below a folder, those behind links to folders after those that lie there themselves."""
    seen: set[tuple[int, int]] = set()
    folders: list[Path] = [root]
    links: list[Path] = []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    (links if entry.is_symlink() else folders).append(folder / entry.name)
                elif entry.is_file():
                    yield folder / entry.name


def _sifted(inner: Iterable[_Inner], is_known_kind: Callable[[PurePath], bool]) -> tuple[list[_Inner], list[str]]:
    """Return the files of a folder that are taken, and the names of those that are passed over but for hidden ones."""
    shown = [file for file in inner if not any(part.startswith(".") for part in file.parts)]
    known = [file for file in shown if _is_data(file, is_known_kind)]
    tables = [file for file in known if not _is_document(file)] or known
    taken = set(tables)
    return tables, [str(file) for file in shown if file not in taken]


def _stored_files(uri: str, is_known_kind: Callable[[PurePath], bool]) -> tuple[list[InputFile], list[str]]:
    place, question_mark, options = uri.partition("?")
    scheme, _, rest = place.partition("://")
    names = rest.rstrip("/").split("/")
    fixed = list(takewhile(lambda name: not glob.has_magic(name), names))
    pattern = [unquote(name) for name in names[len(fixed) :]]
    try:
        files, root = open_store(f"{scheme}://{'/'.join(fixed)}{question_mark}{options}")
        if not pattern and files.get_file_info(root).type is pyarrow.fs.FileType.File:
            return [InputFile(StoredFile(files, root, scheme))], []
        inner = list(_objects(files, root))
        others: list[str] = []
        if pattern:
            inner = [file for file in inner if _matches(file.parts, pattern)]
        else:
            inner, others = _sifted(inner, is_known_kind)
        return [InputFile(StoredFile(files, f"{root}/{file}", scheme), _folder_columns(file)) for file in inner], others
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


def _is_document(inner: PurePath) -> bool:
    return ".json" in PurePath(inner.name.lower()).suffixes


def _is_data(inner: PurePath, is_known_kind: Callable[[PurePath], bool]) -> bool:
    hidden = any(part.startswith((".", "_")) for part in inner.parts)
    return not hidden and is_known_kind(inner)


def _folder_columns(relative: PurePath) -> dict[str, str | None]:
    pairs = [part.split("=", 1) for part in relative.parts[:-1] if "=" in part]
    return {unquote(name): None if value == _NULL else unquote(value) for name, value in pairs if name}
