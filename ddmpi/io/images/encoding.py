"""A picture made smaller and encoded again. With it Pillow and simplejpeg are loaded, which are optional."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from PIL import Image

from ddmpi.io.images.color import to_srgb
from ddmpi.io.images.decoding import Picture, open_picture

__all__ = ["open_picture", "shrunk"]

JPEG_QUALITY: Final = 95
_OPAQUE: Final = 255
_GAP: Final = 3.0
"""Large images are averaged down to so many times the size before the filter runs (Pillow's ``reducing_gap``)."""
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation."""


def shrunk(picture: Picture, size: tuple[int, int]) -> tuple[bytes, str, tuple[int, int]]:
    """Return the picture shrunk to (height, width) as stored, encoded; its content type; and its size as shown."""
    pixels, orientation = picture.pixels(size)
    small = pixels.resize(size[::-1], Image.Resampling.HAMMING, reducing_gap=_GAP)
    small = to_srgb(small, picture.profile)
    if orientation in _UPRIGHT:
        small = small.transpose(_UPRIGHT[orientation])
    image, content_type = _encoded(small)
    return image, content_type, small.size[::-1]


def _encoded(pixels: Image.Image) -> tuple[bytes, str]:
    if pixels.mode == "RGBA":
        if np.asarray(pixels.getchannel("A")).min() < _OPAQUE:
            stream = io.BytesIO()
            pixels.save(stream, "PNG", icc_profile=None)  # else it would have that of the original
            return stream.getvalue(), "image/png"
        pixels = pixels.convert("RGB")
    data = np.asarray(pixels)
    body: bytes = simplejpeg.encode_jpeg(data, JPEG_QUALITY, colorsubsampling="420")
    return body, "image/jpeg"
