"""The contact sheet of the report: from published parts to small images in a page."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddmpi.roles.coordinator.pictures import MOST_SHOWN_BYTES, sample_pictures


def picture(width: int, height: int, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def part(path: Path, bodies: list[bytes | None]) -> Path:
    urls = [f"https://a{number}.org/x.jpg" for number in range(len(bodies))]
    pq.write_table(pa.table({"image": pa.array(bodies, pa.binary()), "final_url": urls}), path)
    return path


def test_pictures_are_small_and_say_whose_they_are(tmp_path: Path) -> None:
    parts = [part(tmp_path / "1.parquet", [picture(800, 600), picture(300, 900, "PNG")])]
    found = sample_pictures(parts, rows_each=5, budget_s=60.0)
    assert [it.caption for it in found] == ["a0.org", "a1.org"]
    sizes = []
    for it in found:
        kind, _, data = it.data_uri.partition(";base64,")
        assert kind == "data:image/jpeg"
        sizes.append(Image.open(io.BytesIO(base64.b64decode(data))).size)
    assert sizes == [(160, 120), (53, 160)]


def test_so_many_rows_of_each_part_and_no_more_when_time_is_up(tmp_path: Path) -> None:
    parts = [part(tmp_path / f"{number}.parquet", [picture(20, 20)] * 4) for number in range(3)]
    assert len(sample_pictures(parts, rows_each=2, budget_s=60.0)) == 6
    assert sample_pictures(parts, rows_each=2, budget_s=0.0) == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(None, id="null"),
        pytest.param(b"", id="empty"),
        pytest.param(b"<svg onload='alert(1)'></svg>", id="SVG"),
        pytest.param(b"\xff\xd8\xff\xe0 no image", id="only the beginning of a JPEG"),
        pytest.param(picture(50, 50)[:-100], id="cut off"),
    ],
)
def test_what_is_no_image_is_not_shown(tmp_path: Path, body: bytes | None) -> None:
    assert sample_pictures([part(tmp_path / "1.parquet", [body])], 1, 60.0) == []


def test_parts_that_cannot_be_read_cost_nothing_else(tmp_path: Path) -> None:
    damaged = tmp_path / "0.parquet"
    damaged.write_bytes(b"PAR1 no more")
    good = part(tmp_path / "1.parquet", [picture(20, 20)])
    assert len(sample_pictures([tmp_path / "missing.parquet", damaged, good], 1, 60.0)) == 1


def test_without_pillow_small_files_are_shown_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ddmpi.io.images.encoding", None)
    monkeypatch.delattr("ddmpi.io.images.encoding")
    small, large = picture(40, 30), picture(900, 900)
    assert len(small) < MOST_SHOWN_BYTES < len(large)
    found = sample_pictures([part(tmp_path / "1.parquet", [small, large])], 2, 60.0)
    assert [it.data_uri for it in found] == [f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"]
