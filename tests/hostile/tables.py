"""Hostile input tables: URLs as strangers write them, and files that are not what they seem.

The numbers are the catalog's (``tests.hostile.catalog``); docs/errors.md is made from these lists.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

_LONG: Final = "http://a.example/" + "x" * 8192


@dataclass(frozen=True)
class UrlCase:
    """A URL in the table: ``refused`` is the word with which its row becomes an error, "" if it is fetched."""

    number: int
    name: str
    url: str | bytes | None
    refused: str
    server: str = ""
    """The server of a URL that is fetched."""


def _fetched(number: int, name: str, url: str, server: str) -> UrlCase:
    return UrlCase(number, name, url, "", server)


URLS: Final = (
    UrlCase(1, "null", None, "null_url"),
    UrlCase(2, "an empty text", "", "empty"),
    UrlCase(2, "white space", " \t\r\n", "empty"),
    UrlCase(5, "bytes that are not UTF-8", b"http://a.example/\xff\xfe.jpg", "bad_encoding"),
    _fetched(13, "a name beyond ASCII", "http://b\u00fccher.example/", "xn--bcher-kva.example"),
    UrlCase(13, "a name that punycode has no form for", "http://\u202ea.example/", "bad_host"),
    UrlCase(14, "look-alike alphabets in one label", "http://p\u0430ypal.example/", "bad_host"),
    UrlCase(14, "a label of 64 characters", f"http://{'a' * 64}.example/", "bad_host"),
    _fetched(15, "a percent-encoded name", "http://b%C3%BCcher.example/", "xn--bcher-kva.example"),
    _fetched(16, "upper case", "HTTP://IMG.Example/A.jpg", "img.example"),
    _fetched(17, "a dot at the name's end", "http://img.example./a.jpg", "img.example"),
    _fetched(18, "the default port", "http://img.example:80/a.jpg", "img.example"),
    _fetched(18, "an empty port", "http://img.example:/a.jpg", "img.example"),
    UrlCase(19, "port 0", "http://img.example:0/", "bad_port"),
    UrlCase(19, "port 99999", "http://img.example:99999/", "bad_port"),
    UrlCase(19, "a port with letters", "http://img.example:80abc/", "bad_port"),
    UrlCase(20, "a user name and a password", "http://me:hunter2@img.example/", "credentials"),
    _fetched(21, "an IPv6 address", "http://[2001:DB8::1]:8080/", "[2001:db8::1]:8080"),
    UrlCase(21, "a link-local address", "http://[fe80::1]/", "bad_host"),
    UrlCase(21, "an address with a zone", "http://[fe80::1%25lo]/", "bad_host"),
    _fetched(22, "127.1", "http://127.1/", "127.0.0.1"),
    _fetched(22, "an address in hexadecimal", "http://0x7f000001/", "127.0.0.1"),
    _fetched(22, "an address as one number", "http://2130706433/", "127.0.0.1"),
    _fetched(22, "an address in octal", "http://0177.0.0.1/", "127.0.0.1"),
    UrlCase(23, "no scheme", "img.example/a.jpg", "bad_scheme"),
    UrlCase(24, "three slashes", "http:///a.jpg", "bad_host"),
    UrlCase(24, "one slash", "https:/img.example/", "malformed"),
    *(
        UrlCase(25, f"the scheme {scheme}", f"{scheme}:{rest}", "bad_scheme")
        for scheme, rest in (
            ("file", "///etc/passwd"),
            ("gopher", "//a.example/_x"),
            ("ftp", "//a.example/x"),
            ("dict", "//a.example/x"),
            ("smtp", "//a.example/x"),
            ("scp", "//a.example/x"),
            ("tftp", "//a.example/x"),
            ("data", "image/png;base64,AAAA"),
            ("javascript", "alert(1)"),
        )
    ),
    UrlCase(26, "CR and LF inside", "http://img.example/a\r\nHost: b.example", "control_character"),
    UrlCase(26, "a tab inside", "http://img.ex\tample/", "control_character"),
    UrlCase(26, "a space inside", "http://img.example/a b.jpg", "malformed"),
    UrlCase(27, "NUL", "http://img.example/\x00.jpg", "control_character"),
    UrlCase(28, "backslashes", "http:\\\\img.example\\a.jpg", "malformed"),
    _fetched(29, "white space around", " http://img.example/a.jpg\n", "img.example"),
    _fetched(30, "a fragment", "http://img.example/a.jpg#part", "img.example"),
    _fetched(31, "dots in the path", "http://img.example/a/../../b.jpg", "img.example"),
    UrlCase(32, "9 KB", _LONG, "too_long"),
    UrlCase(32, "9 MB", _LONG + "x" * 9_000_000, "too_long"),
    _fetched(33, "a percent sign that begins no code", "http://img.example/%zz.jpg", "img.example"),
    _fetched(33, "letters beyond ASCII in the path", "http://img.example/\u00fc.jpg", "img.example"),
)


@dataclass(frozen=True)
class FileCase:
    """An input file. ``refused`` is part of the message with which the program ends (exit code 2); else it has
    ``rows`` rows."""

    number: int
    name: str
    write: Callable[[Path], Path]
    """Makes the file in a folder; the path that goes into the config."""
    rows: int = 0
    refused: str = ""


def _bytes(name: str, data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(data)
        return path

    return write


def _parquet(**columns: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "in.parquet"
        pq.write_table(pa.table(columns), path)
        return path

    return write


def _cut_parquet(folder: Path) -> Path:
    path = _parquet(identifier=["http://a.example/"] * 9)(folder)
    path.write_bytes(path.read_bytes()[:-20])
    return path


def _spoiled_parquet(folder: Path) -> Path:
    path = _parquet(identifier=[f"http://a.example/{number}" for number in range(1000)])(folder)
    data = bytearray(path.read_bytes())
    data[10:60] = bytes(50)
    path.write_bytes(data)
    return path


def _two_schemas(folder: Path) -> Path:
    pq.write_table(pa.table({"identifier": ["http://a.example/"]}), folder / "a.parquet")
    pq.write_table(pa.table({"identifier": ["http://a.example/"], "more": [1]}), folder / "b.parquet")
    return folder


_URL: Final = ["http://a.example/"]
_CSV: Final = b'\xef\xbb\xbfidentifier,title\r\nhttp://a.example/,"two\nlines"\r\nhttp://a.example/,two\r\n'

FILES: Final = (
    FileCase(3, "the URL column is missing", _parquet(url=_URL, size=[1]), refused="no column identifier; found: url"),
    FileCase(4, "URLs in a dictionary", _parquet(identifier=pa.array(_URL * 2).dictionary_encode()), rows=2),
    FileCase(4, "URLs as large_string", _parquet(identifier=pa.array(_URL, pa.large_string())), rows=1),
    FileCase(4, "a URL column of numbers", _parquet(identifier=[1]), refused="must be text"),
    FileCase(4, "a URL column of lists", _parquet(identifier=[_URL]), refused="must be text"),
    FileCase(6, "the same id in all rows", _parquet(identifier=_URL * 3, uuid=["a", "a", "a"]), rows=3),
    FileCase(7, "Parquet without rows", _parquet(identifier=pa.nulls(0, pa.string())), rows=0),
    FileCase(7, "a CSV header without a line feed", _bytes("in.csv", b"identifier"), rows=0),
    FileCase(8, "Parquet of 0 bytes", _bytes("in.parquet", b""), refused="in.parquet: is empty"),
    FileCase(8, "CSV of 0 bytes", _bytes("in.csv", b""), refused="in.csv: is empty"),
    FileCase(8, "Parquet that is cut off", _cut_parquet, refused="in.parquet: "),
    FileCase(8, "text that is called Parquet", _bytes("in.parquet", b"http://a.example/" * 9), refused="in.parquet: "),
    FileCase(9, "a damaged row group", _spoiled_parquet, refused="in.parquet: "),
    FileCase(10, "files with different columns", _two_schemas, rows=2),
    FileCase(11, "CSV with a BOM, CR LF, and a line feed in quotes", _bytes("in.csv", _CSV), rows=2),
    FileCase(11, "a CSV row with too many values", _bytes("in.csv", _CSV + b"a,b,c\n"), refused="in.csv: line 5"),
    FileCase(11, "CSV in UTF-16", _bytes("in.csv", _CSV.decode("utf-8-sig").encode("utf-16")), refused="not in UTF-8"),
    FileCase(12, "CSV in gzip", _bytes("in.csv.gz", gzip.compress(_CSV)), rows=2),
    FileCase(12, "CSV that is called gzip", _bytes("in.csv.gz", _CSV), refused="in.csv.gz: "),
    FileCase(12, "gzip that is cut off", _bytes("in.csv.gz", gzip.compress(_CSV)[:-9]), refused="in.csv.gz: "),
    FileCase(12, "an unknown kind of file", _bytes("in.xlsx", b"PK\x03\x04"), refused="not a known kind of file"),
    FileCase(34, "the same URL in three rows", _parquet(identifier=_URL * 3), rows=3),
)
