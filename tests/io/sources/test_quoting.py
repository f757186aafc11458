"""Where quoted values begin and end, against Python's csv module."""

from __future__ import annotations

import csv
import io
import random

import pytest

from ddmpi.io.sources.quoting import QuoteScan, RowEnds, first_row_end


def random_text(rng: random.Random) -> str:
    """Rows that end, with marks where they should be and where not."""
    return (
        "".join(rng.choices(['"', '""', ",", "\n", "a", "b c", '"x"', '"y\nz"', "\r\n"], k=rng.randint(1, 40))) + "\n"
    )


def test_rows_and_their_values_are_those_of_csv() -> None:
    rng = random.Random(7)
    closed = 0
    for _ in range(4000):
        text = random_text(rng)
        scan = QuoteScan(text.encode(), b",")
        if scan.is_open:
            continue
        closed += 1
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        found = RowEnds.of(text.encode(), scan, b",")
        assert found.values.tolist() == [len(row) for row in rows], text
    assert closed > 1000


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (b'a,b\n"c\nd",e\nf', 12),
        (b'a,b\n"c\nd', 4),
        (b'"a\n"",\nb', 0),
        (b'5" disk\n6" disk\nx', 16),
    ],
)
def test_the_last_whole_row(text: bytes, end: int) -> None:
    assert QuoteScan(text, b",").rows_end() == end


def test_what_goes_on_behind_a_closing_mark_is_noticed() -> None:
    scan = QuoteScan(b'a,"b" c\n5" x,"d ""e"" f"\n', b",")
    assert scan.follows_close == [4]
    assert not scan.is_open
    assert QuoteScan(b'a,5" disk,""\n', b",").follows_close == []


def test_lines_within_values() -> None:
    block = b'a,"b\nc\nd"\ne,f\n'
    scan = QuoteScan(block, b",")
    assert scan.line_feeds_inside(len(block)) == [4, 6]
    assert scan.row_start(7) == 0
    assert scan.opening_before(6) == 2


@pytest.mark.parametrize(("text", "end"), [(b'\n\r\n"a\nb",c\nd', 11), (b"a,b", 3), (b"a\r\nb", 3)])
def test_the_end_of_the_first_row(text: bytes, end: int) -> None:
    assert first_row_end(text, QuoteScan(text, b",")) == end
