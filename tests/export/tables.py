"""An output folder whose rows have licenses, creators and datasets, for the targets that leave the images out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ddmpi.core.records import BatchRef
from ddmpi.io.folder.checkpoint import Checkpoint, save
from ddmpi.io.folder.layout import Layout
from tests.io.result_data import Reader, make_answer, make_batch, make_failure, make_image, open_writer


@dataclass
class TableReader(Reader):
    """The rows of one batch; columns that are not given are made up."""

    given: Mapping[str, Sequence[Any]] = ()  # type: ignore[assignment]

    def read(self, batch: BatchRef, columns: Sequence[str] | None = None) -> pa.Table:
        table = super().read(batch)
        for name, values in dict(self.given).items():
            if name in table.column_names:
                table = table.drop_columns([name])
            table = table.append_column(name, pa.array(values))
        return table if columns is None else table.select(list(columns))


def write_results(root: Path, given: Mapping[str, Sequence[Any]], errors: Sequence[int] = ()) -> dict[int, bytes]:
    """Write an output folder with these columns, in two parts; returns the images by row number."""
    rows = len(next(iter(given.values())))
    batch, layout = make_batch(rows=rows), Layout(root)
    keep = [name for name in given if name not in Reader().read(batch).column_names]
    writers = [open_writer(layout, TableReader(given=given), keep_columns=keep, rank=rank) for rank in range(2)]
    images = {row: make_image(20 + row, 10, "PNG") for row in range(rows) if row not in errors}
    for row, image in images.items():
        writers[row % 2].success(batch, (row,), make_answer(row, image))
    for row in errors:
        writers[0].error(batch, (row,), make_failure(), None, attempts=1)
    for writer in writers:
        writer.stop()
    semantic = {"downloader_parameters.hash_algorithm": "sha256", "downloader_parameters.image_size": 0}
    save(layout, Checkpoint(1, config_semantic=semantic))
    return images
