"""What every start of ranks has in common: no wrong launcher, no mixed versions, one end for all.

Whatever escapes on one rank ends all of them: a rank that dies silently would leave the others waiting for its
messages.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import ddmpi
from ddmpi.errors import EXIT_BUG, EXIT_SETUP, SetupError, StorageError

if TYPE_CHECKING:
    from ddmpi.ranks import Ranks

LAUNCHER_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS")
"""Variables in which launchers say how many ranks they started (Hydra and Intel, Open MPI, PMIx, Hydra, Slurm)."""
_LAST_WORDS_S = 1.0
_RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")


def run_together(comm: Ranks, run: Callable[[], int]) -> int:
    """``run`` on all ranks of ``comm``; gives its exit code, 2 for a SetupError that all ranks raised alike.

    A StorageError of one rank ends all with its text and code, any other exception with a traceback (``MPI_Abort``).
    """
    try:
        _refuse_mixed_versions(comm)
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
    """The launchers of Open MPI and of MPICH (Intel's too) start only their own kind, and each names itself.

    ``library`` is the MPI that mpi4py has loaded, e.g. "Open MPI 5.0.11". Slurm's srun may start either.

    Raises:
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
    """A launcher of another MPI starts N programs that each believe to be alone: N times the load on every server.

    ``size`` is that of COMM_WORLD.

    Raises:
        SetupError: MPI knows of one rank, the launcher of several.
    """
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
    """Say once, before MPI can tell the ranks apart, why none of them starts; gives the exit code."""
    ranks = [environment[name] for name in _RANKS if name in environment]
    if not ranks or ranks[0] == "0":
        complain(str(error))
    else:
        # Open MPI's launcher ends the others for the first that leaves: it might not come to speak.
        time.sleep(_LAST_WORDS_S)
    return error.exit_code


def complain(text: str) -> None:
    """One message for the person who runs the program."""
    print(f"ddmpi: {text}", file=sys.stderr, flush=True)  # noqa: T201


def _refuse_mixed_versions(comm: Ranks) -> None:
    versions = set(comm.allgather(ddmpi.__version__))
    if len(versions) > 1:
        raise SetupError(f"the ranks run different versions of ddmpi: {', '.join(sorted(versions))}")


def _report_crash(comm: Ranks, error: BaseException) -> None:
    """One readable message, written at once: Abort flushes nothing."""
    place = f"rank {comm.Get_rank()} of {comm.Get_size()} on {os.uname().nodename}"
    text = "".join(traceback.format_exception(error))
    sys.stderr.write(f"ddmpi: {place} failed; all ranks are ended\n{text}")
    sys.stderr.flush()
