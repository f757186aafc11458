"""Line-based text: blocks of whole lines, and the files with a URL per line.

Lines come decompressed, in UTF-8, without the byte order mark. A text of which nearly every line beyond ASCII is broken
is in another encoding than it is said to be, and is not read on.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Final

import pyarrow as pa

from ddmpi.errors import InputError
from ddmpi.io.sources.byte_streams import check_encoding, open_bytes
from ddmpi.io.sources.files import InputPath
from ddmpi.io.sources.source_file import SourceFile

BLOCK_BYTES: Final = 8 << 20
LINE_MAX_BYTES: Final = 256 << 20
"""A longer line means a file that is not made of lines; it is not read into memory to find out."""
_SHOWN_BYTES: Final = 120
_SAMPLE_BYTES: Final = 1 << 18
_FEW_BROKEN: Final = 2
_MOST_BROKEN_SHARE: Final = 0.001
"""Of all lines so many may be broken and yet be an accident."""
_VALID_PER_BROKEN: Final = 10
_SEPARATED_SHARE: Final = 0.9
"""Of the first lines of a .txt file so many with a tab tell a table."""


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Whole lines, and how many lines came before them. Only the last line of a file may lack its line feed."""

    data: bytes
    first_line: int


class EncodingWatch:
    """Tells a text in another encoding from one with some broken characters, while it is read."""

    def __init__(self, path: InputPath, encoding: str) -> None:
        self._path, self._encoding = path, encoding
        self._lines = self._broken = self._valid = 0
        self._first: tuple[int, bytes] | None = None

    def look(self, block: LineBlock) -> None:
        """Take note of the next block. Raises InputError: nearly all lines that could be broken are."""
        self._lines += block.data.count(b"\n")
        if block.data.isascii() or is_utf8(block.data):
            return
        for number, line in enumerate(block.data.split(b"\n")):
            if not line.isascii():
                self._note(block.first_line + number + 1, line)
        few = max(_FEW_BROKEN, self._lines * _MOST_BROKEN_SHARE)
        if self._first is not None and self._broken > few and self._valid * _VALID_PER_BROKEN < self._broken:
            number, line = self._first
            raise InputError(not_decoded(self._path, number, line, self._encoding))

    def _note(self, number: int, line: bytes) -> None:
        if is_utf8(line):
            self._valid += 1
        else:
            self._broken += 1
            self._first = self._first or (number, line)


def not_decoded(path: InputPath, number: int, line: bytes, encoding: str) -> str:
    """Return what is said of a line (from 1) that is in another encoding."""
    name = "UTF-8" if encoding == "utf-8" else encoding
    guess = "latin-1" if encoding == "cp1252" else "cp1252"
    as_guess = shown_line(line.decode(guess, "replace").encode())
    return (
        f"{path}: line {number} is not in {name}: {shown_line(line)}; write input.encoding, for example "
        f"input.encoding: {guess}, with which it is: {as_guess}"
    )


def shown_line(line: bytes) -> str:
    """Return a line as it may stand in a message: short, on one line."""
    text = line.rstrip(b"\r\n")
    more = "..." if len(text) > _SHOWN_BYTES else ""
    return repr(text[:_SHOWN_BYTES].decode("utf-8", "replace")) + more


def is_utf8(data: bytes) -> bool:
    """Return whether the bytes are valid UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def line_blocks(source: SourceFile) -> Iterator[LineBlock]:
    """Yield a text file in blocks of about ``BLOCK_BYTES``. Raises InputError on an endless line or another encoding,
    OSError as it comes."""
    encoding = source.reading.keys.encoding
    watch = EncodingWatch(source.path, encoding)
    with open_bytes(source.path, source.compression, encoding) as stream:
        for block in _whole_lines(source.path, stream):
            watch.look(block)
            yield block


def _whole_lines(path: InputPath, stream: IO[bytes]) -> Iterator[LineBlock]:
    first_line = 0
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


def encoding_name(encoding: str) -> str:
    """Return the encoding's name as people write it."""
    return "UTF-8" if encoding == "utf-8" else encoding


class LinesSource(SourceFile):
    """One URL per line; an empty line is a row too, so that row numbers are line numbers (from 0)."""

    @property
    def description(self) -> str:
        return f"a URL per line, {encoding_name(self.reading.keys.encoding)}"

    @property
    def unusual(self) -> str:
        encoding = self.reading.keys.encoding
        return "" if encoding == "utf-8" else encoding

    def _read_schema(self) -> pa.Schema:
        check_encoding(self.path, self.compression, self.reading.keys.encoding)
        if self.reading.keys.format == "auto":
            self._check_it_is_no_table()
        return pa.schema([(self.reading.text_column, pa.string())])

    def _check_it_is_no_table(self) -> None:
        block = next(line_blocks(self), None)
        lines = [line for line in block.data[:_SAMPLE_BYTES].splitlines() if line] if block else []
        separated = [line for line in lines if b"\t" in line.strip()]
        if separated and len(separated) >= _SEPARATED_SHARE * len(lines):
            names = [
                self.reading.text_column if b"://" in value else f"column_{number}"
                for number, value in enumerate(separated[0].split(b"\t"), start=1)
            ]
            header = f", header: false, names: [{', '.join(names)}]" if self.reading.text_column in names else ""
            raise InputError(
                f"{self.path}: line 1 is no URL, but has tabs, and so have nearly all: {shown_line(separated[0])}; "
                f"write input: {{format: tsv{header}}}"
            )

    def _read(self, columns: Sequence[str], as_dictionary: Collection[str]) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        for block in line_blocks(self):
            lines = block.data.removesuffix(b"\n").split(b"\n")
            urls = pa.array([line.removesuffix(b"\r") for line in lines], pa.binary())
            yield pa.record_batch([urls], names=list(columns))
