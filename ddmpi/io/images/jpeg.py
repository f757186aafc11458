"""The head of a JPEG, read as libjpeg reads it: what libjpeg would decode is known before it does.

libjpeg skips what stands between two segments (``next_marker`` in jdmarker.c), so that has to be skipped here as well:
a size that is not found would be a bound that does not hold. The first frame header counts, as there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

SOI: Final = b"\xff\xd8"
START_OF_SCAN: Final = b"\xff\xda"
END_OF_IMAGE: Final = b"\xff\xd9"

_FRAME_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15 without the tables and the reserved one between them (ITU-T T.81, table B.1)."""
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
"""TEM and the restart markers: no length follows."""
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ENDS: Final = frozenset({0xD8, 0xD9})
_MAX_SEGMENTS: Final = 5_000
"""Before the frame: EXIF, color profile and the like, 64 KB each; a maker's file has a few hundred at most."""
_COEFFICIENT_BYTES: Final = 2
_PROFILE: Final = b"ICC_PROFILE\0"
_EXIF: Final = b"Exif\0\0"


@dataclass(slots=True, frozen=True)
class JpegHead:
    """What stands before the first scan. ``size`` is (height, width) in pixels."""

    size: tuple[int, int]
    components: int
    coefficient_bytes: int
    """What libjpeg keeps of the whole image while it decodes; 0 where one scan has everything."""
    profile: bytes
    """The ICC profile; empty without one."""
    exif: bytes
    stray_bytes: int
    """Between segments, where nothing may stand."""
    clean: bytes
    """The file without stray bytes and markers; empty where it has none."""


def jpeg_size(body: bytes) -> tuple[int, int] | None:
    """Return (height, width), None where no frame is found: in 2 us for an honest file, and in bounded time."""
    at = len(SOI)
    for _ in range(_MAX_SEGMENTS):
        if at + 9 > len(body):
            return None
        marker = body[at + 1]
        if body[at] != 0xFF or marker in {0x00, 0xFF}:
            at = _next_marker(body, at)
        elif marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", body, at + 5)
            return (height, width) if height and width else None
        elif marker in _ALONE:
            at += 2
        elif marker in _ENDS:
            return None
        else:
            at += 2 + int.from_bytes(body[at + 2 : at + 4], "big")
    return None


def read_head(body: bytes) -> JpegHead | None:
    """Return what stands before the first scan, None where libjpeg would not come to one."""
    at = len(SOI)
    frame = exif = b""
    profile: dict[int, bytes] = {}
    stray_bytes = 0
    kept = [SOI]
    is_progressive = is_odd = False
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(body):
            return None
        marker = body[at + 1]
        if body[at] != 0xFF or marker in {0x00, 0xFF}:
            following = _next_marker(body, at)
            stray_bytes += len(body[at:following].lstrip(b"\xff"))
            at, is_odd = following, True
            continue
        if marker in _ALONE:
            at, is_odd = at + 2, True
            continue
        if marker in _ENDS:
            return None
        end = at + 2 + int.from_bytes(body[at + 2 : at + 4], "big")
        data = body[at + 4 : end]
        if marker == START_OF_SCAN[1]:
            clean = b"".join([*kept, body[at:]]) if is_odd else b""
            found = _frame(frame, is_progressive=is_progressive, scanned=data[0] if data else 0)
            return None if found is None else JpegHead(*found, _joined(profile), exif, stray_bytes, clean)
        if marker in _FRAME_MARKERS and not frame:
            frame, is_progressive = data, marker in _PROGRESSIVE
        elif marker == 0xE1 and data.startswith(_EXIF) and not exif:
            exif = data
        elif marker == 0xE2 and data.startswith(_PROFILE) and len(data) > len(_PROFILE) + 2:
            profile[data[len(_PROFILE)]] = data[len(_PROFILE) + 2 :]
        kept.append(body[at:end])
        at = end
    return None


def _next_marker(body: bytes, at: int) -> int:
    """Return where the next marker begins that is none of the fill bytes before one; the end without any."""
    while True:
        at = body.find(b"\xff", at)
        if at < 0 or at + 1 >= len(body):
            return len(body)
        if body[at + 1] not in {0x00, 0xFF}:
            return at
        at += 1


def _joined(pieces: dict[int, bytes]) -> bytes:
    """Return a profile of its numbered pieces."""
    return b"".join(pieces[number] for number in sorted(pieces))


def _frame(data: bytes, *, is_progressive: bool, scanned: int) -> tuple[tuple[int, int], int, int] | None:
    """Return size, number of components, and bytes of coefficients that libjpeg keeps.

    Args:
        data: a frame header after its length (ITU-T T.81, B.2.2).
        scanned: components in the first scan.
    """
    if len(data) < 6 or len(data) < 6 + 3 * data[5]:
        return None
    height, width = struct.unpack_from(">HH", data, 1)
    components = data[5]
    if not (height and width and components):
        return None
    factors = [(data[at] >> 4, data[at] & 15) for at in range(7, 7 + 3 * components, 3)]
    most = max(across for across, _ in factors) * max(down for _, down in factors) or 1
    share = sum(across * down for across, down in factors) / most
    is_kept = is_progressive or scanned < components
    coefficients = (height + 64) * (width + 64) * share if is_kept else 0.0  # up to a block more on each side
    return (height, width), components, int(coefficients) * _COEFFICIENT_BYTES
