"""The catalog is whole: every number has a title, and a case or a test that exists."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ddmpi.core.records import ErrorKind
from docs.generate_errors import EXPLANATIONS
from tests.hostile.answers import ANSWERS
from tests.hostile.catalog import ELSEWHERE, LAST_NUMBER, TITLES
from tests.hostile.tables import FILES, URLS

ROOT = Path(__file__).parents[2]


def test_every_number_is_covered() -> None:
    cases = {case.number for case in ANSWERS} | {case.number for case in URLS} | {case.number for case in FILES}
    numbers = set(range(1, LAST_NUMBER + 1))
    assert set(TITLES) == numbers
    assert cases | set(ELSEWHERE) == numbers
    assert cases <= numbers


def test_names_of_cases_tell_them_apart() -> None:
    for names in (
        [(case.number, case.name) for case in ANSWERS],
        [(case.number, case.name) for case in URLS],
        [(case.number, case.name) for case in FILES],
    ):
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("number", sorted(ELSEWHERE))
def test_tests_that_are_named_exist(number: int) -> None:
    for place in ELSEWHERE[number]:
        path, _, function = place.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, place


def test_the_page_of_errors_is_current() -> None:
    command = [sys.executable, "-m", "docs.generate_errors", "--check"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_every_kind_is_explained_and_most_have_a_case() -> None:
    assert set(EXPLANATIONS) == set(ErrorKind)
    shown = {case.expected.kind for case in ANSWERS}
    # Shown by refused URLs, by images that are resized, by a setting that is off here, by rows that are not asked or
    # withdrawn or given up by the user, and within the message of those whose server is given up.
    elsewhere = {ErrorKind.BAD_URL, ErrorKind.DECODE, ErrorKind.HASH_MISMATCH, ErrorKind.ROBOTS, ErrorKind.PLACEHOLDER}
    elsewhere |= {ErrorKind.SERVER_REFUSED, ErrorKind.CONNECT, ErrorKind.FORGOTTEN, ErrorKind.GIVEN_UP}
    assert set(ErrorKind) - shown <= elsewhere
