"""Tables as people have them, whose columns have to be made: each against an independent parse of the same file."""

from __future__ import annotations

import csv
import gzip
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.config.config import Config, parse
from ddmpi.errors import ConfigError, InputError
from ddmpi.io.folder.fence import open_epoch
from ddmpi.io.folder.layout import Layout
from ddmpi.io.input.rows import BASE_COLUMNS
from ddmpi.io.input.table import InputTable
from ddmpi.io.results.dataset import current_outcomes
from ddmpi.io.results.parts import ResultOptions
from ddmpi.io.results.writer import ResultWriter
from ddmpi.io.urls.batch_reader import BatchReader
from ddmpi.io.urls.batch_table import BatchTable
from ddmpi.io.urls.index import read_index
from ddmpi.io.urls.input_growth import known_rows
from ddmpi.io.urls.writer import partition_input
from ddmpi.roles.coordinator.initialization import input_of
from tests.io.result_data import make_answer, make_failure

TABLES = Path(__file__).with_name("tables")


def config_for(path: Path | str, output: Path | str = "out", **keys: Any) -> Config:
    return parse({"path_to_input": str(path), "path_to_output_folder": str(output), **keys}, "test")


def opened(path: Path | str, **keys: Any) -> InputTable:
    return input_of(config_for(path, **keys), str(path))


def rows_of(path: Path | str, **keys: Any) -> list[dict[str, Any]]:
    table = opened(path, **keys)
    return [row for batch in table.batches() for row in batch.to_pylist()]


def urls_and(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in ("identifier", *names)) for row in rows]


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


# ---- URLs that are built


def test_inaturalist_photos(tmp_path: Path) -> None:
    data = (TABLES / "inaturalist-photos-built-url" / "photos.csv.gz").read_bytes()
    (tmp_path / "photos.tsv.gz").write_bytes(data)
    photos = list(csv.DictReader(gzip.decompress(data).decode().splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    base = "https://inaturalist-open-data.s3.amazonaws.com"
    rows = rows_of(
        tmp_path / "photos.tsv.gz",
        columns={
            "identifier": base + "/photos/{photo_id}/medium.{extension}",
            "uuid": "photo_uuid",
            "source_id": "photo_id",
        },
    )
    assert urls_and(rows, "uuid", "source_id", "license", "reject") == [
        (f"{base}/photos/{p['photo_id']}/medium.{p['extension']}", p["photo_uuid"], p["photo_id"], p["license"], None)
        for p in photos
    ]
    assert len(rows) > 20


def test_iiif_bases() -> None:
    path = TABLES / "iiif-base" / "published_images.csv"
    with path.open(encoding="utf-8", newline="") as file:
        images = list(csv.DictReader(file))
    rows = rows_of(path, columns={"identifier": "{iiifurl}/full/max/0/default.jpg"}, keep_columns=["assistivetext"])
    assert urls_and(rows, "uuid", "assistivetext") == [
        (f"{image['iiifurl']}/full/max/0/default.jpg", image["uuid"], image["assistivetext"]) for image in images
    ]


def test_relative_paths() -> None:
    path = TABLES / "relative-paths" / "metadata.csv"
    names = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    rows = rows_of(
        path, columns={"identifier": "file_name", "title": "label"}, base_url="https://data.example.org/set/index.html"
    )
    assert urls_and(rows, "title") == [(f"https://data.example.org/set/{name}", label) for name, label in names]
    assert {row["server_name"] for row in rows} == {"data.example.org"}


@pytest.mark.parametrize("name", ["quoted.csv", "empty.parquet"])
def test_an_empty_text_is_no_value(name: str) -> None:
    rows = rows_of(TABLES / "empty-text-before-url" / name, columns={"identifier": ["url_gcp", "url_aws"]})
    expected = [f"https://{'aws' if n % 2 else 'gcp'}.example.org/{n}.jpg" for n in range(20)]
    assert [row["identifier"] for row in rows] == expected
    assert {row["reject"] for row in rows} == {None}


# ---- several URLs in a row


def test_amazon_lists_of_structs() -> None:
    path = TABLES / "amazon-list-of-structs" / "meta_Electronics.jsonl"
    products = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = rows_of(
        path,
        columns={"identifier": ["images[].hi_res", "images[].large"], "source_id": "parent_asin"},
        keep_columns={"variant": "images[].variant", "store": "store"},
    )
    expected = []
    for product in products:
        images = product["images"] or [{"hi_res": None, "large": None, "variant": None}]
        for number, image in enumerate(images):
            url = image["hi_res"] or image["large"]
            expected.append((url, product["parent_asin"], product["title"], number, image["variant"], product["store"]))
    assert urls_and(rows, "source_id", "title", "item_number", "variant", "store") == expected
    assert [row["row_number"] for row in rows] == list(range(len(expected)))
    assert {row["reject"] for row in rows if row["identifier"] is None} == {"null_url"}
    assert len({row["uuid"] for row in rows}) == len(rows)
    hi_res = rows_of(path, columns={"identifier": "images[].hi_res"})
    assert [row["identifier"] for row in hi_res] == [
        url for product in products for url in ([image["hi_res"] for image in product["images"]] or [None])
    ]


def test_parquet_list_of_urls() -> None:
    path = TABLES / "parquet-list-of-urls" / "list.parquet"
    lists = [(row["id"], row["images"] or [None]) for row in pq.read_table(path).to_pylist()]
    rows = rows_of(path, columns={"identifier": "images[]", "source_id": "id"})
    assert urls_and(rows, "source_id", "item_number") == [
        (url, str(number), item) for number, urls in lists for item, url in enumerate(urls)
    ]
    with pytest.raises(
        InputError, match=r"column images must be text \(URLs\).*for a row for each element write images\[\]"
    ):
        opened(path, columns={"identifier": "images"})


def test_darwin_core_joined_urls() -> None:
    path = TABLES / "darwin-core-joined-urls" / "occurrence.tsv"
    records = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    rows = rows_of(
        path,
        columns={"identifier": {"column": "associatedMedia", "split": " | "}, "source_id": "gbifID"},
        keep_columns=["scientificName"],
    )
    assert urls_and(rows, "source_id", "item_number", "scientificName") == [
        (url, number, item, name) for number, urls, name in records for item, url in enumerate(urls.split(" | "))
    ]


# ---- columns that differ, are absent, or have names of ours


def test_what_nobody_uses_may_be_there_twice_or_differ() -> None:
    rows = rows_of(TABLES / "duplicate-unused-header" / "dup.csv", columns={"identifier": "url", "source_id": "id"})
    assert urls_and(rows, "source_id") == [(f"https://img.example.org/{n}.jpg", str(n)) for n in range(20)]
    with pytest.raises(InputError, match="more than one column is named note"):
        opened(TABLES / "duplicate-unused-header" / "dup.csv", columns={"identifier": "url"}, keep_columns=["note"])
    rows = rows_of(
        TABLES / "jsonl-mixed-unused-key" / "mixed.jsonl", columns={"identifier": "url"}, keep_columns=["id"]
    )
    assert urls_and(rows, "id") == [(f"https://img.example.org/{n}.jpg", n) for n in range(20)]
    with pytest.raises(InputError, match=r"mixed\.jsonl: .*score"):
        rows_of(
            TABLES / "jsonl-mixed-unused-key" / "mixed.jsonl", columns={"identifier": "url"}, keep_columns=["score"]
        )
    for name, rows_there in (("a.jsonl", 2), ("b", 2), ("c.csv", 1)):
        rows = rows_of(TABLES / "unused-columns-differ" / name)
        assert [row["identifier"] for row in rows] == [f"http://127.6.0.1:18200/{n}.jpg" for n in range(rows_there)]


def test_what_is_used_agrees_where_numbers_widen_and_null_fits() -> None:
    rows = rows_of(TABLES / "parquet-shards-differ", columns={"identifier": "url"}, keep_columns=["width"])
    assert urls_and(rows, "width") == [("https://img.example.org/1.jpg", 1.0), ("https://img.example.org/2.jpg", None)]
    rows = rows_of(TABLES / "unused-columns-differ" / "b", keep_columns=["note"])
    assert [row["note"] for row in rows] == [None, "x"]


def test_a_misspelt_column_is_told_with_the_nearest_names() -> None:
    path = TABLES / "misspelt-source-id" / "HCGSD_testNA_wMD5.csv"
    columns = {"identifier": "file_url", "source_id": "NHM_specimen", "license": "licence"}
    with pytest.raises(
        InputError, match=r"no column NHM_specimen \(did you mean NHM_Specimen or Species\?\), licence; found: NHM_"
    ):
        opened(path, columns=columns)
    with path.open(encoding="utf-8", newline="") as file:
        expected = [(row["file_url"] or None, row["NHM_Specimen"], row["md5"] or None) for row in csv.DictReader(file)]
    rows = rows_of(path, columns={"identifier": "file_url", "source_id": "NHM_Specimen"}, keep_columns=["md5"])
    assert urls_and(rows, "source_id", "md5") == expected
    assert {row["license"] for row in rows} == {None}


def test_a_misspelt_column_of_json_lines_is_told() -> None:
    path = TABLES / "misspelt-jsonl-column" / "fathomnet.jsonl"
    for keys in ({"columns": {"identifier": "URL"}}, {"columns": {"identifier": "url"}, "filter": "vali == true"}):
        with pytest.raises(InputError, match=r"no column (URL \(did you mean url\?\)|vali \(did you mean valid\?\))"):
            opened(path, **keys)
    images = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = rows_of(path, columns={"identifier": "url", "uuid": "uuid"}, keep_columns="all")
    for row, image in zip(rows, images, strict=True):
        kept = {name: row[name] for name in image if name not in {"url", "uuid"}}
        assert (row["identifier"], row["uuid"], kept) == (
            image["url"], image["uuid"], {name: image[name] for name in kept},
        )  # fmt: skip


def test_columns_with_names_of_ours_are_renamed() -> None:
    path = TABLES / "reserved-column-names" / "t.csv"
    with pytest.raises(ConfigError, match=r"taken: bytes, image, status.*input_status: status, input_bytes: bytes"):
        config_for(path, keep_columns=["status", "bytes", "image"])
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    rows = rows_of(path, columns={"identifier": "url"}, keep_columns={"state": "status", "size": "bytes"})
    assert urls_and(rows, "state", "size") == [(line["url"], line["status"], line["bytes"]) for line in lines]
    rows = rows_of(path, columns={"identifier": "url"}, keep_columns="all")
    assert urls_and(rows, "id", "input_status", "input_bytes", "input_image") == [
        (line["url"], line["id"], line["status"], line["bytes"], line["image"]) for line in lines
    ]
    assert {row["title"] for row in rows} == {line["title"] for line in lines}


# ---- kept columns of every type, from the input into urls, successes and errors


def carried(path: Path, folder: Path, **keys: Any) -> tuple[pa.Table, pa.Table]:
    """Partition a table, end its rows as successes and errors in turn; urls and outcomes by row number."""
    config = config_for(path, folder, **keys)
    layout = Layout(folder, config.output_structure)
    partition_input(input_of(config, str(path)), layout.urls, batch_size=70, small_rows=1)
    open_epoch(layout, 1)
    reader = BatchReader(layout.urls)
    writer = ResultWriter(ResultOptions(config, layout, reader, 1, 0, threads=1), lambda: None)
    tables = []
    batches = BatchTable(layout)
    for batch in map(batches.ref, range(len(batches))):
        tables.append(reader.read(batch))
        for row in range(batch.rows):
            if row % 2:
                writer.error(batch, (row,), make_failure(), make_answer(row, b""), attempts=1)
            else:
                writer.success(batch, (row,), make_answer(row, b"a body"))
    writer.stop()
    outcomes = current_outcomes(layout).to_table().drop_columns(["image"])
    return pa.concat_tables(tables).sort_by("row_number"), outcomes.sort_by("row_number")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("category", ["x", None, "x"]),
        ("string_view", ["x", None, "y"]),
        ("uuid", [str(uuid.UUID(int=n)) for n in range(3)]),
        ("allnull", [None] * 3),
    ],
)
def test_kept_columns_arrive_with_their_values(tmp_path: Path, name: str, expected: list[str | None]) -> None:
    path = TABLES / "kept-column-types" / f"{name}.parquet"
    urls, outcomes = carried(path, tmp_path / "out", keep_columns=["c"])
    assert urls.column("c").to_pylist() == outcomes.column("c").to_pylist() == expected
    assert set(outcomes.column("outcome").to_pylist()) == {"success", "error"}


def test_categories_of_pandas_are_kept(tmp_path: Path) -> None:
    path = TABLES / "kept-categorical" / "pandas_categorical.parquet"
    expected = [str(row["species"]) for row in pq.read_table(path).to_pylist()]
    urls, outcomes = carried(path, tmp_path / "out", columns={"identifier": "url"}, keep_columns=["species"])
    assert urls.column("species").to_pylist() == outcomes.column("species").to_pylist() == expected


DAY = date(2020, 1, 2)
NOON = datetime(2020, 1, 2, 12, tzinfo=timezone.utc)
KEPT: dict[str, tuple[pa.DataType, list[Any]]] = {
    "dictionary of numbers": (pa.dictionary(pa.int8(), pa.int64()), [1, None, 1]),
    "binary view": (pa.binary_view(), [b"\xff", None, b""]),
    "large string": (pa.large_string(), ["a", None, ""]),
    "decimal": (pa.decimal128(9, 2), [Decimal("1.50"), None, Decimal("-2.00")]),
    "half float": (pa.float16(), [1.5, None, 2.5]),
    "duration": (pa.duration("s"), [timedelta(seconds=5), None, timedelta(0)]),
    "date": (pa.date32(), [DAY, None, DAY]),
    "date in ms": (pa.date64(), [DAY, None, DAY]),
    "time": (pa.time64("us"), [time(12), None, time(0)]),
    "timestamp": (pa.timestamp("us", "UTC"), [NOON, None, NOON]),
    "list of dictionaries": (pa.list_(pa.dictionary(pa.int8(), pa.string())), [["a", None], None, []]),
    "list of views": (pa.list_(pa.string_view()), [["a", "b"], [], None]),
    "fixed list": (pa.list_(pa.int32(), 2), [[1, 2], None, [3, None]]),
    "struct": (
        pa.struct([("a", pa.dictionary(pa.int8(), pa.string())), ("b", pa.null())]),
        [{"a": "x", "b": None}, None, {"a": None, "b": None}],
    ),
    "map": (pa.map_(pa.string(), pa.list_(pa.string())), [[("k", ["v"])], None, []]),
    "JSON": (pa.json_(), ['{"a": 1}', None, "[]"]),
    "bytes": (pa.binary(3), [b"abc", None, b"xyz"]),
}


@pytest.mark.parametrize("name", KEPT)
def test_columns_of_every_type_are_kept(tmp_path: Path, name: str) -> None:
    type_, values = KEPT[name]
    path = tmp_path / "in.parquet"
    pq.write_table(
        pa.table({"identifier": [f"http://a.org/{n}" for n in range(3)], "c": pa.array(values, type_)}), path
    )
    urls, outcomes = carried(path, tmp_path / "out", keep_columns=["c"])
    assert urls.column("c").to_pylist() == outcomes.column("c").to_pylist() == values
    index = read_index(tmp_path / "out" / "urls")
    assert known_rows(opened(path, keep_columns=["c"]), index) == 3


def test_own_columns_are_in_order(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "in.jsonl", [{"urls": ["http://a.org/1", "http://a.org/2"], "k": 1}])
    urls, outcomes = carried(path, tmp_path / "out", columns={"identifier": "urls[]"}, keep_columns={"n": "k"})
    assert urls.column_names == [*BASE_COLUMNS, "item_number", "n"]
    assert outcomes.column("item_number").to_pylist() == [0, 1]
    assert outcomes.column("n").to_pylist() == [1, 1]
