"""Color profiles (ICC): pixels as they are seen become sRGB, since what is encoded again has no profile."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any, Final, cast

from PIL import Image, ImageCms

from ddmpi.io.images.complaints import complain

_KEPT: Final = 16
"""Transforms: most images of a server have the same profile, and to make one takes a millisecond or more."""
_SPACES: Final = {"RGB": "RGB ", "RGBA": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
"""What a profile calls the pixels of a mode."""


def to_srgb(pixels: Image.Image, profile: bytes) -> Image.Image:
    """Return the pixels in sRGB (RGB, or RGBA as they are). Tells of a profile that cannot be applied."""
    if profile:
        try:
            transform = _transform(profile, pixels.mode)
            if transform is not None:
                return cast("Image.Image", ImageCms.applyTransform(pixels, transform))
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            complain(f"color profile not applied: {error}")
    return pixels if pixels.mode in {"RGB", "RGBA"} else pixels.convert("RGB")


@lru_cache(maxsize=_KEPT)
def _transform(profile: bytes, mode: str) -> Any | None:
    """Return what makes sRGB of such pixels, None if they are. Raises PyCMSError, OSError, ValueError."""
    theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = theirs.profile.xcolor_space
    if space != _SPACES[mode]:
        raise ValueError(f"it is one of {space.strip()}, the pixels are {mode}")
    if mode != "CMYK" and "sRGB" in (theirs.profile.profile_description or ""):
        return None
    ours = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(theirs, ours, mode, "RGBA" if mode == "RGBA" else "RGB")
