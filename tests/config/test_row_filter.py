"""The filter language: what it means, and what it refuses."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.config.row_filter import MAX_CHARS, parse_filter

COLUMNS: dict[str, Any] = {
    "type": pa.array(["StillImage", "Sound", None, "stillimage"]),
    "size": pa.array([1, 5, None, -7]),
    "share": pa.array(["0.5", " 2e1 ", "x", None]),
    "a b": pa.array(["x", None, "y", "x"]),
    "license": pa.array(["cc-by 4.0", "http://creativecommons.org/publicdomain/zero/1.0/", None, "see website"]),
    "good": pa.array([True, False, None, True]),
}


def kept(text: str) -> list[int]:
    """Numbers of the rows that the filter keeps."""
    row_filter = parse_filter(text)
    looked_at = {name: values for name, values in COLUMNS.items() if name in row_filter.columns}
    return [row for row, is_kept in enumerate(row_filter.keeps(looked_at, 4).tolist()) if is_kept]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('type == "StillImage"', [0]),
        ('type != "StillImage"', [1, 3]),
        ('not type == "StillImage"', [1, 3]),
        ('"Sound" == type', [1]),
        ("type is null", [2]),
        ("type is not None", [0, 1, 3]),
        ('type is NULL or type == "Sound"', [1, 2]),
        ('lower(type) == "stillimage" and size > 0', [0]),
        ('type in ["Sound", "StillImage"]', [0, 1]),
        ('type not in ("Sound",)', [0, 3]),
        ("size in [5, -7]", [1, 3]),
        ("size >= -7 and size <= 1", [0, 3]),
        ("size < 0", [3]),
        ("number(share) > 0.5", [1]),
        ("number(size) > 1", [1]),
        ('contains(type, "Image")', [0]),
        ('starts_with(lower(type), "still")', [0, 3]),
        ('ends_with(type, "d")', [1]),
        ('column("a b") == "x"', [0, 3]),
        ('spdx(license) in ["CC0-1.0", "CC-BY-4.0"]', [0, 1]),
        ("spdx(license) is null", [2, 3]),
        ('spdx("CC0") == "CC0-1.0" and spdx(size) is null and spdx(optional(absent)) is null', [0, 1, 2, 3]),
        ("good", [0, 3]),
        ("not good", [1]),
        ("good == false", [1]),
        ('text(good) == "true"', [0, 3]),
        ("true", [0, 1, 2, 3]),
        ("false", []),
        ("optional(absent) is null", [0, 1, 2, 3]),
        ('optional(absent) == "x" or good', [0, 3]),
        ('optional(type) == "Sound"', [1]),
        ('type == "Sound"\n  or\n  size == 1', [0, 1]),
        ('type is null and size is null or size == 5 and type == "Sound"', [1, 2]),
    ],
)
def test_rows_that_a_filter_keeps(text: str, rows: list[int]) -> None:
    assert kept(text) == rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a filter such as"),
        ("type ==", "a filter such as"),
        ('type = "x"', "a filter such as"),
        ("1 < size < 5", "one comparison at a time"),
        ("type == null", "'is null' or 'is not null'"),
        ("null == type", "instead of 'null'"),
        ('type is "x"', "'is null' or 'is not null' instead of 'is 'x''"),
        ("type in type", "a list such as"),
        ("type in []", "a list such as"),
        ('type in ["a", 1]', "only texts or only numbers"),
        ("contains(type, size)", "a text in quotes"),
        ("contains(type)", "instead of 'contains(type)'"),
        ('__import__("os").system("x")', "instead of"),
        ("type.__class__", "instead of"),
        ("[c for c in type]", "instead of"),
        ("lambda: 0", "instead of"),
        ("(x := 1)", "instead of"),
        ('f"{type}"', "instead of"),
        ("size + 1 == 2", "instead of 'size + 1'"),
        (f"size == {10**30}", "a number of 64 bits"),
        ("optional(absent, 1) is null", "instead of"),
        ("not " * 2400 + "good", "so deeply"),
        ("x" * (MAX_CHARS + 1), "at most"),
        ("good\0", "null bytes"),
    ],
)
def test_what_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        parse_filter(text)
    assert expected in str(raised.value)


def test_the_columns_that_a_filter_needs() -> None:
    row_filter = parse_filter('a is null or optional(b) == "x" or optional(a) == "x" or contains(column("c d"), "e")')
    assert row_filter.columns == {"a", "b", "c d"}
    assert row_filter.optional == {"b"}


@pytest.mark.parametrize("text", ["size == 'x'", "lower(size) == 'x'", "type", "contains(size, 'x')", "type < 5"])
def test_types_that_do_not_go_together(text: str) -> None:
    with pytest.raises(pa.ArrowException):
        kept(text)


@settings(derandomize=True, max_examples=300)
@given(st.text(st.sampled_from("abx.[]()\"'=<>! \n0_,:@{}*andornotisnull"), max_size=40))
def test_any_other_text_is_refused_with_a_message(text: str) -> None:
    try:
        parse_filter(text)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("t > 50", "write number(t) > 50"),
        ("50 <= t and n == 1", "write 50 <= number(t)"),
        ('n == "5"', 'write n == number("5")'),
        ('column("a t") != 1.5', 'write number(column("a t")) != 1.5'),
    ],
)
def test_a_text_compared_with_a_number_is_told_what_to_write(text: str, remedy: str) -> None:
    columns = {"t": pa.array(["60"]), "a t": pa.array(["1"]), "n": pa.array([1])}
    with pytest.raises(pa.ArrowException) as raised:
        parse_filter(text).keeps(columns, 1)
    assert remedy.replace('"', "'") in str(raised.value).replace('"', "'")
