"""Separated text: .csv, .tsv and their like.

Text carries no types: columns are strings, but come as bytes, so that a broken character is a refused row and not the
end of the run. The text is read in blocks of whole rows, and each is held against what the beginning told: a guess that
turns out wrong stops the run. A line with another number of values stops it too, or is a row that is refused.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ddmpi.errors import InputError
from ddmpi.io.folder.disk_errors import one_line
from ddmpi.io.sources.byte_streams import Compression, check_beginning, open_bytes
from ddmpi.io.sources.dialect import (
    Dialect,
    Doubt,
    RowLook,
    check_quoted,
    check_unquoted,
    find_dialect,
    looks_like_a_url,
    sample_rows,
)
from ddmpi.io.sources.files import InputFile
from ddmpi.io.sources.quoting import QuoteScan, RowEnds, first_row_end
from ddmpi.io.sources.source_file import BAD_LINE, Reading, SourceFile
from ddmpi.io.sources.text_lines import EncodingWatch, LineBlock, encoding_name, is_utf8, not_decoded, shown_line
from ddmpi.report.formats import counted

_BLOCK_BYTES: Final = 8 << 20
_SAMPLE_BYTES: Final = 1 << 20
_VALUE_MAX_BYTES: Final = 64 << 20
"""A row that is longer than this is none: a quotation mark has no counterpart, or the text has no lines."""
_BAD_LINE_CHARACTERS: Final = 1_000
"""Of a bad line so much is kept."""


@dataclass(frozen=True)
class _Rows:
    """A block of whole rows, where its quoted values are if it has any, and how many lines came before it."""

    data: bytes
    first_line: int
    scan: QuoteScan | None


class SeparatedSource(SourceFile):
    """``tabs``: whether the file's name promises tabs, not commas."""

    def __init__(
        self, file: InputFile, compression: Compression | None, reading: Reading, *, tabs: bool = False
    ) -> None:
        self._tabs = tabs
        super().__init__(file, compression, reading)

    @property
    def description(self) -> str:
        kind = "TSV" if self._tabs else "CSV"
        header = "header" if self._has_header else "no header"
        return f"{kind}, {self._dialect}, {header}, {encoding_name(self.reading.keys.encoding)}"

    @property
    def unusual(self) -> str:
        keys = self.reading.keys
        usual = Dialect(b"\t" if self._tabs else b",", is_quoted=True, is_stated=False)
        parts = [
            "" if str(usual) == str(self._dialect) else str(self._dialect),
            "" if self._has_header else "no header",
            "" if keys.encoding == "utf-8" else keys.encoding,
            "" if keys.bad_lines == "refuse" else keys.bad_lines,
        ]
        return ", ".join(filter(None, parts))

    # ---- what the beginning tells

    def _read_schema(self) -> pa.Schema:
        keys = self.reading.keys
        with self._open() as stream:
            beginning = _filled(stream, _SAMPLE_BYTES)
        check_beginning(self.path, beginning, keys.encoding)
        beginning = beginning.removeprefix(codecs.BOM_UTF8)
        # Lines that end as on a Macintosh of old: arrow reads them, but blocks are cut at line feeds.
        self._has_line_feeds = b"\n" in beginning or b"\r" not in beginning
        beginning = self._with_line_feeds(beginning)
        whole = beginning if len(beginning) < _SAMPLE_BYTES else beginning[: beginning.rfind(b"\n") + 1]
        if not whole.strip():
            problem = (
                f"line 1 has more than {_SAMPLE_BYTES} bytes" if beginning.strip() else "is empty, without a header"
            )
            raise InputError(f"{self.path}: {problem}")
        try:
            self._dialect = find_dialect(whole, tabs=self._tabs, separator=keys.separator, quote=keys.quote)
        except Doubt as doubt:
            raise InputError(f"{self.path}: {doubt}") from None
        rows = list(sample_rows(whole, self._dialect))
        self.header = [_decoded(value) for value in rows[0]]
        self._has_header = keys.header and not self._continues(rows[0])
        self._names = names = self._named(rows[0], rows[1] if len(rows) > 1 else [])
        self._look = RowLook.of(rows[1:] if self._has_header else rows, len(names), self._dialect)
        return pa.schema([(name, pa.string()) for name in names])

    def _continues(self, row: Sequence[bytes]) -> bool:
        """Return whether the file has no header although the table's first one has: its first row is like no header."""
        first = self.reading.first
        if not first or len(row) != len(first) or set(self.header) & set(first):
            return False
        return any(map(looks_like_a_url, row))

    def _named(self, row: Sequence[bytes], following: Sequence[bytes]) -> list[str]:
        given = self.reading.keys.names
        if len(given) > len(row):
            raise InputError(
                f"{self.path}: input.names has {len(given)} names, and line 1 {len(row)} values with {self._dialect}: "
                f"{shown_line(self._dialect.separator.join(row))}"
            )
        own: list[str | None] = [None] * len(row)
        if self._has_header:
            self._check_header(row, following)
            own = [name or None for name in self.header]
        elif self.reading.keys.header:
            own = list(self.reading.first)
        named = [*given, *own[len(given) :]]
        return [name or own[place] or f"column_{place + 1}" for place, name in enumerate(named)]

    @property
    def _columns(self) -> int:
        return len(self._names)

    def _check_header(self, row: Sequence[bytes], following: Sequence[bytes]) -> None:
        """Raise InputError where the first row, which another follows, is in another encoding, or is no header."""
        line = self._dialect.separator.join(row)
        broken = next((value for value, name in zip(row, self.header, strict=True) if "\ufffd" in name), None)
        if broken is not None and not is_utf8(broken):
            raise InputError(not_decoded(self.path, 1, line, self.reading.keys.encoding))
        are_urls = [looks_like_a_url(value) for value in row]
        # Darwin Core may name all columns by URIs.
        are_terms = len(row) > 1 and all(are_urls) and not all(map(looks_like_a_url, following))
        if any(are_urls) and not are_terms:
            names = ", ".join(
                self.reading.text_column if looks_like_a_url(value) else f"column_{place}"
                for place, value in enumerate(row, start=1)
            )
            raise InputError(
                f"{self.path}: line 1 has a URL and looks like a row, not like a header: {shown_line(line)}; if there "
                f"is no header, write input: {{header: false, names: [{names}]}}"
            )

    # ---- blocks

    def _open(self) -> IO[bytes]:
        return open_bytes(self.path, self.compression, self.reading.keys.encoding)

    def _with_line_feeds(self, data: bytes) -> bytes:
        return data if self._has_line_feeds else data.replace(b"\r", b"\n")

    def _blocks(self) -> Iterator[_Rows]:
        """Yield the text in blocks of about ``_BLOCK_BYTES``, the header with the first one."""
        watch = EncodingWatch(self.path, self.reading.keys.encoding)
        first_line = 0
        with self._open() as stream:
            rest = self._with_line_feeds(stream.read(_BLOCK_BYTES).removeprefix(codecs.BOM_UTF8))
            while rest:
                new = self._with_line_feeds(stream.read(_BLOCK_BYTES))
                scan = QuoteScan(rest, self._dialect.separator) if self._dialect.is_quoted and b'"' in rest else None
                end = self._end_of_rows(rest, scan, first_line, is_last=not new)
                if end:
                    block = LineBlock(rest[:end], first_line)
                    watch.look(block)
                    yield _Rows(block.data, first_line, scan)
                    first_line += block.data.count(b"\n")
                rest = rest[end:] + new

    def _end_of_rows(self, data: bytes, scan: QuoteScan | None, first_line: int, *, is_last: bool) -> int:
        """Return where the last whole row ends; 0 if there is none yet. Raises InputError, Doubt."""
        if is_last:
            end = len(data)
            if scan is not None and scan.is_open:
                check_quoted(first_line, self._dialect, scan, self._look, end)
                place = int(scan.marks[-1])
                line = first_line + 1 + data.count(b"\n", 0, place)
                raise InputError(
                    f"{self.path}: line {line}: a quotation mark begins a value that does not end; if quotation marks "
                    "are characters like any other, write input.quote: none"
                )
            return end
        end = data.rfind(b"\n") + 1 if scan is None else scan.rows_end()
        if not end and scan is not None:
            check_quoted(first_line, self._dialect, scan, self._look, len(data))
        if not end and len(data) > _VALUE_MAX_BYTES:
            raise InputError(
                f"{self.path}: the row that begins with line {first_line + 1} has more than {_VALUE_MAX_BYTES} bytes"
            )
        return end

    # ---- rows

    def _read(self, columns: Sequence[str], as_dictionary: Collection[str]) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        skip_header = self._has_header
        try:
            for block in self._blocks():
                self._check(block)
                rows = self._parsed(block, columns, skip_header=skip_header)
                skip_header = False
                if rows.num_rows:
                    yield rows
        except Doubt as doubt:
            raise InputError(f"{self.path}: {doubt}") from None

    def _check(self, block: _Rows) -> None:
        if not self._dialect.is_quoted and not self._dialect.is_stated and b'"' in block.data:
            check_unquoted(block.data, block.first_line, self._dialect, self._look)
        if block.scan is not None:
            check_quoted(block.first_line, self._dialect, block.scan, self._look, len(block.data))

    def _parsed(self, block: _Rows, columns: Sequence[str], *, skip_header: bool) -> pa.RecordBatch:
        try:
            start = first_row_end(block.data, block.scan) if skip_header else 0
            return self._values(block.data[start:], block.scan, columns)
        except pa.ArrowInvalid as error:
            rows = RowEnds.of(block.data, block.scan, self._dialect.separator)
            rows = rows.after(1) if skip_header else rows
            bad = rows.values != self._columns
            if not bad.any():
                raise InputError(f"{self.path}: from line {block.first_line + 1}: {one_line(error)}") from error
        self._check_bad(block, rows, bad)
        return self._with_bad(block, columns, rows, bad)

    def _values(self, data: bytes, scan: QuoteScan | None, columns: Sequence[str]) -> pa.RecordBatch:
        if not data.strip(b"\r\n"):
            return pa.record_batch([pa.array([], pa.binary())] * len(columns), names=list(columns))
        places = [self._names.index(name) for name in columns]
        taken = [str(place) for place in places or [0]]
        table = pyarrow.csv.read_csv(
            cast("IO[bytes]", pa.BufferReader(data)),
            pyarrow.csv.ReadOptions(
                use_threads=False,  # others are at work on the rows of the block before
                block_size=len(data) + 1,
                column_names=[str(place) for place in range(self._columns)],
            ),
            pyarrow.csv.ParseOptions(
                delimiter=self._dialect.separator.decode(),
                quote_char=False if scan is None else '"',
                newlines_in_values=scan is not None,
            ),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(taken, pa.binary()),
                include_columns=list(dict.fromkeys(taken)),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        arrays = [_one_chunk(table.column(str(place))) for place in places]
        return pa.record_batch(arrays, names=list(columns)) if columns else _without_columns(table.num_rows)

    def _check_bad(self, block: _Rows, rows: RowEnds, bad: npt.NDArray[np.bool_]) -> None:
        """Raise InputError for the first bad row, if that is not what the config wants to be an error row, or may not
        be one row."""
        is_guess = not self._dialect.is_quoted and not self._dialect.is_stated
        for place in np.flatnonzero(bad).tolist():
            text = rows.text(place)
            has_marks = is_guess and b'"' in text
            if self.reading.keys.bad_lines == "refuse" or has_marks:
                found, line = int(rows.values[place]), block.first_line + rows.line(place)
                remedy = (
                    "if quotation marks enclose values, write input.quote: '\"', otherwise input.quote: none"
                    if has_marks
                    else "correct it, or write input.bad_lines: error_rows, which makes such lines refused rows"
                )
                raise InputError(
                    f"{self.path}: line {line} has {counted(found, 'value')} where {self._columns} are expected "
                    f"({self._dialect}): {shown_line(text)}; {remedy}"
                )

    def _with_bad(
        self, block: _Rows, columns: Sequence[str], rows: RowEnds, bad: npt.NDArray[np.bool_]
    ) -> pa.RecordBatch:
        """Return all rows, those that are bad with nulls and with ``BAD_LINE``."""
        good = b"\n".join(rows.text(place) for place in np.flatnonzero(~bad).tolist())
        values = self._values(good + b"\n", block.scan, columns) if good else None
        texts = [
            f"line {block.first_line + rows.line(place)}: {_decoded(rows.text(place))[:_BAD_LINE_CHARACTERS]}"
            for place in np.flatnonzero(bad).tolist()
        ]
        marks = pa.nulls(len(bad), pa.string())
        marks = pc.replace_with_mask(marks, pa.array(bad), pa.array(texts, pa.string()))
        where = pa.array(np.cumsum(~bad) - 1, mask=bad)
        arrays = [
            pa.nulls(len(bad), pa.binary()) if values is None else values.column(name).take(where) for name in columns
        ]
        return pa.record_batch([*arrays, marks], names=[*columns, BAD_LINE])


def _one_chunk(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    chunks: list[pa.Array[Any]] = column.chunks
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks or [pa.array([], column.type)])


def _without_columns(rows: int) -> pa.RecordBatch:
    return pa.record_batch([pa.nulls(rows)], names=["rows"]).select([])


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _filled(stream: IO[bytes], size: int) -> bytes:
    """Return so many bytes, fewer only at the end of the stream."""
    data = stream.read(size)
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data
