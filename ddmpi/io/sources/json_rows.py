"""JSON: an object per line, or one document that has all rows in an array.

A document is read element by element (ijson), and the elements become lines: both are typed alike. Types are those of
the first block (8 MB), until ``look_through`` is called; the text columns may also turn up later.
"""

from __future__ import annotations

import codecs
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, ClassVar, Final, cast

import ijson  # type: ignore[import-untyped]
import msgspec
import pyarrow as pa
import pyarrow.json

from ddmpi.core.records import UNDECODABLE
from ddmpi.core.rules.column_types import common_type
from ddmpi.errors import InputError
from ddmpi.io.folder.disk_errors import one_line
from ddmpi.io.sources.byte_streams import check_encoding, open_bytes
from ddmpi.io.sources.source_file import BATCH_ROWS, SourceFile, naming
from ddmpi.io.sources.text_lines import BLOCK_BYTES, LineBlock, encoding_name, line_blocks

_MOST_NAMED: Final = 10
"""So many of a document's arrays, and of their elements' keys, are named in a message."""


class JsonSource(SourceFile):
    """What both kinds share: rows come as lines, each an object."""

    schema_is_guessed = True
    unit: ClassVar[str]

    @property
    def unusual(self) -> str:
        encoding = self.reading.keys.encoding
        return "" if encoding == "utf-8" else encoding

    @abstractmethod
    def _lines(self) -> Iterator[LineBlock]:
        """Yield the rows, an object per line."""

    def _read_schema(self) -> pa.Schema:
        check_encoding(self.path, self.compression, self.reading.keys.encoding)
        self._types: dict[str, pa.DataType] = {}
        for block in self._lines():
            return self._guess_schema(block)
        return pa.schema([(self.reading.text_column, pa.string())])

    def look_through(self) -> None:
        """Widen the types to those of all blocks, as far as they go together."""
        if self.is_looked_through:
            return
        types = {field.name: field.type for field in self.schema}
        with naming(self.path):
            for block in self._lines():
                for field in self._guess_schema(block):
                    common = common_type(types.get(field.name, field.type), field.type)
                    types[field.name] = common or types[field.name]
        self.schema = pa.schema(list(types.items()))
        self.is_looked_through = True

    def read_as(self, types: Mapping[str, pa.DataType]) -> None:
        self._types = dict(types)

    def _guess_schema(self, block: LineBlock) -> pa.Schema:
        """Return names and types of the columns. One that has values of several types is text here; whoever reads it
        is told by ``_parsed``. Raises InputError."""
        try:
            guessed = self._parsed(block, None).schema
        except InputError as error:
            guessed = _guess_by_column(block, error)
        return pa.schema([(field.name, _json_type(field.type)) for field in guessed])

    def _read(self, columns: Sequence[str], as_dictionary: Collection[str]) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        types: dict[str, pa.DataType] = {name: pa.string() for name in self.reading.text_columns}
        types |= {field.name: field.type for field in self.schema}
        types |= self._types
        wanted = pa.schema([(name, types[name]) for name in columns])
        for block in self._lines():
            yield from self._parsed(block, wanted).select(list(columns)).to_batches(BATCH_ROWS)

    def _parsed(self, block: LineBlock, schema: pa.Schema | None) -> pa.Table:
        """Parse a block; with a schema exactly its columns, null where absent. Raises InputError."""
        options = pyarrow.json.ParseOptions(
            explicit_schema=schema,
            unexpected_field_behavior="infer" if schema is None else "ignore",
        )
        # One block for the reader too: it infers the types of each of its blocks anew.
        reading = pyarrow.json.ReadOptions(block_size=len(block.data) + 1, use_threads=False)
        source = cast("IO[bytes]", pa.BufferReader(block.data))
        try:
            if block.data.isspace():  # which is an error to the other reader
                return pyarrow.json.read_json(source, read_options=reading, parse_options=options)
            # Of a few rows this takes half of what read_json does, which hands each block to another thread.
            with pyarrow.json.open_json(source, read_options=reading, parse_options=options) as rows:
                return rows.read_all()
        except pa.ArrowInvalid as error:
            raise InputError(f"{self.path}: {error} (rows counted from {self.unit} {block.first_line + 1})") from error


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


class JsonLinesSource(JsonSource):
    """A JSON object per line."""

    unit = "line"

    @property
    def description(self) -> str:
        return f"a JSON object per line, {encoding_name(self.reading.keys.encoding)}"

    def _lines(self) -> Iterator[LineBlock]:
        return line_blocks(self)

    def _read_schema(self) -> pa.Schema:
        try:
            schema = super()._read_schema()
        except InputError as error:
            self._check_it_is_no_document(error)
            raise
        column = self.reading.text_column.partition("[")[0].partition(".")[0]
        if column not in schema.names and any(pa.types.is_list(field.type) for field in schema):
            self._check_it_is_no_document(None)
        return schema

    def _check_it_is_no_document(self, error: InputError | None) -> None:
        """Raise InputError where the whole file is one JSON document with rows in it."""
        try:
            arrays = arrays_of(self)
        except InputError:
            return
        if arrays:
            remedy = _records_to_write(arrays, self.reading.text_column)
            raise InputError(f"{self.path}: is one JSON document, not an object per line; {remedy}") from error


class JsonDocumentSource(JsonSource):
    """One JSON document. Its rows are the elements of an array: objects, or texts that are the URLs."""

    unit = "record"

    @property
    def description(self) -> str:
        place = "an array" if self.reading.keys.records is None else f"records in {self.reading.keys.records}"
        return f"JSON document, {place}, {encoding_name(self.reading.keys.encoding)}"

    @property
    def unusual(self) -> str:
        return ", ".join(filter(None, [super().unusual, self.reading.keys.records or ""]))

    def _read_schema(self) -> pa.Schema:
        if next(self._lines(), None) is None:
            arrays = arrays_of(self)
            if (self.reading.keys.records or "") not in arrays:
                found = f"no array {self.reading.keys.records}" if self.reading.keys.records else "is not an array"
                raise InputError(f"{self.path}: {found}; {_records_to_write(arrays, self.reading.text_column)}")
        return super()._read_schema()

    def _lines(self) -> Iterator[LineBlock]:
        lines, first, size_bytes = [], 0, 0
        for number, element in enumerate(self._elements()):
            line = msgspec.json.encode(element)
            lines.append(line)
            size_bytes += len(line)
            if size_bytes >= BLOCK_BYTES:
                yield LineBlock(b"\n".join([*lines, b""]), first)
                lines, first, size_bytes = [], number + 1, 0
        if lines:
            yield LineBlock(b"\n".join([*lines, b""]), first)

    def _elements(self) -> Iterator[dict[str, Any]]:
        place = ".".join(filter(None, [self.reading.keys.records, "item"]))
        with _document(self) as stream:
            for number, element in enumerate(ijson.items(stream, place, use_float=True), start=1):
                if isinstance(element, dict):
                    yield element
                elif isinstance(element, str):
                    yield {self.reading.text_column: element}
                else:
                    raise InputError(f"{self.path}: record {number} is no object: {element!r:.80}")


def arrays_of(source: SourceFile) -> dict[str, list[str]]:
    """Return the arrays of a JSON document that are not within others, by place ("" is the document itself), each with
    the keys of its first element. Raises InputError: it is no JSON document."""
    arrays: dict[str, list[str]] = {}
    inside: str | None = None
    with _document(source) as stream:
        for place, event, value in ijson.parse(stream):
            if inside is None and event == "start_array":
                inside = place
                arrays[inside] = []
            elif inside is not None and event == "end_array" and place == inside:
                inside = None
            elif inside is not None and event == "map_key" and place == f"{inside}.item".lstrip("."):
                keys = arrays[inside]
                if len(keys) < _MOST_NAMED and value not in keys:
                    keys.append(value)
    return arrays


def _records_to_write(arrays: dict[str, list[str]], column: str) -> str:
    with_keys = {place: keys for place, keys in arrays.items() if keys}
    if "" in arrays:
        return "write input.format: json"
    if not with_keys:
        return "it has no array of objects"
    found = "; ".join(f"{place} ({', '.join(keys)})" for place, keys in [*with_keys.items()][:_MOST_NAMED])
    best = next((place for place, keys in with_keys.items() if column in keys), next(iter(with_keys)))
    return f"write input: {{format: json, records: {best}}}, or another of its arrays: {found}"


class _WithoutMark:
    """A stream without the byte order mark that it may begin with."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._first = stream.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)

    def read(self, size: int) -> bytes:
        if self._first and size:
            first, self._first = self._first, b""
            return first
        return self._stream.read(size)


@contextmanager
def _document(source: SourceFile) -> Iterator[_WithoutMark]:
    """Open a file that is to be parsed as one document. Raises InputError where it is none."""
    try:
        with open_bytes(source.path, source.compression, source.reading.keys.encoding) as stream:
            yield _WithoutMark(stream)
    except ijson.JSONError as error:
        raise InputError(f"{source.path}: is not one JSON document: {one_line(error)}") from error
