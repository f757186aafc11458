"""Which launchers may start which MPI, before MPI itself is asked."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from ddmpi.errors import SetupError
from ddmpi.launching import refuse_other_mpi

OPEN_MPI_LAUNCHER = {"OMPI_COMM_WORLD_SIZE": "4"}
HYDRA = {"PMI_SIZE": "4", "MPI_LOCALNRANKS": "2"}


@pytest.mark.parametrize(
    ("environment", "library", "is_refused"),
    [
        (OPEN_MPI_LAUNCHER, "MPICH 5.0.2", True),
        (OPEN_MPI_LAUNCHER, "Intel MPI 2021.18.1", True),
        (OPEN_MPI_LAUNCHER, "Open MPI 5.0.11", False),
        (HYDRA, "Open MPI 4.1.4", True),
        (HYDRA, "Intel MPI 2021.18.1", False),
        ({"PMI_SIZE": "4"}, "Open MPI 4.1.4", False),  # srun --mpi=pmi2, which Open MPI may know
        ({**HYDRA, "PMI_SIZE": "1"}, "Open MPI 4.1.4", False),  # one process is one rank under any launcher
        ({}, "MPICH 5.0.2", False),
    ],
)
def test_launcher_and_library_must_be_of_one_kind(environment: dict[str, str], library: str, is_refused: bool) -> None:
    with pytest.raises(SetupError, match="another MPI") if is_refused else nullcontext():
        refuse_other_mpi(environment, library)
