"""``--to files``: folders of image files, or with ``--path`` one tree of them."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.export.paths import PathTemplate, marked
from ddmpi.export.plan import reading
from ddmpi.export.samples import as_json, described, sample_name, suffix_of
from ddmpi.export.selection import current, find_later_rows
from ddmpi.export.target import Picture, ShardWriter, Target
from ddmpi.io.folder.durable import NewFile, fsync_path, make_folders, os_rename, publish, write_atomically
from ddmpi.io.folder.layout import Layout
from ddmpi.io.mpi.launcher import Ranks
from ddmpi.io.results.schema import ROW_NUMBER

_METADATA: Final = "metadata.jsonl"
_FILE_NAME: Final = "file_name"
_TAKEN: Final = (f"_{_FILE_NAME}", f"_{_FILE_NAME}s")
"""Endings of names, a ``_`` before these, that the imagefolder reader of ``datasets`` takes for paths of images."""


def metadata_line(file_name: str, row: Mapping[str, Any]) -> str:
    """Return a line of metadata.jsonl. A column of the table that would be taken for a path gets a ``_`` at its end."""
    columns = {f"{name}_" if f"_{name}".endswith(_TAKEN) else name: value for name, value in row.items()}
    return as_json({_FILE_NAME: file_name, **columns}) + "\n"


class FilesShard:
    """A folder of image files with metadata.jsonl beside them, as the imagefolder reader of ``datasets`` takes it."""

    def __init__(self, temporary: Path, final: Path) -> None:
        self._folder, self._final = temporary, final
        make_folders(temporary)
        self._lines: list[str] = []

    def add(self, rows: pa.Table, pictures: Sequence[Picture]) -> None:
        for row, picture in zip(described(rows, pictures), pictures, strict=True):
            name = f"{sample_name(row[ROW_NUMBER])}.{suffix_of(picture.body)}"
            (self._folder / name).write_bytes(picture.body)
            self._lines.append(metadata_line(name, row))

    def commit(self) -> None:
        (self._folder / _METADATA).write_bytes("".join(self._lines).encode())
        for path in self._folder.iterdir():  # all at the end: the disk was busy with the first ones meanwhile
            fsync_path(path)
        if self._final.exists():  # whole, but a kill came before its counts were written
            shutil.rmtree(self._final)
        publish(self._folder, self._final)

    def discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class TreeShard:
    """Image files that all shards put into one tree; their lines of metadata.jsonl wait in ``lines`` for the others'.

    Args:
        later: sorted numbers of rows whose path an earlier row has.
    """

    def __init__(
        self, temporary: Path, lines: Path, tree: Path, template: PathTemplate, later: npt.NDArray[np.int64]
    ) -> None:
        self._folder, self._lines_file, self._tree = temporary, lines, tree
        self._template, self._later = template, later
        make_folders(temporary)
        self._lines: list[str] = []
        self._files: list[tuple[Path, Path]] = []

    def add(self, rows: pa.Table, pictures: Sequence[Picture]) -> None:
        is_later = np.isin(rows.column(ROW_NUMBER).to_numpy(), self._later).tolist()
        stems = self._template.stems(rows)
        for row, stem, later, picture in zip(described(rows, pictures), stems, is_later, pictures, strict=True):
            number = row[ROW_NUMBER]
            path = f"{marked(stem, number) if later else stem}.{suffix_of(picture.body)}"
            written = self._folder / sample_name(number)
            written.write_bytes(picture.body)
            self._files.append((written, self._tree / path))
            self._lines.append(metadata_line(path, row))

    def commit(self) -> None:
        for written, _ in self._files:
            fsync_path(written)
        folders = {final.parent for _, final in self._files}
        for folder in sorted(folders):
            make_folders(folder)
        for written, final in self._files:
            os_rename(written, final)
        for folder in sorted(folders):
            fsync_path(folder)
        self._folder.rmdir()
        write_atomically(self._lines_file, "".join(self._lines).encode())

    def discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class Files(Target):
    """A folder per shard, or a tree."""

    @staticmethod
    def add_options(parser: argparse._ArgumentGroup) -> None:
        parser.add_argument("--path", metavar="TEMPLATE", help="{species}/{uuid}.{ext}: one tree, paths from columns")

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._template = PathTemplate(options["path"]) if options["path"] else None
        self.columns = self._template.columns if self._template else []
        self._later: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def prepare(self, layout: Layout, parts: Sequence[str], ranks: Ranks, replaced: Mapping[str, IntArray]) -> None:
        """Find the rows whose path an earlier row has."""
        if (template := self._template) is None:
            return
        columns = sorted({ROW_NUMBER, *template.columns})

        def entries(part: str) -> npt.NDArray[np.uint64]:
            with reading(layout, part) as path:
                found = template.entries(pq.read_table(path, columns=columns, partitioning=None))
            return current(found, replaced.get(part))

        self._later = find_later_rows(entries, parts, ranks)

    def open(self, name: str, temporary: Path, folder: Path) -> ShardWriter:
        if self._template is None:
            return FilesShard(temporary / name, folder / name)
        return TreeShard(temporary / name, _lines_of(temporary.parent, name), folder, self._template, self._later)

    def finish(
        self, layout: Layout, folder: Path, summary: Mapping[str, Any], shards: Sequence[tuple[str, Any]]
    ) -> None:
        """Write the metadata of a tree."""
        del layout, summary
        if self._template is None:
            return
        state = folder / ".export"
        joined = NewFile(state / "tmp" / _METADATA)
        try:
            for name, _ in shards:
                joined.write(_lines_of(state, name).read_bytes())
        except BaseException:
            joined.discard()
            raise
        joined.commit(folder / _METADATA)


def _lines_of(state: Path, shard: str) -> Path:
    return state / f"{shard}.jsonl"


TARGET = Files
