"""Results with kept columns that targets may take amiss, and a small picture for each row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ddmpi.core.records import BatchRef
from ddmpi.export import __main__ as program
from ddmpi.io.folder.checkpoint import Checkpoint, save
from ddmpi.io.folder.layout import Layout
from tests.io.result_data import Reader, committed, make_answer, make_batch, make_image, open_writer, row_numbers

SPECIES = ("Puma concolor", "../../etc/passwd", "CON", None, "a/b\0c", "x" * 400, "Ünïcode ·", "puma CONCOLOR")
KEPT = {"species": pa.string(), "caption": pa.string(), "file_name": pa.string(), "ratio": pa.float64(),
        "subset": pa.string()}  # fmt: skip


class KeptColumns(Reader):
    """Made-up input rows with the columns of ``KEPT``; every tenth has no caption."""

    def read(self, batch: BatchRef, columns: Sequence[str] | None = None) -> pa.Table:
        rows = super().read(batch)
        numbers = row_numbers(batch).tolist()
        values: dict[str, list[Any]] = {
            "species": [SPECIES[number % len(SPECIES)] for number in numbers],
            "caption": [None if number % 10 == 3 else f"a picture, the {number}th" for number in numbers],
            "file_name": [f"theirs-{number}.jpg" for number in numbers],
            "ratio": [(0.5, np.nan, np.inf, -np.inf)[number % 4] for number in numbers],
            "subset": [("training", "held out", None)[min(number % 5, 2)] for number in numbers],
        }
        for name, column in values.items():
            rows = rows.append_column(name, pa.array(column, KEPT[name], from_pandas=False))
        return rows if columns is None else rows.select(list(columns))


@cache
def picture(row: int) -> bytes:
    """The file of a row: in three formats, no two the same."""
    return make_image(8 + row % 37, 6 + row // 37, ("JPEG", "PNG", "WEBP")[row % 3])


def make_results(root: Path, rows: int) -> Path:
    """An output folder with so many rows in two parts, all successes, of one server."""
    layout = Layout(root)
    reader = KeptColumns()
    batch = make_batch(0, rows=rows, server_name="a.org")
    for rank in (0, 1):
        writer = open_writer(layout, reader, epoch=1, rank=rank, keep_columns=tuple(KEPT))
        for row in range(rank * rows // 2, (rank + 1) * rows // 2):
            writer.success(batch, (row,), make_answer(row, picture(row)))
        writer.stop()
        assert committed(writer.events())
    save(layout, Checkpoint(1, config_semantic={"downloader_parameters.hash_algorithm": "sha256"}))
    return root


def export(results: Path, target: Path, *options: str) -> dict[str, Any]:
    """The summary of an export in this process."""
    assert program.main([str(results), str(target), *options]) == 0
    summary: dict[str, Any] = json.loads((target / "export.json").read_text())
    return summary


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pixels(image: Image.Image) -> str:
    """A digest of what is seen."""
    return digest(np.asarray(image.convert("RGB")).tobytes())
