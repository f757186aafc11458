"""A body as a picture: what its header says, and its pixels once somebody has made sure that they fit into memory.

JPEG goes to libjpeg-turbo (simplejpeg), which scales while it decodes and says what is wrong with a file; everything
else to Pillow, as well as those JPEG that simplejpeg does not take. Both read the header first and decode later: so
``working_bytes`` is known before, for every format. A body from which no size can be had is not decoded.

Invariant: nothing but ``DecodeError`` (and ``MemoryError``) comes out, whatever the bytes are.
"""

from __future__ import annotations

import io
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import simplejpeg  # type: ignore[import-untyped]
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from ddmpi.core.rules.image_bytes import begins_like_image, image_is_cut_off
from ddmpi.io.images.complaints import complain
from ddmpi.io.images.jpeg import END_OF_IMAGE, SOI, START_OF_SCAN, JpegHead, read_head
from ddmpi.io.images.limits import MAX_PIXELS, DecodeError

Pixels = npt.NDArray[np.uint8]

FORMATS: Final = tuple(
    plugin.format
    for plugin in (
        PngImagePlugin.PngImageFile,
        GifImagePlugin.GifImageFile,
        WebPImagePlugin.WebPImageFile,
        TiffImagePlugin.TiffImageFile,
        BmpImagePlugin.BmpImageFile,
        AvifImagePlugin.AvifImageFile,
        Jpeg2KImagePlugin.Jpeg2KImageFile,
        JpegImagePlugin.JpegImageFile,
    )
)
"""Named here, and with it loaded: Pillow would try some forty formats, PostScript among them."""
_ORIENTATION: Final = 0x0112
_DIVISORS: Final = (8, 4, 2, 1)
"""By which libjpeg scales quickly."""
_BYTES_PER_PIXEL: Final = {"WEBP": 18, "AVIF": 16, "JPEG2000": 26, "TIFF": 10}
"""What decoding and shrinking take at most beside the file, measured with Pillow 13; other formats decode row by row,
a TIFF a strip at a time, which may be all of it."""
_PLAIN_BYTES: Final = {"1": 2, "L": 2, "RGB": 5, "CMYK": 5, "RGBX": 5}
"""Of a pixel of a mode that is shrunk as it is; the others are converted, at 4 bytes more."""
_CONVERTED_BYTES: Final = 10
_COUNTED_BYTES: Final = 16 << 20
"""To count the frames of a GIF all of it is read: of larger ones nobody is told how many."""
_MOST_PAGES: Final = 100


Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # the second line: Pillow refuses what has twice as many


class Picture(Protocol):
    """An image whose header was read. ``size`` is (height, width) as stored, ``orientation`` that of EXIF."""

    size: tuple[int, int]
    profile: bytes

    def working_bytes(self, least: tuple[int, int] | None) -> int:
        """Return how much memory ``pixels`` takes at most, or with None ``check``."""

    def check(self) -> None:
        """Decode it for the complaints alone."""

    def close(self) -> None:
        """Let go of what was decoded."""

    def pixels(self, least: tuple[int, int]) -> tuple[Image.Image, int]:
        """Return the pixels, of at least (height, width) as far as there are so many, and their EXIF orientation; the
        mode is L, RGB, RGBA or CMYK. Tells of frames that are left out."""


def open_picture(body: bytes) -> Picture:
    """Read the header. Raises DecodeError."""
    if not body.startswith(SOI):
        if image_is_cut_off(body):
            complain("the end of the file is missing")
        return _PillowPicture(body)
    if body.rfind(END_OF_IMAGE) < body.rfind(START_OF_SCAN):
        # libjpeg fills the missing lines with gray. Scan data holds no marker by chance: 0xff is escaped in it.
        raise DecodeError("the JPEG ends before its end marker")
    head = read_head(body)
    if head is None:
        raise DecodeError("a JPEG without a frame")
    if head.stray_bytes:
        complain(f"{head.stray_bytes} bytes between the JPEG's segments")
    return _JpegPicture(head.clean or body, head)


class _JpegPicture:
    def __init__(self, body: bytes, head: JpegHead) -> None:
        self._body, self._head = body, head
        self.size, self.profile = head.size, head.profile

    def working_bytes(self, least: tuple[int, int] | None) -> int:
        height, width = _scaled(self.size, least)
        pixel_bytes = 3 if least is None else 8  # the decoder's 3, then Pillow's 4
        return self._head.coefficient_bytes + height * width * pixel_bytes

    def check(self) -> None:
        self._decoded(None)

    def close(self) -> None:
        """Nothing is kept."""

    def pixels(self, least: tuple[int, int]) -> tuple[Image.Image, int]:
        exif = Image.Exif()
        if self._head.exif:
            exif.load(self._head.exif)
        return self._decoded(least), int(exif.get(_ORIENTATION, 1))

    def _decoded(self, least: tuple[int, int] | None) -> Image.Image:
        scaled = _scaled(self.size, least)
        if self._head.components in {1, 3}:
            try:
                return Image.fromarray(_turbo(self._body, scaled))
            except ValueError as error:
                # Also of what is merely odd in a header: Pillow passes over that.
                complain(str(error))
        with Image.open(io.BytesIO(self._body), formats=FORMATS) as image:
            image.draft(None, scaled[::-1])
            image.load()
            return _plain(image)


def _turbo(body: bytes, least: tuple[int, int]) -> Pixels:
    """Return (h, w, 3) pixels. Raises ValueError: libjpeg gives up, or complains of the header."""
    height, width = least
    try:
        found: Pixels = simplejpeg.decode_jpeg(body, min_height=height, min_width=width)
    except ValueError as error:
        found = simplejpeg.decode_jpeg(body, min_height=height, min_width=width, strict=False)
        complain(str(error))
    return found


def _scaled(size: tuple[int, int], least: tuple[int, int] | None) -> tuple[int, int]:
    """Return the size at which a JPEG is decoded: an eighth, a quarter or a half if that is enough."""
    needed = least or (1, 1)
    sizes = [(-(-size[0] // divisor), -(-size[1] // divisor)) for divisor in _DIVISORS]
    return next((it for it in sizes if it[0] >= needed[0] and it[1] >= needed[1]), size)


class _PillowPicture:
    def __init__(self, body: bytes) -> None:
        if not body:
            raise DecodeError("no bytes")
        try:
            self._image = Image.open(io.BytesIO(body), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise DecodeError(f"more than {MAX_PIXELS} pixels") from error
        except UnidentifiedImageError as error:
            kind = "an image of a kind that cannot be decoded here" if begins_like_image(body) else "not an image"
            raise DecodeError(f"{kind}, or a damaged one") from error
        self._size_bytes = len(body)
        self.size = self._image.size[::-1]
        profile: Any = self._image.info.get("icc_profile")
        self.profile = profile if isinstance(profile, bytes) else b""

    def working_bytes(self, least: tuple[int, int] | None) -> int:  # noqa: ARG002  # it is decoded whole
        height, width = self.size
        image = self._image
        plain = _CONVERTED_BYTES if image.has_transparency_data else _PLAIN_BYTES.get(image.mode, _CONVERTED_BYTES)
        return height * width * _BYTES_PER_PIXEL.get(image.format or "", plain)

    def check(self) -> None:
        self._image.load()

    def close(self) -> None:
        del self._image

    def pixels(self, least: tuple[int, int]) -> tuple[Image.Image, int]:  # noqa: ARG002
        image = self._image
        self._tell_of_frames()
        image.load()
        orientation = int(image.getexif().get(_ORIENTATION, 1))
        return _plain(image), orientation

    def _tell_of_frames(self) -> None:
        image: Any = self._image
        if not getattr(image, "is_animated", False):
            return
        if image.format == "TIFF":
            pages = 1
            while pages < _MOST_PAGES and _has_page(image, pages):
                pages += 1
            image.seek(0)
            complain(f"first of {pages} pages" if pages < _MOST_PAGES else f"first of {pages} pages or more")
        elif image.format == "GIF" and self._size_bytes > _COUNTED_BYTES:
            complain("animation: first of several frames")
        else:
            complain(f"animation: first of {image.n_frames} frames")


def _has_page(image: Image.Image, number: int) -> bool:
    try:
        image.seek(number)
    except EOFError:
        return False
    return True


def _plain(image: Image.Image) -> Image.Image:
    """Return the image in a mode that can be shrunk and encoded."""
    if image.mode in {"L", "RGB", "RGBA", "CMYK"} and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode.startswith("I"):  # 16 bits, of which the upper ones are seen
        return image.convert("I").point(lambda value: value / 256).convert("L")
    return image.convert("L" if image.mode in {"1", "LA", "F"} else "RGB")
