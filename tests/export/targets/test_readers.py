"""What other programs read of an export: each library the same rows, and the same files by their digests."""

from __future__ import annotations

import gc
import importlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pytest
import webdataset as wds  # type: ignore[import-untyped]  # it has no types
from PIL import Image

from tests.export.targets.pictures import digest, export, make_results, picture, pixels

pytestmark = [
    # They take seconds to load.
    pytest.mark.slow,
    # Of the libraries' own; webdataset leaves its files to the garbage collector.
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:unclosed file:ResourceWarning"
    ),
]

Read = dict[int, tuple[str, str]]
"""(digest of the file, digest that the row says) by row number."""


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """``datasets`` and ``mlcroissant``, which look for nothing on a network, and keep nothing beyond the test."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    yield importlib.import_module("datasets"), importlib.import_module("mlcroissant")
    gc.collect()


def read_by_duckdb(folder: Path) -> Read:
    rows = duckdb.read_parquet(f"{folder}/data/*.parquet")
    found = rows.project("row_number, sha256(image.bytes), hashsum_original").fetchall()
    return {row: (hashed, said) for row, hashed, said in found}


def read_by_polars(folder: Path) -> Read:
    rows = pl.read_parquet(folder / "data/*.parquet").select(
        "row_number", pl.col("image").struct.field("bytes"), "hashsum_original"
    )
    return {row: (digest(body), said) for row, body, said in rows.iter_rows()}


def read_by_pandas(folder: Path) -> Read:
    rows = pd.read_parquet(folder / "data")
    return {
        int(row): (digest(image["bytes"]), said)
        for row, image, said in zip(rows["row_number"], rows["image"], rows["hashsum_original"], strict=True)
    }


def read_by_webdataset(folder: Path) -> Read:
    paths = [str(path) for path in sorted(folder.glob("*.tar"))]
    found: Read = {}
    for sample in wds.WebDataset(paths, shardshuffle=False).decode(only=["json"]):
        body = next(sample[suffix] for suffix in ("jpg", "png", "webp") if suffix in sample)
        found[int(sample["__key__"])] = (digest(body), sample["json"]["hashsum_original"])
    return found


def check_all(results: Path, tmp_path: Path, rows: int, libraries: tuple[Any, Any]) -> None:
    datasets, mlcroissant = libraries
    folder = tmp_path / "hf"
    export(results, folder, "--to", "hf", "--split", "train=0.9,test=0.1")
    export(results, tmp_path / "web", "--to", "webdataset", "--caption", "caption")
    wanted = {row: (digest(picture(row)), digest(picture(row))) for row in range(rows)}
    for read in (read_by_duckdb, read_by_polars, read_by_pandas):
        assert read(folder) == wanted
    assert read_by_webdataset(tmp_path / "web") == wanted

    splits = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert set(splits) == {"train", "test"}
    assert isinstance(splits["train"].features["image"], datasets.Image)
    undecoded = {name: split.cast_column("image", datasets.Image(decode=False)) for name, split in splits.items()}
    loaded = {row["row_number"]: row for split in undecoded.values() for row in split}
    assert {
        number: (digest(row["image"]["bytes"]), row["hashsum_original"]) for number, row in loaded.items()
    } == wanted

    described = mlcroissant.Dataset(folder / "croissant.json")
    assert not described.metadata.issues.errors
    records = {record["default/row_number"]: record for record in described.records("default")}
    assert {number: record["default/hashsum_original"].decode() for number, record in records.items()} == {
        number: said for number, (_, said) in wanted.items()
    }
    for column in ("original_size", "caption", "license"):
        assert {number: plain(record[f"default/{column}"]) for number, record in records.items()} == {
            number: row[column] for number, row in loaded.items()
        }
    for name, split in splits.items():
        for row in split.select(range(0, len(split), 1 + len(split) // 200)):
            record = records[row["row_number"]]
            assert record["default/split"].decode() == name
            shown = pixels(Image.open(io.BytesIO(picture(row["row_number"]))))
            assert pixels(row["image"]) == pixels(record["default/image"]) == shown


def plain(value: Any) -> Any:
    """mlcroissant gives texts as bytes."""
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.timeout(600)  # most of it is making the pictures
def test_all_libraries_read_the_same(tmp_path: Path, libraries: tuple[Any, Any]) -> None:
    check_all(make_results(tmp_path / "out", 5000), tmp_path, 5000, libraries)


def test_open_clip_gets_each_image_with_its_caption(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the stages of its reader (``get_wds_dataset``), without those that shuffle."""
    export(few, tmp_path / "web", "--to", "webdataset", "--caption", "caption", "--shard-bytes", "1")
    ((shards, captions),) = re.findall(r"reads them as (\S+); (\d+) samples have a caption", capsys.readouterr().out)
    suffixes = ("jpg", "png", "jpeg", "webp")
    pipeline = wds.DataPipeline(
        wds.SimpleShardList(shards),
        wds.tarfile_to_samples(),
        wds.select(lambda sample: "txt" in sample and any(suffix in sample for suffix in suffixes)),
        wds.decode("pilrgb"),
        wds.rename(image=";".join(suffixes), text="txt"),
        wds.to_tuple("__key__", "image", "text"),
    )
    found = {int(key): (pixels(image), text) for key, image, text in pipeline}
    rows = [row for row in range(24) if row % 10 != 3]
    assert found == {row: (pixels(Image.open(io.BytesIO(picture(row)))), f"a picture, the {row}th") for row in rows}
    assert int(captions) == len(rows)


def test_datasets_reads_both_kinds_of_files(few: Path, tmp_path: Path, libraries: tuple[Any, Any]) -> None:
    datasets, _ = libraries
    for name, options in (("shards", ()), ("tree", ("--path", "{species}/{uuid}.{ext}"))):
        export(few, tmp_path / name, "--to", "files", *options)
        rows = datasets.load_dataset(
            "imagefolder", data_dir=str(tmp_path / name), split="train", cache_dir=str(tmp_path / "cache" / name)
        )
        assert {row["row_number"]: pixels(row["image"]) for row in rows} == {
            row: pixels(Image.open(io.BytesIO(picture(row)))) for row in range(24)
        }
        assert [row["file_name_"] for row in rows] == [f"theirs-{row['row_number']}.jpg" for row in rows]


def test_mlcroissant_validates_it(few: Path, tmp_path: Path) -> None:
    export(few, tmp_path / "hf", "--to", "hf")
    command: list[str | Path] = [
        Path(sys.executable).with_name("mlcroissant"),
        "validate",
        "--jsonld",
        tmp_path / "hf/croissant.json",
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "is not standard" not in run.stderr
    assert run.stderr.count("is recommended") == run.stderr.count("citeAs") > 0, "nobody but the owner knows that one"
