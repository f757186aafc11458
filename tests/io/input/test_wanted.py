"""What must exist, and where: over several files, in JSON Lines whose columns come late, with reserved names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.errors import InputError
from tests.io.input.test_made_columns import opened, rows_of, urls_and, write_json_lines


def parquet(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def test_files_need_only_what_rows_are_judged_by(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", identifier=["http://a.org/1"], n=pa.array([1], pa.int8()), t=["x"], junk=[1])
    parquet(tmp_path / "b.parquet", identifier=["http://a.org/2"], n=[2.5], junk=["y"])
    rows = rows_of(tmp_path, columns={"title": "t"}, keep_columns=["n"])
    assert urls_and(rows, "title", "n") == [("http://a.org/1", "x", 1.0), ("http://a.org/2", None, 2.5)]
    with pytest.raises(InputError, match=r"b\.parquet: no column t, which other files have"):
        opened(tmp_path, filter='t == "x"')
    with pytest.raises(InputError, match=r"b\.parquet: no column t, which other files have"):
        opened(tmp_path, columns={"identifier": "t"})
    assert len(rows_of(tmp_path, filter='optional(t) is null or optional(t) == "x"')) == 2
    assert urls_and(rows_of(tmp_path, columns={"identifier": ["t", "identifier"]})) == [("x",), ("http://a.org/2",)]
    with pytest.raises(InputError, match=r"b\.parquet: other columns than in .*a\.parquet: junk: int64 / string"):
        opened(tmp_path, keep_columns=["junk"])


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_is_text_in_whatever_form(tmp_path: Path, kind: pa.DataType) -> None:
    parquet(tmp_path / "a.parquet", identifier=["http://a.org/1"], k=["x"])
    parquet(tmp_path / "b.parquet", identifier=pa.array(["http://a.org/2"]).cast(kind), k=pa.array(["y"]).cast(kind))
    parquet(tmp_path / "c.parquet", identifier=["http://a.org/3"], k=pa.nulls(1))
    for keys in ({}, {"filter": 'k is null or k != "z"'}):
        rows = rows_of(tmp_path, keep_columns=["k"], **keys)
        assert urls_and(rows, "k") == [("http://a.org/1", "x"), ("http://a.org/2", "y"), ("http://a.org/3", None)]


# ---- JSON Lines, of which only the first block is looked at first


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lines of which each is a block: some columns and fields come only in the last one."""
    monkeypatch.setattr("ddmpi.io.sources.text_lines.BLOCK_BYTES", 40)
    first = {"identifier": "http://a.org/1", "n": 1, "images": []}
    last = {"identifier": "http://a.org/2", "n": 1.5, "images": [{"url": "http://a.org/3"}], "kept": {"a": 5}, "u": "x"}
    return write_json_lines(tmp_path / "in.jsonl", [first] * 4 + [last])


def test_columns_that_come_late_are_found_before_it_is_judged(late: Path) -> None:
    rows = rows_of(late, keep_columns=["kept", "n"])
    assert urls_and(rows, "kept", "n")[-1] == ("http://a.org/2", {"a": 5}, 1.5)
    assert [row["n"] for row in rows[:4]] == [1.0] * 4
    rows = rows_of(late, columns={"identifier": "images[].url"})
    assert [row["identifier"] for row in rows] == [None] * 4 + ["http://a.org/3"]
    assert len(rows_of(late, filter='u == "x"')) == 1
    assert rows_of(late, columns={"title": "{u}-{kept.a}"})[-1]["title"] == "x-5"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"columns": {"title": "nn"}}, r"no column nn"),
        ({"keep_columns": ["keptt"]}, r"no column keptt \(did you mean kept\?\)"),
        ({"columns": {"identifier": "images[].ur"}}, r"images\[\]\.ur: no field ur \(did you mean url\?\)"),
        ({"filter": "v is null"}, "filter: no column v"),
    ],
)
def test_what_never_comes_is_told(late: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(late, **keys)


def test_names_that_nobody_wrote_may_be_absent_or_come_late(tmp_path: Path, late: Path) -> None:
    assert {row["license"] for row in rows_of(late)} == {None}
    with pytest.raises(InputError, match="no column license"):
        opened(late, columns={"license": "license"})
    parquet(tmp_path / "in.parquet", identifier=["http://a.org/1"])
    assert rows_of(tmp_path / "in.parquet")[0]["title"] is None


def test_all_columns_are_kept_with_those_that_come_late(late: Path) -> None:
    rows = rows_of(late, keep_columns="all")
    assert (rows[-1]["kept"], rows[-1]["n"], rows[-1]["images"], rows[-1]["u"]) == (
        {"a": 5}, 1.5, [{"url": "http://a.org/3"}], "x",
    )  # fmt: skip


def test_all_columns_of_all_files_but_those_that_are_ours(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", url=["http://a.org/1"], title=["t"], epoch=[1], reject=["r"])
    parquet(tmp_path / "b.parquet", url=["http://a.org/2"], title=["t"], more=[[1]])
    rows = rows_of(tmp_path, columns={"identifier": "url"}, keep_columns="all")
    kept = ("title", "input_epoch", "input_reject", "more")
    assert urls_and(rows, *kept) == [("http://a.org/1", "t", 1, "r", None), ("http://a.org/2", "t", None, None, [1])]
    assert "url" not in rows[0]
    parquet(tmp_path / "b.parquet", url=["http://a.org/2"], input_epoch=[5])
    with pytest.raises(InputError, match="with and without input_ have one name"):
        opened(tmp_path, columns={"identifier": "url"}, keep_columns="all")


def test_expected_names_a_column_that_is_there(tmp_path: Path) -> None:
    parquet(tmp_path / "in.parquet", identifier=["http://a.org/1"], md5=["x"])
    expected = {"hash_column": "md5"}
    assert opened(tmp_path / "in.parquet", keep_columns="all", expected=expected).schema.names[-1] == "md5"
    with pytest.raises(InputError, match="no column sha1, which expected names"):
        opened(tmp_path / "in.parquet", keep_columns="all", expected={"hash_column": "sha1"})


def test_lines_of_text_are_the_column_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("1\n2\n", encoding="utf-8")
    rows = rows_of(tmp_path / "ids.txt", columns={"identifier": "http://a.org/{id}.jpg"}, keep_columns=["id"])
    assert urls_and(rows, "id") == [("http://a.org/1.jpg", "1"), ("http://a.org/2.jpg", "2")]
    rows = rows_of(tmp_path / "ids.txt", base_url="http://a.org/")
    assert urls_and(rows) == [("http://a.org/1",), ("http://a.org/2",)]
