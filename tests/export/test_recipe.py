"""The recipe: all that is needed to fetch the files again, and no file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from ddmpi.config.config import load
from ddmpi.export import __main__ as program
from tests.export.tables import write_results

GIVEN: dict[str, list[Any]] = {
    "license": ["CC BY 4.0", "CC BY 4.0", "a `nasty` |\nlicense", None, "CC0"],
    "species": ["Lynx lynx", None, "Bubo bubo", "Bubo bubo", None],
    "expected_hash": ["of the set before"] * 5,
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_results(tmp_path / "out", GIVEN, errors=[3])
    order = [str(tmp_path / "out"), str(tmp_path / "recipe"), "--to", "recipe", "--shard-bytes", "1"]
    assert program.main(order) == 0
    return tmp_path / "recipe"


def test_each_row_says_what_its_file_is(recipe: Path, tmp_path: Path) -> None:
    images = write_results(tmp_path / "again", GIVEN, errors=[3])
    rows = ds.dataset(recipe / "rows").to_table().sort_by("row_number").to_pylist()
    first = ds.dataset(recipe / "rows/shard-000000.parquet").to_table()
    assert first == first.sort_by("row_number")
    assert [row["outcome"] for row in rows] == ["success", "success", "success", "error", "success"]
    for number, image in images.items():
        row = rows[number]
        assert (row["hashsum_original"], row["bytes"]) == (hashlib.sha256(image).hexdigest(), len(image))
        assert (row["original_size"], row["species"]) == ([10, 20 + number], GIVEN["species"][number])
        assert row["identifier"] == f"http://img.example.org:8080/{number}"
    assert [row["license_spdx"] for row in rows] == ["CC-BY-4.0", "CC-BY-4.0", None, None, "CC0-1.0"]
    assert (rows[3]["error_kind"], rows[3]["error_code"], rows[3]["species"]) == ("http_status", 404, "Bubo bubo")
    assert not {"image", "ip", "final_url", "expected_hash"} & rows[0].keys()
    schemas = {str(ds.dataset(path).schema) for path in (recipe / "rows").iterdir()}
    assert len(schemas) == 1
    assert len(list((recipe / "rows").iterdir())) == 3


def test_its_config_promises_hash_and_size(recipe: Path) -> None:
    config = load(recipe / "rebuild.yaml")
    assert (config.expected.hash_column, config.expected.bytes_column) == ("expected_hash", "expected_bytes")
    assert config.expected.on_mismatch == "keep"
    assert config.downloader_parameters.hash_algorithm == "sha256"
    assert "species: species" in (recipe / "rebuild.yaml").read_text()


def test_its_page_says_what_is_there(recipe: Path) -> None:
    page = (recipe / "README.md").read_text()
    assert "4 files of" in page
    assert "1 more row failed" in page
    assert "| `CC-BY-4.0` | 2 |\n" in page
    assert "| `a 'nasty' \\| license` | 1 |\n" in page
    assert "| http_status | 1 |\n" in page
    assert "fetched on 2023-11-14" in page
    assert "| `species` | kept from that table |\n" in page
