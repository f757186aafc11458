"""What the bytes of images say: every format whole, cut off at many places, and any bytes at all."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddmpi.core.rules.image_bytes import begins_like_image, image_is_cut_off

TELLING = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF"]
"""Formats that show where they end."""
SILENT = ["TIFF", "JPEG2000"]


def noise(image_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    pixels = random.Random(1).randbytes(3 * 40 * 30)
    Image.frombytes("RGB", (40, 30), pixels).save(stream, image_format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("image_format", [*TELLING, *SILENT])
def test_whole_images_are_images_and_whole(image_format: str) -> None:
    body = noise(image_format)
    assert begins_like_image(body)
    assert not image_is_cut_off(body)


SVG = b"<svg xmlns='http://www.w3.org/2000/svg' width='3' height='4'/>"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xff\x0a\x10\xb0\x13", id="JPEG XL"),
        pytest.param(b"\x00\x00\x00\x0cJXL \r\n\x87\n\x00\x00\x00\x14ftypjxl ", id="JPEG XL in a container"),
        pytest.param(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", id="HEIC"),
        pytest.param(b"\x00\x00\x01\x00\x01\x00\x10\x10\x00\x00" + bytes(12), id="ICO"),
        pytest.param(b"8BPS\x00\x01" + bytes(20), id="PSD"),
        pytest.param(b"8BPS\x00\x02" + bytes(20), id="PSB"),
        pytest.param(SVG, id="SVG"),
        pytest.param(b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- <html> -->\n" + SVG, id="SVG after a declaration"),
        pytest.param(b'<!DOCTYPE svg PUBLIC "-//W3C//DTD" "x" [<!ENTITY a "b">]>\n<svg:svg>', id="SVG with a type"),
    ],
)
def test_further_formats_are_images(body: bytes) -> None:
    assert begins_like_image(body)


@pytest.mark.parametrize(
    "body",
    [
        b"<!doctype html><svg/>",
        b"<html><body><svg></svg>",
        b"<svgs>",
        b"<?xml version='1.0'?><rss/>",
        b"<!-- <svg> -->" * 400,
        b"<?" * 4_000,
        b" " * 5_000 + SVG,
        b"\x00\x00\x01\x00\x00\x00" + bytes(16),
        b"\x00\x00\x01\xba" + bytes(20),
    ],
)
def test_what_only_resembles_an_image_is_none(body: bytes) -> None:
    assert not begins_like_image(body)


@pytest.mark.parametrize("image_format", TELLING)
def test_what_follows_the_end_does_not_matter(image_format: str) -> None:
    assert not image_is_cut_off(noise(image_format) + b"\n<!-- served by a cache -->")


@pytest.mark.parametrize("image_format", TELLING)
def test_images_that_lack_their_end(image_format: str) -> None:
    body = noise(image_format)
    # GIF and JPEG: the last byte or two may be missing together with what they end.
    lengths = {len(body) - 1, len(body) - 2, *range(30, len(body) - 2, 37)}
    assert [length for length in sorted(lengths) if not image_is_cut_off(body[:length])] == []


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_image() -> None:
    thumbnail = noise("JPEG", quality=5)
    exif = b"Exif\0\0" + thumbnail
    body = noise("JPEG")
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    whole = body[:2] + segment + body[2:]
    assert not image_is_cut_off(whole)
    assert image_is_cut_off(whole[:-20])


def test_a_progressive_jpeg_and_an_animated_gif() -> None:
    assert not image_is_cut_off(noise("JPEG", progressive=True))
    frames = [Image.new("P", (9, 9), color) for color in (1, 2, 3)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], comment=b"three")
    body = stream.getvalue()
    assert not image_is_cut_off(body)
    assert image_is_cut_off(body[:-1])


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff\xd8\xff\xe0\x00\x10JFIF" + b"x" * 99 + b"\xff\xd9", b"II*\x00"]
)
def test_what_shows_no_end_is_not_called_cut_off(body: bytes) -> None:
    assert not image_is_cut_off(body)


MANY = 20_000
"""Steps of two bytes each, more than a walk takes."""
THUMBNAIL = b"\xff\xe1\0\4\xff\xd9"
START_OF_SCAN = b"\xff\xda\0\2"
TINY = {
    "JPEG": (b"\xff\xd8", b"\xff\x01", THUMBNAIL + START_OF_SCAN + b"pixels"),
    "fill bytes": (b"\xff\xd8", b"\xff\xff\x01", THUMBNAIL + START_OF_SCAN + b"pixels"),
    "GIF": (b"GIF89a" + bytes(7) + b"!\xf9", b"\x01;", b"\x09cut off"),
    "AVIF": (b"\0\0\0\x0cftypavif", b"\0\0\0\x08free", b"\0\0\0\x20mdatcut off"),
}


@pytest.mark.parametrize("image_format", TINY)
def test_a_walk_over_tiny_blocks_is_given_up(image_format: str) -> None:
    """Without limit a body of 100 MB would take half a minute, in which nothing else is received."""
    begin, block, end = TINY[image_format]
    assert image_is_cut_off(begin + 10 * block + end)
    assert not image_is_cut_off(begin + MANY * block + end), "not looked at to the end, and there is an end mark"


def test_fill_bytes_are_one_step() -> None:
    assert image_is_cut_off(b"\xff\xd8" + 2 * MANY * b"\xff" + THUMBNAIL[1:] + START_OF_SCAN)


def test_a_long_honest_gif_is_walked_to_its_end() -> None:
    body = b"GIF89a" + bytes(7) + b"!\xf9" + MANY * (b"\xff" + 255 * b";")
    assert image_is_cut_off(body)
    assert not image_is_cut_off(body + b"\0;")


beginnings = st.sampled_from(
    [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF", b"\0\0\0\x20ftypavif", b"BM", b"II*\0", b""]
)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(beginnings, st.binary(max_size=80))
def test_no_bytes_raise(beginning: bytes, rest: bytes) -> None:
    body = beginning + rest
    assert image_is_cut_off(body) in {True, False}
    assert begins_like_image(body) in {True, False}
