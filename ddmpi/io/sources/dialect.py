"""How a separated text is written: which separator, and whether quotation marks mean anything.

Decided from the text's beginning where it can be told for sure; where it cannot, the convention holds (commas go with
quoting, tabs with none), and ``check_unquoted`` and ``check_quoted`` find what does not fit in the rest. Knows nothing
of files: what is wrong is a ``Doubt``, with the line and what to write.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ddmpi.config.input_section import AUTO
from ddmpi.io.sources.quoting import QuoteScan, RowEnds
from ddmpi.io.sources.text_lines import shown_line

SEPARATORS: Final = (",", "\t", ";", "|")
_NAMES: Final = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe", " ": "space"}
_LOOKED_AT_LINES: Final = 200
_ALIKE_SHARE: Final = 0.9
_FEW_VALUES: Final = 3
"""So many values of a column, each of them in quotation marks, tell that those are quotes."""
_URL: Final = re.compile(rb'"?[A-Za-z][A-Za-z0-9+.-]*://')
_NUMBER: Final = re.compile(rb'"?-?[0-9]+(\.[0-9]+)?"?$')


class Doubt(Exception):  # noqa: N818  # not an error yet: who reads the file says of which one it is
    """The text is not what it was taken for. ``line`` counts from 1."""

    def __init__(self, line: int, text: bytes, problem: str, remedy: str) -> None:
        super().__init__(f"line {line}: {problem}: {shown_line(text)}; {remedy}")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What was found.

    Attributes:
        separator: one ASCII byte.
        is_stated: whether the config says whether there are quotes.
        raw_marks: whether there are values that begin with a quotation mark and cannot be quoted ones.
    """

    separator: bytes
    is_quoted: bool
    is_stated: bool
    raw_marks: bool = False

    def __str__(self) -> str:
        text = self.separator.decode()
        return f"separator {_NAMES.get(text, text)}, {'quotes' if self.is_quoted else 'no quoting'}"


def find_dialect(sample: bytes, *, tabs: bool, separator: str, quote: str) -> Dialect:
    """Return how the text is written that begins with ``sample``, whole lines of it.

    Args:
        tabs: whether its name promises tabs, not commas.
        separator: that of the config, or ``auto``.
        quote: likewise: ``auto``, ``none`` or a quotation mark.

    Raises:
        Doubt: it can be read in more than one way.
    """
    lines = [line for line in sample.splitlines()[:_LOOKED_AT_LINES] if line.strip()]
    found = separator.encode() if separator != AUTO else _separator_of(lines, b"\t" if tabs else b",")
    if quote != AUTO:
        return Dialect(found, is_quoted=quote == '"', is_stated=True)
    return _with_quotes(sample, found)


# ---- separators


def _separator_of(lines: Sequence[bytes], default: bytes) -> bytes:
    if not lines:
        return default
    candidates = [default, *(mark.encode() for mark in SEPARATORS if mark.encode() != default)]
    quoted = [mark for mark in candidates if _are_alike([len(row) for row in _csv_rows(lines, mark) if row])]
    raw = [mark for mark in candidates if _are_alike([line.count(mark) + 1 for line in lines])]
    if default in quoted or not any(mark in lines[0] for mark in candidates):
        return default
    fitting = [*([default] if default in raw else []), *quoted] or raw
    if not fitting:
        fitting = [mark for mark in candidates if mark in lines[0]]
        fitting = [default] if default in fitting else fitting
    if len(fitting) == 1:
        return fitting[0]
    names = " or ".join(_NAMES[mark.decode()] for mark in fitting)
    raise Doubt(1, lines[0], f"the separator may be {names}", "write input.separator")


def _are_alike(counts: Sequence[int]) -> bool:
    """Return whether nearly all rows have as many values as the first one, and more than one."""
    return bool(counts) and counts[0] > 1 and counts.count(counts[0]) >= _ALIKE_SHARE * len(counts)


def _csv_rows(lines: Sequence[bytes], separator: bytes) -> list[list[str]]:
    text = io.StringIO("\n".join(line.decode("latin-1") for line in lines), newline="")
    try:
        return list(csv.reader(text, delimiter=separator.decode()))
    except csv.Error:  # a value longer than the module takes
        return []


# ---- quotes


class _Evidence:
    """What the values that begin with a quotation mark tell, each time by its first line (from 1)."""

    def __init__(self) -> None:
        self.quoted: tuple[int, bytes] | None = None
        self.raw: tuple[int, bytes] | None = None
        self.either: tuple[int, bytes] | None = None
        """A value that fits both ways, and reads differently."""

    def note(self, tells: str, line: int, text: bytes) -> None:
        if tells and getattr(self, tells) is None:
            setattr(self, tells, (line, text))


def _with_quotes(sample: bytes, separator: bytes) -> Dialect:
    by_default = separator != b"\t"
    if b'"' not in sample:
        return Dialect(separator, by_default, is_stated=False)
    evidence = _evidence(sample, separator)
    if evidence.quoted and evidence.raw:
        if _reads_well(sample, separator, is_quoted=True) and not _reads_well(sample, separator, is_quoted=False):
            return Dialect(separator, is_quoted=True, is_stated=False)
        line, text = evidence.quoted
        raise Doubt(
            *evidence.raw,
            "a value begins with a quotation mark and cannot be a quoted one",
            f"but line {line} has values in quotes: {shown_line(text)}; {_EITHER}",
        )
    if evidence.either and not evidence.quoted and not evidence.raw and not by_default:
        raise Doubt(*evidence.either, _ENCLOSED, _EITHER)
    is_quoted = evidence.quoted is not None or (by_default and evidence.raw is None)
    return Dialect(separator, is_quoted, is_stated=False, raw_marks=evidence.raw is not None)


def _reads_well(sample: bytes, separator: bytes, *, is_quoted: bool) -> bool:
    """Return whether all rows have as many values as the first one, and none goes on behind its quotation mark."""
    scan = QuoteScan(sample, separator) if is_quoted else None
    if scan is not None and scan.is_open and scan.rows_end() > len(sample) // 2:  # the sample ends within a value
        sample = sample[: scan.rows_end()]
        scan = QuoteScan(sample, separator)
    values = RowEnds.of(sample, scan, separator).values
    is_odd = scan is not None and (scan.is_open or bool(scan.follows_close))
    return not is_odd and bool((values == values[0]).all())


def _evidence(sample: bytes, separator: bytes) -> _Evidence:
    evidence = _Evidence()
    lines = [line.removesuffix(b"\r") for line in sample.split(b"\n")]
    expected = lines[0].count(separator) + 1
    unmarked = [line.split(separator) for line in lines[1 : 1 + _LOOKED_AT_LINES] if line and b'"' not in line]
    look = RowLook.of(unmarked, expected, Dialect(separator, is_quoted=False, is_stated=False))
    enclosed: dict[int, list[bool]] = {}
    for index, line in enumerate(lines):
        values = line.split(separator)
        if len(values) == expected and index:
            for place, value in enumerate(values):
                if value:
                    enclosed.setdefault(place, []).append(value[:1] == value[-1:] == b'"' and len(value) > 1)
        if b'"' in line:
            for value in values:
                tells = _tells(value) or (_tells_of_open(lines, index, look) if _is_open(value) else "")
                evidence.note(tells, index + 1, line)
    always = [place for place, seen in enclosed.items() if len(seen) >= _FEW_VALUES and all(seen)]
    if always or all(map(_is_enclosed, lines[0].split(separator))):
        marked = 0 if not always else next(n for n, text in enumerate(lines) if n and b'"' in text)
        evidence.note("quoted", marked + 1, lines[marked])
    return evidence


def _is_enclosed(value: bytes) -> bool:
    return len(value) > 1 and value[:1] == value[-1:] == b'"'


def _tells(value: bytes) -> str:
    """Return what a value tells, between two separators that may both be part of a longer one: "" is nothing."""
    if value[:1] != b'"' or len(value) == 1:
        return ""
    inner = value[1:].replace(b'""', b"")
    if inner.endswith(b'"') and b'"' not in inner[:-1]:
        if b'""' in value[1:-1] or not value[1:-1]:
            return "quoted"
        return "either" if any(mark.encode() in inner for mark in SEPARATORS) else ""
    if value == b'""':
        return "quoted"
    return "raw" if b'"' in inner else ""


def _is_open(value: bytes) -> bool:
    """Return whether a value, if it is quoted, goes on behind the next separator or line end."""
    return value[:1] == b'"' and b'"' not in value[1:].replace(b'""', b"")


def _tells_of_open(lines: Sequence[bytes], index: int, look: RowLook) -> str:
    """Return what a line tells that has a value which begins with a quotation mark and does not end with one."""
    following = next((line for line in lines[index + 1 :] if line), b"")
    if index and look.matches(lines[index]):
        if look.matches(following, for_sure=True):
            return "raw" if look.matches(lines[index], for_sure=True) else ""
        return "quoted" if following else ""
    rows = _csv_rows(lines[index : index + _LOOKED_AT_LINES], look.separator)
    fits = len(rows) > 1 and (len(rows[0]) == look.columns or index == 0)
    return "quoted" if fits else ""


# ---- the rest of the text

_ENCLOSED: Final = "a value begins and ends with a quotation mark, which may belong to it or not"
_OPEN: Final = "a quotation mark may begin a value that goes on behind the separator"
_EITHER: Final = (
    "write input.quote: none (a quotation mark is a character like any other) or input.quote: '\"' (it encloses values)"
)


def check_unquoted(block: bytes, first_line: int, dialect: Dialect, look: RowLook) -> None:
    """Raise Doubt where a text that was found to have no quotes has values that are quoted, or may be."""
    for place in _marked_values(block, dialect.separator):
        value = _value_at(block, place, dialect.separator)
        tells = _tells(value)
        is_enclosed = tells == "quoted" or (tells == "either" and not dialect.raw_marks)
        if is_enclosed or (_is_open(value) and not look.matches(_line_at(block, place), for_sure=True)):
            problem = _ENCLOSED if is_enclosed else _OPEN
            raise Doubt(first_line + 1 + block.count(b"\n", 0, place), _line_at(block, place), problem, _EITHER)


def _marked_values(block: bytes, separator: bytes) -> Iterator[int]:
    """Yield where values begin with a quotation mark."""
    if block[:1] == b'"':
        yield 0
    for before in (b"\n", separator):
        place = block.find(before + b'"')
        while place >= 0:
            yield place + 1
            place = block.find(before + b'"', place + 1)


def check_quoted(first_line: int, dialect: Dialect, scan: QuoteScan, look: RowLook, end: int) -> None:
    """Raise Doubt where quoted values have swallowed lines that look like rows, or end and yet go on, which only a
    config that says so may have."""
    block = scan.block
    for place in scan.line_feeds_inside(end):
        # Without quotes the line in which the value begins is a row, too.
        if look.matches(_line_at(block, place + 1)) and look.matches(_line_at(block, scan.row_start(place))):
            mark = scan.opening_before(place)
            line = first_line + 2 + block.count(b"\n", 0, place)
            raise Doubt(
                first_line + 1 + block.count(b"\n", 0, mark),
                _line_at(block, mark),
                f"a quotation mark begins a value that takes in lines which look like rows, such as line {line}",
                "if quotation marks are characters like any other, write input.quote: none",
            )
    if scan.follows_close and not dialect.is_stated:
        mark = scan.follows_close[0]
        raise Doubt(
            first_line + 1 + block.count(b"\n", 0, mark),
            _line_at(block, mark),
            "a value begins with a quotation mark and goes on behind the closing one",
            _EITHER,
        )


def _value_at(block: bytes, place: int, separator: bytes) -> bytes:
    line_end = block.find(b"\n", place)
    end = block.find(separator, place, line_end if line_end >= 0 else len(block))
    stop = end if end >= 0 else line_end if line_end >= 0 else len(block)
    return block[place:stop].removesuffix(b"\r")


def _line_at(block: bytes, place: int) -> bytes:
    end = block.find(b"\n", place)
    return block[block.rfind(b"\n", 0, place) + 1 : end if end >= 0 else len(block)]


@dataclass(frozen=True, slots=True)
class RowLook:
    """What rows of a text look like: how many values, and which of them are URLs or numbers in all rows that were seen.

    Attributes:
        lenient: whether the number of values is enough where no column is of such a kind.
    """

    separator: bytes
    columns: int
    urls: tuple[int, ...]
    numbers: tuple[int, ...]
    lenient: bool

    @classmethod
    def of(cls, rows: Sequence[Sequence[bytes]], columns: int, dialect: Dialect) -> RowLook:
        """Return the look of some rows, header excluded."""
        seen = [[row[place] for row in rows if len(row) == columns and row[place]] for place in range(columns)]
        urls, numbers = (
            tuple(place for place, values in enumerate(seen) if values and all(map(kind.match, values)))
            for kind in (_URL, _NUMBER)
        )
        return cls(dialect.separator, columns, urls, numbers, lenient=not dialect.is_stated and columns > 1)

    def matches(self, line: bytes, *, for_sure: bool = False) -> bool:
        """Return whether a line, its quotation marks taken for characters like any other, may be a row; for sure only
        if it has a value of one of the columns that tell."""
        if line.count(self.separator) != self.columns - 1:
            return False
        values = line.removesuffix(b"\r").split(self.separator)
        places, kind = (self.urls, _URL) if self.urls else (self.numbers, _NUMBER)
        if not places:
            return self.lenient
        filled = [values[place] for place in places if values[place]]
        return (bool(filled) or not for_sure) and all(map(kind.match, filled))


def looks_like_a_url(value: bytes) -> bool:
    """Return whether a value, quoted or not, begins as a URL does that names a server."""
    return _URL.match(value) is not None


def sample_rows(sample: bytes, dialect: Dialect) -> Iterator[list[bytes]]:
    """Yield the first rows of a text, the header too, as they are read."""
    lines = sample.splitlines()[:_LOOKED_AT_LINES]
    if not dialect.is_quoted:
        yield from (line.split(dialect.separator) for line in lines if line)
        return
    for row in _csv_rows(lines, dialect.separator):
        if row:
            yield [value.encode("latin-1") for value in row]
