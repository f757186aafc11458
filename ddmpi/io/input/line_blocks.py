"""Line-based text in blocks of whole lines, decompressed, without the byte order mark."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final, Literal, cast

import msgspec
import pyarrow as pa
import pyarrow.json

from ddmpi.core.records import UNDECODABLE
from ddmpi.errors import InputError
from ddmpi.io.input.files import InputPath, StoredFile

BLOCK_BYTES: Final = 8 << 20
LINE_MAX_BYTES: Final = 256 << 20
"""A longer line means a file that is not made of lines; it is not read into memory to find out."""

Compression = Literal["gzip", "zstd"]


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Whole lines, and how many lines came before them. Only the last line of a file may lack its line feed."""

    data: bytes
    first_line: int


def open_bytes(path: InputPath, compression: Compression | None) -> IO[bytes]:
    """Return the file's bytes, decompressed while they are read."""
    if isinstance(path, StoredFile):
        return cast("IO[bytes]", path.files.open_input_stream(path.path, compression=compression))
    stream = pa.input_stream(str(path), compression=compression)  # type: ignore[arg-type]  # the stubs forget None
    return cast("IO[bytes]", stream)


def check_encoding(path: InputPath, compression: Compression | None) -> None:
    """Refuse a file in UTF-16 or UTF-32, as spreadsheets write them: every row of it would be a bad URL. Raises
    InputError, and OSError as it comes."""
    with open_bytes(path, compression) as stream:
        first = stream.read(4)
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise InputError(f"{path}: is not in UTF-8, but in UTF-16 or UTF-32 by its first bytes; please convert it")


def line_blocks(path: InputPath, compression: Compression | None) -> Iterator[LineBlock]:
    """Yield the file in blocks of about ``BLOCK_BYTES``. Raises InputError on an endless line, OSError as it comes."""
    first_line = 0
    with open_bytes(path, compression) as stream:
        rest = stream.read(BLOCK_BYTES).removeprefix(codecs.BOM_UTF8)
        while rest:
            new = stream.read(BLOCK_BYTES)
            whole = rest.rfind(b"\n") + 1 if new else len(rest)
            if whole:
                block = LineBlock(rest[:whole], first_line)
                first_line += block.data.count(b"\n")
                yield block
            rest = rest[whole:] + new
            if len(rest) > LINE_MAX_BYTES:
                raise InputError(f"{path}: line {first_line + 1} has more than {LINE_MAX_BYTES} bytes")


def guess_schema(path: InputPath, block: LineBlock) -> pa.Schema:
    """Return names and types of the columns of JSON lines. One that has values of several types is text here; whoever
    reads it is told by ``parse_json_block``. Raises InputError."""
    try:
        guessed = parse_json_block(path, block, None).schema
    except InputError as error:
        guessed = _guess_by_column(block, error)
    return pa.schema([(field.name, _json_type(field.type)) for field in guessed])


def _guess_by_column(block: LineBlock, told: InputError) -> pa.Schema:
    columns: dict[str, list[Any]] = {}
    try:
        for line in msgspec.json.Decoder(dict[str, Any]).decode_lines(block.data):
            for name, value in line.items():
                columns.setdefault(name, []).append(value)
    except UNDECODABLE:
        raise told from None
    return pa.schema([(name, _type_of(values)) for name, values in columns.items()])


def _type_of(values: list[Any]) -> pa.DataType:
    try:
        return cast("pa.DataType", pa.array(values).type)
    except (pa.ArrowException, OverflowError):
        return pa.string()


def _json_type(inferred: pa.DataType) -> pa.DataType:
    # JSON has no times, only texts that look like one.
    return pa.string() if pa.types.is_timestamp(inferred) else inferred


def parse_json_block(path: InputPath, block: LineBlock, schema: pa.Schema | None) -> pa.Table:
    """Parse one JSON object per line; with a schema exactly its columns, null where absent. Raises InputError."""
    options = pyarrow.json.ParseOptions(
        explicit_schema=schema,
        unexpected_field_behavior="infer" if schema is None else "ignore",
    )
    # One block for the reader too: it infers the types of each of its blocks anew.
    reading = pyarrow.json.ReadOptions(block_size=len(block.data) + 1, use_threads=False)
    source = cast("IO[bytes]", pa.BufferReader(block.data))
    try:
        return pyarrow.json.read_json(source, read_options=reading, parse_options=options)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: {error} (rows counted from line {block.first_line + 1})") from error
