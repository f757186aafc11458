"""Columns of URLs, and what is asked for instead of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.config.config import parse
from ddmpi.errors import InputError
from ddmpi.io.input.rewriting import Rewriter, make_rewriter
from ddmpi.io.input.table import InputTable
from ddmpi.roles.coordinator.initialization import whole_input

PHOTO = "https://inaturalist-open-data.s3.amazonaws.com/photos/31610070/{}.jpg"
OWN = [{"from": "/large/", "to": "/small/"}, {"from": r"^http://own\.org/(\w+)$", "to": r"http://other.org/\1"}]


def rewriter(**changes: Any) -> Rewriter:
    config = {"path_to_input": "a.csv", "path_to_output_folder": "o", "downloader_parameters": {"image_size": 224}}
    made = make_rewriter(parse({**config, **changes}, "test"))
    assert made is not None
    return made


def table_of(tmp_path: Path, given: dict[str, list[str | None]], **changes: Any) -> InputTable:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table(given), path)
    config = {"path_to_input": str(path), "path_to_output_folder": "o", "downloader_parameters": {"image_size": 224}}
    return whole_input(parse({**config, **changes}, "test"), str(path))


def rows_of(table: InputTable) -> list[dict[str, Any]]:
    return [row for batch in table.batches() for row in batch.to_pylist()]


def test_each_server_has_its_own_steps_and_the_first_that_matches_counts() -> None:
    made = rewriter(servers=[{"match": "own.org", "rewrite": OWN}], sizes="auto")
    urls = ["http://own.org/large/x", "http://own.org/x", PHOTO.format("original"), "http://c.org/large/", None, "no"]
    asked, fallback = (column.to_pylist() for column in made.asked(pa.array(urls), None))
    assert asked == [
        b"http://own.org/small/x", b"http://other.org/x", PHOTO.format("small").encode(), b"http://c.org/large/", None,
        b"no",
    ]  # fmt: skip
    assert fallback == [None, None, PHOTO.format("original").encode(), None, None, None]


def test_broken_texts_and_dictionaries_come_through() -> None:
    made = rewriter(servers=[{"match": "own.org", "rewrite": OWN}])
    broken = pa.array([b"http://own.org/large/\xff", b"http://own.org/large/1"])
    assert made.asked(broken, None)[0].to_pylist() == [b"http://own.org/large/\xff", b"http://own.org/small/1"]
    coded = pa.array(["http://own.org/large/1"] * 2).dictionary_encode()
    assert made.asked(coded, None)[0].to_pylist() == [b"http://own.org/small/1"] * 2


def test_the_copies_in_gbifs_cache_go_by_occurrence_and_url() -> None:
    made = rewriter(servers=[{"match": "*", "rewrite": "gbif-cache"}])
    url = PHOTO.format("original")
    asked, fallback = made.asked(pa.array([url] * 3), pa.array(["2005380410", "none", None]))
    # The example of https://techdocs.gbif.org/en/openapi/images.
    cached = "https://api.gbif.org/v1/image/cache/224x/occurrence/2005380410/media/568639b65b65ddb9090d3d6ef1abce14"
    assert asked.to_pylist() == [cached.encode(), url.encode(), url.encode()]
    assert fallback.to_pylist() == [url.encode(), None, None]


def test_rows_keep_their_url_and_uuid_and_go_to_the_server_that_is_asked(tmp_path: Path) -> None:
    urls: list[str | None] = ["http://own.org/x", "http://own.org/y/z"]
    own = {"match": "own.org", "rewrite": OWN}
    as_given = rows_of(table_of(tmp_path, {"identifier": urls}))
    made = table_of(tmp_path, {"identifier": urls}, servers=[own])
    rows = rows_of(made)
    assert [row["identifier"] for row in rows] == urls
    assert [row["requested_url"] for row in rows] == ["http://other.org/x", None]
    assert [row["server_name"] for row in rows] == ["other.org", "own.org"]
    assert [row["uuid"] for row in rows] == [row["uuid"] for row in as_given]
    assert "mirrors" not in made.schema.names
    raw = next(made.raw(urls_only=True))
    assert made.urls(raw, pa.array([0, 1])).to_pylist() == ["http://other.org/x", "http://own.org/y/z"]
    facts = made.servers(raw)
    assert facts.servers.cast(pa.string()).to_pylist() == ["other.org", "own.org"]
    assert (
        made.servers(next(table_of(tmp_path, {"identifier": ["http://other.org/x"]}).raw())).hashes == facts.hashes[:1]
    )


def test_what_is_no_url_any_more_is_refused_with_the_reason(tmp_path: Path) -> None:
    nonsense = [{"from": "^http://(.*)$", "to": r"ftp://me:secret@\1"}]
    (row,) = rows_of(
        table_of(tmp_path, {"identifier": ["http://a.org/1"]}, servers=[{"match": "a.org", "rewrite": nonsense}])
    )
    assert row["server_name"] is None
    assert row["identifier"] == "http://a.org/1"
    assert row["reject"].endswith(": rewritten to ftp://a.org/1")
    assert "secret" not in str(row)


def test_mirrors_are_rewritten_too_and_each_falls_back_on_itself(tmp_path: Path) -> None:
    columns: dict[str, list[str | None]] = {
        "a": [PHOTO.format("original"), None],
        "b": ["http://b.org/1", "http://b.org/2"],
    }
    (first, second) = rows_of(
        table_of(tmp_path, columns, columns={"identifier": ["a", "b"]}, mirrors=True, sizes="auto")
    )
    assert first["identifier"] == PHOTO.format("original")
    assert first["requested_url"] == PHOTO.format("small")
    assert first["mirrors"] == [PHOTO.format("original"), "http://b.org/1"]
    assert (second["identifier"], second["requested_url"], second["mirrors"]) == ("http://b.org/2", None, None)


def test_gbifs_cache_needs_the_column_with_the_occurrence(tmp_path: Path) -> None:
    cache = [{"match": "*", "rewrite": "gbif-cache"}]
    with pytest.raises(InputError, match="needs the column gbifID"):
        table_of(tmp_path, {"identifier": ["http://a.org/1"]}, servers=cache)
    columns: dict[str, list[str | None]] = {"identifier": ["http://a.org/1"], "gbifID": ["7"]}
    table = table_of(tmp_path, columns, columns={"source_id": "gbifID"}, servers=cache)
    assert table.servers(next(table.raw(urls_only=True))).servers.cast(pa.string()).to_pylist() == ["api.gbif.org"]
