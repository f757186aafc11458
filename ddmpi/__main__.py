"""``mpiexec -n N python -m ddmpi CONFIG.yaml``: argv -> config (rank 0) -> role -> one exit code for all ranks.

The only file that uses COMM_WORLD. Whatever escapes on one rank ends all of them: a rank that dies silently would leave
the others waiting for its messages.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import ddmpi
from ddmpi.arguments import Arguments, parse_arguments
from ddmpi.errors import EXIT_BUG, EXIT_SETUP, DdmpiError, SetupError
from ddmpi.io.parent import die_with_launcher

if TYPE_CHECKING:
    from mpi4py import MPI

LAUNCHER_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS")
"""Variables in which launchers say how many ranks they started (Hydra and Intel, Open MPI, PMIx, Hydra, Slurm)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    die_with_launcher(os.environ)
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    if arguments.is_local:
        return _run_local(arguments)
    import mpi4py  # noqa: PLC0415  # MPI starts at import: not before the arguments are known to be good

    mpi4py.rc.thread_level = "funneled"
    from mpi4py import MPI  # noqa: PLC0415

    comm = MPI.COMM_WORLD
    try:
        refuse_wrong_launcher(os.environ, comm.Get_size())
        return _run_rank(comm, arguments)
    except SetupError as error:
        # Found on every rank alike, before any message: each leaves by itself.
        if comm.Get_rank() == 0:
            _complain(str(error))
        return EXIT_SETUP
    except BaseException as error:  # not swallowed: it ends the whole job, with its traceback
        _report_crash(comm, error)
        comm.Abort(EXIT_BUG)
        raise


def refuse_wrong_launcher(environment: Mapping[str, str], size: int) -> None:
    """A launcher of another MPI starts N programs that each believe to be alone: N times the load on every server.

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


def _run_rank(comm: MPI.Intracomm, arguments: Arguments) -> int:
    from ddmpi import program  # noqa: PLC0415  # numpy, pyarrow and libcurl take their time to load

    _refuse_mixed_versions(comm)
    return program.run(comm, arguments, os.environ)


def _refuse_mixed_versions(comm: MPI.Intracomm) -> None:
    versions = set(comm.allgather(ddmpi.__version__))
    if len(versions) > 1:
        raise SetupError(f"the ranks run different versions of ddmpi: {', '.join(sorted(versions))}")


def _run_local(arguments: Arguments) -> int:
    from ddmpi import inspection  # noqa: PLC0415

    try:
        return inspection.run(arguments, os.environ)
    except DdmpiError as error:
        _complain(str(error))
        return error.exit_code


def _complain(text: str) -> None:
    print(f"ddmpi: {text}", file=sys.stderr, flush=True)  # noqa: T201


def _report_crash(comm: MPI.Intracomm, error: BaseException) -> None:
    """One readable message, written at once: Abort flushes nothing."""
    place = f"rank {comm.Get_rank()} of {comm.Get_size()} on {os.uname().nodename}"
    text = "".join(traceback.format_exception(error))
    sys.stderr.write(f"ddmpi: {place} failed; all ranks are ended\n{text}")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
