"""Tables as they are published, each against what csv, json or pandas make of it."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from ddmpi.config.input_section import InputSection
from ddmpi.errors import InputError
from ddmpi.io.input.table import InputTable, open_input

TABLES = Path(__file__).with_name("tables")
GBIF = {"identifier": "identifier", "source_id": "gbifID", "license": "license", "title": "title"}


def opened(
    place: Path | str, columns: dict[str, str] | None = None, keep: tuple[str, ...] = (), **keys: Any
) -> InputTable:
    return open_input(str(TABLES / place), columns or {}, keep, None, InputSection(**keys))


def rows_of(table: InputTable) -> list[dict[str, Any]]:
    return pa.Table.from_batches(table.batches(), table.schema).to_pylist()


def values(rows: list[dict[str, Any]], *names: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] or "" for name in names) for row in rows]


def raw_lines(path: Path, separator: str = "\t") -> Iterator[list[str]]:
    """The lines of a text without quoting."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as text:
        for line in text:
            yield line.rstrip("\n").split(separator)


def test_a_caption_and_a_url_per_line_without_a_header() -> None:
    path = TABLES / "cc3m-no-header/Train_GCC-training.tsv"
    rows = rows_of(opened(path, {"identifier": "url", "title": "caption"}, header=False, names=["caption", "url"]))
    assert values(rows, "title", "identifier") == [tuple(line) for line in raw_lines(path)]
    assert [row["reject"] for row in rows] == [None] * 50


@pytest.mark.parametrize("names", [[], ["caption", "url"]])
def test_a_missing_header_is_noticed(names: list[str]) -> None:
    with pytest.raises(InputError, match=r"Train_GCC-training.tsv: line 1 has a URL .*input: \{header: false, names"):
        opened("cc3m-no-header/Train_GCC-training.tsv", {"identifier": "url"}, names=names)


@pytest.mark.parametrize(
    ("name", "column", "records"),
    [
        ("coco-json/instances_val2017.json", "coco_url", "images"),
        ("redcaps-json/roses_2020.json", "image_url", "annotations"),
        ("visual-genome-json-array/image_data.json", "url", None),
    ],
)
def test_json_documents(name: str, column: str, records: str | None, tmp_path: Path) -> None:
    document = json.loads((TABLES / name).read_text())
    meant = [element[column] for element in (document[records] if records else document)]
    rows = rows_of(opened(name, {"identifier": column}, records=records))
    assert [row["identifier"] for row in rows] == meant
    assert len(meant) == 50
    shutil.copy(TABLES / name, tmp_path / "in.jsonl")
    with pytest.raises(InputError, match=rf"in.jsonl: is one JSON document.*format: json(, records: {records})?"):
        opened(tmp_path / "in.jsonl", {"identifier": column})


def test_a_document_without_records_names_its_arrays() -> None:
    with pytest.raises(InputError, match=r"write input: \{format: json, records: images\}.*licenses \(url, id, name\)"):
        opened("coco-json/instances_val2017.json", {"identifier": "coco_url"})


def test_parts_of_which_the_first_has_a_header() -> None:
    folder = TABLES / "eol-manifest-parts"
    texts = [path.read_text() for path in sorted(folder.glob("*.csv"))]
    meant = list(csv.DictReader("".join(texts).splitlines()))
    columns = {"identifier": "EOL Full-Size Copy URL", "source_id": "EOL content ID", "license": "License Name"}
    table = opened(folder / "media_manifest_*.csv", columns, ("Copyright Owner",))
    names = ("identifier", "source_id", "license", "Copyright Owner")
    theirs = [*columns.values(), "Copyright Owner"]
    assert values(rows_of(table), *names) == [tuple(row[name] for name in theirs) for row in meant]
    assert len(meant) == 60
    assert [line.partition(": ")[0] for line in table.descriptions()] == [
        "media_manifest_1.csv",
        "media_manifest_2.csv and 1 other",
    ]


@pytest.mark.parametrize("quote", ["auto", "none"])
@pytest.mark.parametrize("name", ["gbif-multimedia-raw-quotes", "tsv-quotes"])
def test_tabs_without_quoting_keep_their_quotation_marks(name: str, quote: str) -> None:
    path = TABLES / name / "multimedia.tsv"
    header, *lines = raw_lines(path)
    frame = pd.DataFrame(lines, columns=header)
    rows = rows_of(opened(path, {name: theirs for name, theirs in GBIF.items() if theirs in header}, quote=quote))
    assert [row["identifier"] for row in rows] == frame["identifier"].tolist()
    assert [row["title"] or "" for row in rows] == frame["title"].tolist()
    assert any('"' in row["title"] for row in rows if row["title"])
    assert len(rows) == {"gbif-multimedia-raw-quotes": 40, "tsv-quotes": 12}[name]


@pytest.mark.parametrize("name", ["gbif-multimedia-raw-quotes", "tsv-quotes"])
def test_lines_that_a_quoted_value_would_take_in_stop_the_run(name: str) -> None:
    with pytest.raises(InputError, match=r"multimedia.tsv: line \d+: .*look like rows.*write input.quote: none"):
        rows_of(opened(f"{name}/multimedia.tsv", GBIF | {"title": "title"}, quote='"'))


def test_tabs_in_a_file_named_csv() -> None:
    path = TABLES / "gbif-simple-tabs-named-csv/0058037.csv"
    table = opened(path, GBIF)
    frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE)
    meant = list(frame[list(GBIF.values())].itertuples(index=False, name=None))
    assert values(rows_of(table), *GBIF) == meant
    assert table.descriptions() == ["0058037.csv: CSV, separator tab, no quoting, header, UTF-8; 4 of 15 columns used"]


def test_an_id_and_a_url_per_line() -> None:
    path = TABLES / "imagenet-id-tab-url-txt/fall11_urls.txt"
    with pytest.raises(InputError, match=r"write input: \{format: tsv, header: false, names: \[column_1, identif"):
        opened(path)
    rows = rows_of(opened(path, {"source_id": "id"}, format="tsv", header=False, names=["id", "identifier"]))
    lines = [line.split(b"\t") for line in path.read_bytes().splitlines()]
    assert [row["source_id"] for row in rows] == [line[0].decode() for line in lines]
    assert [row["identifier"] for row in rows] == [line[1].decode("utf-8", "replace") for line in lines]
    assert [row["reject"] for row in rows if row["reject"]] == ["bad_encoding: not UTF-8"]


def test_tabs_in_a_compressed_csv() -> None:
    path = TABLES / "inaturalist-photos-built-url/photos.csv.gz"
    header, *lines = raw_lines(path)
    table = opened(path, {"identifier": "photo_id", "license": "license"}, ("extension", "width"))
    names = ("identifier", "license", "extension", "width")
    places = [header.index(name) for name in ("photo_id", *names[1:])]
    assert values(rows_of(table), *names) == [tuple(line[place] for place in places) for line in lines]
    assert table.descriptions()[0].startswith("photos.csv.gz: CSV, separator tab, no quoting, header, UTF-8; 4 of 9")


def test_urls_whose_captions_are_in_another_file() -> None:
    path = TABLES / "sbu-two-files/SBU_captioned_photo_dataset_urls.txt"
    assert [row["identifier"] for row in rows_of(opened(path))] == path.read_text().splitlines()


@pytest.mark.parametrize(
    ("place", "url", "kept", "distinct"),
    [("coco-captions-duplicates/mscoco.csv", "URL", "TEXT", 10), ("secret-header/auth.csv", "url", "token", 4)],
)
def test_plain_tables(place: str, url: str, kept: str, distinct: int) -> None:
    rows = rows_of(opened(place, {"identifier": url}, (kept,)))
    with (TABLES / place).open(newline="", encoding="utf-8") as text:
        expected = [(line[url], line[kept]) for line in csv.DictReader(text)]
    assert values(rows, "identifier", kept) == expected
    assert len({row["identifier"] for row in rows}) == distinct
    assert [row["reject"] for row in rows] == [None] * len(expected)
