"""The three formats of a shard. Each is written under a temporary name, synced, and renamed when it is whole.

A sample's name is its row number: unique, sortable, and without characters that tar, shells or WebDataset take amiss,
which cannot be said of uuids that a table brought itself. The bytes of a shard depend on its rows alone: one that is
written again after a kill is the same.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol, cast

import pyarrow as pa

from ddmpi.export.options import Target
from ddmpi.export.selection import Picture
from ddmpi.io.folder.durable import NewFile, fsync_path, make_folders, publish
from ddmpi.io.results.part_file import PartFile
from ddmpi.io.results.schema import IMAGE_FIELD, ROW_NUMBER

_SUFFIXES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"\x89PNG", "png"),
    (0, b"GIF8", "gif"),
    (8, b"WEBP", "webp"),
    (0, b"II*\0", "tif"),
    (0, b"MM\0*", "tif"),
    (0, b"II+\0", "tif"),
    (0, b"MM\0+", "tif"),
    (8, b"avif", "avif"),
    (8, b"avis", "avif"),
    (8, b"heic", "heic"),
    (8, b"heix", "heic"),
    (8, b"mif1", "heic"),
    (0, b"\0\0\0\x0cjP", "jp2"),
    (0, b"\xff\x4f\xff\x51", "j2k"),
    (0, b"BM", "bmp"),
)


class ShardWriter(Protocol):
    """A shard under construction. All methods raise StorageError or OSError."""

    def add(self, rows: pa.Table, pictures: Sequence[Picture]) -> None:
        """Append rows (without their image) and their images."""

    def commit(self) -> None:
        """Give it its final name."""

    def discard(self) -> None:
        """Leave nothing."""


def open_shard(to: Target, temporary: Path, target: Path, name: str) -> ShardWriter:
    """Return a writer of the shard ``name`` below ``target``, built in the folder ``temporary``."""
    if to == "webdataset":
        return _TarShard(temporary / f"{name}.tar", target / f"{name}.tar")
    if to == "files":
        return _FilesShard(temporary / name, target / name)
    return _ParquetShard(temporary / f"{name}.parquet", target / f"{name}.parquet")


def sample_name(row_number: int) -> str:
    """Return twelve digits: enough for a thousand billion rows."""
    return f"{row_number:012d}"


def suffix_of(body: bytes) -> str:
    """Return the usual ending of such a file's name, by its first bytes; "bin" where they say nothing."""
    return next((suffix for at, magic, suffix in _SUFFIXES if body.startswith(magic, at)), "bin")


def described(rows: pa.Table, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """Return the rows with what a new image changes."""
    found: list[dict[str, Any]] = rows.to_pylist()
    for row, picture in zip(found, pictures, strict=True):
        if picture.digest is not None and picture.resized_size is not None:
            row.update(hashsum_resized=picture.digest, resized_size=list(picture.resized_size))
    return found


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=_plain)


def _plain(value: object) -> str:
    """Return what JSON has no notation for."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)  # a kept column's date, decimal or the like


class _TarShard:
    """What WebDataset reads: for each sample NAME.json and NAME.jpg (or another suffix), side by side."""

    def __init__(self, temporary: Path, final: Path) -> None:
        self._final = final
        self._file = NewFile(temporary)
        self._tar = tarfile.open(fileobj=cast("Any", self._file), mode="w")  # noqa: SIM115  # closed by commit

    def add(self, rows: pa.Table, pictures: Sequence[Picture]) -> None:
        for row, picture in zip(described(rows, pictures), pictures, strict=True):
            name = sample_name(row[ROW_NUMBER])
            self._append(f"{name}.json", _json(row).encode())
            self._append(f"{name}.{suffix_of(picture.body)}", picture.body)

    def commit(self) -> None:
        self._tar.close()
        self._file.commit(self._final)

    def discard(self) -> None:
        self._file.discard()

    def _append(self, name: str, data: bytes) -> None:
        entry = tarfile.TarInfo(name)  # its time is 1970: the same rows give the same bytes
        entry.size = len(data)
        self._tar.addfile(entry, io.BytesIO(data))


class _FilesShard:
    """A folder of image files with metadata.jsonl beside them, as the imagefolder reader of ``datasets`` takes it."""

    def __init__(self, temporary: Path, final: Path) -> None:
        self._folder, self._final = temporary, final
        make_folders(temporary)
        self._lines: list[str] = []

    def add(self, rows: pa.Table, pictures: Sequence[Picture]) -> None:
        for row, picture in zip(described(rows, pictures), pictures, strict=True):
            name = f"{sample_name(row[ROW_NUMBER])}.{suffix_of(picture.body)}"
            (self._folder / name).write_bytes(picture.body)
            self._lines.append(_json({"file_name": name, **row}))

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


class _ParquetShard:
    """One Parquet file with the columns of the results."""

    def __init__(self, temporary: Path, final: Path) -> None:
        self._path, self._final = temporary, final
        self._file: PartFile | None = None

    def add(self, rows: pa.Table, pictures: Sequence[Picture]) -> None:
        table = rows
        if any(picture.digest is not None for picture in pictures):
            digests = pa.array([picture.digest for picture in pictures], pa.string())
            sizes = pa.array([picture.resized_size for picture in pictures], rows.schema.field("resized_size").type)
            for name, column in (("hashsum_resized", digests), ("resized_size", sizes)):
                table = table.set_column(table.schema.get_field_index(name), rows.schema.field(name), column)
        if self._file is None:
            schema = table.schema.insert(table.schema.get_field_index("resized_size") + 1, IMAGE_FIELD)
            self._file = PartFile(self._path, schema)
        self._file.write(table, [picture.body for picture in pictures])

    def commit(self) -> None:
        if self._file is None:
            raise ValueError("a shard without rows")
        self._file.commit(self._final)

    def discard(self) -> None:
        if self._file is not None:
            self._file.discard()
