"""Images: sizes from headers, shrinking, orientation, and bodies that want to do harm."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from ddmpi.io.images.limits import Memory
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


@pytest.mark.parametrize("segment", [b"\xff\xe0\x00\x02", b"\xff\xe0\x00\x00", b"\xff\x01", b"\xff\xd9", b"\xff\xd8"])
def test_a_jpeg_that_never_comes_to_its_frame_is_given_up(segment: bytes) -> None:
    assert header_size(b"\xff\xd8" + segment * 20_000 + make_image(9, 9)[2:]) is None


def test_what_libjpeg_skips_before_a_segment_is_passed_over() -> None:
    body = make_image(30, 20)
    for stray in (b"\x00\x00", b"abc", b"\xff\x00", b"\xff" * 90_000, b"\xff\x01", b"\xff\xd3"):
        assert header_size(body[:2] + stray + body[2:]) == (20, 30)


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


@pytest.mark.parametrize("body", [b"", b"hello", b"\x89PNG\r\n\x1a\n", make_image(9, 9, "PNG")[:-40]])
def test_what_is_no_image_is_a_decode_error(body: bytes) -> None:
    with pytest.raises(DecodeError):
        SHRINK_50(body)


def pixel(body: bytes) -> npt.NDArray[np.int64]:
    """Of a picture of one color, as red, green, blue, and what is there of alpha."""
    with Image.open(io.BytesIO(body)) as image:
        color: npt.NDArray[np.int64] = np.asarray(image, np.int64)[9, 9]
        return color


def is_red(color: npt.NDArray[np.int64]) -> bool:
    red, green, blue = color[:3]
    return bool(red > 200 and green < 100 and blue < 100)


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("image_format", FORMATS)
def test_what_is_small_enough_stays_as_it_came(image_format: str) -> None:
    body = make_image(50, 30, image_format)
    found = SHRINK_50(body)
    assert found.image is body
    assert (found.content_type, found.warnings, found.original_size) == ("", "", (30, 50))


def with_red_and_green_exchanged() -> bytes:
    """A color profile."""
    srgb: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    named = srgb.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    return named.replace(b"rXYZ", b"....").replace(b"gXYZ", b"rXYZ").replace(b"....", b"gXYZ")


def test_colors_are_made_srgb() -> None:
    profile = with_red_and_green_exchanged()
    for image_format, mode, color in (
        ("PNG", "RGB", (200, 120, 61)),
        ("PNG", "RGBA", (200, 120, 61, 90)),
        ("JPEG", "RGB", (200, 120, 61)),
        ("WEBP", "RGB", (200, 120, 61)),
        ("TIFF", "RGB", (200, 120, 61)),
    ):
        found = SHRINK_50(saved(Image.new(mode, (100, 80), color), image_format, icc_profile=profile))
        assert found.warnings == ""
        result = shown(found.image)
        assert "icc_profile" not in result.info
        exchanged = (color[1], color[0], *color[2:])
        assert np.abs(pixel(found.image) - exchanged).max() <= 5, (image_format, pixel(found.image))


def test_srgb_and_unfit_profiles_change_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (100, 80), (200, 120, 61))
    for profile, told in ((srgb, ""), (b"no profile", "color profile not applied"), (bytes(400), "color profile not")):
        found = SHRINK_50(saved(image, "JPEG", icc_profile=profile, quality=95))
        assert np.abs(pixel(found.image) - (200, 120, 61)).max() <= 2
        assert found.warnings.startswith(told)
        assert bool(found.warnings) == bool(told)
    gray = SHRINK_50(saved(image.convert("L"), "JPEG", icc_profile=srgb))
    assert gray.warnings == ""


def test_cmyk_is_shown_as_colors() -> None:
    found = SHRINK_50(saved(Image.new("CMYK", (100, 80), (0, 200, 200, 0)), "JPEG"))
    assert is_red(pixel(found.image))


def test_opaque_images_become_jpeg_whatever_their_mode() -> None:
    for body in (
        saved(Image.new("RGBA", (100, 80), (9, 99, 200, 255)), "PNG"),
        saved(Image.new("RGB", (100, 80), (9, 99, 200)).convert("P"), "GIF"),
        saved(Image.new("P", (100, 80)), "PNG"),
    ):
        found = SHRINK_50(body)
        assert (shown(found.image).format, found.content_type) == ("JPEG", "image/jpeg")


def test_sixteen_bits_keep_their_brightness() -> None:
    body = saved(Image.fromarray(np.full((80, 100), 40_000, np.uint16)), "PNG")
    assert abs(np.asarray(shown(SHRINK_50(body).image)).mean() - 40_000 / 256) < 2


@pytest.mark.parametrize(
    ("image_format", "text"),
    [
        ("GIF", "animation: first of 3 frames"),
        ("WEBP", "animation: first of 3 frames"),
        ("PNG", "animation: first of 3 frames"),
        ("TIFF", "first of 3 pages"),
    ],
)
def test_of_an_animation_the_first_frame_counts_and_is_told(image_format: str, text: str) -> None:
    frames = [Image.new("RGB", (100, 80), color) for color in ("red", "green", "blue")]
    body = saved(frames[0], image_format, save_all=True, append_images=frames[1:])
    found = SHRINK_50(body)
    assert found.warnings == text
    assert is_red(pixel(found.image))
    assert make_shrink(100)(body).image is body


DAMAGED_JPEG = make_image(200, 100)[:1500] + b"\xff\xd9"


@pytest.mark.parametrize("longest_side", [50, 500])
def test_complaints_are_told_and_not_printed(longest_side: int, capfd: pytest.CaptureFixture[str]) -> None:
    shrink = make_shrink(longest_side)
    assert "premature end of data segment" in shrink(DAMAGED_JPEG).warnings
    whole = make_image(200, 100)
    for stray, told in ((b"\x00\x00", "2 bytes between the JPEG's segments"), (b"\xff\x01", "")):
        found = shrink(whole[:20] + stray + whole[20:])
        assert (found.warnings, found.original_size) == (told, (100, 200))
    tiff = saved(Image.effect_noise((200, 100), 50), "TIFF", compression="tiff_lzw")
    with pytest.raises(DecodeError):
        shrink(tiff[:900] + bytes(900) + tiff[1800:])
    assert shrink(make_image(200, 100, "PNG")[:-12]).warnings == "the end of the file is missing"
    assert capfd.readouterr() == ("", "")


def test_complaints_go_to_the_thread_that_decodes() -> None:
    tiff = saved(Image.new("RGB", (200, 100)), "TIFF", tiffinfo={65000: "x"}, compression="tiff_lzw")
    at = tiff.index((65000).to_bytes(2, "little"))
    odd = tiff[:at] + (65001).to_bytes(2, "little") + tiff[at + 2 :]
    with ThreadPoolExecutor(8) as pool:
        bodies = [DAMAGED_JPEG, make_image(200, 100), odd, make_image(200, 100, "PNG")] * 8
        found = list(pool.map(SHRINK_50, bodies))
    assert [bool(it.warnings) for it in found[::4]] == [True] * 8
    assert [it.warnings for number, it in enumerate(found) if number % 4 in {1, 3}] == [""] * 16


def claiming(width: int, height: int) -> dict[str, bytes]:
    """Small files that claim so many pixels."""
    tiff = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 1)]
    big = b"".join(struct.pack("<HHQQ", tag, 4, 1, value) for tag, value in tiff)
    jpeg = saved(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG", progressive=True)
    frame = jpeg.index(b"\xff\xc2") + 5
    size = struct.pack(">HH", min(height, 65_500), min(width, 65_500))
    progressive = jpeg[:frame] + size + jpeg[frame + 4 :]
    png = make_image(8, 8, "PNG")
    ihdr = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    small = struct.pack("<HH", min(width, 65_535), min(height, 65_535))
    return {
        "GIF": b"GIF89a" + small + b"\x80\0\0" + bytes(6) + b"," + bytes(4) + small + b"\0\x02\x02D\x01\0;",
        "BigTIFF": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, len(tiff)) + big + bytes(8),
        "progressive JPEG": progressive,
        "JPEG with stray bytes": progressive[:20] + b"\0\0" + progressive[20:],
        "JPEG with a marker": progressive[:2] + b"\xff\x01" + progressive[2:],
        "PNG": png[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + png[33:],
        "BMP": make_image(8, 8, "BMP")[:18] + struct.pack("<ii", width, height) + make_image(8, 8, "BMP")[26:],
    }


@pytest.mark.parametrize("size", [(12_000, 12_000), (32_768, 32_768)])
def test_what_small_files_claim_is_never_decoded(size: tuple[int, int]) -> None:
    for name, body in claiming(*size).items():
        with pytest.raises(DecodeError) as raised:
            SHRINK_50(body)
        assert " pixels" in str(raised.value), (name, raised.value)


def test_memory_is_held_by_few_large_images_at_a_time() -> None:
    memory = Memory(100)
    together = []

    def work(size_bytes: int) -> None:
        with memory.holding(size_bytes):
            together.append(size_bytes)
            assert sum(together) <= 100
            together.remove(size_bytes)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [100, 10, 60, 50, 40, 100, 1] * 20))
    with memory.holding(100):
        assert together == []
