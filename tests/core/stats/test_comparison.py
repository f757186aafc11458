"""How outcomes count when files are compared with what the table promises."""

from __future__ import annotations

import pytest

from ddmpi.core.records import ErrorKind
from ddmpi.core.stats.comparison import (
    CHECKS,
    CLASSES,
    REFRESHED,
    Comparison,
    class_of_error,
    class_of_success,
    refreshed_text,
    total_text,
)


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [
        ("http_status", 404, "gone"),
        ("http_status", 410, "gone"),
        ("dns", -1, "gone"),
        ("placeholder", -2, "gone"),
        ("http_status", 403, "refused"),
        ("http_status", 429, "refused"),
        ("http_status", 204, "refused"),
        ("wrong_type", -2, "refused"),
        ("robots", -2, "refused"),
        ("http_status", 503, "failed"),
        ("timeout", -1, "failed"),
        ("unreachable", -1, "failed"),
        ("hash_mismatch", -2, "changed"),
    ],
)
def test_an_error_says_what_became_of_the_file(kind: str, code: int, expected: str) -> None:
    assert class_of_error(kind, code) == expected


def test_every_kind_has_a_class() -> None:
    assert {class_of_error(kind.value, -1) for kind in ErrorKind} <= set(CLASSES)


def test_a_file_is_the_same_only_if_it_was_compared() -> None:
    assert class_of_success(None, is_promised=True) == "same"
    assert class_of_success(None, is_promised=False) == "unchecked"
    assert class_of_success("5 bytes, the table says 6", is_promised=True) == "changed"
    assert class_of_success('not compared: the table says "?"', is_promised=True) == "unchecked"


def test_counts_are_by_server_and_license() -> None:
    comparison = Comparison()
    assert total_text(comparison.total()) == "0 the same, 0 changed, 0 gone, 0 refused"
    comparison.add([("b.org", "CC0-1.0", "same"), ("a.org", "", "gone"), ("a.org", "CC0-1.0", "same")])
    comparison.add([("a.org", "CC0-1.0", "same"), ("a.org", "CC0-1.0", "failed")])
    lines = [(line.server_name, line.license, line.rows, line.counts) for line in comparison.lines()]
    assert lines == [
        ("a.org", "CC0-1.0", 3, (2, 0, 0, 0, 1, 0)),
        ("a.org", "", 1, (0, 0, 1, 0, 0, 0)),
        ("b.org", "CC0-1.0", 1, (1, 0, 0, 0, 0, 0)),
    ]
    assert total_text(comparison.total()) == "3 the same, 0 changed, 1 gone, 0 refused, 1 failed"


def test_what_a_refresh_has_found_is_told_in_words() -> None:
    found = Comparison(REFRESHED)
    assert refreshed_text(found.total()) == "0 unchanged, 0 changed, 0 gone, 0 refused"
    found.add([("a.org", "", "unchanged")] * 1_234 + [("a.org", "", "new"), ("b.org", "", "failed")])
    assert refreshed_text(found.total()) == "1,234 unchanged, 0 changed, 0 gone, 0 refused, 1 failed, 1 new"
    assert [line.counts for line in found.lines()] == [(1_234, 0, 0, 0, 0, 1), (0, 0, 0, 0, 1, 0)]
    assert {class_of_error(kind.value, 404) for kind in ErrorKind} <= set(CHECKS)
