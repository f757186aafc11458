"""The pages of a column of bodies, by the rules of the format."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import pytest

from ddmpi.io.parquet import blob_column
from ddmpi.io.parquet.blob_column import BlobColumn
from ddmpi.io.parquet.compact_protocol import decode, encode


class Written:
    """A file in memory, which counts the pages."""

    def __init__(self, at: int = 4) -> None:
        self.data = b"\0" * at
        self.pages: list[bytes] = []

    def write(self, pieces: Sequence[bytes]) -> int:
        start = len(self.data)
        self.pages.append(b"".join(pieces))
        self.data += self.pages[-1]
        return start


def contents(page: bytes) -> tuple[int, bytes]:
    """How many values a page has, and its bytes, after all that its header says was checked."""
    header = decode(page)
    body = page[len(encode(header)) :]
    crc = header[4].value & 0xFFFF_FFFF
    assert header[1].value == 0, "a data page"
    assert header[2].value == header[3].value == len(body)
    assert crc == zlib.crc32(body)
    data_page = header[5].value
    assert (data_page[2].value, data_page[3].value, data_page[4].value) == (0, 3, 3), "PLAIN, levels RLE"
    return data_page[1].value, body


def test_a_page_has_levels_and_then_each_length_and_value() -> None:
    written = Written()
    column = BlobColumn(written.write)
    for body in (b"ab", b"", None, None, b"c"):
        column.add(body)
    chunk = column.end_chunk()
    (page,) = written.pages
    values, body = contents(page)
    assert values == 5
    levels = b"\x04\x01\x04\x00\x02\x01"  # two of 1, two of 0, one of 1: counts are shifted by one bit
    assert body == len(levels).to_bytes(4, "little") + levels + b"\2\0\0\0ab\0\0\0\0\1\0\0\0c"
    assert (chunk.start, chunk.size_bytes, chunk.values, chunk.pages) == (4, len(page), 5, 1)


def test_a_page_is_written_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_column, "PAGE_BYTES", 100)
    monkeypatch.setattr(blob_column, "PAGE_VALUES", 4)
    written = Written()
    column = BlobColumn(written.write)
    held = []
    for size in (60, 39, 1, 500, 1, 1, 1, 1, 7):
        column.add(bytes(size))
        held.append((len(written.pages), column.held_bytes))
    assert held == [(0, 60), (0, 99), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3), (3, 0), (3, 7)]
    column.write_page()
    column.write_page()
    assert (len(written.pages), column.held_bytes) == (4, 0), "an empty page is not written"


def test_chunks_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_column, "PAGE_BYTES", 3)
    written = Written()
    column = BlobColumn(written.write)
    chunks = []
    for _ in range(2):
        for _ in range(3):
            column.add(b"xy")
        chunks.append(column.end_chunk())
    assert [(chunk.values, chunk.pages) for chunk in chunks] == [(3, 2), (3, 2)]
    assert chunks[1].start == chunks[0].start + chunks[0].size_bytes
    assert chunks[1].start + chunks[1].size_bytes == len(written.data)


def test_bodies_are_not_copied() -> None:
    body = bytes(100)
    seen: list[bytes] = []
    column = BlobColumn(lambda pieces: seen.extend(pieces) or 0)  # type: ignore[func-returns-value]
    column.add(body)
    column.end_chunk()
    assert any(piece is body for piece in seen)
