"""The words for rows that wait, and for what to do about it."""

from __future__ import annotations

from datetime import datetime

import pytest

from ddmpi.core.ledger.waiting import Wait, Waiting
from ddmpi.report.pending import clock, pending_text, waiting_text

NOW = datetime(2030, 1, 1, 12, 0, 0).timestamp()  # noqa: DTZ001  # people read local time
ASKED = Wait("static.example.org", 1204, NOW + 30, "Retry-After 40 s")
SILENT = Wait("dead.example.org", 300, NOW + 90, "out of reach", NOW - 60, servers=2)
HELD = Wait("held.example.org", 10, 0.0, "held by control.yaml")
TOLD = (
    "1,204 for static.example.org until 12:00:30 (Retry-After 40 s), "
    "300 for dead.example.org and 1 more until 12:01:30 (out of reach since 11:59:00)"
)
TWO = Waiting((ASKED, SILENT), 3, 1504, NOW + 30)


def test_who_is_waited_for() -> None:
    assert waiting_text(TWO, NOW) == TOLD
    assert waiting_text(Waiting((ASKED, SILENT), 8, 2000, NOW + 30), NOW) == f"{TOLD}, 496 for 5 more servers"
    assert waiting_text(Waiting(), NOW) == ""


@pytest.mark.parametrize(
    ("pending", "waiting", "expected"),
    [
        pytest.param(0, TWO, "", id="nothing is left"),
        pytest.param(1, Waiting(), "1 row is pending; run the same command again to go on.", id="nobody is waited for"),
        pytest.param(
            1504, TWO, f"1,504 rows are pending: {TOLD}; run the same command again after 12:00:30.", id="all wait"
        ),
        pytest.param(
            2000, TWO, f"2,000 rows are pending: {TOLD}; run the same command again for the others.", id="some wait"
        ),
        pytest.param(
            10,
            Waiting((HELD,), 1, 10),
            "10 rows are pending: 10 for held.example.org (held by control.yaml); edit control.yaml, then run the same "
            "command again.",
            id="the operator holds them",
        ),
    ],
)
def test_what_is_left_and_what_to_do(pending: int, waiting: Waiting, expected: str) -> None:
    assert pending_text(pending, waiting, NOW) == expected


def test_another_day_is_named() -> None:
    assert clock(NOW + 86_400, NOW) == "2030-01-02 12:00:00"
