"""The folder for the Hub: its Parquet files, splits and names. What reads it is in ``test_readers.py``."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from ddmpi.errors import StorageError
from ddmpi.export import __main__ as program
from ddmpi.export.targets import hf
from ddmpi.io.folder.durable import os_rename
from tests.export.targets.pictures import export, picture


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "data").iterdir())


TWO_OF_EACH = [f"{split}-0000{number}-of-00002.parquet" for split in ("test", "train") for number in (0, 1)]


def row_numbers(folder: Path, split: str) -> set[int]:
    return set(
        ds.dataset(sorted((folder / "data").glob(f"{split}-*"))).to_table(["row_number"]).column(0).to_numpy().tolist()
    )


def test_files_are_as_the_viewer_wants_them(results: Path, tmp_path: Path) -> None:
    summary = export(results, tmp_path / "hf", "--to", "hf")
    assert (summary["exported"], names(tmp_path / "hf")) == (240, ["train-00000-of-00001.parquet"])
    file = pq.ParquetFile(tmp_path / "hf/data/train-00000-of-00001.parquet")
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [100, 100, 40]
    columns = {group.column(at).path_in_schema: group.column(at) for group in groups for at in range(group.num_columns)}
    assert all(column.has_offset_index for column in columns.values())
    assert columns["row_number"].has_column_index
    assert columns["image.bytes"].compression == "UNCOMPRESSED"
    assert not columns["image.bytes"].is_stats_set
    assert file.schema_arrow.metadata[b"huggingface"] == b'{"info": {"features": {"image": {"_type": "Image"}}}}'
    assert file.schema_arrow.field("image").type == hf.PICTURE
    for row in file.read().to_pylist():
        assert row["image"]["bytes"] == picture(row["row_number"])
        assert row["image"]["path"] == f"{row['row_number']:012d}.{('jpg', 'png', 'webp')[row['row_number'] % 3]}"


def test_row_groups_end_where_their_images_get_too_many(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf, "GROUP_BYTES", len(picture(0)) + 1)
    export(results, tmp_path / "hf", "--to", "hf")
    file = pq.ParquetFile(tmp_path / "hf/data/train-00000-of-00001.parquet")
    assert file.metadata.num_rows == 240
    for index in range(file.metadata.num_row_groups):
        images = [len(row["image"]["bytes"]) for row in file.read_row_group(index, ["image"]).to_pylist()]
        assert len(images) == 1 or sum(images) <= hf.GROUP_BYTES


def test_pages_are_cut_by_content(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}
    writer = pq.ParquetWriter

    def spy(*args: object, **options: object) -> object:
        given.update(options)
        return writer(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pq, "ParquetWriter", spy)
    export(results, tmp_path / "hf", "--to", "hf")
    assert given["use_content_defined_chunking"] is True


def test_shares_follow_a_hash_of_the_key(results: Path, tmp_path: Path) -> None:
    order = ("--to", "hf", "--split", "train=0.7,test=0.3", "--shard-bytes")
    export(results, tmp_path / "one", *order, "100000000")
    export(results, tmp_path / "many", *order, "1")
    assert names(tmp_path / "many") == [
        f"{split}-0000{n}-of-00002.parquet" for split in ("test", "train") for n in (0, 1)
    ]
    test = row_numbers(tmp_path / "one", "test")
    assert test == row_numbers(tmp_path / "many", "test")
    assert 50 < len(test) < 95
    assert row_numbers(tmp_path / "one", "train") == set(range(240)) - test
    export(results, tmp_path / "species", "--to", "hf", "--split", "train=0.5,test=0.5", "--split-key", "source")
    assert names(tmp_path / "species") == ["train-00000-of-00001.parquet"], "all rows have the same source"


def test_a_column_names_the_splits(results: Path, tmp_path: Path) -> None:
    export(results, tmp_path / "hf", "--to", "hf", "--split-by", "subset")
    assert names(tmp_path / "hf") == [f"{name}-00000-of-00001.parquet" for name in ("held_out", "none", "training")]
    assert row_numbers(tmp_path / "hf", "training") == set(range(0, 240, 5))


def test_a_column_of_too_many_values_is_no_split(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        program.main([str(results), str(tmp_path / "hf"), "--to", "hf", "--split-by", "uuid"])
    assert "more than 50 values" in capsys.readouterr().err
    assert not list((tmp_path / "hf/.export/tmp").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split-by", "subset", "--split", "a=1"], "another way to split"),
        (["--split-key", "uuid"], "which shares"),
        (["--split", "a=0.5,b=0.4"], "add up to 1"),
        (["--split", "a=x"], "expected NAME=SHARE"),
        (["--split", "a b=0.5,c=0.5"], "letters, digits"),
    ],
)
def test_splits_that_make_no_sense_are_refused(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        program.main([str(tmp_path), str(tmp_path / "hf"), "--to", "hf", *options])
    assert (stopped.value.code, message in capsys.readouterr().err) == (2, True)


def test_an_end_that_was_interrupted_is_done_again(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = (str(results), str(tmp_path / "hf"), "--to", "hf", "--shard-bytes", "1", "--split", "train=0.5,test=0.5")
    renamed: list[str] = []

    def fail_at_the_third(source: Path, final: Path) -> None:
        renamed.append(final.name)
        if len(renamed) == 3:
            raise StorageError("made for the test")
        os_rename(source, final)

    monkeypatch.setattr(hf, "os_rename", fail_at_the_third)
    with pytest.raises(SystemExit):
        program.main(order)
    assert len(list((tmp_path / "hf/data").glob("*-of-*"))) == 2
    assert not (tmp_path / "hf/README.md").exists()
    (tmp_path / "hf/.export/lock").unlink()  # as after a kill
    assert program.main(order) == 0
    assert names(tmp_path / "hf") == [
        f"{split}-0000{n}-of-00002.parquet" for split in ("test", "train") for n in (0, 1)
    ]
    (tmp_path / "hf/README.md").write_text("edited")
    assert program.main(order) == 0
    assert (tmp_path / "hf/README.md").read_text() == "edited"


def test_the_card_and_croissant_say_what_is_there(results: Path, tmp_path: Path) -> None:
    export(results, tmp_path / "birds", "--to", "hf", "--split", "train=0.7,test=0.3", "--min-bytes", "100", "--unique")
    card = (tmp_path / "birds/README.md").read_text()
    assert card.startswith("---\npretty_name: birds\n")
    assert "  - split: train\n    path: data/train-*\n" in card
    assert "240 images from 1 server, downloaded with ddmpi" in card
    assert "| CC0 | 80 |" in card
    assert "| museum | 240 |" in card
    assert "(`--to hf --min-bytes 100 --unique --split train=0.7,test=0.3`)" in card
    described = json.loads((tmp_path / "birds/croissant.json").read_text())
    assert (described["name"], described["license"]) == ("birds", ["CC0"])
    assert (tmp_path / "birds/.gitignore").read_text().splitlines() == [".export/", "export.json"]
