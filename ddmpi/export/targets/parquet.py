"""``--to parquet``: files with the columns of the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from ddmpi.export.samples import with_new_images
from ddmpi.export.target import Picture, Target
from ddmpi.io.results.part_file import PartFile
from ddmpi.io.results.schema import IMAGE_FIELD


class ParquetShard:
    """One Parquet file with the columns of the results."""

    def __init__(self, temporary: Path, final: Path) -> None:
        self._path, self._final = temporary, final
        self._file: PartFile | None = None

    def add(self, rows: pa.Table, pictures: Sequence[Picture]) -> None:
        table = with_new_images(rows, pictures)
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


class Parquet(Target):
    """A file per shard."""

    def open(self, name: str, temporary: Path, folder: Path) -> ParquetShard:
        return ParquetShard(temporary / f"{name}.parquet", folder / f"{name}.parquet")


TARGET = Parquet
