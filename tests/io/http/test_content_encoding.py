"""What is in bodies that say that they are encoded: those that are, those that are not, and bombs."""

from __future__ import annotations

import gzip
import zlib

import brotli  # type: ignore[import-untyped]
import pytest

from ddmpi.io.http.content_encoding import EncodingError, TooLargeError, decoded
from tests.hostile.bodies import PICTURE

TEXT = b"User-agent: *\nDisallow: /private\n" * 9
MOST = 100_000


@pytest.mark.parametrize("name", ["aws-chunked", "UTF-8", "binary", "gzip", "br", "gzip, aws-chunked", "zstd"])
def test_a_picture_is_kept_whatever_its_header_says(name: str) -> None:
    found = decoded(PICTURE, [name], MOST)
    assert (found.body, found.is_changed) == (PICTURE, False)
    assert ", ".join(found.ignored) == name.lower()


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        pytest.param(["gzip"], gzip.compress(TEXT), id="gzip"),
        pytest.param(["X-GZIP"], gzip.compress(TEXT), id="x-gzip"),
        pytest.param(["deflate"], zlib.compress(TEXT), id="deflate"),
        pytest.param(["deflate"], zlib.compress(TEXT)[2:-4], id="bare deflate"),
        pytest.param(["br"], brotli.compress(TEXT), id="br"),
        pytest.param(["deflate, gzip"], gzip.compress(zlib.compress(TEXT)), id="two in a line"),
        pytest.param(["deflate", "identity", "br"], brotli.compress(zlib.compress(TEXT)), id="two in two lines"),
    ],
)
def test_what_is_encoded_is_decoded(headers: list[str], sent: bytes) -> None:
    found = decoded(sent, headers, MOST)
    assert (found.body, found.ignored, found.is_changed) == (TEXT, (), True)


def test_a_name_that_is_none_is_ignored_among_others() -> None:
    found = decoded(gzip.compress(TEXT), ["aws-chunked, gzip"], MOST)
    assert (found.body, found.ignored) == (TEXT, ("aws-chunked",))


@pytest.mark.parametrize("name", ["gzip", "deflate", "rot13"])
def test_a_plain_text_is_kept_as_it_came(name: str) -> None:
    assert decoded(TEXT, [name], MOST).body == TEXT


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        pytest.param(["gzip"], gzip.compress(TEXT)[:12] + bytes(40), id="damaged gzip"),
        pytest.param(["deflate"], zlib.compress(TEXT)[:2] + b"\xff" * 40, id="damaged deflate"),
        pytest.param(["br"], b"\xff" * 40, id="no brotli"),
        pytest.param(["zstd"], b"\x28\xb5\x2f\xfd" + bytes(9), id="zstd"),
        pytest.param(["gzip"] * 6, gzip.compress(TEXT), id="six layers"),
    ],
)
def test_what_cannot_be_decoded_is_said(headers: list[str], sent: bytes) -> None:
    with pytest.raises(EncodingError):
        decoded(sent, headers, MOST)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("gzip", gzip.compress(bytes(2_000_000))),
        ("deflate", zlib.compress(bytes(2_000_000))),
        ("br", brotli.compress(bytes(2_000_000))),
        ("gzip, gzip", gzip.compress(gzip.compress(bytes(2_000_000)))),
    ],
    ids=["gzip", "deflate", "br", "two layers"],
)
def test_no_more_is_decoded_than_is_wanted(name: str, sent: bytes) -> None:
    with pytest.raises(TooLargeError):
        decoded(sent, [name], MOST)


def test_a_cut_off_encoding_gives_what_there_is() -> None:
    sent = gzip.compress(TEXT)
    assert decoded(sent[:-9], ["gzip"], MOST).body == TEXT
