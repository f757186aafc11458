"""Answers made at random: bytes that mean nothing, and valid answers with a few bytes changed. Pure.

Answer ``number`` of a seed is always the same, so that server and judge need not talk to each other.
"""

from __future__ import annotations

import gzip
import random
import re
import zlib
from typing import Final

from tests.hostile.bodies import HTML, PICTURE, answer, chunked, picture

_SMALL: Final = [picture(image_format, 8) for image_format in ("JPEG", "PNG", "GIF", "WEBP")]
_VALID: Final = (
    *(answer(body) for body in _SMALL),
    *(answer(body, length=None) for body in _SMALL),
    *(chunked(body) for body in _SMALL),
    answer(gzip.compress(_SMALL[0], mtime=0), "Content-Encoding: gzip"),
    answer(zlib.compress(_SMALL[0]), "Content-Encoding: deflate", length=None),
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(_SMALL[1]),
    answer(PICTURE, 'ETag: "abc"', "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT", "Via: HTTP/1.1 cache"),
    answer(b"", "Location: /elsewhere.jpg", status="302 Found"),
    answer(b"", "Retry-After: 17", status="429 Too Many Requests"),
    answer(HTML, status="404 Not Found", content_type="text/html"),
)
_WHOLE: Final = frozenset({*_SMALL, PICTURE})
_INTERIM: Final = re.compile(rb"HTTP/\S+ +1\d\d")
_END_OF_HEAD: Final = re.compile(rb"\n(?:\n|\r[^\n]*\n)")
"""For libcurl any line ends the head that begins with CR."""
_ENDINGS: Final = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82", b"GIF8": b";"}
"""Of the pictures, by their beginnings."""
_LONGEST_CHANGE: Final = 250
_LENGTH: Final = re.compile(rb"(?im)^content-length[ \t]*:(?:\r?\n)?[ \t]*\+?(\d{1,9})")
"""A line that begins with a space goes on with the one before (RFC 9112, 5.2), also right after the colon."""
_CHUNK: Final = re.compile(rb"(?:\r?\n)?[ \t]*([0-9a-fA-F]{1,8})[^\n]*\n")
_NOISE_SHARE: Final = 0.2


def answer_bytes(seed: int, number: int) -> bytes:
    """What the server sends before it closes the connection."""
    rng = random.Random(seed * 1_000_003 + number)
    if rng.random() < _NOISE_SHARE:
        noise = rng.randbytes(rng.randrange(2000))
        return noise if rng.random() < 0.5 else b"HTTP/1.1 200 OK\r\n" + noise
    data = bytearray(rng.choice(_VALID))
    for _ in range(rng.randrange(6)):
        _mutate(data, rng)
    return bytes(data)


def _mutate(data: bytearray, rng: random.Random) -> None:
    # Half of all changes go into the head, which is a small part of the bytes.
    end = max(1, data.find(b"\r\n\r\n")) if rng.random() < 0.5 else len(data)
    start = rng.randrange(max(1, min(end, len(data))))
    stop = min(len(data), start + rng.choice((1, 1, 2, 4, 16, 200)))
    match rng.randrange(6):
        case 0 if data:
            data[start : start + 1] = bytes((rng.randrange(256),))
        case 1:
            del data[start:stop]
        case 2:
            data[start:start] = data[start:stop]
        case 3:
            data[start:start] = rng.randbytes(rng.choice((1, 2, 8)))
        case 4:
            data[start:start] = rng.choice((b"\r\n", b"\n", b"\0", b"0", b"-", b"9" * 9, b":", b";", b"chunked", b","))
        case _ if rng.random() < 0.3:
            del data[start:]
        case _:
            data[start:stop] = bytes(reversed(data[start:stop]))


def objection(sent: bytes, body: bytes) -> str:
    """Why ``body`` must not be a success when ``sent`` is all that came; empty if it may be one.

    How lenient a reader of damaged headers is, is its own affair. But what it hands out as whole must be all that was
    announced, and nothing else: all that follows the head, so many bytes as a Content-Length says, or all chunks.
    """
    if body in _WHOLE and body in sent:
        return ""
    head, content = _split(sent)
    announced = {content[: int(length)] for length in _LENGTH.findall(head) if int(length) <= len(content)}
    joined = _joined_chunks(content)
    announced |= set() if joined is None else {joined}
    if body in announced:
        return ""
    for sealed in announced | {content}:
        decoded, is_whole = _decoded(sealed)
        if body == decoded and (is_whole or _has_its_end(body)):
            return ""
    if body != content:
        return f"{len(body)} bytes that nobody announced"
    return "an image without its end" if _is_truncated(body) else ""


def _split(sent: bytes) -> tuple[bytes, bytes]:
    """The last head, with all interim ones before it, and what follows it."""
    position = 0
    while True:
        end = _END_OF_HEAD.search(sent, position)
        if end is None:
            return sent, b""
        if not _INTERIM.match(sent, position):
            return sent[: end.end()], sent[end.end() :]
        position = end.end()


def _joined_chunks(content: bytes) -> bytes | None:
    """The body of which ``content`` is the chunked form; None if it has no last chunk, or is none."""
    pieces: list[bytes] = []
    position = 0
    while True:
        size_line = _CHUNK.match(content, position)
        if size_line is None:
            return None
        size = int(size_line[1], 16)
        position = size_line.end()
        if size == 0:
            return b"".join(pieces)
        pieces.append(content[position : position + size])
        if len(pieces[-1]) < size:
            return None
        position += size


def _decoded(content: bytes) -> tuple[bytes, bool]:
    """What gzip, zlib or bare deflate data holds (senders mix up the last two), and whether its own end is there."""
    for window_bits in (47, -15):
        stream = zlib.decompressobj(window_bits)
        try:
            return stream.decompress(content), stream.eof
        except zlib.error:
            continue
    return b"", False


def _has_its_end(body: bytes) -> bool:
    """Whether it is one of the pictures, and not truncated: then it counts without the end of what it came in."""
    is_picture = body.startswith((*_ENDINGS, b"RIFF"))
    return is_picture and not _is_truncated(body)


def _is_truncated(body: bytes) -> bool:
    """Whether one of the pictures lacks its end, however it was changed before that."""
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return len(body) < 8 + int.from_bytes(body[4:8], "little")
    ends = [ending for beginning, ending in _ENDINGS.items() if body.startswith(beginning)]
    return any(ending not in body[-_LONGEST_CHANGE:] for ending in ends)
