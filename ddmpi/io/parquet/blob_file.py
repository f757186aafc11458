"""A Parquet file of which one column, if it has it, is written by ``blob_column``, and all others by Arrow.

Arrow writes its columns as if the file had no others; of each row group the bodies follow, through the same
stream, so that it knows where it is in the file. At the end the two descriptions become one: the schema is that of a
file with all columns, and each row group gets the column. What Arrow says of its own columns stays as it is, byte by
byte: it is most of the metadata, and to read all of it in Python took a quarter of a writer's time.

The bodies come last in their row group because parquet-mr (Spark, Hive) takes the place of the first column for that of
the row group, and adds half of its size to see which part of a divided file it belongs to: a first column behind the
bodies would put the last row group beyond the file's end, and Spark would read none of its rows, without a word.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.io.parquet.blob_column import Chunk, write_bodies
from ddmpi.io.parquet.compact_protocol import Struct, decode, encode, i64, of_structs

MAGIC: Final = b"PAR1"
_BUFFER_BYTES: Final = 1 << 18
"""Larger pages pass through without a copy."""
_TAIL_BYTES: Final = 8
"""The length of the metadata, and the magic bytes again."""

# Fields of parquet.thrift.
_FILE_ROWS: Final = 3
_FILE_ROW_GROUPS: Final = 4
_GROUP_COLUMNS: Final = 1
_GROUP_BYTES: Final = 2
_GROUP_START: Final = 5
_GROUP_COMPRESSED_BYTES: Final = 6
_GROUP_DEPTH: Final = 1


class Sink(Protocol):
    """A file that takes bytes."""

    def tell(self) -> int: ...

    def write(self, data: Any, /) -> int: ...


class BlobFile:
    """A file with one column of bodies, row group after row group. ``close`` makes it one that can be read.

    Args:
        sink: the file, empty.
        schema: of the whole file.
        column: that of the bodies, ``large_binary`` or ``binary``; where the schema has none of this name, all is
            Arrow's.
        unlike: columns that hardly repeat a value: they get no dictionary.

    Raises:
        OSError, pa.ArrowException: the sink does not take what is written, from all methods.
    """

    def __init__(self, sink: Sink, schema: pa.Schema, column: str, unlike: Collection[str] = ()) -> None:
        self._sink = sink
        self._schema = schema
        self._column = column
        self._has_bodies = column in schema.names
        others = schema.remove(schema.get_field_index(column)) if self._has_bodies else schema
        self._chunks: list[Chunk] = []
        self._starts: list[int] = []  # of the row groups
        self._arrow_sink = _ArrowSink(sink)
        # Without it Arrow would take the interpreter's lock for each page and its header, and wait for the loop.
        self._stream = pa.BufferedOutputStream(pa.PythonFile(self._arrow_sink, mode="w"), _BUFFER_BYTES)
        self._arrow = _open_arrow(self._stream, others, unlike)

    def write(self, others: pa.Table, bodies: Sequence[bytes | None]) -> None:
        """Append a row group of at least one row: its other columns, and its bodies. Raises ValueError: there are more
        or fewer bodies than rows."""
        self._starts.append(self._stream.tell())
        self._arrow.write_table(others, row_group_size=others.num_rows)
        if self._has_bodies:
            if len(bodies) != others.num_rows:
                raise ValueError(f"{len(bodies)} bodies in a row group of {others.num_rows} rows")
            self._chunks.append(write_bodies(bodies, self._append))
        self._stream.flush()  # the file's size is asked for

    def close(self) -> None:
        """Write the metadata."""
        self._arrow_sink.holds = self._has_bodies
        self._arrow.close()
        self._stream.flush()
        if not self._has_bodies:
            return
        template, place = _whole(self._schema, self._column)
        others = decode(bytes(self._arrow_sink.held[:-_TAIL_BYTES]), _GROUP_DEPTH)
        metadata = self._joined(decode(template, _GROUP_DEPTH), others, place)
        self._sink.write(metadata + len(metadata).to_bytes(4, "little") + MAGIC)

    def abandon(self) -> None:
        """Forget the file. Arrow closes what is open when it is collected, and would complain there about a file that
        is gone."""
        self._arrow.is_open = False
        self._arrow_sink.holds = True

    def _append(self, data: bytes) -> int:
        start = self._stream.tell()
        self._stream.write(data)
        return start

    def _joined(self, whole: Struct, others: Struct, place: int) -> bytes:
        """Return the metadata of a file without rows (``whole``) with the row groups of the file without bodies."""
        groups = others[_FILE_ROW_GROUPS].value.values
        whole[_FILE_ROWS] = others[_FILE_ROWS]
        whole[_FILE_ROW_GROUPS] = of_structs(groups)
        for group, chunk, start in zip(groups, self._chunks, self._starts, strict=True):
            if group[_GROUP_START].value != start:
                raise RuntimeError(f"a row group begins at byte {start}, and not where Arrow says: {group}")
            group[_GROUP_COLUMNS].value.values.insert(place, chunk.column_chunk(self._column))
            group[_GROUP_BYTES] = i64(group[_GROUP_BYTES].value + chunk.size_bytes)
            group[_GROUP_COMPRESSED_BYTES] = i64(group[_GROUP_COMPRESSED_BYTES].value + chunk.size_bytes)
        return encode(whole)


class _ArrowSink(io.RawIOBase):
    """What Arrow writes to: the file, and at the end memory, for the metadata."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink
        self.holds = False
        self.held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:  # a buffer of Arrow's
        if not self.holds:
            return self._sink.write(data)
        with memoryview(data) as view:
            self.held += view
            return view.nbytes


@lru_cache(maxsize=8)
def _whole(schema: pa.Schema, column: str) -> tuple[bytes, int]:
    """Return the metadata of a file of all columns without rows, and where the bodies stand among Parquet's columns."""
    sink = pa.BufferOutputStream()
    _open_arrow(sink, schema).close()
    data = sink.getvalue().to_pybytes()
    size_bytes = int.from_bytes(data[-_TAIL_BYTES:-4], "little")
    return data[-_TAIL_BYTES - size_bytes : -_TAIL_BYTES], list(_leaves(schema)).index(column)


def _open_arrow(sink: pa.NativeFile, schema: pa.Schema, unlike: Collection[str] = ()) -> pq.ParquetWriter:
    """Open Arrow's writer. Pages carry a CRC32, so that a flipped byte is found in any column.

    Only texts are compressed: to set zstd up for a page takes longer than to write a hundred numbers, of which most
    repeat in a dictionary.
    """
    leaves = _leaves(schema)
    return pq.ParquetWriter(
        sink,
        schema,
        compression={path: "zstd" for path, is_text in leaves.items() if is_text},
        use_dictionary=[path for path in leaves if path not in unlike],  # type: ignore[arg-type]  # the stubs lack lists
        write_page_checksum=True,
    )


@lru_cache(maxsize=8)
def _leaves(schema: pa.Schema) -> dict[str, bool]:
    """Return Parquet's own columns by name, and whether they hold texts or bytes: lists and structs have several or
    longer names."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return {leaf.path: leaf.physical_type == "BYTE_ARRAY" for leaf in map(leaves.column, range(len(leaves)))}
