"""Which of a row's URLs is asked first, and which are its mirrors."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.core.rules.urls import Rejected, parse_url
from ddmpi.io.input.mirrors import first_and_mirrors
from ddmpi.io.input.table import open_input

A, B, C, BAD = "http://a.org/1", "http://b.org/1", "http://c.org/1", "ftp://d.org/1"
TABLES = Path(__file__).with_name("tables")


def chosen(*row: str | bytes | None) -> tuple[bytes | None, list[str] | None]:
    """What comes of a row with these URLs; another row stands before it."""
    columns = [pa.array([A.encode(), url.encode() if isinstance(url, str) else url], pa.binary()) for url in row]
    first, mirrors = first_and_mirrors(columns)
    return first[1].as_py(), mirrors[1].as_py()


@pytest.mark.parametrize(
    ("row", "first", "mirrors"),
    [
        pytest.param((A, B, C), A, [B, C], id="the order of the columns"),
        pytest.param((A,), A, None, id="one column"),
        pytest.param((None, B, C), B, [C], id="the first one that is there"),
        pytest.param(("", " ", C), C, None, id="an empty text is none"),
        pytest.param((A, None, ""), A, None, id="no other one"),
        pytest.param((BAD, B, C), B, [BAD, C], id="the first acceptable one, and no other is forgotten"),
        pytest.param((BAD, None, "x"), BAD, ["x"], id="none is acceptable"),
        pytest.param((None, None, None), None, None, id="none at all"),
        pytest.param((A, B, A), A, [B], id="none is asked twice"),
        pytest.param((A, B, B), A, [B], id="nor a mirror"),
        pytest.param((BAD, A, BAD), A, [BAD], id="nor a refused one"),
        pytest.param((A, "http://u:pw@b.org/1"), A, ["http://***@b.org/1"], id="passwords are not kept"),
        pytest.param((b"http://a.org/\xff", B), B, ["http://a.org/\ufffd"], id="a broken one is not acceptable"),
    ],
)
def test_which_comes_first(row: tuple[str | None, ...], first: str | None, mirrors: list[str] | None) -> None:
    assert chosen(*row) == (None if first is None else first.encode(), mirrors)


def test_a_mirror_that_was_refused_for_its_password_stays_refused() -> None:
    _, mirrors = chosen(A, "http://u:pw@b.org/1")
    assert mirrors is not None
    assert isinstance(parse_url(mirrors[0]), Rejected)


URLS = st.sampled_from([A, B, C, BAD, "x", "", " ", None])


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(st.tuples(URLS, URLS, URLS), max_size=8))
def test_every_url_of_a_row_is_kept_once(rows: list[tuple[str | None, ...]]) -> None:
    columns = [pa.array([row[place] for row in rows], pa.string()) for place in range(3)]
    firsts, mirrors = first_and_mirrors(columns)
    for row, first, others in zip(rows, firsts.to_pylist(), mirrors.to_pylist(), strict=True):
        there = list(dict.fromkeys(url for url in row if url and url.strip()))
        accepted = [url for url in there if not isinstance(parse_url(url), Rejected)]
        expected = next(iter(accepted or there), row[0])
        assert first == (None if expected is None else expected.encode())
        assert (others or []) == [url for url in there if url != expected]
        assert others != []


def test_the_table_has_the_mirrors_and_reads_the_same_urls_alone() -> None:
    path = str(TABLES / "mirrors/mirrors.csv")
    names = {"identifier": ["url_gcp", "url_aws"], "source_id": "id"}
    table = open_input(path, names, [], mirrors=True)
    (rows,) = table.batches()
    assert rows.schema.field("mirrors").type == pa.list_(pa.string())
    urls = [f"/mirror-gone/{row}.jpg" if row % 2 else f"/{row}.jpg" for row in range(10)]
    assert rows.column("identifier").to_pylist() == [f"http://gcp.example{url}" for url in urls]
    assert rows.column("mirrors").to_pylist() == [[f"http://aws.example/{row}.jpg"] for row in range(10)]
    (bare,) = table.raw(urls_only=True)
    assert table.servers(bare).servers.dictionary_decode().to_pylist() == ["gcp.example"] * 10
    assert "mirrors" not in open_input(path, names, []).schema.names


def test_rows_that_are_added_later_have_mirrors_too() -> None:
    names = {"identifier": ["url_gcp", "url_aws"]}
    (rows,) = open_input(str(TABLES / "mirrors/mirrors.csv"), names, [], mirrors=True).after(9).batches()
    assert rows.column("mirrors").to_pylist() == [["http://aws.example/9.jpg"]]


def test_of_columns_that_the_input_does_not_have_there_are_no_mirrors(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("url_aws\nhttp://b.org/1\n")
    (rows,) = open_input(str(tmp_path / "one.csv"), {"identifier": ["url_gcp", "url_aws"]}, [], mirrors=True).batches()
    assert rows.column("identifier").to_pylist() == [B]
    assert rows.column("mirrors").to_pylist() == [None]
