"""``--to webdataset``: tar files."""

from __future__ import annotations

import argparse
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from ddmpi.export.plan import shard_name
from ddmpi.export.samples import as_json, described, sample_name, suffix_of
from ddmpi.export.target import Picture, Target
from ddmpi.io.folder.durable import NewFile
from ddmpi.io.results.schema import ROW_NUMBER


class TarShard:
    """What WebDataset reads: for each sample NAME.json and NAME.jpg (or another suffix), side by side, and NAME.txt
    where there is a caption: open_clip leaves out samples that have none."""

    def __init__(self, temporary: Path, final: Path, caption: str | None) -> None:
        self._final, self._caption = final, caption
        self._captions = 0
        self._file = NewFile(temporary)
        self._tar = tarfile.open(fileobj=cast("Any", self._file), mode="w")  # noqa: SIM115  # closed by commit

    def add(self, rows: pa.Table, pictures: Sequence[Picture]) -> None:
        for row, picture in zip(described(rows, pictures), pictures, strict=True):
            name = sample_name(row[ROW_NUMBER])
            self._append(f"{name}.json", as_json(row).encode())
            if self._caption is not None and (caption := row[self._caption]) is not None:
                self._append(f"{name}.txt", str(caption).encode())
                self._captions += 1
            self._append(f"{name}.{suffix_of(picture.body)}", picture.body)

    def commit(self) -> int:
        """Give it its final name; returns how many of its samples have a caption."""
        self._tar.close()
        self._file.commit(self._final)
        return self._captions

    def discard(self) -> None:
        self._file.discard()

    def _append(self, name: str, data: bytes) -> None:
        entry = tarfile.TarInfo(name)  # its time is 1970: the same rows give the same bytes
        entry.size = len(data)
        self._tar.addfile(entry, io.BytesIO(data))


class WebDataset(Target):
    """Shards that the library ``webdataset`` reads."""

    @staticmethod
    def add_options(parser: argparse._ArgumentGroup) -> None:
        parser.add_argument("--caption", metavar="COLUMN", help="write its text as .txt beside each image")

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._caption = options["caption"]
        self.columns = [self._caption] if self._caption else []

    def open(self, name: str, temporary: Path, folder: Path) -> TarShard:
        return TarShard(temporary / f"{name}.tar", folder / f"{name}.tar", self._caption)

    def reading(self, folder: Path, shards: Sequence[tuple[str, Any]]) -> str:
        """Return the shards as WebDataset and open_clip take them, and how many samples have a caption."""
        if not shards:
            return ""
        runs = _runs([int(name.rpartition("-")[2]) for name, _ in shards])
        found = "::".join(f"{folder}/{_braces(first, last)}.tar" for first, last in runs)
        captions = f"; {sum(count for _, count in shards):,} samples have a caption" if self._caption else ""
        return f"WebDataset reads them as {found}{captions}"


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and the last of each run of consecutive numbers: a shard without a row is not there."""
    starts = [place for place, number in enumerate(numbers) if not place or number != numbers[place - 1] + 1]
    ends = [*(start - 1 for start in starts[1:]), len(numbers) - 1]
    return [(numbers[start], numbers[end]) for start, end in zip(starts, ends, strict=True)]


def _braces(first: int, last: int) -> str:
    return shard_name(first) if first == last else f"shard-{{{first:06d}..{last:06d}}}"


TARGET = WebDataset
