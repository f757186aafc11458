"""What pixels have to do with results: the size in a header, and images made smaller.

Sizes are (height, width) in pixels. The original size is that of the stored pixels, before any EXIF orientation;
the resized one is what a viewer shows, since the orientation is applied then.

Bodies come from strangers: a header may lie about the size, a small file may unfold to gigabytes. Nothing here trusts
a body, and nothing but ``DecodeError`` comes out.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from ddmpi.errors import SetupError
from ddmpi.io.images.complaints import listening
from ddmpi.io.images.jpeg import SOI, jpeg_size
from ddmpi.io.images.limits import MAX_PIXELS, WORKING_BYTES, DecodeError, Memory
from ddmpi.io.process import give_back_freed

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["DecodeError", "Shrunk", "header_size", "make_shrink"]

_LARGE_BYTES: Final = 16 << 20
"""Memory that malloc would keep, in this thread's arena, where others cannot use it."""

# Only formats of pixels: imagesize would also feed SVG to an XML parser, which is no place for a stranger's bytes.
_MAGIC: Final = (
    SOI,
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\x00",
    b"MM\x00*",
    b"BM",
    b"\x00\x00\x00\x0cjP  ",
)


@dataclass(slots=True, frozen=True)
class Shrunk:
    """An image of the size that is wanted. ``content_type`` says what was encoded, and is empty where ``image`` is the
    body as it came; ``warnings`` is one line for people, mostly empty."""

    image: bytes
    original_size: tuple[int, int]
    resized_size: tuple[int, int]
    content_type: str = ""
    warnings: str = ""


def header_size(body: bytes) -> tuple[int, int] | None:
    """Return (height, width) as the header states it, without decoding; None where it is not understood."""
    if not (body.startswith(_MAGIC) or body[4:8] == b"ftyp" or (body[:4] == b"RIFF" and body[8:12] == b"WEBP")):
        return None
    if body.startswith(SOI):
        return jpeg_size(body)
    import imagesize  # type: ignore[import-untyped]  # noqa: PLC0415  # loads urllib and xml, for few files

    # A stream, since imagesize takes bytes for a path. It answers -1 to a header that it cannot read.
    width, height = imagesize.get(io.BytesIO(body), exif_rotation=False)
    return (height, width) if 0 < width < 2**31 and 0 < height < 2**31 else None


def make_shrink(longest_side: int) -> Callable[[bytes], Shrunk]:
    """Return a function that decodes a body, and where it has more than ``longest_side`` pixels on one side shrinks it
    to so many, in sRGB and upright, and encodes it again: as JPEG of quality 95, or as PNG where something is
    transparent. Of an animation the first frame counts.

    What is small enough stays as it came. The function raises ``DecodeError`` and may be called from any thread: it
    waits while others decode what fills ``WORKING_BYTES``. Raises SetupError: Pillow or simplejpeg is not installed.
    """
    try:
        from ddmpi.io.images import encoding  # noqa: PLC0415  # what it loads is optional
    except ImportError as error:
        raise SetupError('image_size > 0 needs Pillow and simplejpeg: pip install "ddmpi[images]"') from error
    memory = Memory(WORKING_BYTES)

    def shrink(body: bytes) -> Shrunk:
        with listening() as told:
            shrunk = _attempt(partial(_shrink, encoding, memory, body, longest_side))
        if isinstance(shrunk, str):
            raise DecodeError(shrunk)
        return replace(shrunk, warnings="; ".join(told)) if told else shrunk

    return shrink


def _attempt(decode: Callable[[], Shrunk]) -> Shrunk | str:
    """Return what is made, or why it cannot be: an exception would keep what was decoded until it is handled."""
    try:
        return decode()
    except Exception as error:  # noqa: BLE001  # told by the caller; Pillow's readers raise some twenty kinds
        return " ".join(str(error).split())[:300] or type(error).__name__


def _shrink(encoding: ModuleType, memory: Memory, body: bytes, longest_side: int) -> Shrunk:
    picture = encoding.open_picture(body)
    height, width = picture.size
    if height * width > MAX_PIXELS:
        raise DecodeError(f"{width} x {height} pixels, more than {MAX_PIXELS}")
    target = _fitting(picture.size, longest_side)
    needed = picture.working_bytes(target)
    if needed > memory.total_bytes:
        most = memory.total_bytes >> 20
        raise DecodeError(f"{width} x {height} pixels: to decode them takes {needed >> 20} MiB, more than {most}")

    def decode() -> Shrunk:
        original_size = header_size(body) or picture.size
        if target is None:
            picture.check()
            return Shrunk(body, original_size, picture.size)
        image, content_type, resized_size = encoding.shrunk(picture, target)
        return Shrunk(image, original_size, resized_size, content_type)

    with memory.holding(needed):
        made = _attempt(decode)
        picture.close()
        if needed >= _LARGE_BYTES:
            give_back_freed()  # before another thread takes as much
    if isinstance(made, str):
        raise DecodeError(made)
    return made


def _fitting(size: tuple[int, int], longest_side: int) -> tuple[int, int] | None:
    """Return the size to which an image has to be shrunk, None if it is small enough."""
    scale = longest_side / max(size)
    return None if scale >= 1 else (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
