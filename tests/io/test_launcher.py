"""Which launchers may start which MPI, before MPI itself is asked."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from ddmpi.errors import SetupError
from ddmpi.io.mpi.launcher import refuse_other_mpi, refuse_start, refuse_wrong_launcher

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


@pytest.mark.parametrize(
    ("environment", "size", "is_refused"),
    [
        ({"PMI_SIZE": "4"}, 1, True),
        ({"PMI_SIZE": "4"}, 4, False),
        ({"PMI_SIZE": "1"}, 1, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, 1, True),
        ({"PMIX_SIZE": "2"}, 1, True),
        ({"MPI_LOCALNRANKS": "2"}, 1, True),
        ({"SLURM_STEP_NUM_TASKS": "64"}, 1, True),
        ({"SLURM_STEP_NUM_TASKS": "64"}, 8, False),  # mpiexec inside a job step
        ({"SLURM_NTASKS": "64"}, 1, False),  # one process inside an allocation
        ({"PMI_SIZE": "many"}, 1, False),
        ({}, 1, False),
    ],
)
def test_several_processes_that_are_alone_are_refused(environment: dict[str, str], size: int, is_refused: bool) -> None:
    with pytest.raises(SetupError, match="MPI sees only one") if is_refused else nullcontext():
        refuse_wrong_launcher(environment, size)


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({}, 2),
        ({"PMIX_RANK": "3"}, 2),  # a launcher that does not count by node: better all than none
        ({"MPI_LOCALRANKID": "0"}, 2),
        ({"MPI_LOCALRANKID": "1"}, 0),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "0", "SLURM_LOCALID": "3"}, 2),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "1", "SLURM_LOCALID": "0"}, 2),  # whichever of them is the inner one
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "1", "SLURM_LOCALID": "1"}, 0),
    ],
)
def test_who_ends_the_job_has_said_why(
    environment: dict[str, str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refuse_start(SetupError("why"), environment) == code
    assert capsys.readouterr().err == ("ddmpi: why\n" if code else "")
