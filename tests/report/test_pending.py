"""The words for rows that wait, and for what to do about it."""

from __future__ import annotations

from datetime import datetime

import pytest

from ddmpi.core.ledger.waiting import Wait, Waiting
from ddmpi.report.pending import clock, next_text, note_text, pending_text, waiting_rows, waiting_text

NOW = datetime(2030, 1, 1, 12, 0, 0).timestamp()  # noqa: DTZ001  # people read local time
ASKED = Wait("static.example.org", 1204, NOW + 30, "429, Retry-After 40 s")
SILENT = Wait("dead.example.org", 300, NOW + 90, "connect, out of reach", NOW - 60, servers=2, given_up_at=NOW + 600)
HELD = Wait("held.example.org", 10, 0.0, "held by control.yaml")
TOLD = (
    "1,204 for static.example.org until 12:00:30 (429, Retry-After 40 s), "
    "300 for dead.example.org and 1 more until 12:01:30 (connect, out of reach since 11:59:00, given up "
    "about 12:10:00)"
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
            1504,
            TWO,
            f"1,504 rows are pending: {TOLD}; run the same command again after 12:00:30, or with --give-up to make "
            "them errors now.",
            id="all wait",
        ),
        pytest.param(
            2000,
            TWO,
            f"2,000 rows are pending: {TOLD}; run the same command again for the others, or with --give-up to make "
            "them errors now.",
            id="some wait",
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


def test_a_job_that_a_command_has_started_goes_on_by_commands() -> None:
    assert pending_text(1504, TWO, NOW, "birds.yaml") == (
        f"1,504 rows are pending: {TOLD}; run the same command again after 12:00:30, or ddmpi give-up birds.yaml to "
        "make them errors now."
    )


def test_another_day_is_named() -> None:
    assert clock(NOW + 86_400, NOW) == "2030-01-02 12:00:00"


def test_while_a_run_is_on_nobody_is_told_to_start_it() -> None:
    assert pending_text(1504, TWO, NOW, is_running=True) == f"1,504 rows are pending: {TOLD}."


def test_a_run_says_for_whom_it_waits_and_until_when() -> None:
    assert note_text(TWO, NOW, is_all=True) == f"waiting for 3 servers until 12:00:30: {TOLD}"
    assert note_text(TWO, NOW, is_all=False) == f"1,504 rows wait for 3 servers until 12:00:30: {TOLD}"
    assert note_text(Waiting(), NOW, is_all=True) == ""


def test_of_many_waits_the_largest_are_in_a_sentence_and_more_in_a_table() -> None:
    waits = tuple(Wait(f"s{number}", 10 - number, NOW + 5, "429, it throttles") for number in range(5))
    many = Waiting(waits, 7, 60, NOW + 5)
    assert waiting_text(many, NOW).endswith("8 for s2 until 12:00:05 (429, it throttles), 33 for 4 more servers")
    assert waiting_rows(many, NOW)[4] == ("s4", "6", "12:00:05", "429, it throttles", "no")
    held, silent = waiting_rows(Waiting((HELD, SILENT)), NOW)
    assert held == ("held.example.org", "10", "?", "held by control.yaml", "no")
    assert silent[3:] == ("connect, out of reach since 11:59:00", "about 12:10:00")


def test_what_comes_next_is_said_where_it_does_not_come_at_once() -> None:
    due = [(130.0, "b.org", 7), (112.0, "a.org", 1)]
    told = "no request under way, the next one in 12.0 s: 1 row of a.org, 7 rows of b.org"
    assert next_text(due, 100.0) == told
    assert next_text(due, 111.5) == next_text([], 0.0) == ""
