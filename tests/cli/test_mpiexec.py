"""Which launcher starts the ranks, and what becomes of signals on the way to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ddmpi.cli import mpiexec
from ddmpi.errors import SetupError

MPICH = 'case "$1" in --version) echo "HYDRA build details" ;; *) echo "mpich $*" ;; esac'
OPEN_MPI = 'case "$1" in --version) echo "mpirun (Open MPI) 5.0.11" ;; *) echo "openmpi $*" ;; esac'


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The launcher of a package, beside this Python."""
    folder = tmp_path / "own"
    monkeypatch.setattr(mpiexec, "_own_folders", lambda: [folder])
    return program(folder / "mpiexec", MPICH)


def test_the_site_comes_first_if_its_library_can_be_loaded(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = program(tmp_path / "site/bin/mpiexec", MPICH)
    library = tmp_path / "site/lib/libmpi.so.12"
    library.parent.mkdir()
    library.touch()
    environment = {"PATH": f"{own.parent}:{site.parent}:/usr/bin:/bin"}
    monkeypatch.setattr(
        mpiexec, "_LOAD", "import os, sys; sys.exit('lib/libmpi.so.12' not in os.environ['MPI4PY_LIBMPI'])"
    )
    assert mpiexec.find(environment) == [str(site)]
    assert environment["MPI4PY_LIBMPI"] == str(library)


def test_else_the_launcher_of_a_package(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = program(tmp_path / "site/bin/mpiexec", MPICH)
    monkeypatch.setattr(mpiexec, "_LOAD", "raise SystemExit(1)")
    environment = {"PATH": f"{site.parent}:/usr/bin:/bin"}
    assert mpiexec.find(environment) == [str(own)]
    assert "MPI4PY_LIBMPI" not in environment
    assert f"cannot load the MPI of {site}" in capsys.readouterr().err


def test_without_any_it_is_said_how_to_get_one(own: Path) -> None:
    own.unlink()
    with pytest.raises(SetupError, match=r"Write: .* -m pip install mpich"):
        mpiexec.find({"PATH": "/nowhere"})


def test_a_launcher_may_be_named(own: Path) -> None:
    assert mpiexec.find({"DDMPI_MPIEXEC": "srun --mpi=pmi2"}) == ["srun", "--mpi=pmi2"]
    assert own.exists()


@pytest.mark.parametrize(("job", "shares"), [({}, True), ({"SLURM_JOB_ID": "7"}, False)])
def test_open_mpi_is_told_that_ranks_may_share_cores(own: Path, job: dict[str, str], shares: bool) -> None:
    program(own, OPEN_MPI)
    assert ("--oversubscribe" in mpiexec.find({"PATH": "/usr/bin:/bin", **job})) is shares


@pytest.mark.parametrize("name", ["PMI_RANK", "OMPI_COMM_WORLD_RANK"])
def test_a_rank_starts_no_job(name: str) -> None:
    with pytest.raises(SetupError, match=f"inside an MPI job.*{name}=0"):
        mpiexec.start(2, ["true"], {name: "0"})


@pytest.mark.parametrize(
    ("environment", "tasks"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "64"}, 64),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "64", "SLURM_STEP_ID": "0"}, None),
        ({"SLURM_NTASKS": "64"}, None),
        ({}, None),
    ],
)
def test_the_script_of_a_slurm_job_starts_its_tasks(environment: dict[str, str], tasks: int | None) -> None:
    assert mpiexec.tasks_of_job(environment) == tasks


@pytest.mark.parametrize("kind", ["Open MPI", "HYDRA build details"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_launcher_that_would_kill_its_ranks_gets_usr1(tmp_path: Path, kind: str, number: signal.Signals) -> None:
    """A real launcher answers USR1 by a soft stop: here it ends with 75."""
    waiting = "trap 'exit 75' USR1; echo ready; while :; do read line < fifo || :; done"
    launcher = program(tmp_path / "mpiexec", f'[ "$1" = --version ] && echo "{kind}" && exit\n{waiting}')
    os.mkfifo(tmp_path / "fifo")
    started = subprocess.Popen(
        [sys.executable, "-m", "ddmpi.cli.mpiexec", "-n", "2", "true"],
        env={**os.environ, "DDMPI_MPIEXEC": str(launcher)}, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        started.send_signal(number)
        started.send_signal(number)
        assert started.wait(timeout=30) == 75


def test_a_job_whose_starter_is_killed_stops_softly(tmp_path: Path) -> None:
    waiting = "trap 'echo stopped; exit 75' USR1; echo ready; while :; do read line < fifo || :; done"
    launcher = program(tmp_path / "mpiexec", waiting)
    os.mkfifo(tmp_path / "fifo")
    started = subprocess.Popen(
        [sys.executable, "-m", "ddmpi.cli.mpiexec", "-n", "2", "true"],
        env={**os.environ, "DDMPI_MPIEXEC": str(launcher)}, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        started.kill()
        assert started.stdout.readline() == "stopped\n"
