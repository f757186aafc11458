"""Errors that teach: each mistake is told with what was found, where, and what to write."""

from __future__ import annotations

import pytest

from tests.cli.wrong_inputs import CASES, WrongInput, message_of


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_is_told_with_what_to_write(case: WrongInput) -> None:
    told = message_of(case)
    assert [part for part in case.says if part not in told] == [], told
    assert len(told) < 700, "nothing is printed whole"
    assert "<unicode string>" not in told
    assert "Traceback" not in told


def test_there_are_forty() -> None:
    assert len(CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)
