"""Bodies that came encoded although they were asked for as they are; and those that only say so.

libcurl would decode them, but gives a file up where the header names no encoding (``aws-chunked`` and ``UTF-8`` of
objects in buckets) or one that the body does not have (``gzip`` over a plain file), as no browser does. So it is told
to leave them alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ddmpi.core.rules.image_bytes import begins_like_image

_MOST_LAYERS: Final = 5
"""As in libcurl."""
_GZIP: Final = b"\x1f\x8b"
_GZIP_BITS: Final = 31
_ZLIB_BITS: Final = 15
_UNREADABLE: Final = frozenset({"compress", "x-compress", "zstd", "dcb", "dcz"})
"""Registered ones (IANA, HTTP content codings) that nothing here decodes."""


class EncodingError(ValueError):
    """The body is encoded, and cannot be decoded."""


class TooLargeError(ValueError):
    """What is encoded is larger than is wanted."""


@dataclass(frozen=True, slots=True)
class Decoded:
    body: bytes
    ignored: tuple[str, ...]
    """What the header named that the body does not have."""
    is_changed: bool


def decoded(body: bytes, headers: Sequence[str], most_bytes: int) -> Decoded:
    """Return what is in the body.

    Args:
        headers: the values of Content-Encoding, in their order.

    Raises EncodingError; TooLargeError: it has more than ``most_bytes``, of which that many were decoded.
    """
    names = [name.strip().lower() for header in headers for name in header.split(",")]
    names = [name for name in names if name not in {"", "identity"}]
    if not names or begins_like_image(body):
        return Decoded(body, tuple(names), is_changed=False)
    if len(names) > _MOST_LAYERS:
        raise EncodingError(f"{len(names)} content encodings")
    ignored = []
    inner = body
    for name in reversed(names):
        if name in _UNREADABLE:
            raise EncodingError(f"content encoding {name}")
        decode = _DECODERS.get(name)
        found = None if decode is None else decode(inner, most_bytes)
        if found is None:
            ignored.append(name)
        elif len(found) > most_bytes:
            raise TooLargeError
        else:
            inner = found
    return Decoded(inner, tuple(ignored), is_changed=inner is not body)


def _gunzip(body: bytes, most_bytes: int) -> bytes | None:
    return _inflate(body, _GZIP_BITS, most_bytes) if body.startswith(_GZIP) else None


def _undeflate(body: bytes, most_bytes: int) -> bytes | None:
    # zlib's format as RFC 9110 has it, or the bare one as some servers send it.
    has_header = len(body) > 1 and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2], "big") % 31 == 0
    if has_header:
        return _inflate(body, _ZLIB_BITS, most_bytes)
    try:
        return _inflate(body, -_ZLIB_BITS, most_bytes)
    except EncodingError:
        return None


def _inflate(body: bytes, bits: int, most_bytes: int) -> bytes:
    try:
        return zlib.decompressobj(bits).decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise EncodingError(f"damaged content encoding: {error}") from error


def _unbrotli(body: bytes, most_bytes: int) -> bytes:
    try:
        import brotli  # type: ignore[import-untyped]  # noqa: PLC0415  # optional: hardly anybody sends it unasked
    except ImportError as error:
        raise EncodingError('content encoding br: pip install "ddmpi[brotli]"') from error
    reader: Any = brotli.Decompressor()
    found, size_bytes = [], 0
    try:
        piece = reader.process(body, output_buffer_limit=most_bytes + 1)
        while piece and size_bytes <= most_bytes:
            found.append(piece)
            size_bytes += len(piece)
            piece = b"" if reader.is_finished() else reader.process(b"", output_buffer_limit=most_bytes + 1)
    except brotli.error as error:
        raise EncodingError(f"damaged content encoding: {error}") from error
    return b"".join(found)


_DECODERS: Final[dict[str, Callable[[bytes, int], bytes | None]]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _undeflate,
    "br": _unbrotli,
}
"""By name; None where the body is not encoded so."""
