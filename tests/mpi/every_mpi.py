"""The MPI tests, a soft stop, a killed rank and a wrong launcher under each MPI of the Python package index.

``python -m tests.mpi.every_mpi`` makes a virtual environment for each of them, which borrows all other packages from
this one, and prints a row per MPI. ``--only openmpi --ranks 2`` takes some. Exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import site
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.chaos.evidence import examine, repeated_requests
from tests.chaos.victims import await_end, kill
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import ROOT, Job, finish, make_job, ranks_of, wait_until

PACKAGES = ("mpich", "openmpi", "impi-rt")
RANKS = (1, 2, 4)
JOB_RANKS = 3
ROWS = 300
TESTS_TIMEOUT_S = 280.0
OPEN_MPI_ON_ONE_MACHINE = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
"""What run.sh says by options: these tests may run as root, and on fewer cores than ranks."""


@dataclass
class Findings:
    """What one MPI does."""

    package: str
    version: str
    tests: dict[int, bool] = field(default_factory=dict)
    """By number of ranks: have all tests passed?"""
    soft_stop: str = ""
    killed_rank: str = ""
    other_launcher: str = ""
    """Whether MPICH and this MPI refuse each other's launcher; those of one kind need not."""
    printed: list[str] = field(default_factory=list)
    """Of what failed."""

    @property
    def is_good(self) -> bool:
        trials = (self.soft_stop, self.killed_rank, self.other_launcher)
        return all(self.tests.values()) and "FAILED" not in trials

    def row(self) -> str:
        """A line of a Markdown table."""
        tests = ", ".join(f"{ranks}: {'ok' if passed else 'FAILED'}" for ranks, passed in self.tests.items())
        trials = f"{self.soft_stop} | {self.killed_rank} | {self.other_launcher}"
        return f"| {self.package} | {self.version} | {tests} | {trials} |"


@dataclass(frozen=True)
class Environment:
    """A virtual environment with one MPI."""

    package: str
    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin/python")

    @property
    def mpiexec(self) -> str:
        return str(self.folder / "bin/mpiexec")

    @property
    def variables(self) -> Mapping[str, str]:
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, **OPEN_MPI_ON_ONE_MACHINE, "PATH": path}

    def start(self, ranks: int, *arguments: str) -> subprocess.Popen[str]:
        """A Python program under this MPI."""
        command = [self.mpiexec, "-n", str(ranks), self.python, *arguments]
        return subprocess.Popen(
            command, cwd=ROOT, env=self.variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )


def environment_for(package: str, folder: Path) -> Environment:
    """Install. Raises CalledProcessError."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    made = Environment(package, folder)
    pip = [made.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
    subprocess.run(pip, check=True)
    here = subprocess.run(
        [made.python, "-c", "import site; print(site.getsitepackages()[0])"],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    # addsitedir and not a path: ddmpi itself is there by a .pth file.
    borrowed = "; ".join(f"import site; site.addsitedir({path!r})" for path in site.getsitepackages())
    (Path(here.stdout.strip()) / "borrowed.pth").write_text(borrowed + "\n")
    return made


def examine_mpi(environment: Environment, folder: Path, ranks: Sequence[int]) -> Findings:
    """All that is to be found out about one MPI."""
    asked = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.get_vendor())"
    version = subprocess.run(
        [environment.python, "-c", asked], check=True, text=True, stdout=subprocess.PIPE, env=environment.variables
    )
    findings = Findings(environment.package, version.stdout.strip())
    for count in ranks:
        process = environment.start(
            count, "-m", "pytest", "--with-mpi", "-m", "mpi", "-p", "no:cacheprovider", "tests/mpi"
        )
        try:
            printed, _ = process.communicate(timeout=TESTS_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            printed, _ = process.communicate()
        findings.tests[count] = process.returncode == 0
        if process.returncode:
            findings.printed.append(printed)
    findings.soft_stop = _verdict(findings, lambda: stop_softly(environment, folder / "stop"))
    findings.killed_rank = _verdict(findings, lambda: kill_a_rank(environment, folder / "kill"))
    findings.other_launcher = "same kind"
    if environment.package == "openmpi":
        mpich = environment_for("mpich", folder / "mpich")
        findings.other_launcher = _verdict(
            findings, lambda: refuse_each_other(environment, mpich, folder / "launchers")
        )
    return findings


def _verdict(findings: Findings, trial: Callable[[], None]) -> str:
    try:
        trial()
    except AssertionError as error:
        findings.printed.append(str(error))
        return "FAILED"
    return "ok"


def stop_softly(environment: Environment, folder: Path) -> None:
    """USR1 to the launcher while it fetches: 75, then 0, and no row is fetched twice. Raises AssertionError."""
    with _job(folder) as (job, fleet, config):
        process = _start_fetching(environment, fleet, config)
        process.send_signal(signal.SIGUSR1)
        code, printed = finish(process)
        assert code == 75, f"the stopped run ended with {code}\n{printed}"
        _run_to_the_end(environment, job, fleet, config)
        repeated = repeated_requests(fleet.finished_log())
        assert repeated == 0, f"{repeated} rows were fetched twice"


def kill_a_rank(environment: Environment, folder: Path) -> None:
    """SIGKILL to one rank ends all; a restart is exact. Raises AssertionError."""
    with _job(folder) as (job, fleet, config):
        process = _start_fetching(environment, fleet, config)
        ranks = ranks_of(process)
        assert len(ranks) == JOB_RANKS, f"{ranks} are the ranks"
        kill(random.Random(len(environment.package)).choice(ranks))
        for pid in ranks:
            await_end(pid)
        code, printed = finish(process)
        assert code not in {0, 2, 75}, f"the killed run ended with {code}\n{printed}"
        _run_to_the_end(environment, job, fleet, config)


def refuse_each_other(one: Environment, other: Environment, folder: Path) -> None:
    """Each one's launcher with the other one's library: told once, before any request. Raises AssertionError."""
    with _job(folder) as (job, fleet, config):
        for launcher, library in ((one, other), (other, one)):
            command = [launcher.mpiexec, "-n", str(JOB_RANKS), library.python, "-m", "ddmpi", config]
            ended = subprocess.run(
                command, cwd=ROOT, env=launcher.variables, text=True, capture_output=True, timeout=60, check=False
            )
            told = ended.stdout + ended.stderr
            assert ended.returncode == 2, f"{launcher.package}'s launcher: exit code {ended.returncode}\n{told}"
            assert told.count("ddmpi: the launcher is ") == 1, told
            assert "another MPI" in told, told
        assert not job.output.exists()
        assert not fleet.finished_log()


@contextmanager
def _job(folder: Path) -> Iterator[tuple[Job, RunningFleet, str]]:
    with running_fleet(folder / "fleet", plain_fleet(6, latency_s=0.01), ROWS) as fleet:
        job = make_job(
            folder,
            fleet.table_path,
            downloader_parameters={"default_rate_limit": 12},
            profiling={"mode": "uniform"},
        )
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(job.config))
        yield job, fleet, str(path)


def _start_fetching(environment: Environment, fleet: RunningFleet, config: str) -> subprocess.Popen[str]:
    """A run that has begun to fetch. Raises AssertionError where it ends before, or does not begin."""
    process = environment.start(JOB_RANKS, "-m", "ddmpi", config)
    wait_until(lambda: fleet.log_path.stat().st_size > 0, process)
    return process


def _run_to_the_end(environment: Environment, job: Job, fleet: RunningFleet, config: str) -> None:
    code, printed = finish(environment.start(2, "-m", "ddmpi", config))
    assert code == 0, f"the last run ended with {code}\n{printed}"
    evidence = examine(job, fleet)
    assert evidence.is_sound, str(evidence)
    assert evidence.lost(ROWS) == 0, str(evidence)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PACKAGES, nargs="+", default=PACKAGES)
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS)
    given = parser.parse_args(argv)
    print("| package | MPI | tests by ranks | soft stop | killed rank | other launcher |\n|---|---|---|---|---|---|")
    is_good = True
    for package in given.only:
        with tempfile.TemporaryDirectory(prefix="ddmpi-mpi-") as name:
            environment = environment_for(package, Path(name) / "venv")
            findings = examine_mpi(environment, Path(name), given.ranks)
        print(findings.row(), flush=True)
        for printed in findings.printed:
            print(printed, flush=True)
        is_good = is_good and findings.is_good
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
