"""Which bytes a server holds under a path: real JPEG, PNG, GIF and WebP images, each path's own.

A small pool of images is made once per format and size. A body is one of them, chosen by hash, followed by the
server's address and the path: decoders stop at the image's end, and no two bodies of a fleet are equal.
Invariant: ``body_of`` depends on the path and on the spec's address, size and changed_share alone, and is the same in
every process.
"""

from __future__ import annotations

import io
import math
import random
from functools import cache
from statistics import NormalDist
from typing import NamedTuple
from zlib import crc32

from PIL import Image

from tests.fleet.spec import ServerSpec, Size
from tests.fleet.verdict import is_changed

POOL_IMAGES = 16
"""Images per format and size; their byte sizes are the quantiles of a log-normal distribution."""
MEDIAN_BYTES = {Size.SMALL: 2_000, Size.NORMAL: 30_000}
SIGMA = {Size.SMALL: 0.3, Size.NORMAL: 0.6}
"""Standard deviation of the logarithm of the byte size; with 0.6 one image in sixteen has 90 KB."""


class ImageFormat(NamedTuple):
    """A format, by the name Pillow knows it by; ``bits_per_pixel`` was measured on the images made here."""

    pillow_name: str
    content_type: str
    bits_per_pixel: float


_JPEG = ImageFormat("JPEG", "image/jpeg", 3.1)
FORMATS = {
    "jpg": _JPEG,
    "png": ImageFormat("PNG", "image/png", 17.7),
    "gif": ImageFormat("GIF", "image/gif", 6.8),
    "webp": ImageFormat("WEBP", "image/webp", 2.9),
}
"""Format by the suffix of a path; any other suffix means JPEG."""


def format_of(path: str) -> ImageFormat:
    return FORMATS.get(path.rpartition(".")[2], _JPEG)


def body_of(spec: ServerSpec, path: str) -> bytes:
    """The bytes under ``path`` on the server ``spec``, where it answers with an image at all."""
    trailer = f"\n{spec.address}{path}\n{'changed' if is_changed(spec, path) else ''}".encode()
    return _pool(format_of(path), spec.size)[crc32(trailer) % POOL_IMAGES] + trailer


def warm_up(size: Size) -> None:
    """Make the images of ``size`` now and not within a request."""
    for image_format in FORMATS.values():
        _pool(image_format, size)


@cache
def _pool(image_format: ImageFormat, size: Size) -> tuple[bytes, ...]:
    sizes = NormalDist(math.log(MEDIAN_BYTES[size]), SIGMA[size])
    quantiles = ((index + 0.5) / POOL_IMAGES for index in range(POOL_IMAGES))
    return tuple(
        _encoded(image_format, math.exp(sizes.inv_cdf(quantile)), seed) for seed, quantile in enumerate(quantiles)
    )


def _encoded(image_format: ImageFormat, about_bytes: float, seed: int) -> bytes:
    # Noise at a quarter of the resolution, smoothed: compresses about as well as a photograph, at a known rate.
    pixels = about_bytes * 8 / image_format.bits_per_pixel
    width, height = (max(4, round(math.sqrt(pixels * ratio))) for ratio in (4 / 3, 3 / 4))
    coarse = (width // 4, height // 4)
    noise = random.Random(seed).randbytes(coarse[0] * coarse[1] * 3)
    image = Image.frombytes("RGB", coarse, noise).resize((width, height), Image.Resampling.BICUBIC)
    if image_format.pillow_name == "GIF":
        # The palette that saving would make by itself takes a hundred times as long.
        image = image.quantize(256, Image.Quantize.FASTOCTREE)
    encoded = io.BytesIO()
    image.save(encoded, image_format.pillow_name)
    return encoded.getvalue()
