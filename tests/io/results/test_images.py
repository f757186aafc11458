"""Images: sizes from headers, shrinking, orientation, and bodies that want to do harm."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ddmpi.io.results import images
from ddmpi.io.results.images import DecodeError, header_size, make_shrink
from tests.io.result_data import make_image

SHRINK_50 = make_shrink(50)
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000"]


def shown(body: bytes) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(body))
    image.load()
    return image


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_size_is_in_the_header(image_format: str) -> None:
    assert header_size(make_image(70, 40, image_format)) == (40, 70)


def test_the_original_size_is_that_of_the_stored_pixels() -> None:
    body = make_image(70, 40, orientation=6)
    assert header_size(body) == (40, 70)
    shrunk = SHRINK_50(body)
    assert shrunk.original_size == (40, 70)
    assert shrunk.resized_size == (50, 29)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xd8",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x00\x00\x00\x00WEBP",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='3' height='4'/>",
        b"http://127.0.0.1:9/x.png",
        b"hello",
    ],
)
def test_a_header_that_says_nothing_gives_no_size(body: bytes) -> None:
    assert header_size(body) is None


@pytest.mark.parametrize("segment", [b"\xff", b"\xff\xe0\x00\x02", b"\xff\xe0\x00\x00"])
def test_a_jpeg_that_never_comes_to_its_frame_is_given_up(segment: bytes) -> None:
    assert header_size(b"\xff\xd8" + segment * 20_000 + make_image(9, 9)[2:]) is None


def test_fill_bytes_and_long_segments_before_the_frame_are_passed_over() -> None:
    color_profile = b"\xff\xe2\xff\xff" + bytes(0xFFFD)
    assert header_size(b"\xff\xd8" + b"\xff\xff" + color_profile * 20 + make_image(30, 20)[2:]) == (20, 30)


@pytest.mark.parametrize("options", [{"progressive": True}, {"optimize": True}, {"quality": 100, "subsampling": 0}])
def test_all_kinds_of_jpeg_have_their_size_in_the_frame(options: dict[str, int]) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (41, 23)).save(stream, "JPEG", **options)
    assert header_size(stream.getvalue()) == (23, 41)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_damaged_bodies_raise_nothing_but_decode_errors(image_format: str, data: st.DataObject) -> None:
    body = bytearray(make_image(24, 16, image_format))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(body[: data.draw(st.integers(0, len(body)))])
    header_size(damaged)
    try:
        shrunk = SHRINK_50(damaged)
    except DecodeError:
        return
    assert max(shrunk.resized_size) <= 50
    assert shown(shrunk.image).size == shrunk.resized_size[::-1]


@pytest.mark.parametrize("image_format", FORMATS)
def test_shrinking_keeps_the_picture(image_format: str) -> None:
    body = make_image(200, 100, image_format)
    shrunk = SHRINK_50(body)
    result = shown(shrunk.image)
    assert (shrunk.original_size, shrunk.resized_size) == ((100, 200), (25, 50))
    assert (result.format, result.size) == ("JPEG", (50, 25))
    expected = shown(body).convert("L").resize((50, 25), Image.Resampling.BOX)
    assert np.abs(np.asarray(result.convert("L"), int) - np.asarray(expected, int)).mean() < 3


def test_nothing_is_enlarged() -> None:
    assert SHRINK_50(make_image(30, 20)).resized_size == (20, 30)
    assert SHRINK_50(make_image(50, 50)).resized_size == (50, 50)
    assert make_shrink(10)(make_image(3000, 20)).resized_size == (1, 10)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("image_format", "mode"), [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGBA")])
def test_the_result_is_upright(image_format: str, mode: str, orientation: int) -> None:
    body = make_image(100, 60, image_format, mode, orientation)
    result = shown(SHRINK_50(body).image)
    upright = ImageOps.exif_transpose(shown(body))
    expected = upright.resize(result.size, Image.Resampling.BOX)
    assert result.size == ((50, 30) if orientation < 5 else (30, 50))
    assert result.getexif().get(0x0112, 1) == 1
    assert np.abs(np.asarray(result.convert("L"), int) - np.asarray(expected.convert("L"), int)).mean() < 4


def test_transparency_is_kept_as_png() -> None:
    pixels = np.zeros((80, 100, 4), np.uint8)
    pixels[:, :50] = (255, 0, 0, 255)
    stream = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(stream, "PNG")
    result = shown(SHRINK_50(stream.getvalue()).image)
    assert (result.format, result.mode, result.size) == ("PNG", "RGBA", (50, 40))
    assert result.getpixel((5, 5)) == (255, 0, 0, 255)
    assert result.getpixel((45, 5)) == (0, 0, 0, 0)


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "LA"])
def test_other_kinds_of_pixels_are_decoded(mode: str) -> None:
    stream = io.BytesIO()
    Image.new(mode, (60, 40)).save(stream, "PNG")
    assert SHRINK_50(stream.getvalue()).resized_size == (33, 50)


def test_a_cut_jpeg_is_an_error_although_it_has_a_thumbnail_with_an_end_marker() -> None:
    thumbnail = make_image(16, 16)
    body = make_image(200, 100)
    comment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    with_thumbnail = body[:2] + comment + body[2:]
    assert SHRINK_50(with_thumbnail).resized_size == (25, 50)
    with pytest.raises(DecodeError, match="end marker"):
        SHRINK_50(with_thumbnail[:-30])


def test_bombs_are_refused_before_they_unfold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1_000)
    with pytest.raises(DecodeError, match=r"200 x 100 pixels, more than 1000"):
        SHRINK_50(make_image(200, 100, "PNG"))


@pytest.mark.parametrize("body", [b"", b"hello", b"\x89PNG\r\n\x1a\n", make_image(9, 9, "PNG")[:-20]])
def test_what_is_no_image_is_a_decode_error(body: bytes) -> None:
    with pytest.raises(DecodeError):
        SHRINK_50(body)
