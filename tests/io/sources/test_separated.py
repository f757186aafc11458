"""Headers, names, lines with the wrong number of values, and encodings of separated text."""

from __future__ import annotations

import bz2
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ddmpi.config.input_section import InputSection
from ddmpi.config.row_filter import parse_filter
from ddmpi.errors import InputError
from ddmpi.io.input.table import InputTable, open_input


def opened(path: Path, keep: tuple[str, ...] = (), condition: str | None = None, **keys: Any) -> InputTable:
    row_filter = None if condition is None else parse_filter(condition)
    return open_input(str(path), {"title": "title"}, keep, row_filter, InputSection(**keys))


def rows_of(table: InputTable, *names: str) -> list[tuple[Any, ...]]:
    rows = pa.Table.from_batches(table.batches(), table.schema).to_pylist()
    return [tuple(row[name] for name in names) for row in rows]


def written(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# ---- headers and names


def test_names_by_position(tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", "a,b,c\nhttp://a.com/1,x,y\n")
    table = opened(path, ("c",), names=["identifier", "title"])
    assert rows_of(table, "identifier", "title", "c") == [("http://a.com/1", "x", "y")]
    assert opened(path, ("b",), names=["identifier", None, "title"]).rows is None
    with pytest.raises(InputError, match=r"input.names has 4 names, and line 1 3 values"):
        opened(path, names=["identifier", "b", "c", "d"])


def test_columns_without_names_are_numbered(tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", "http://a.com/1,x,y\nhttp://a.com/2,,z\n")
    table = opened(path, ("column_2", "column_3"), header=False, names=["identifier"])
    assert rows_of(table, "identifier", "column_2", "column_3") == [
        ("http://a.com/1", "x", "y"),
        ("http://a.com/2", None, "z"),
    ]


def test_columns_that_are_named_by_uris_are_a_header(tmp_path: Path) -> None:
    term = "http://rs.tdwg.org/dwc/terms/"
    path = written(tmp_path / "in.csv", f"{term}id,{term}url\n1,http://a.com/1\n")
    table = open_input(str(path), {"identifier": f"{term}url"}, [])
    assert rows_of(table, "identifier") == [("http://a.com/1",)]


def test_a_name_twice_is_told_only_where_it_is_used(tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", "identifier,x,x\nhttp://a.com/1,y,z\n")
    assert rows_of(opened(path), "identifier") == [("http://a.com/1",)]
    with pytest.raises(InputError, match="more than one column is named x"):
        opened(path, ("x",))
    assert rows_of(opened(path, ("x", "w"), names=[None, "w"]), "w", "x") == [("y", "z")]


def test_lines_that_end_in_carriage_returns(tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", "identifier,title\rhttp://a.com/1,x\rhttp://a.com/2,y\r")
    assert rows_of(opened(path), "identifier", "title") == [("http://a.com/1", "x"), ("http://a.com/2", "y")]


# ---- bad lines

RAGGED = 'identifier,title\nhttp://a.com/1,"two\nlines"\n\nodd\nhttp://a.com/2,x\na,"b, c",d\nhttp://a.com/3,y\n'
REFUSED = [
    ("http://a.com/1", "two\nlines", None),
    (None, None, "bad_line: line 5: odd"),
    ("http://a.com/2", "x", None),
    (None, None, 'bad_line: line 7: a,"b, c",d'),
    ("http://a.com/3", "y", None),
]


def test_a_bad_line_stops_or_is_a_refused_row(tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", RAGGED)
    with pytest.raises(InputError, match=r"line 5 has 1 value where 2 are expected .*'odd'; .*input.bad_lines: error"):
        rows_of(opened(path))
    table = opened(path, bad_lines="error_rows")
    assert rows_of(table, "identifier", "title", "reject") == REFUSED
    assert rows_of(table, "row_number") == [(number,) for number in range(5)]


def test_urls_alone_are_refused_alike(tmp_path: Path) -> None:
    table = opened(written(tmp_path / "in.csv", RAGGED), bad_lines="error_rows")
    facts = [table.servers(raw) for raw in table.raw(urls_only=True)]
    assert [text for fact in facts for text in fact.rejects.to_pylist()] == [row[2] for row in REFUSED]


def test_no_condition_leaves_a_bad_line_out(tmp_path: Path) -> None:
    table = opened(written(tmp_path / "in.csv", RAGGED), bad_lines="error_rows", condition='title == "x"')
    assert rows_of(table, "row_number", "reject") == [(1, REFUSED[1][2]), (2, None), (3, REFUSED[3][2])]


def test_bad_lines_in_folders_that_give_columns(tmp_path: Path) -> None:
    (tmp_path / "title=t").mkdir()
    written(tmp_path / "title=t" / "in.csv", "identifier,n\nodd\nhttp://a.com/1,1\n")
    table = opened(tmp_path, bad_lines="error_rows")
    assert rows_of(table, "identifier", "title", "reject") == [
        (None, "t", "bad_line: line 2: odd"),
        ("http://a.com/1", "t", None),
    ]


def test_a_line_that_is_bad_and_not_utf8(tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", b"identifier,title\n\xff,b,c\nhttp://a.com/1,x\n")
    rows = rows_of(opened(path, bad_lines="error_rows"), "identifier", "reject")
    assert rows == [(None, "bad_line: line 2: \ufffd,b,c"), ("http://a.com/1", None)]


# ---- encodings

TEXT = "identifier,title\nhttp://a.com/ü,é\nhttp://a.com/2,ß\nhttp://a.com/3,ö\n"


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-16-le", "utf-8-sig", "shift_jis"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = TEXT if encoding != "shift_jis" else TEXT.translate(str.maketrans("üéßö", "ｱｲｳｴ"))
    path = written(tmp_path / "in.csv", text.encode(encoding))
    rows = rows_of(opened(path, encoding=encoding), "identifier", "title", "reject")
    assert rows == [(*line.split(","), None) for line in text.splitlines()[1:]]


def test_a_header_in_another_encoding(tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", "identifier,Größe\nhttp://a.com/1,x\n".encode("cp1252"))
    told = r"in.csv: line 1 is not in UTF-8: .*input.encoding: cp1252, with which it is: 'identifier,Größe'"
    with pytest.raises(InputError, match=told):
        opened(path)


@pytest.mark.parametrize("name", ["in.csv", "in.txt", "in.jsonl"])
def test_values_in_another_encoding(tmp_path: Path, name: str) -> None:
    lines = ["identifier,title"] if name == "in.csv" else []
    lines += [f"http://a.com/é{n},ö" for n in range(9)] if name != "in.jsonl" else ['{"identifier": "é"}'] * 9
    path = written(tmp_path / name, "\n".join(lines).encode("cp1252"))
    with pytest.raises(InputError, match=r"line \d is not in UTF-8: .*input.encoding: cp1252, with which it is: .*é"):
        rows_of(opened(path))


def test_a_few_broken_values_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", TEXT.encode() + b"http://a.com/4,\xe9\nhttp://a.com/\xe9,x\n")
    table = opened(path)
    rows = rows_of(table, "title", "reject")
    assert rows[3:] == [("\ufffd", None), ("x", "bad_encoding: not UTF-8")]
    assert table.repaired == {"title": 1}


def test_bytes_that_the_encoding_does_not_have(tmp_path: Path) -> None:
    path = written(tmp_path / "in.csv", b"identifier,title\nhttp://a.com/1,\xe9\nhttp://a.com/\x81,x\n")
    table = opened(path, encoding="cp1252")
    assert rows_of(table, "title", "reject") == [("é", None), ("x", "bad_encoding: not UTF-8")]


def test_utf_16_without_a_word_of_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in UTF-16 or UTF-32 by its first bytes; write input.encoding: utf-16"):
        opened(written(tmp_path / "in.csv", TEXT.encode("utf-16")))


@pytest.mark.parametrize(("ending", "pack"), [("bz2", bz2.compress), ("xz", lzma.compress)])
def test_compressed_texts(tmp_path: Path, ending: str, pack: Any) -> None:
    path = written(tmp_path / f"in.csv.{ending}", pack(TEXT[:20].encode()) + pack(TEXT[20:].encode()))
    assert len(rows_of(opened(path), "identifier")) == 3
    cut = written(tmp_path / f"cut.csv.{ending}", pack(TEXT.encode() * 100)[:-9])
    with pytest.raises(InputError, match=r"cut\.csv"):
        rows_of(opened(cut))
