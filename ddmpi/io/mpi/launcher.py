"""The ranks of a job: how they start together, and how they end together.

Decides when a program must not start at all: under the launcher of another MPI, or with ranks of mixed versions or
command lines. Whatever escapes on one rank ends all of them: a rank that dies silently would leave the others waiting
for its messages. It must not know what the ranks do (``run`` is a parameter).
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ddmpi._version import __version__
from ddmpi.errors import EXIT_BUG, EXIT_DONE, EXIT_SETUP, SetupError, StorageError

if TYPE_CHECKING:
    from mpi4py import MPI

log = logging.getLogger(__name__)

LAUNCHER_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS")
"""Variables in which launchers say how many ranks they started (Hydra and Intel, Open MPI, PMIx, Hydra, Slurm)."""
_LOCAL_RANKS = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")
"""Variables in which they number the ranks of a node (Open MPI; Hydra and Intel; Slurm)."""

BUG = (
    "this is a bug in ddmpi: please report it where you have ddmpi from, with the lines above, the version (ddmpi "
    "--version) and the logs folder"
)
"""What is said below a traceback."""


class Ranks(Protocol):
    """What is used of an MPI communicator."""

    def Get_rank(self) -> int: ...  # noqa: N802  # mpi4py's names
    def Get_size(self) -> int: ...  # noqa: N802
    def bcast(self, obj: Any, root: int = ...) -> Any: ...
    def allgather(self, sendobj: Any) -> list[Any]: ...
    def alltoall(self, sendobj: Any) -> list[Any]: ...
    def Abort(self, errorcode: int = ...) -> Any: ...  # noqa: N802


class Alone:
    """One process that needs no MPI: each collective call gives back what it got."""

    def Get_rank(self) -> int:  # noqa: N802
        return 0

    def Get_size(self) -> int:  # noqa: N802
        return 1

    def bcast(self, obj: Any, root: int = 0) -> Any:  # noqa: ARG002
        return obj

    def allgather(self, sendobj: Any) -> list[Any]:
        return [sendobj]

    def alltoall(self, sendobj: Any) -> list[Any]:
        return list(sendobj)

    def Abort(self, errorcode: int = 0) -> None:  # noqa: N802
        raise SystemExit(errorcode)


def start_mpi(environment: Mapping[str, str]) -> MPI.Intracomm:
    """Start MPI; returns COMM_WORLD, all ranks that the launcher has started.

    MPICH ends the process, with a code and a text of its own, where it does not know the launcher. So the library is
    loaded first, asked whose it is, and started only then. Raises SetupError: mpi4py finds no MPI library, or the
    launcher is of another MPI.
    """
    import mpi4py  # noqa: PLC0415  # not before the arguments are known to be good

    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = True
    try:
        with warnings.catch_warnings():
            # Of a variable that another MPI's launcher may have set: what is wrong with it is said below.
            warnings.filterwarnings("ignore", "suspicious MPI execution environment", RuntimeWarning)
            from mpi4py import MPI  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:
        raise SetupError(
            f"mpi4py finds no MPI library that it can load. Write: {sys.executable} -m pip install mpich, or load your "
            f"site's MPI module. It says: {str(error).partition(chr(10))[0]}"
        ) from error
    vendor, version = MPI.get_vendor()
    name = f"{vendor} {'.'.join(map(str, version))}"
    refuse_other_mpi(environment, name)
    if not MPI.Is_initialized():
        MPI.Init_thread(MPI.THREAD_FUNNELED)
        # What mpi4py does where it starts MPI itself: errors become exceptions.
        for comm in (MPI.COMM_WORLD, MPI.COMM_SELF):
            comm.Set_errhandler(MPI.ERRORS_RETURN)
    refuse_wrong_launcher(environment, MPI.COMM_WORLD.Get_size())
    return MPI.COMM_WORLD


def run_together(comm: Ranks, run: Callable[[], int], arguments: Sequence[str] = ()) -> int:
    """Call ``run`` on all ranks of ``comm``; returns its exit code, 2 for a SetupError that all ranks raised alike.

    ``arguments`` are those of the command line, which all ranks must have been started with.

    A StorageError of one rank ends all with its text and code, any other exception with a traceback (``MPI_Abort``).
    """
    try:
        _refuse_mixed_ranks(comm, arguments)
        return run()
    except SetupError as error:
        # Found on every rank alike, before any message: each leaves by itself.
        if comm.Get_rank() == 0:
            complain(str(error))
        return EXIT_SETUP
    except StorageError as error:
        complain(f"rank {comm.Get_rank()}: {error}")
        comm.Abort(error.exit_code)
        raise
    except BaseException as error:  # not swallowed: it ends the whole job, with its traceback
        _report_crash(comm, error)
        comm.Abort(EXIT_BUG)
        raise


def refuse_other_mpi(environment: Mapping[str, str], library: str) -> None:
    """Refuse another MPI's launcher: those of Open MPI and of MPICH (Intel's too) start only their own kind.

    ``library`` is the MPI that mpi4py has loaded, e.g. "Open MPI 5.0.11". Slurm's srun may start either. Raises
    SetupError: the launcher started several processes, and belongs to the other kind.
    """
    is_open_mpi = library.startswith("Open MPI")
    launcher, name = ("MPICH's or Intel MPI's", "MPI_LOCALNRANKS") if is_open_mpi else ("Open MPI's", LAUNCHER_SIZES[1])
    if not is_open_mpi and "PMI_SIZE" in environment:  # inherited by a job step inside another MPI's job
        return
    size = environment.get("PMI_SIZE" if is_open_mpi else name, "")
    if name in environment and size.isdigit() and int(size) > 1:
        raise SetupError(
            f"the launcher is {launcher} and started {size} processes, but mpi4py has loaded {library}, another MPI: "
            "use the mpiexec that belongs to it, or name the launcher's library in MPI4PY_LIBMPI (see docs/mpi.md)"
        )


def refuse_wrong_launcher(environment: Mapping[str, str], size: int) -> None:
    """Refuse N programs that each believe to be alone, as another MPI's launcher starts them: N times every limit.
    ``size`` is that of COMM_WORLD. Raises SetupError: MPI knows of one rank, the launcher of several."""
    if size != 1:
        return
    for name in LAUNCHER_SIZES:
        value = environment.get(name, "")
        if value.isdigit() and int(value) > 1:
            raise SetupError(
                f"the launcher started {value} processes ({name}), but MPI sees only one: mpiexec or srun belongs to "
                "another MPI than mpi4py's; use the mpiexec of the MPI that mpi4py loads, or srun --mpi=pmi2"
            )


def refuse_start(error: SetupError, environment: Mapping[str, str]) -> int:
    """Say once on each node why no rank starts, where MPI cannot tell the ranks apart; returns this rank's exit code.

    It is the error's for a rank that speaks, and 0 for the others, which leave the job's to that one: at the first code
    that is not 0 launchers end all ranks, so none may leave with one before it has spoken.
    """
    if not speaks(environment):
        return EXIT_DONE
    complain(str(error))
    return error.exit_code


def speaks(environment: Mapping[str, str]) -> bool:
    """Return whether this rank is the first of its node, as far as its launcher has said. A variable may come from
    another launcher, outside of this one: one more rank that speaks does less harm than none."""
    numbers = [environment[name] for name in _LOCAL_RANKS if name in environment]
    return not numbers or "0" in numbers


def complain(text: str) -> None:
    """Print a message for the person who runs the program."""
    print(f"ddmpi: {text}", file=sys.stderr, flush=True)  # noqa: T201


def _refuse_mixed_ranks(comm: Ranks, arguments: Sequence[str]) -> None:
    # A digest of the command line: it may be long, and each rank gets those of all.
    digest = hashlib.sha256("\0".join(arguments).encode(errors="surrogateescape")).hexdigest()[:16]
    ranks = comm.allgather((__version__, digest))
    versions = {version for version, _ in ranks}
    if len(versions) > 1:
        raise SetupError(f"the ranks run different versions of ddmpi: {', '.join(sorted(versions))}")
    unlike = [rank for rank, (_, other) in enumerate(ranks) if other != ranks[0][1]]
    if unlike:
        raise SetupError(
            f"rank {unlike[0]} was started with another config or other options than rank 0: one job has one command "
            "line; start the other job by an mpiexec of its own"
        )


def _report_crash(comm: Ranks, error: BaseException) -> None:
    """Write one readable message at once: Abort flushes nothing."""
    place = f"rank {comm.Get_rank()} of {comm.Get_size()} on {os.uname().nodename}"
    text = "".join(traceback.format_exception(error))
    bug = f"ddmpi: {BUG}\n" if isinstance(error, Exception) else ""
    sys.stderr.write(f"ddmpi: {place} failed; all ranks are ended\n{text}{bug}")
    sys.stderr.flush()
    if logging.getLogger().handlers:  # without any, Python would print it a second time
        log.critical("%s failed; all ranks are ended", place, exc_info=error)
