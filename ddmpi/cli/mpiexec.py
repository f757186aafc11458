"""Starts the ranks of a job: by which mpiexec, with which MPI library, and what becomes of its signals.

``python -m ddmpi.cli.mpiexec -n N PROGRAM ...`` starts any program so. A site's own launcher comes first, for it knows
the network; else that of a package (mpich, openmpi, impi-rt) beside this Python. ``DDMPI_MPIEXEC`` names another one.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from ddmpi.errors import EXIT_SETUP, SetupError
from ddmpi.io.mpi.launcher import LAUNCHER_SIZES, complain
from ddmpi.io.process import LAUNCHED_BY, signal_at_parents_end

SUBMITTED: Final = "DDMPI_SUBMITTED"
"""Set by run.sh where it is the script of a Slurm job: then the job goes back into the queue until all is done."""
_NAME: Final = "DDMPI_MPIEXEC"
_LIBRARIES: Final = ("libmpi.so.12", "libmpich.so.12")
"""Of MPICH and Intel MPI; the second name is Debian's."""
_OPEN_MPI_LIBRARIES: Final = ("libmpi.so.40",)
_LOAD: Final = "import mpi4py; mpi4py.rc.initialize = False; import mpi4py.MPI"
_STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


def tasks_of_job(environment: Mapping[str, str]) -> int | None:
    """Return how many tasks a Slurm job has, None outside of one and in one of its steps."""
    tasks = environment.get("SLURM_NTASKS", "")
    is_script = "SLURM_JOB_ID" in environment and not any(name in environment for name in LAUNCHED_BY)
    return int(tasks) if is_script and tasks.isdigit() else None


def start(ranks: int, program: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start ``ranks`` of a program; returns the exit code of the launcher.

    Open MPI's launcher kills the ranks within a second of TERM or INT, MPICH's at HUP and at the second INT, and all
    pass USR1 on: so it gets USR1 for these.

    Raises:
        SetupError: this is a rank already, or there is no launcher.
    """
    refuse_inside_job(environment)
    changed = dict(environment)
    launcher = find(changed)
    command = [*launcher, "-n", str(ranks), *program]
    changed.pop(SUBMITTED, "")
    return _run_translating(command, changed)


def refuse_inside_job(environment: Mapping[str, str]) -> None:
    """Raise SetupError where a launcher has started this process: each rank would start a job of its own."""
    for name in (*LAUNCHED_BY[:-1], *LAUNCHER_SIZES):
        if name in environment and (name in LAUNCHED_BY or environment[name] not in {"", "1"}):
            raise SetupError(
                f"-n inside an MPI job: a launcher has started this process already ({name}={environment[name]}). "
                "Leave -n out here, or leave out mpiexec or srun"
            )


def find(environment: dict[str, str]) -> list[str]:
    """Return the launcher with its options, and put into ``environment`` what its ranks need to load its library.

    Raises:
        SetupError: there is none.
    """
    if named := environment.get(_NAME):
        return shlex.split(named)
    own = _own_folders()
    site = next(_on_path(environment.get("PATH", ""), own), None)
    if site is not None:
        if _use_library_of(site, environment):
            return [str(site), *_options(str(site), environment)]
        complain(f"mpi4py cannot load the MPI of {site}: looking for one beside {sys.executable}")
    beside = next((folder / "mpiexec" for folder in own if os.access(folder / "mpiexec", os.X_OK)), None)
    if beside is None:
        raise SetupError(
            f"no mpiexec that fits, neither on the PATH nor in {own[0]}. Write: {sys.executable} -m pip install mpich "
            "(or load your site's MPI module). Without -n one process downloads alone"
        )
    return [str(beside), *_options(str(beside), environment)]


def _own_folders() -> list[Path]:
    """Return where packages of this Python have their programs."""
    found = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))]
    if sys.prefix == sys.base_prefix:  # a virtual environment does not see the packages of its user
        found.append(Path(sysconfig.get_path("scripts", "posix_user")))
    return list(dict.fromkeys(found))


def _on_path(path: str, own: Sequence[Path]) -> Iterator[Path]:
    ours = {folder.resolve() for folder in own}
    for folder in filter(None, path.split(os.pathsep)):
        if os.access(found := Path(folder) / "mpiexec", os.X_OK) and Path(folder).resolve() not in ours:
            yield found


def _is_open_mpi(launcher: str) -> bool:
    told = subprocess.run([launcher, "--version"], capture_output=True, text=True, errors="replace", check=False)
    return any(name in told.stdout + told.stderr for name in ("Open MPI", "OpenRTE", "PRRTE"))


def _options(launcher: str, environment: Mapping[str, str]) -> list[str]:
    """Return what Open MPI wants to be told: more ranks than cores are meant, and so is root, as in containers."""
    if not _is_open_mpi(launcher):
        return []
    as_root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [*([] if "SLURM_JOB_ID" in environment else ["--oversubscribe"]), *as_root]


def _use_library_of(site: Path, environment: dict[str, str]) -> bool:
    """Have mpi4py load the library of a site's launcher; returns False if it cannot."""
    library = _library_of(site, environment)
    if library is not None and library.name == "libmpich.so.12":
        # The wheel of mpi4py knows it by the other name.
        folder = Path(sys.prefix if os.access(sys.prefix, os.W_OK) else Path.home() / ".cache/ddmpi") / "site-mpi"
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / "libmpi.so.12"
        link.unlink(missing_ok=True)
        link.symlink_to(library)
        library = link
        others = environment.get("LD_LIBRARY_PATH", "")
        environment["LD_LIBRARY_PATH"] = f"{folder}{os.pathsep}{others}" if others else str(folder)
    tried = dict(environment)
    if library is not None:
        tried.setdefault("MPI4PY_LIBMPI", str(library))
    done = subprocess.run([sys.executable, "-c", _LOAD], env=tried, capture_output=True, check=False)
    if done.returncode == 0:
        environment.update(tried)
    return done.returncode == 0


def _library_of(launcher: Path, environment: Mapping[str, str]) -> Path | None:
    """Return the library of a launcher: beside it, else where the loader finds one of its kind."""
    prefix = launcher.resolve().parent.parent
    others = [Path(folder) for folder in environment.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    cached = _loader_cache(environment)
    for name in _OPEN_MPI_LIBRARIES if _is_open_mpi(str(launcher)) else _LIBRARIES:
        for folder in (prefix / "lib", prefix / "lib64", prefix / "lib/release", *others):
            if (folder / name).exists():
                return folder / name
        if name in cached:
            return cached[name]
    return None


def _loader_cache(environment: Mapping[str, str]) -> dict[str, Path]:
    path = f"{environment.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
    try:
        told = subprocess.run(
            ["ldconfig", "-p"], env={**environment, "PATH": path}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return {}
    found: dict[str, Path] = {}
    for name, arrow, place in (line.strip().partition(" => ") for line in told.stdout.splitlines()):
        if arrow:
            found.setdefault(name.split()[0], Path(place))
    return found


def _run_translating(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a launcher, hand TERM, INT, USR1 and HUP on to it as USR1, and return its exit code, a shell's for a signal.
    What is ignored (nohup) stays so."""
    stops: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def stop(number: int, _frame: object) -> None:
        stops.append(number)
        if child is not None:
            child.send_signal(signal.SIGUSR1)

    for number in _STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        # A session of its own: the terminal sends INT to the others of ours as well.
        child = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,  # that of a terminal cannot be read from another session
            start_new_session=True,
            preexec_fn=partial(signal_at_parents_end, signal.SIGUSR1),  # noqa: PLW1509  # there are no other threads
        )
    except OSError as error:
        raise SetupError(f"{command[0]}: {error.strerror}") from error
    if stops:
        child.send_signal(signal.SIGUSR1)
    code = child.wait()
    # One more: Python gives them their default meaning back while it ends, which is to kill it.
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    return 128 - code if code < 0 else code


def main(argv: Sequence[str]) -> int:
    """Start any program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ddmpi.cli.mpiexec", description="Start N ranks of a program.")
    parser.add_argument("-n", type=int, required=True, metavar="N")
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM ...")
    given = parser.parse_args(argv)
    try:
        return start(given.n, given.program, os.environ)
    except SetupError as error:
        complain(str(error))
        return EXIT_SETUP


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
