"""The pages of a column of bodies, by the rules of the format."""

from __future__ import annotations

import zlib

import pytest

from ddmpi.io.parquet import blob_column
from ddmpi.io.parquet.blob_column import write_bodies
from ddmpi.io.parquet.compact_protocol import decode, encode


class Written:
    """A file in memory."""

    def __init__(self, at: int = 4) -> None:
        self.data = b"\0" * at
        self.parts: list[bytes] = []
        self._at = at

    def write(self, part: bytes) -> int:
        start = len(self.data)
        self.parts.append(part)
        self.data += part
        return start

    @property
    def pages(self) -> list[bytes]:
        """The pages with their headers, which say where the next one begins."""
        found, rest = [], self.data[self._at :]
        while rest:
            header = decode(rest)
            end = len(encode(header)) + header[2].value
            found.append(rest[:end])
            rest = rest[end:]
        return found


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
    chunk = write_bodies([b"ab", b"", None, None, b"c"], written.write)
    (page,) = written.pages
    values, body = contents(page)
    assert values == 5
    levels = b"\x04\x01\x04\x00\x02\x01"  # two of 1, two of 0, one of 1: counts are shifted by one bit
    assert body == len(levels).to_bytes(4, "little") + levels + b"\2\0\0\0ab\0\0\0\0\1\0\0\0c"
    assert (chunk.start, chunk.size_bytes, chunk.values, chunk.pages) == (4, len(page), 5, 1)


def test_a_page_ends_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_column, "PAGE_BYTES", 100)
    monkeypatch.setattr(blob_column, "PAGE_VALUES", 4)
    written = Written()
    chunk = write_bodies([bytes(size) for size in (60, 39, 1, 500, 1, 1, 1, 1, 7)], written.write)
    assert [contents(page)[0] for page in written.pages] == [3, 1, 4, 1]
    assert (chunk.start, chunk.size_bytes) == (4, len(written.data) - 4)
    assert (chunk.values, chunk.pages) == (9, 4)


def test_large_bodies_are_not_copied_and_small_ones_are_not_written_one_by_one() -> None:
    large = bytes(blob_column.COPIED_BYTES + 1)
    written = Written()
    write_bodies([b"a", b"b", large, None, b"c", large], written.write)
    assert sum(part is large for part in written.parts) == 2
    _header, first, _large, second, _again = written.parts
    assert first.endswith(b"\1\0\0\0a\1\0\0\0b" + len(large).to_bytes(4, "little"))
    assert second == b"\1\0\0\0c" + len(large).to_bytes(4, "little")
    (page,) = written.pages
    assert contents(page)[0] == 6
