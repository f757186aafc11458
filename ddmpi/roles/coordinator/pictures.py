"""Some of the fetched images, small, for the report: read from published parts, a few rows of a few of them.

It is a courtesy to those who look at the report: what cannot be read or decoded is not shown, and after ``budget_s``
no further file is opened.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.records import Picture
from ddmpi.errors import SetupError
from ddmpi.io.results.images import DecodeError, header_size, make_shrink

log = logging.getLogger(__name__)

SIDE_PIXELS: Final = 160
MOST_PIXELS: Final = 50_000_000
"""Larger images would take seconds to decode."""
MOST_BODY_BYTES: Final = 16 << 20
MOST_SHOWN_BYTES: Final = 40_000
"""Of one picture in the page: what is larger could not be made smaller, and is left out."""
_TYPES: Final = ((b"\xff\xd8", "jpeg"), (b"\x89PNG", "png"), (b"GIF8", "gif"), (b"RIFF", "webp"))


def prepare_pictures() -> None:
    """Load what makes them small, before it is needed."""
    _shrinker()


def sample_pictures(parts: Iterable[Path], rows_each: int, budget_s: float) -> list[Picture]:
    """Return up to ``rows_each`` pictures of each part, in order, as far as they can be had in time."""
    end_at = time.monotonic() + budget_s
    shrink = _shrinker()
    found = []
    for part in parts:
        if time.monotonic() >= end_at:
            break
        for body, url in _rows(part, rows_each):
            picture = _picture(body, shrink)
            if picture is not None:
                found.append(Picture(picture, url.partition("://")[2].partition("/")[0]))
    return found


def data_uris(bodies: Iterable[bytes]) -> list[str]:
    """Return each body as a small image's data URI, "" where it is none that can be shown."""
    shrink = _shrinker()
    return [_picture(body, shrink) or "" for body in bodies]


def _rows(part: Path, most: int) -> Iterator[tuple[bytes, str]]:
    """Yield the first rows of a part: row by row, or one large row group would be read as a whole."""
    try:
        with pq.ParquetFile(part, buffer_size=1 << 16) as file:
            batches = file.iter_batches(batch_size=1, row_groups=[0], columns=["image", "final_url"])
            for _, batch in zip(range(most), batches, strict=False):
                for row in batch.to_pylist():
                    yield row["image"], row["final_url"] or ""
    except (OSError, pa.ArrowException) as error:
        log.debug("no picture from %s: %s", part, error)


def _shrinker() -> Callable[[bytes], bytes]:
    """Return a function that makes a body small where Pillow and simplejpeg are installed, else returns it as it is."""
    try:
        shrink = make_shrink(SIDE_PIXELS)
    except SetupError:
        return lambda body: body
    return lambda body: shrink(body).image


def _picture(body: bytes | None, shrink: Callable[[bytes], bytes]) -> str | None:
    """Return the body as a small image's data URI, None where it is none that can be shown."""
    if not body or len(body) > MOST_BODY_BYTES:
        return None
    size = header_size(body)
    if size is None or size[0] * size[1] > MOST_PIXELS:
        return None
    try:
        small = shrink(body)
    except DecodeError as error:
        log.debug("no picture: %s", error)
        return None
    kind = next((name for magic, name in _TYPES if small.startswith(magic)), None)
    if kind is None or len(small) > MOST_SHOWN_BYTES:
        return None
    return f"data:image/{kind};base64,{base64.b64encode(small).decode()}"
