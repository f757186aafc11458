"""The presets, each over a tiny table of the shape that its users have; and what filters and lists of columns do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.config.config import Config, load
from ddmpi.config.row_filter import parse_filter
from ddmpi.errors import InputError
from ddmpi.io.input.table import InputTable, open_input
from ddmpi.io.urls.writer import PartitionProgress, PartitionSummary, partition_input

PRESETS = Path(__file__).parents[2] / "configs/presets"
SAME = {"identifier": "identifier", "source_id": "source_id"}


def preset(name: str) -> Config:
    config = load(PRESETS / f"{name}.yaml")
    assert config.notices == ()
    assert config.contact_missing  # the example's contact is nobody's
    return config


def opened(config: Config, path: Path) -> InputTable:
    return open_input(str(path), config.columns.as_lists(), config.keep_columns, config.row_filter)


def rows_of(table: InputTable) -> list[dict[str, Any]]:
    return [row for batch in table.batches() for row in batch.to_pylist()]


def csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_every_preset_is_tested() -> None:
    assert {path.stem for path in PRESETS.iterdir()} == {"gbif", "eol", "lila", "fathomnet"}


GBIF: dict[str, list[Any]] = {
    "gbifID": [1, 2, 3, 4, 5, None, 7],
    "identifier": [*(f"https://img.org/{n}.jpg" for n in range(1, 7)), None],
    "type": ["StillImage", "Sound", None, None, "StillImage", "StillImage", "StillImage"],
    "format": [None, "audio/mpeg", "image/jpeg", "video/mp4", "image/png", "image/png", "image/png"],
    "license": ["cc0"] * 7,
    "title": list("abcdefg"),
    "basisOfRecord": ["OCCURRENCE", None, None, None, "MATERIAL_CITATION", None, None],
}


@pytest.mark.parametrize(("joined", "taken"), [(False, [1, 3, 5]), (True, [1, 3])])
def test_gbif(tmp_path: Path, joined: bool, taken: list[int]) -> None:
    table = pa.table(GBIF if joined else {name: GBIF[name] for name in GBIF if name != "basisOfRecord"})
    pq.write_table(table, tmp_path / "multimedia.parquet")
    rows = rows_of(opened(preset("gbif"), tmp_path / "multimedia.parquet"))
    assert [row["source_id"] for row in rows] == [str(number) for number in taken]
    assert [row["row_number"] for row in rows] == [number - 1 for number in taken]
    assert rows[1]["license"] == "cc0"
    assert rows[1]["title"] == "c"
    assert rows[1]["source"] is None


def test_gbif_as_text(tmp_path: Path) -> None:
    lines = ["gbifID\ttype\tformat\tidentifier", "7\t\timage/png\thttp://a.org/1", "8\tSound\t\thttp://a.org/2"]
    rows = rows_of(opened(preset("gbif"), csv(tmp_path / "multimedia.tsv", *lines)))
    assert [row["source_id"] for row in rows] == ["7"]


def test_eol(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "media_manifest.csv",
        "EOL content ID,EOL page ID,Medium Source URL,EOL Full-Size Copy URL,License Name,Copyright Owner",
        '17,5,http://source.org/a,https://content.eol.org/a.jpg,cc-by,"Doe, J."',
        "18,5,http://source.org/b,,cc-by,",
    )
    (row,) = rows_of(opened(preset("eol"), path))
    del row["uuid"]
    assert row == {
        "row_number": 0,
        "server_name": "content.eol.org",
        "source_id": "17",
        "identifier": "https://content.eol.org/a.jpg",
        "license": "cc-by",
        "source": "http://source.org/a",
        "title": "Doe, J.",
        "reject": None,
        "EOL page ID": "5",
    }


def test_lila(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "lila.csv",
        "dataset_name,url_gcp,url_aws,url_azure,image_id,original_label,scientific_name,common_name",
        "A,http://gcp/1,http://aws/1,http://azure/1,A : 1,deer,cervidae,deer",
        "A,,http://aws/2,http://azure/2,A : 2,,,",
        "B,,,http://azure/3,B : 3,fox,vulpes,fox",
        "B,,,,B : 4,fox,vulpes,fox",
        "B,http://gcp/5,,,B : 5,Empty,,",
    )
    rows = rows_of(opened(preset("lila"), path))
    assert [row["server_name"] for row in rows] == ["gcp", "aws", "azure"]
    assert [(row["source_id"], row["source"]) for row in rows] == [("A : 1", "A"), ("A : 2", "A"), ("B : 3", "B")]
    assert rows[2]["scientific_name"] == "vulpes"


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_fathomnet(tmp_path: Path, kind: str) -> None:
    uuids = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(4)]
    path = tmp_path / f"fathomnet.{kind}"
    if kind == "parquet":
        urls, valid = ["http://a/0", "http://a/1", None, "http://a/3"], [True, False, True, None]
        pq.write_table(pa.table({"uuid": uuids, "url": urls, "valid": valid}), path)
    elif kind == "csv":
        values = ("http://a/0,True", "http://a/1,False", ",True", "http://a/3,")
        csv(path, "uuid,url,valid", *(f"{uuid},{rest}" for uuid, rest in zip(uuids, values, strict=True)))
    else:
        lines = [f'{{"uuid": "{uuids[0]}", "url": "http://a/0", "valid": true}}']
        lines += [f'{{"uuid": "{uuids[1]}", "url": "http://a/1", "valid": false}}', f'{{"uuid": "{uuids[2]}"}}']
        csv(path, *lines, f'{{"uuid": "{uuids[3]}", "url": "http://a/3"}}')
    rows = rows_of(opened(preset("fathomnet"), path))
    assert [(row["uuid"], row["source_id"]) for row in rows] == [(uuids[0], uuids[0]), (uuids[3], uuids[3])]


# ---- filters and lists of columns in general


def written(tmp_path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


def partitioned(table: InputTable, folder: Path, memory_bytes: int = 1 << 30, **options: Any) -> PartitionSummary:
    return partition_input(table, folder, batch_size=70, small_rows=10, memory_bytes=memory_bytes, **options)


@pytest.mark.parametrize("memory_bytes", [1, 1 << 30], ids=["disk", "memory"])
def test_rows_left_out_are_counted_and_the_others_keep_their_numbers(tmp_path: Path, memory_bytes: int) -> None:
    path = written(
        tmp_path, identifier=[f"http://a.org/{n}" for n in range(900)], n=range(900), kind=["x", "y", None] * 300
    )
    told: list[PartitionProgress] = []
    table = open_input(str(path), SAME, ["kind"], parse_filter('n >= 30 and kind == "y"'))
    summary = partitioned(table, tmp_path / "urls", memory_bytes, on_progress=told.append)
    assert (summary.rows, summary.dropped, summary.batches) == (290, 610, 5)
    rows = pa.concat_tables([pq.read_table(file) for file in sorted((tmp_path / "urls").glob("urls-*.parquet"))])
    assert rows.column("row_number").to_pylist() == list(range(31, 900, 3))
    assert rows.column("identifier").to_pylist() == [f"http://a.org/{n}" for n in range(31, 900, 3)]
    assert set(rows.column("kind").to_pylist()) == {"y"}
    assert told[-1] == PartitionProgress(900, 900)


def test_a_filter_that_keeps_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, identifier=["http://a.org/1", "http://a.org/2"])
    summary = partitioned(open_input(str(path), SAME, [], parse_filter("false")), tmp_path / "urls")
    assert (summary.rows, summary.dropped, summary.batches) == (0, 2, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("absent == 1", r"filter: no column absent; found: identifier, n"),
        ("identifier == 1", r"filter: .* write number\(identifier\) == 1"),
        ("n", r"filter: the filter is no condition, but int64"),
    ],
)
def test_a_filter_that_does_not_fit_the_table_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, identifier=["http://a.org/1"], n=[1])
    with pytest.raises(InputError, match=message):
        open_input(str(path), SAME, [], parse_filter(text))


def test_of_several_columns_the_first_value_counts(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        a=["http://a.org/1", None, None],
        b=pa.array([b"http://b.org/1", b"http://b.org/2", None]),
        n=[None, 2, 3],
        m=["x", "y", None],
    )
    columns = {"identifier": ["absent", "a", "b"], "source_id": ["n", "m"], "title": ["nowhere", "neither"]}
    rows = rows_of(open_input(str(path), columns, ["m"]))
    assert [row["server_name"] for row in rows] == ["a.org", "b.org", None]
    assert [row["source_id"] for row in rows] == ["x", "2", "3"]
    assert [row["title"] for row in rows] == [None] * 3
    assert [row["m"] for row in rows] == ["x", "y", None]
    with pytest.raises(InputError, match=r"no column absent or other; found: a, b, n, m"):
        open_input(str(path), {"identifier": ["absent", "other"]}, [])


def test_broken_text_among_several_columns_refuses_its_row(tmp_path: Path) -> None:
    path = written(tmp_path, a=pa.array([None, b"http://a.org/\xff"]), b=["http://b.org/", "http://b.org/"])
    rows = rows_of(open_input(str(path), {"identifier": ["a", "b"]}, []))
    assert [row["reject"] for row in rows] == [None, "bad_encoding: not UTF-8"]
