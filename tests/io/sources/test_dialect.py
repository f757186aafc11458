"""What is found of separated text from its beginning, and what stops where it turns out wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddmpi.config.input_section import InputSection
from ddmpi.errors import InputError
from ddmpi.io.sources.dialect import Dialect, Doubt, find_dialect
from ddmpi.io.sources.files import InputFile
from ddmpi.io.sources.opening import open_source
from ddmpi.io.sources.source_file import Reading


def found(text: str, *, tabs: bool = False) -> str:
    return str(find_dialect(text.encode(), tabs=tabs, separator="auto", quote="auto"))


@pytest.mark.parametrize(
    ("text", "tabs", "dialect"),
    [
        ("a,b\n1,2\n", False, "separator comma, quotes"),
        ("a\tb\n1\t2,3\n", False, "separator tab, no quoting"),
        ("a;b\n1;2,3\n", False, "separator semicolon, quotes"),
        ("a|b\n1|2\n", False, "separator pipe, quotes"),
        ("a,b\n1,2\n", True, "separator comma, quotes"),
        ("a\n1\n", False, "separator comma, quotes"),
        ("a\n1\n", True, "separator tab, no quoting"),
        ('a\tb\n1\t"Untitled\n2\tx\n', True, "separator tab, no quoting"),
        ('a\tb\n1\t"Village" magazine\n', True, "separator tab, no quoting"),
        ('a\tb\n1\t"Untitled"\n2\tx\n', True, "separator tab, no quoting"),
        ('a\tb\n1\t"two\tparts"\n2\tx\n', True, "separator tab, quotes"),
        ('a\tb\n1\t"two\nlines"\n2\tx\n', True, "separator tab, quotes"),
        ('a\tb\n1\t"two ""2"""\n2\tx\n', True, "separator tab, quotes"),
        ('"a"\t"b"\n1\t"x"\n', True, "separator tab, quotes"),
        ('a\tb\n1\t"x"\n2\t"y"\n3\t"z"\n', True, "separator tab, quotes"),
        ('a\tb\n1\t""\n', True, "separator tab, quotes"),
        ('a,b\n1,"Village" magazine\n', False, "separator comma, no quoting"),
        ('a,b\n1,5" disk\n', False, "separator comma, quotes"),
        ('"a","b;c"\n"1","2;3"\n', False, "separator comma, quotes"),
    ],
)
def test_what_is_found(text: str, tabs: bool, dialect: str) -> None:
    assert found(text, tabs=tabs) == dialect


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('a\tb\n1\t"x, y"\n2\tz\n', r"line 2: a value begins and ends with a quotation mark.*input.quote"),
        ('a\tb\n1\t"x" y\n2\t"a ""b"""\n', r"line 2: .*but line 3 has values in quotes.*input.quote: none"),
        ("a;b|c\n1;2|3\n", r"line 1: the separator may be semicolon or pipe: .*write input.separator"),
    ],
)
def test_what_cannot_be_told_stops(text: str, told: str) -> None:
    with pytest.raises(Doubt, match=told):
        found(text, tabs=True)


def test_what_the_config_says_counts() -> None:
    said = find_dialect(b'a,b;c\n1,"2";3\n', tabs=False, separator=";", quote="none")
    assert said == Dialect(b";", is_quoted=False, is_stated=True)


def rows_of(path: Path, text: str, **keys: Any) -> list[tuple[Any, ...]]:
    path.write_bytes(text.encode())
    source = open_source(InputFile(path), Reading(InputSection(**keys), "u"))
    names = source.schema.names
    columns = [[*batch.to_pydict().values()] for batch in source.batches(names)]
    return [row for batch in columns for row in zip(*batch, strict=True)]


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first two lines or so are seen when the dialect is found."""
    monkeypatch.setattr("ddmpi.io.sources.separated._SAMPLE_BYTES", 30)
    monkeypatch.setattr("ddmpi.io.sources.separated._BLOCK_BYTES", 50)


FIRST = "u\ttitle\tn\nhttp://a/1\tx\t1\n"


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('http://a/2\t"a ""b"""\t2\n', r"line 3: a value begins and ends with a quotation mark.*input.quote"),
        ('http://a/2\t"two\tparts"\t2\n', r"line 3.*input.quote"),
        ('http://a/2\t"two\nlines"\t2\n', r"line 3.*input.quote"),
        ("http://a/2\tx\t2\nhttp://a/3\tx\n", r"line 4 has 2 values where 3 are expected.*input.bad_lines"),
    ],
)
def test_a_text_without_quotes_that_has_some_stops(tmp_path: Path, lines: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        rows_of(tmp_path / "in.tsv", FIRST + lines)


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('http://a/2,"b\nhttp://a/3,x\nhttp://a/4,"y\n', r"line 3: .*look like rows.*line 4.*input.quote: none"),
        ('http://a/2,"b" c\n', r"line 3: .*goes on behind the closing one.*input.quote"),
        ('http://a/2,"b\n', r"line 3: a quotation mark begins a value that does not end.*input.quote: none"),
    ],
)
def test_a_text_with_quotes_that_has_none_stops(tmp_path: Path, lines: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        rows_of(tmp_path / "in.csv", "u,title\nhttp://a/1,x\n" + lines)


@pytest.mark.usefixtures("late")
def test_values_of_several_lines_are_values(tmp_path: Path) -> None:
    text = 'title,u\n"a\n\nb, c",http://a/1\n"d\r\n",http://a/2\n'
    assert rows_of(tmp_path / "in.csv", text) == [(b"a\n\nb, c", b"http://a/1"), (b"d\r\n", b"http://a/2")]


def test_marks_stay_where_the_config_says_that_there_are_no_quotes(tmp_path: Path) -> None:
    text = FIRST + 'http://a/2\t"a ""b"""\t2\nhttp://a/3\t"c, d"\t\n'
    titles = [row[1] for row in rows_of(tmp_path / "in.tsv", text, quote="none")]
    assert titles == [b"x", b'"a ""b"""', b'"c, d"']


def test_quotes_by_config_may_be_followed_by_text(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "in.csv", 'u,t\nx,"b" c\n', quote='"') == [(b"x", b"b c")]
