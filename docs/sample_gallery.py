"""A page of the pictures in a folder that ``--to hf`` has written, as ``datasets`` reads them, for a screenshot:
``python -m docs.sample_gallery > page.html``.

The pictures are made up, by a fixed seed.
"""

from __future__ import annotations

import base64
import html
import io
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddmpi.export.__main__ import main as export
from ddmpi.io.folder.layout import Layout
from tests.io.result_data import make_answer, make_batch, open_writer

PICTURES = 24
STYLE = (
    "body{font:14px system-ui,sans-serif;margin:16px} figure{display:inline-block;margin:4px;width:196px}"
    "img{width:196px;height:130px;object-fit:cover} figcaption{color:#555;font-size:12px}"
)


def sample_gallery() -> str:
    """Return the page, of a folder that is made for it and read back by ``datasets.load_dataset``."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    import datasets  # type: ignore[import-untyped]  # noqa: PLC0415  # it reads its environment when it is loaded

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make_results(folder / "out")
        order = [str(folder / "out"), str(folder / "hub"), "--to", "hf", "--split", "train=0.75,test=0.25"]
        if export(order) != 0:
            raise RuntimeError("the export has failed")
        splits = datasets.load_dataset(str(folder / "hub"), cache_dir=str(folder / "cache"))
        sections = [f"<h2>{name}: {len(split)}</h2>" + "".join(map(_figure, split)) for name, split in splits.items()]
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>" + "".join(sections)


def _figure(row: dict[str, Any]) -> str:
    shown = io.BytesIO()
    row["image"].convert("RGB").save(shown, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(shown.getvalue()).decode()}"
    height, width = row["original_size"]
    text = f"{row['uuid']}, {width} x {height}, {row['license'] or 'no license'}"
    return f'<figure><img src="{source}"><figcaption>{html.escape(text)}</figcaption></figure>'


def _make_results(root: Path) -> None:
    rng, batch = random.Random(1), make_batch(0, rows=PICTURES, server_name="images.example.org")
    writer = open_writer(Layout(root))
    for row in range(PICTURES):
        writer.success(batch, (row,), make_answer(row, _picture(rng, ("JPEG", "PNG", "WEBP")[row % 3])))
    writer.stop()


def _picture(rng: random.Random, image_format: str) -> bytes:
    """Waves of three colors."""
    down, across = np.mgrid[0 : rng.randrange(120, 200), 0 : rng.randrange(200, 280)] / 60.0
    first, second, third = (rng.uniform(0.5, 3) for _ in range(3))
    waves = np.stack(
        [np.sin(first * across + second * down), np.cos(second * across * down / 2 + third), np.sin(third * across)], -1
    )
    stored = io.BytesIO()
    Image.fromarray((waves * 127 + 128).astype(np.uint8)).save(stored, image_format)
    return stored.getvalue()


if __name__ == "__main__":
    page = sample_gallery()
    sys.stdout.write(page)
