"""Open MPI and Intel MPI from the package index; MPICH is what all other tests run under."""

from __future__ import annotations

import logging

import pytest

from tests.mpi import every_mpi

LOGGER = logging.getLogger(__name__)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("package", ["openmpi", "impi-rt"])
def test_other_mpis_work_as_well(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = every_mpi.main(["--only", package, "--ranks", "2"])
    printed = capsys.readouterr().out
    LOGGER.info("%s", printed)
    assert code == 0, printed
