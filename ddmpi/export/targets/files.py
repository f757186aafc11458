"""``--to files``: folders of image files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from ddmpi.export.samples import as_json, described, sample_name, suffix_of
from ddmpi.export.target import Picture, Target
from ddmpi.io.folder.durable import fsync_path, make_folders, publish
from ddmpi.io.results.schema import ROW_NUMBER


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
            self._lines.append(as_json({"file_name": name, **row}))

    def commit(self) -> None:
        lines = "".join(f"{line}\n" for line in self._lines)
        (self._folder / "metadata.jsonl").write_bytes(lines.encode())
        for path in self._folder.iterdir():  # all at the end: the disk was busy with the first ones meanwhile
            fsync_path(path)
        if self._final.exists():  # whole, but a kill came before its counts were written
            shutil.rmtree(self._final)
        publish(self._folder, self._final)

    def discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class Files(Target):
    """A folder per shard."""

    def open(self, name: str, temporary: Path, folder: Path) -> FilesShard:
        return FilesShard(temporary / name, folder / name)


TARGET = Files
