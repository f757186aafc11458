"""What pixels have to do with results: the size in a header, and images made smaller.

Sizes are (height, width) in pixels. The original size is that of the stored pixels, before any EXIF orientation;
the resized one is what a viewer shows, since the orientation is applied then.

Bodies come from strangers: a header may lie about the size, a small file may unfold to gigabytes. Nothing here trusts
a body, and nothing but ``DecodeError`` comes out.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt

from ddmpi.errors import SetupError

if TYPE_CHECKING:
    from types import ModuleType

MAX_PIXELS: Final = 250_000_000
"""Larger images are refused before they are decoded: 750 MB as 8-bit color. The largest cameras make 150 million."""

JPEG_QUALITY: Final = 95

_SOI: Final = b"\xff\xd8"
_START_OF_SCAN: Final = b"\xff\xda"
_END_OF_IMAGE: Final = b"\xff\xd9"

_FRAME_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15 without the tables and the reserved one between them (ITU-T T.81, table B.1)."""
_MAX_JPEG_SEGMENTS: Final = 5_000
"""Before the frame: EXIF, color profile and the like, 64 KB each; a maker's file has a few hundred at most."""

# Only formats of pixels: imagesize would also feed SVG to an XML parser, which is no place for a stranger's bytes.
_MAGIC: Final = (
    _SOI,
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\x00",
    b"MM\x00*",
    b"BM",
    b"\x00\x00\x00\x0cjP  ",
)

Pixels = npt.NDArray[np.uint8]


class DecodeError(ValueError):
    """The body is no image that can be decoded; the text says why."""


@dataclass(slots=True, frozen=True)
class Shrunk:
    image: bytes
    original_size: tuple[int, int]
    resized_size: tuple[int, int]


def header_size(body: bytes) -> tuple[int, int] | None:
    """Return (height, width) as the header states it, without decoding; None where it is not understood."""
    if not (body.startswith(_MAGIC) or body[4:8] == b"ftyp" or (body[:4] == b"RIFF" and body[8:12] == b"WEBP")):
        return None
    if body.startswith(_SOI):
        return _jpeg_size(body)
    import imagesize  # type: ignore[import-untyped]  # noqa: PLC0415  # loads urllib and xml, for few files

    # A stream, since imagesize takes bytes for a path. It answers -1 to a header that it cannot read.
    width, height = imagesize.get(io.BytesIO(body), exif_rotation=False)
    return (height, width) if 0 < width < 2**31 and 0 < height < 2**31 else None


def _jpeg_size(body: bytes) -> tuple[int, int] | None:
    """Return the size of a JPEG, in 2 us where imagesize takes 20; a long header cannot hold it up."""
    at = len(_SOI)
    for _ in range(_MAX_JPEG_SEGMENTS):
        if at + 9 > len(body) or body[at] != 0xFF:
            return None
        marker = body[at + 1]
        if marker == 0xFF:  # a fill byte (ITU-T T.81, B.1.1.2)
            at += 1
        elif marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", body, at + 5)
            return (height, width) if height and width else None
        else:
            at += 2 + int.from_bytes(body[at + 2 : at + 4], "big")
    return None


def make_shrink(longest_side: int) -> Callable[[bytes], Shrunk]:
    """Return a function that decodes a body, shrinks it to ``longest_side`` pixels by area, and encodes it again.

    Nothing is enlarged. JPEG of quality 95, or PNG where there is an alpha channel. The function raises ``DecodeError``
    and may be called from any thread. Raises SetupError: OpenCV is not installed.
    """
    try:
        import cv2  # noqa: PLC0415  # an optional dependency, needed by nothing else
    except ImportError as error:
        raise SetupError('image_size > 0 needs OpenCV: pip install "ddmpi[images]"') from error
    codec = _Codec(cv2)

    def shrink(body: bytes) -> Shrunk:
        try:
            return _shrink(codec, body, longest_side)
        except (cv2.error, MemoryError) as error:
            raise DecodeError(f"OpenCV: {' '.join(str(error).split())[:300]}") from error

    return shrink


def _shrink(codec: _Codec, body: bytes, longest_side: int) -> Shrunk:
    stated = header_size(body)
    if stated is not None and stated[0] * stated[1] > MAX_PIXELS:
        raise DecodeError(f"{stated[1]} x {stated[0]} pixels, more than {MAX_PIXELS}")
    if body.startswith(_SOI) and body.rfind(_END_OF_IMAGE) < body.rfind(_START_OF_SCAN):
        # OpenCV 4 fills the missing lines with gray. Scan data holds no marker by chance: 0xff is escaped in it.
        raise DecodeError("the JPEG ends before its end marker")
    shown = codec.decode(body)
    resized = codec.resize(shown, longest_side)
    height, width = shown.shape[:2]
    return Shrunk(codec.encode(resized), stated or (height, width), (resized.shape[0], resized.shape[1]))


class _Codec:
    """OpenCV's calls; the module is an argument because it is optional."""

    def __init__(self, cv2: ModuleType) -> None:
        self._cv2: Any = cv2
        self._cv2.utils.logging.setLogLevel(0)  # a damaged image is an error row, not lines on stderr

    def decode(self, body: bytes) -> Pixels:
        """Return upright 8-bit pixels: BGR, or BGRA where the image has transparency."""
        data = np.frombuffer(body, np.uint8)
        if data.size == 0:
            raise DecodeError("no bytes")
        if body.startswith(_SOI):  # never transparent: spare the second decoding
            return self._read(data, self._cv2.IMREAD_COLOR)
        stored = self._read(data, self._cv2.IMREAD_UNCHANGED)
        upright = self._read(data, self._cv2.IMREAD_COLOR)
        if stored.ndim == 3 and stored.shape[2] == 4 and stored.dtype.kind == "u":
            eight_bit = stored if stored.dtype == np.uint8 else (stored >> 8).astype(np.uint8)
            return _oriented_like(eight_bit, upright)
        return upright

    def resize(self, pixels: Pixels, longest_side: int) -> Pixels:
        height, width = pixels.shape[:2]
        scale = longest_side / max(height, width)
        if scale >= 1:
            return pixels
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return cast("Pixels", self._cv2.resize(pixels, size, interpolation=self._cv2.INTER_AREA))

    def encode(self, pixels: Pixels) -> bytes:
        has_alpha = pixels.shape[2] == 4
        suffix, options = (".png", []) if has_alpha else (".jpg", [self._cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        done, encoded = self._cv2.imencode(suffix, pixels, options)
        if not done:
            raise DecodeError(f"cannot encode {pixels.shape[1]} x {pixels.shape[0]} pixels as {suffix[1:]}")
        return cast("Pixels", encoded).tobytes()

    def _read(self, data: Pixels, flags: int) -> Pixels:
        pixels = self._cv2.imdecode(data, flags)
        if pixels is None:
            raise DecodeError("not an image, or a damaged one")
        return cast("Pixels", pixels)


_ORIENTATIONS: Final[tuple[Callable[[Pixels], Pixels], ...]] = (
    lambda pixels: pixels,
    lambda pixels: pixels[:, ::-1],
    lambda pixels: pixels[::-1, ::-1],
    lambda pixels: pixels[::-1],
    lambda pixels: pixels.swapaxes(0, 1),
    lambda pixels: np.rot90(pixels, -1),
    lambda pixels: np.rot90(pixels.swapaxes(0, 1), 2),
    np.rot90,
)
"""The eight EXIF orientations, in their order."""


def _oriented_like(stored: Pixels, upright: Pixels) -> Pixels:
    """Return ``stored`` (BGRA) turned as ``upright`` (BGR) was.

    OpenCV gives transparency only together with the stored orientation: which of the eight it is, is found by trying,
    so that no EXIF of four file formats has to be parsed here.
    """
    for turn in _ORIENTATIONS:
        turned = turn(stored)
        if np.array_equal(turned[:, :, :3], upright):
            return np.ascontiguousarray(turned)
    return stored
