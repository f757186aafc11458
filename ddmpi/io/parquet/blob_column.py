"""The pages of one column of files: a small body is copied once on its way to the disk, a large one not at all.

Arrow copies a body into its array, into the encoder, into the page, and adds up the page's CRC32 with a table; for
files of 30 KB that was most of a writer's time. Binary views, pages of version 2 and ``write_batch`` do not change
that (pyarrow 21 to 26): the encoder copies in each of them. Stored plainly, such a page is simple. The one copy of
small bodies is cheaper than none: the CRC32 of each by itself would let go of the interpreter's lock, and getting it
back from the loop takes system calls. The rules are those of the format
(https://parquet.apache.org/docs/file-format/, ``parquet.thrift``, ``Encodings.md``):

- PageHeader, then the page's bytes: definition levels (RLE with a length of 4 bytes before it, as the column is
  optional and not repeated), then of each value its length (4 bytes, little endian) and its bytes (PLAIN);
- the CRC32 in the header is that of gzip, over the page's bytes, the header not included.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from ddmpi.io.parquet.compact_protocol import Elements, Field, Kind, Struct, encode, i32, i64, of_structs, varint

try:
    from isal.isal_zlib import crc32
except ImportError:  # the same sums, six times slower: 10 us for 30 KB
    from zlib import crc32

PAGE_BYTES: Final = 1 << 20
"""A page is full with this. The last body of one may be larger: pages end at 2 GiB."""
PAGE_VALUES: Final = 8_192
COPIED_BYTES: Final = 1 << 18
"""A larger body is written from where it is."""

_BYTE_ARRAY: Final = 6
_UNCOMPRESSED: Final = 0
_DATA_PAGE: Final = 0
_PLAIN: Final = 0
_RLE: Final = 3
_LENGTH: Final = struct.Struct("<I").pack


@dataclass(frozen=True)
class Chunk:
    """The column's part of one row group, as it stands in the file."""

    start: int
    """Where its first page begins, in bytes from the file's start."""
    size_bytes: int
    values: int
    pages: int

    def column_chunk(self, path: str) -> Struct:
        """Return ``ColumnChunk`` of the column with this name."""
        encodings = Elements(Kind.I32, [_PLAIN, _RLE])
        meta: Struct = {
            1: i32(_BYTE_ARRAY),
            2: Field(Kind.LIST, encodings),
            3: Field(Kind.LIST, Elements(Kind.BINARY, [path.encode()])),
            4: i32(_UNCOMPRESSED),
            5: i64(self.values),
            6: i64(self.size_bytes),
            7: i64(self.size_bytes),
            9: i64(self.start),
            13: of_structs([{1: i32(_DATA_PAGE), 2: i32(_PLAIN), 3: i32(self.pages)}]),
        }
        return {2: i64(0), 3: Field(Kind.STRUCT, meta)}


def write_bodies(bodies: Sequence[bytes | None], write: Callable[[bytes], int]) -> Chunk:
    """Write the column's part of one row group, page by page.

    Args:
        bodies: at least one value.
        write: appends bytes to the file; returns where they begin. What it raises is raised.
    """
    start = -1
    size_bytes = pages = first = page_bytes = 0
    for after, body in enumerate(bodies, start=1):
        page_bytes += 0 if body is None else len(body)
        if page_bytes >= PAGE_BYTES or after - first >= PAGE_VALUES or after == len(bodies):
            for part in _page(bodies[first:after]):
                at = write(part)
                start = at if start < 0 else start
                size_bytes += len(part)
            pages += 1
            first, page_bytes = after, 0
    return Chunk(start, size_bytes, len(bodies), pages)


def _page(bodies: Sequence[bytes | None]) -> list[bytes]:
    """Return a page in parts: its header, its levels, and of each value its length and its bytes."""
    parts: list[bytes] = []
    small = [_levels(bodies)]
    for body in bodies:
        if body is None:
            continue
        small.append(_LENGTH(len(body)))
        if len(body) <= COPIED_BYTES:
            small.append(body)
        else:
            parts += (b"".join(small), body)
            small = []
    if small:
        parts.append(b"".join(small))
    crc = 0
    for part in parts:
        crc = crc32(part, crc)
    return [_page_header(sum(map(len, parts)), crc, len(bodies)), *parts]


def _levels(bodies: Iterable[bytes | None]) -> bytes:
    """Return the definition levels: 1 where there is a value, 0 where there is none."""
    runs = b"".join(
        varint(sum(1 for _ in run) << 1) + bytes((is_there,)) for is_there, run in groupby(bodies, _is_there)
    )
    return _LENGTH(len(runs)) + runs


def _is_there(body: bytes | None) -> bool:
    return body is not None


def _page_header(size_bytes: int, crc: int, values: int) -> bytes:
    """Return ``PageHeader`` of a ``DataPageHeader``; the CRC is a signed number there."""
    signed = crc - (1 << 32) if crc >= 1 << 31 else crc
    data_page: Struct = {1: i32(values), 2: i32(_PLAIN), 3: i32(_RLE), 4: i32(_RLE)}
    header: Struct = {
        1: i32(_DATA_PAGE),
        2: i32(size_bytes),
        3: i32(size_bytes),
        4: i32(signed),
        5: Field(Kind.STRUCT, data_page),
    }
    return encode(header)
