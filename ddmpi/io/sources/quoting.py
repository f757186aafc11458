"""Where quotation marks of separated text begin and end values, for a block of bytes that begins with a row.

The rules are those of arrow's parser and of Python's csv module: a value is quoted if its first byte is a quotation
mark; inside, two of them are one; what follows after the closing one belongs to the value; in a value that does not
begin with one they mean nothing. All marks are looked at together; only where one stands in an unexpected place is the
value that has it walked through.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
"""Offsets into a block, ascending."""

QUOTE: Final = ord('"')
_ENDS: Final = (ord("\n"), ord("\r"))


class QuoteScan:
    """The quoted values of one block.

    Attributes:
        marks: (M,) where quoted stretches begin and end, in turn; an odd number if the last is open at the end.
        follows_close: where a quotation mark closes a value, and yet neither separator nor line end follows.
    """

    def __init__(self, block: bytes, separator: bytes) -> None:
        self.block = block
        self._separator = separator
        octets = np.frombuffer(block, np.uint8)
        self._quotes: Places = np.flatnonzero(octets == QUOTE)
        self.follows_close: list[int] = []
        self.marks = self._structural(octets)
        self._line_feeds: Places | None = None

    @property
    def is_open(self) -> bool:
        """Whether the block ends within a quoted value."""
        return len(self.marks) % 2 == 1

    def rows_end(self) -> int:
        """Return the end of the last row that is whole, 0 if there is none."""
        return self.row_start(len(self.block))

    def row_start(self, place: int) -> int:
        """Return where the row begins that has what stands before ``place``."""
        feed = self.block.rfind(b"\n", 0, place)
        while feed >= 0 and self.is_inside(feed):
            mark = int(self.marks[np.searchsorted(self.marks, feed) - 1])
            feed = self.block.rfind(b"\n", 0, mark)
        return feed + 1

    def line_feeds_inside(self, end: int) -> list[int]:
        """Return where lines end within quoted values, up to ``end``."""
        feeds = self._all_line_feeds()
        feeds = feeds[feeds < end]
        inside: list[int] = feeds[np.searchsorted(self.marks, feeds) % 2 == 1].tolist()
        return inside

    def opening_before(self, place: int) -> int:
        """Return where the quoted value begins that has ``place``."""
        index = int(np.searchsorted(self.marks, place)) - 1
        while index >= 2 and self.marks[index] - self.marks[index - 1] == 1:
            index -= 2
        return int(self.marks[index])

    def _all_line_feeds(self) -> Places:
        if self._line_feeds is None:
            self._line_feeds = np.flatnonzero(np.frombuffer(self.block, np.uint8) == _ENDS[0])
        return self._line_feeds

    def is_inside(self, place: int) -> bool:
        """Return whether an offset is within a quoted value."""
        return bool(np.searchsorted(self.marks, place) % 2)

    def _structural(self, octets: npt.NDArray[np.uint8]) -> Places:
        quotes = self._quotes
        before = octets[quotes - 1]  # of the first byte some other one: it is at the beginning anyway
        after = octets[np.minimum(quotes + 1, len(octets) - 1)]
        is_end = np.zeros(256, np.bool_)
        is_end[[ord(self._separator), *_ENDS, QUOTE]] = True
        opens = is_end[before] | (quotes == 0)
        closes = is_end[after] | (quotes == len(octets) - 1)
        even = np.arange(len(quotes)) % 2 == 0
        # By the parity of the number of the mark that opens: where marks stand that cannot be what their turn says.
        wrong = [np.flatnonzero(np.where(even == (parity == 0), ~opens, ~closes)) for parity in (0, 1)]
        taken: list[Places] = []
        first = 0
        while True:
            ahead = wrong[first % 2]
            index = int(np.searchsorted(ahead, first))
            if index == len(ahead):
                return np.concatenate([*taken, quotes[first:]])
            found = int(ahead[index])
            is_close = (found - first) % 2 == 1
            taken.append(quotes[first : found + is_close])
            if is_close:
                self.follows_close.append(int(quotes[found]))
            first = int(np.searchsorted(quotes, self._end_of_value(int(quotes[found]))))

    def _end_of_value(self, place: int) -> int:
        found = [self.block.find(end, place) for end in (self._separator, b"\n", b"\r")]
        return min((end for end in found if end >= 0), default=len(self.block))


def first_row_end(block: bytes, scan: QuoteScan | None) -> int:
    """Return where the first row ends, the empty lines before it and its line end included."""
    end = block.find(b"\n", len(block) - len(block.lstrip(b"\r\n")))
    while end >= 0 and scan is not None and scan.is_inside(end):
        end = block.find(b"\n", end + 1)
    return end + 1 if end >= 0 else len(block)


class RowEnds:
    """Where the rows of a block are, the empty ones left out, and how many values each has; arrow does not tell it."""

    def __init__(self, block: bytes, starts: Places, ends: Places, values: Places) -> None:
        self._block = block
        self._starts, self._ends = starts, ends
        self.values = values
        """(R,) how many there are in each row."""

    @classmethod
    def of(cls, block: bytes, scan: QuoteScan | None, separator: bytes) -> RowEnds:
        octets = np.frombuffer(block, np.uint8)
        marks = np.zeros(0, np.int64) if scan is None else scan.marks
        is_end = octets == _ENDS[0]
        lone_return = octets[:-1] == _ENDS[1]
        is_end[:-1] |= lone_return & ~is_end[1:]
        ends = _outside(np.flatnonzero(is_end), marks)
        starts = np.concatenate([np.zeros(1, np.int64), ends + 1])
        ends = np.append(ends, len(block))
        separators = _outside(np.flatnonzero(octets == ord(separator)), marks)
        values = np.searchsorted(separators, ends) - np.searchsorted(separators, starts) + 1
        ends = ends - ((ends > starts) & (octets[ends - 1] == _ENDS[1]))
        filled = ends > starts
        return cls(block, starts[filled], ends[filled], values[filled])

    def after(self, rows: int) -> RowEnds:
        """Return these without the first ones."""
        return RowEnds(self._block, self._starts[rows:], self._ends[rows:], self.values[rows:])

    def text(self, place: int) -> bytes:
        """Return a row without its line end."""
        return self._block[self._starts[place] : self._ends[place]]

    def line(self, place: int) -> int:
        """Return the line of the block, from 1, in which a row begins."""
        return self._block.count(b"\n", 0, int(self._starts[place])) + 1


def _outside(places: Places, marks: Places) -> Places:
    outside: Places = places[np.searchsorted(marks, places) % 2 == 0]
    return outside
