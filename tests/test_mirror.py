"""Where the tests of the core are: each of its modules has a test file of its own name, in the mirrored place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.test_imports import CORE, imports, is_within

TESTS = Path(__file__).parent
EXEMPT = {
    "core/frontier/interface.py": "data that its users' tests make and compare",
    "core/ledger/actions.py": "data that its users' tests make and compare",
}
"""Modules without a decision or a rule of their own, and why."""
MODULES = [name for name in CORE if not name.endswith("__init__.py") and name not in EXEMPT]


def mirrored(name: str) -> Path:
    path = TESTS / name
    return path.with_name(f"test_{path.name}")


def is_tested(name: str) -> bool:
    """Whether the module's own test file is there, imports it, and has a test."""
    path, module = mirrored(name), "ddmpi." + name.removesuffix(".py").replace("/", ".")
    if not path.exists():
        return False
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    has_test = any(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in tree.body)
    return has_test and any(is_within(imported, module) for imported in imports(tree))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_the_core_is_imported_by_the_test_file_of_its_name(name: str) -> None:
    assert is_tested(name)


def test_no_exemption_outlives_its_module() -> None:
    assert set(EXEMPT) <= set(CORE)
    assert [name for name in EXEMPT if is_tested(name)] == []
