"""HTTP/2 frames (RFC 9113), as bytes: just what a server needs that is about to misbehave.

Header blocks are written with entries of the static table and literals only (RFC 7541), so that no state is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.hostile.bodies import PICTURE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
STREAM = 1
"""The first request of a client has this number, and each script gets a connection of its own."""

STATUS_200 = b"\x88"
CONTENT_TYPE = b"\x0f\x10\x0aimage/jpeg"  # literal without indexing, name 31 of the static table


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def hello() -> bytes:
    """What each server sends first."""
    return frame(SETTINGS)


def head(*, end_stream: bool = False) -> bytes:
    flags = END_HEADERS | (END_STREAM if end_stream else 0)
    return frame(HEADERS, STATUS_200 + CONTENT_TYPE, flags=flags, stream=STREAM)


def data(body: bytes = PICTURE, *, end_stream: bool = True) -> bytes:
    return frame(DATA, body, flags=END_STREAM if end_stream else 0, stream=STREAM)


def goaway(last_stream: int = 0, error: int = 0) -> bytes:
    return frame(GOAWAY, last_stream.to_bytes(4, "big") + error.to_bytes(4, "big"))


def reset(error: int = 2) -> bytes:
    """RST_STREAM; 2 is INTERNAL_ERROR, 7 REFUSED_STREAM, 11 ENHANCE_YOUR_CALM."""
    return frame(RST_STREAM, error.to_bytes(4, "big"), stream=STREAM)


def frames(received: bytes) -> Iterator[tuple[int, int]]:
    """(kind, stream) of each whole frame that a client sent after its preface."""
    position = len(PREFACE)
    while position + 9 <= len(received):
        size = int.from_bytes(received[position : position + 3], "big")
        if position + 9 + size > len(received):
            return
        yield received[position + 3], int.from_bytes(received[position + 5 : position + 9], "big")
        position += 9 + size
