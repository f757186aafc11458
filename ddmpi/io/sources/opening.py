"""Which kind a file is, by the config or the ending of its name, and how all files of an input are opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import PurePath
from typing import Final

from ddmpi.config.input_section import AUTO, InputSection
from ddmpi.errors import InputError
from ddmpi.io.sources.byte_streams import Compression
from ddmpi.io.sources.columnar import ArrowSource, ParquetSource
from ddmpi.io.sources.files import InputFile, StoredFile
from ddmpi.io.sources.json_rows import JsonDocumentSource, JsonLinesSource
from ddmpi.io.sources.separated import SeparatedSource
from ddmpi.io.sources.source_file import Reading, SourceFile
from ddmpi.io.sources.text_lines import LinesSource
from ddmpi.report.formats import counted

_COMPRESSIONS: Final[dict[str, Compression]] = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
_FORMATS: Final[dict[str, Callable[[InputFile, Compression | None, Reading], SourceFile]]] = {
    "parquet": ParquetSource,
    "csv": SeparatedSource,
    "tsv": partial(SeparatedSource, tabs=True),
    "txt": LinesSource,
    "jsonl": JsonLinesSource,
    "json": JsonDocumentSource,
    "arrow": ArrowSource,
}
_ENDINGS: Final = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".parq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_CONFIG: Final = "not a known kind of file: this is a config, and no table. Write: ddmpi run {path}"
_ARCHIVE: Final = "not a known kind of file: this is an archive. Unpack it, and name the table that was in it"
_BOOK: Final = "not a known kind of file: this is a spreadsheet. Save its sheet as CSV, and name that"
_OTHER_KINDS: Final = {
    ".yaml": _CONFIG, ".yml": _CONFIG, ".zip": _ARCHIVE, ".tar": _ARCHIVE, ".tgz": _ARCHIVE, ".7z": _ARCHIVE,
    ".xlsx": _BOOK, ".xls": _BOOK, ".ods": _BOOK,
}  # fmt: skip
"""Endings of what is often taken for a table -> what is said of it."""
_UNCOMPRESSED: Final = frozenset({"parquet", "arrow"})
"""Formats that compress their columns themselves."""
_THREADS_STORED: Final = 16
"""A store answers after tens of milliseconds."""
_THREADS_LOCAL: Final = 4
"""More of them only take the interpreter's lock from each other."""
_LOCAL_AT_ONCE: Final = 32
"""Files that a thread opens one after the other: handing over each by itself would cost as much as opening it."""


def open_sources(files: Sequence[InputFile], reading: Reading) -> list[SourceFile]:
    """Open all files of an input, several at a time. Raises InputError."""
    first = open_source(files[0], reading)
    if isinstance(first, SeparatedSource):
        reading = replace(reading, first=first.header)
    is_stored = isinstance(files[0].path, StoredFile)
    at_once = 1 if is_stored else _LOCAL_AT_ONCE
    groups = [files[start : start + at_once] for start in range(1, len(files), at_once)]
    with ThreadPoolExecutor(_THREADS_STORED if is_stored else _THREADS_LOCAL) as threads:
        opened = threads.map(lambda group: [open_source(file, reading) for file in group], groups)
        return [first, *chain.from_iterable(opened)]


def open_source(file: InputFile, reading: Reading) -> SourceFile:
    """Open one file. Raises InputError: its kind is not known, or something is wrong with it."""
    ending, compression = _ending_of(file.path)
    format_ = format_of(file.path, reading.keys)
    if format_ is None:
        if other := _OTHER_KINDS.get(ending):
            raise InputError(f"{file.path}: {other.format(path=file.path)}")
        endings = ", ".join(_ENDINGS)
        raise InputError(
            f"{file.path}: not a known kind of file (known: {endings}; text ones also with "
            f"{', '.join(_COMPRESSIONS)}); write input.format if it is one of these by another name"
        )
    if compression is not None and format_ in _UNCOMPRESSED:
        raise InputError(f"{file.path}: a file of this kind is not compressed as a whole ({ending}): unpack it")
    return _FORMATS[format_](file, compression, reading)


def format_of(path: PurePath | StoredFile, keys: InputSection) -> str | None:
    """Return the format of a file, None where neither the config nor its name says it. A .txt is a table where a
    separator is given."""
    if keys.format != AUTO:
        return keys.format
    ending = _ending_of(path)[0]
    return "csv" if ending == ".txt" and keys.separator != AUTO else _ENDINGS.get(ending)


def is_known_kind(path: PurePath) -> bool:
    """Return whether the name ends like one of the kinds of files that are read."""
    return _ending_of(path)[0] in _ENDINGS


def _ending_of(path: PurePath | StoredFile) -> tuple[str, Compression | None]:
    name = path.name.lower()
    compression = _COMPRESSIONS.get(os.path.splitext(name)[1])  # noqa: PTH122  # of a text, not of a path
    stem = os.path.splitext(name)[0] if compression else name  # noqa: PTH122
    return os.path.splitext(stem)[1], compression  # noqa: PTH122


def describe(sources: Sequence[SourceFile], used: Collection[str]) -> list[str]:
    """Return a line for each way in which files are read: which files, how, and how many of their columns are used."""
    alike: dict[str, list[SourceFile]] = {}
    for source in sources:
        names = source.schema.names
        columns = f"{len(set(names).intersection(used))} of {counted(len(names), 'column')} used"
        alike.setdefault(f"{source.description}; {columns}", []).append(source)
    return [f"{_named(files)}: {text}" for text, files in alike.items()]


def _named(sources: Sequence[SourceFile]) -> str:
    others = f" and {counted(len(sources) - 1, 'other')}" if len(sources) > 1 else ""
    return f"{sources[0].path.name}{others}"
