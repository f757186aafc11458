"""Random separated texts: rows in are rows accounted for, with their values, or the run stops with a word."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.io.input.table_fuzz import run

CASES = 200


def test_no_row_is_lost_without_a_word(tmp_path: Path) -> None:
    found = {seed: run(seed, tmp_path) for seed in range(CASES)}
    assert {seed: text for seed, text in found.items() if text not in {"equal", "stopped"}} == {}
    assert Counter(found.values())["equal"] > CASES * 0.7
