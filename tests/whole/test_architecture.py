"""docs/architecture.md says what stands: its drawings, the ways that it numbers, the files that it names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest

import ddmpi
from docs.draw_states import TARGET, diagram, drawn_into

PACKAGE = Path(ddmpi.__file__).parent
PAGE = TARGET.read_text(encoding="utf-8")
STEP = re.compile(r"\| (\d+) `([\w.]+)` `([\w/]+\.py)`")
"""A number, a function, its file: a cell of a table of ways."""
MOST_CALLS = {"row": 45, "limit": 12, "steal": 14}
MOST_FILES_OF_A_ROW = 25


def ways() -> dict[str, list[tuple[str, str]]]:
    """Function and file of each step, in order of the numbers."""
    row, _, others = PAGE.partition("| a limit | a steal |")
    found = {"row": STEP.findall(row), "limit": [], "steal": []}
    for line in others.splitlines():
        cells = line.split(" | ")
        for way, cell in zip(("limit", "steal"), cells, strict=False):
            found[way] += STEP.findall(f"| {cell.removeprefix('| ')}")
    ordered = {way: sorted(found[way], key=lambda step: int(step[0])) for way in found}
    for way, numbered in ordered.items():
        assert [int(number) for number, _, _ in numbered] == list(range(1, len(numbered) + 1)), way
    return {way: [(function, path) for _, function, path in numbered] for way, numbered in ordered.items()}


def definitions(path: str) -> set[str]:
    """Top-level functions and classes of a file, and methods as Class.method."""
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_the_drawings_are_current() -> None:
    command = [sys.executable, "-m", "docs.draw_states", "--check"]
    answer = subprocess.run(command, cwd=TARGET.parents[1], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_a_table_is_drawn_with_an_arrow_per_pair_of_states() -> None:
    class Light(Enum):
        ON = "on"
        OFF = "off"
        BROKEN = "broken"

    class Push(Enum):
        SOFT = "soft"
        FIRM = "firm"
        HARD = "hard"

    table = {
        (Light.OFF, Push.SOFT): Light.ON,
        (Light.OFF, Push.FIRM): Light.ON,
        (Light.ON, Push.HARD): Light.BROKEN,
    }
    drawn = diagram(table, Light.OFF).splitlines()
    assert drawn[2:-1] == [
        "    [*] --> off",
        "    off --> on: soft, firm",
        "    on --> broken: hard",
        "    broken --> [*]",
    ]


def test_what_is_between_markers_is_replaced_and_missing_markers_are_told() -> None:
    broken = PAGE.replace("queued --> running", "queued --> asleep")
    assert broken != PAGE
    assert drawn_into(broken) == PAGE
    with pytest.raises(ValueError, match="a lane on its rank"):
        drawn_into(PAGE.replace("<!-- drawn: a lane on its rank -->", ""))


@pytest.mark.parametrize("way", sorted(MOST_CALLS))
def test_the_ways_are_short_and_each_step_is_there(way: str) -> None:
    numbered = ways()[way]
    assert 0 < len(numbered) <= MOST_CALLS[way]
    for function, path in numbered:
        assert function in definitions(path), path
    assert way != "row" or len({path for _, path in numbered}) <= MOST_FILES_OF_A_ROW


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_files_that_a_page_names_are_there(page: str) -> None:
    root = TARGET.parents[1]
    named = set(re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|yaml|cfg|toml|md))`", (root / page).read_text(encoding="utf-8")))
    assert named
    assert {name for name in named if not ((PACKAGE / name).exists() or (root / name).exists())} == set()
