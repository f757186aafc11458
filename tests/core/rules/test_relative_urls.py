"""Relative URLs against what the standard says of them."""

from __future__ import annotations

from typing import Final
from urllib.parse import urljoin

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.rules.relative_urls import resolve

BASE: Final = "http://a/b/c/d;p?q"
# RFC 3986, 5.4: what each reference means, without those that have another scheme or none of the characters of a path.
EXAMPLES: Final = {
    "g": "http://a/b/c/g",
    "./g": "http://a/b/c/g",
    "g/": "http://a/b/c/g/",
    "/g": "http://a/g",
    "//g": "http://g",
    "?y": "http://a/b/c/d;p?y",
    "g?y": "http://a/b/c/g?y",
    "#s": "http://a/b/c/d;p?q#s",
    "g#s": "http://a/b/c/g#s",
    ";x": "http://a/b/c/;x",
    "g;x?y#s": "http://a/b/c/g;x?y#s",
    ".": "http://a/b/c/",
    "./": "http://a/b/c/",
    "..": "http://a/b/",
    "../g": "http://a/b/g",
    "../../g": "http://a/g",
    "../../../g": "http://a/g",
    "/./g": "http://a/g",
    "/../g": "http://a/g",
    "g.": "http://a/b/c/g.",
    ".g": "http://a/b/c/.g",
    "./../g": "http://a/b/g",
    "g/./h": "http://a/b/c/g/h",
    "g/../h": "http://a/b/c/h",
    "g?y/./x": "http://a/b/c/g?y/./x",
}


def resolved(*urls: str | None, base: str = BASE) -> list[str | None]:
    given_bytes = [None if url is None else url.encode() for url in urls]
    answers = resolve(pa.array(given_bytes, pa.binary()), base).to_pylist()
    return [None if answer is None else answer.decode() for answer in answers]


def test_the_examples_of_the_standard() -> None:
    assert dict(zip(EXAMPLES, resolved(*EXAMPLES), strict=True)) == EXAMPLES


def test_absolute_ones_null_and_empty_texts_stay() -> None:
    urls = ("https://x.org/a/../b", "ftp:x", "g:h", None, "", " HTTP://y.org")
    assert resolved(*urls) == list(urls)


@pytest.mark.parametrize("base", ["https://d.org", "https://d.org/", "https://d.org/set", "https://d.org/set/?k=1"])
def test_bases_of_every_kind(base: str) -> None:
    urls = ("a b/ü.jpg", "/x.jpg", "../x.jpg", "https://e.org/y")
    assert resolved(*urls, base=base) == [urljoin(base, url) for url in urls]


def test_what_is_not_utf8_or_no_url_stays_what_it_is() -> None:
    urls = pa.array([b"a\xff.jpg", b"./a\xff.jpg", b"//[host/x"], pa.binary())
    assert resolve(urls, "https://d.org/").to_pylist() == [
        b"https://d.org/a\xff.jpg",
        b"https://d.org/a\xff.jpg",
        b"//[host/x",
    ]


def test_spaces_around_a_reference_are_dropped_as_those_around_urls_are() -> None:
    assert resolved(" a.jpg\n", "  ", base="https://d.org/") == ["https://d.org/a.jpg", "  "]


@given(st.lists(st.none() | st.text("ab./?#:;%é \\", max_size=8), max_size=8))
def test_all_together_are_resolved_as_one_by_one(urls: list[str | None]) -> None:
    alone = [answer for url in urls for answer in resolved(url)]
    assert resolved(*urls) == alone
