"""``ddmpi.download`` inside a program that already runs under MPI, at whatever number of ranks mpiexec starts."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from mpi4py import MPI

import ddmpi
from tests.fleet.process import running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import make_job

# pycurl duplicates the socket that it is given, and drops Python's object of it unclosed.
pytestmark = [pytest.mark.mpi, pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")]
ROWS = 120


@pytest.fixture
def keys(mpi_tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A config, the same on all ranks, for a fleet that rank 0 plays."""
    with ExitStack() as stack:
        config = None
        if MPI.COMM_WORLD.Get_rank() == 0:
            fleet = stack.enter_context(running_fleet(mpi_tmp_path / "fleet", plain_fleet(4), ROWS))
            config = make_job(mpi_tmp_path, fleet.table_path).config
        yield MPI.COMM_WORLD.bcast(config)
        MPI.COMM_WORLD.Barrier()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_all_ranks_download_and_the_program_goes_on(keys: dict[str, Any]) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    logging_before = list(logging.getLogger().handlers), logging.getLogger().level
    assert ddmpi.download(keys) == 0
    before = open_descriptors()
    assert ddmpi.download(keys) == 0, "again: nothing is left to do"
    assert open_descriptors() == before
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == logging_before
    assert MPI.COMM_WORLD.allreduce(1) == MPI.COMM_WORLD.Get_size()
    rows = ddmpi.open_results(keys).to_table(columns=["row_number"]).sort_by("row_number")
    assert rows.column("row_number").to_pylist() == list(range(ROWS))


def test_each_half_of_the_ranks_has_a_job_of_its_own(keys: dict[str, Any]) -> None:
    world = MPI.COMM_WORLD
    half = world.Create_group(world.group.Incl(range(world.Get_rank() % 2, world.Get_size(), 2)), world.Get_rank() % 2)
    own = {**keys, "path_to_output_folder": f"{keys['path_to_output_folder']}-{world.Get_rank() % 2}"}
    assert ddmpi.download(own, half) == 0
    assert ddmpi.open_results(own).count_rows() == ROWS
    half.Free()


def test_a_wrong_config_ends_nothing_but_the_call(keys: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert ddmpi.download({**keys, "batchsize": 3}) == 2
    told = MPI.COMM_WORLD.allgather("batchsize: unknown key" in capfd.readouterr().err)
    assert told == [rank == 0 for rank in range(MPI.COMM_WORLD.Get_size())]
