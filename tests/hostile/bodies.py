"""Pictures and answers of which the cases are made. Every picture is real, and whole unless its name says otherwise."""

from __future__ import annotations

import gzip
import io
import random

from PIL import Image

MAX_FILE_BYTES = 200_000
"""``max_file_bytes`` of all runs over the cases."""
HTML = b"<!doctype html>\n<title>Sorry</title>\n<p>This picture is gone.\n"
BROTLI_BOMB = bytes.fromhex("cbffff3ff82700e2b14020f7fe8fffff7ff04f00c4611180eefd5ffeb3c4e09f0088c302005d9218")
"""20 million zeros: no package of the tests compresses with brotli."""


def picture(image_format: str = "JPEG", side: int = 48) -> bytes:
    """Colored noise, the same at each call."""
    pixels = random.Random(side).randbytes(3 * side * side)
    stream = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(stream, image_format)
    return stream.getvalue()


PICTURE = picture()


def answer(
    body: bytes = PICTURE,
    *headers: str,
    status: str = "200 OK",
    content_type: str = "image/jpeg",
    length: int | str | None = -1,
) -> bytes:
    """An HTTP/1.1 answer. ``length`` is the Content-Length: -1 = the true one, None = no such header."""
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"Content-Type: {content_type}"] if content_type else []
    lines += [] if length is None else [f"Content-Length: {len(body) if length == -1 else length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def chunked(body: bytes, *, last_chunk: bytes = b"0\r\n\r\n", size_line: bytes | None = None) -> bytes:
    """An answer whose body is one chunk; ``size_line`` replaces the line that says how long it is."""
    size = f"{len(body):x}".encode() if size_line is None else size_line
    return answer(size + b"\r\n" + body + b"\r\n" + last_chunk, "Transfer-Encoding: chunked", length=None)


def bomb(layers: int = 1, size_bytes: int = 20_000_000) -> bytes:
    """``size_bytes`` zeros, compressed with gzip so often: the first megabytes are enough to see what it is."""
    data = bytes(size_bytes)
    for _ in range(layers):
        data = gzip.compress(data, mtime=0)
    return data
