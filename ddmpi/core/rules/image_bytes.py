"""What the bytes of an image say about themselves: whether they are one, and whether its end is missing. Pure.

No image is decoded here: that costs milliseconds, and is done where images are resized. Only the frame of the format
is looked at. Invariants: no bytes raise, and none take longer than their number allows, for this runs where all
transfers wait: 100 MB of blocks of one byte each are walked for as long as 100 MB of an honest GIF.
"""

from __future__ import annotations

import re
from typing import Final

_JPEG: Final = b"\xff\xd8\xff"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_END: Final = b"IEND\xaeB`\x82"
_GIFS: Final = (b"GIF87a", b"GIF89a")
_BMP_HEADER_BYTES: Final = frozenset({12, 40, 52, 56, 64, 108, 124})
_FTYP_BRANDS: Final = frozenset(
    {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2", b"miaf"}
)
_BOXES: Final = frozenset(
    {b"ftyp", b"meta", b"mdat", b"moov", b"moof", b"free", b"skip", b"uuid", b"idat", b"jumb", b"styp", b"sidx"}
)
_MAGIC: Final = (
    _JPEG,
    _PNG,
    *_GIFS,
    b"II*\x00",  # TIFF, little and big endian, and BigTIFF
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",  # JPEG 2000: file, code stream
    b"\xff\x4f\xff\x51",
    b"\x00\x00\x00\x0cJXL \r\n\x87\n",  # JPEG XL: file, code stream
    b"\xff\x0a",
    b"8BPS\x00\x01",  # Photoshop, and the same for large images
    b"8BPS\x00\x02",
)
_ICO: Final = b"\x00\x00\x01\x00"
_ICO_BYTES: Final = 22
"""A header of 6 bytes, and at least one entry of 16."""
_SVG_BEGIN_BYTES: Final = 4096
_BEFORE_SVG: Final = re.compile(rb"\s+|<\?[^>]*>|<!--.*?-->|<!DOCTYPE\s+svg\b[^>\[]*(?:\[[^\]]*\]\s*)?>", re.DOTALL)
"""What may stand before the root element: a declaration, comments, a document type."""
_BEFORE_TAGS: Final = frozenset({b"<", b"\xef", b" ", b"\t", b"\r", b"\n"})
_SVG: Final = re.compile(rb"<(?:[A-Za-z]\w*:)?svg[\s>/]")

_NO_FILL_BYTE: Final = re.compile(rb"[^\xff]")
_FREE_STEPS: Final = 10_000
_BYTES_PER_STEP: Final = 100
"""Honest files have fewer steps than these two allow: a GIF's blocks have 255 bytes, all but the last of each frame."""


def begins_like_image(body: bytes) -> bool:
    """Whether the first bytes are those of an image format that common readers know."""
    if body.startswith(_MAGIC):
        return True
    if body.startswith(b"RIFF"):
        return body[8:12] == b"WEBP"
    if body[4:8] == b"ftyp":
        return body[8:12] in _FTYP_BRANDS
    if body.startswith(_ICO):  # a number of entries, and a zero in the first one
        return len(body) >= _ICO_BYTES and body[4] > 0 and body[5] == 0 and body[9] == 0
    if body[:1] in _BEFORE_TAGS:
        return _begins_like_svg(body)
    # Two letters are not enough: the next header has one of a few sizes.
    return body.startswith(b"BM") and int.from_bytes(body[14:18], "little") in _BMP_HEADER_BYTES


def _begins_like_svg(body: bytes) -> bool:
    """Whether the root element is svg. A page may have one within itself; here nothing but the root counts."""
    head = body[:_SVG_BEGIN_BYTES].removeprefix(b"\xef\xbb\xbf")
    at = 0
    while following := _BEFORE_SVG.match(head, at):
        at = following.end()
    return _SVG.match(head, at) is not None


def image_is_cut_off(body: bytes) -> bool:
    """Whether the end of the image is missing. What stands behind the end does not matter. False for formats that do
    not show it (TIFF, JPEG 2000) and for bytes that are no such image."""
    if body.startswith(_JPEG):
        return _jpeg_is_cut_off(body)
    if body.startswith(_PNG):
        return _PNG_END not in body
    if body.startswith(_GIFS):
        return _gif_is_cut_off(body)
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return len(body) < 8 + int.from_bytes(body[4:8], "little")
    if body[4:8] == b"ftyp" and body[8:12] in _FTYP_BRANDS:
        return _boxes_are_cut_off(body)
    return body.startswith(b"BM") and begins_like_image(body) and len(body) < int.from_bytes(body[2:6], "little")


def _steps(body: bytes) -> range:
    """How often a walk over this body may step before it has to be given up as damaged."""
    return range(_FREE_STEPS + len(body) // _BYTES_PER_STEP)


def _jpeg_is_cut_off(body: bytes) -> bool:
    """Walks over the segments to the pixels: a thumbnail before them has an end marker of its own."""
    position = 2
    for _ in _steps(body):
        if position + 4 > len(body):
            return True
        if body[position] != 0xFF:
            break
        marker = body[position + 1]
        if marker == 0xDA:  # start of scan; in what follows, FF D9 is the end and nothing else
            return body.find(b"\xff\xd9", position) < 0
        if marker == 0xFF:  # fill bytes
            following = _NO_FILL_BYTE.search(body, position)
            position = following.start() - 1 if following else len(body)
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            position += 2
        else:
            position += 2 + int.from_bytes(body[position + 2 : position + 4], "big")
    return b"\xff\xd9" not in body  # damaged; without an end marker anywhere it is cut off too


def _gif_is_cut_off(body: bytes) -> bool:
    """Walks over the blocks (GIF89a specification, appendix B) to the trailer."""
    if len(body) < 13:
        return True
    position = 13 + _color_table_bytes(body[10])
    is_in_blocks = False
    for _ in _steps(body):
        if position >= len(body):
            return True
        introducer = body[position]
        if is_in_blocks:  # until the block of no bytes
            is_in_blocks = introducer > 0
            position += 1 + introducer
        elif introducer == 0x3B:
            return False
        elif introducer == 0x21:  # extension: label, sub-blocks
            position += 2
            is_in_blocks = True
        elif introducer == 0x2C:  # image: descriptor, color table, code size, sub-blocks
            flags = body[position + 9] if position + 9 < len(body) else 0
            position += 11 + _color_table_bytes(flags)
            is_in_blocks = True
        else:
            break
    return body.find(b";", position) < 0  # damaged; without a trailer anywhere it is cut off too


def _color_table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _boxes_are_cut_off(body: bytes) -> bool:
    """Walks over the outermost boxes of an ISO base media file (AVIF, HEIC)."""
    position = 0
    for _ in _steps(body):
        if position + 8 > len(body):
            return position > len(body)
        if body[position + 4 : position + 8] not in _BOXES:  # something that was appended
            return False
        size = int.from_bytes(body[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(body[position + 8 : position + 16], "big")
        elif size == 0:  # up to the end of the file, wherever that was meant to be
            return False
        if size < 8:
            break
        position += size
    return False  # no such file after all
