"""Results that the tests of all targets read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.targets.pictures import make_results


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 rows; nothing may change them."""
    return make_results(tmp_path_factory.mktemp("results") / "out", 240)


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 24 rows, for what writes a file for each."""
    return make_results(tmp_path_factory.mktemp("few") / "out", 24)
