"""A row as a sample of its own: its name, the ending of its file, and its columns as JSON.

A sample's name is its row number: unique, sortable, and without characters that tar, shells or WebDataset take amiss,
which cannot be said of uuids that a table brought itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import pyarrow as pa

from ddmpi.export.target import Picture

_SUFFIXES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"\x89PNG", "png"),
    (0, b"GIF8", "gif"),
    (8, b"WEBP", "webp"),
    (0, b"II*\0", "tif"),
    (0, b"MM\0*", "tif"),
    (0, b"II+\0", "tif"),
    (0, b"MM\0+", "tif"),
    (8, b"avif", "avif"),
    (8, b"avis", "avif"),
    (8, b"heic", "heic"),
    (8, b"heix", "heic"),
    (8, b"mif1", "heic"),
    (0, b"\0\0\0\x0cjP", "jp2"),
    (0, b"\xff\x4f\xff\x51", "j2k"),
    (0, b"BM", "bmp"),
)


def sample_name(row_number: int) -> str:
    """Return twelve digits: enough for a thousand billion rows."""
    return f"{row_number:012d}"


def suffix_of(body: bytes) -> str:
    """Return the usual ending of such a file's name, by its first bytes; "bin" where they say nothing."""
    return next((suffix for at, magic, suffix in _SUFFIXES if body.startswith(magic, at)), "bin")


def described(rows: pa.Table, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """Return the rows with what a new image changes."""
    found: list[dict[str, Any]] = rows.to_pylist()
    for row, picture in zip(found, pictures, strict=True):
        if picture.digest is not None and picture.resized_size is not None:
            row.update(hashsum_resized=picture.digest, resized_size=list(picture.resized_size))
    return found


def with_new_images(rows: pa.Table, pictures: Sequence[Picture]) -> pa.Table:
    """Return the same as a table."""
    if all(picture.digest is None for picture in pictures):
        return rows
    digests = pa.array([picture.digest for picture in pictures], pa.string())
    sizes = pa.array([picture.resized_size for picture in pictures], rows.schema.field("resized_size").type)
    for name, column in (("hashsum_resized", digests), ("resized_size", sizes)):
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    return rows


def as_json(row: dict[str, Any]) -> str:
    """Return one line; JSON has no word for NaN and infinities, which become null."""
    try:
        return json.dumps(row, ensure_ascii=False, default=_plain, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(row), ensure_ascii=False, default=_plain, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _plain(value: object) -> str:
    """Return what JSON has no notation for."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)  # a kept column's date, decimal or the like
