"""Ranks are processes of their own, and each of them is a whole pytest."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from mpi4py import MPI


def pytest_configure(config: pytest.Config) -> None:
    """Give each rank its own temporary folder.

    Where all share one (the default), each of them removes what earlier sessions have left there, under the others'
    eyes; a folder that vanishes while pytest 9.2 lists it leaves a warning, and a warning fails the session.
    """
    if MPI.COMM_WORLD.Get_size() > 1 and not config.option.basetemp:
        folder = tempfile.mkdtemp(prefix="ddmpi-tests-mpi-")
        config.option.basetemp = Path(folder) / "pytest"
        config.add_cleanup(lambda: shutil.rmtree(folder))
