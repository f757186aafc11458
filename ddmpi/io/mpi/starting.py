"""How MPI starts: not before its library is there, and not under the launcher of another one.

MPICH ends the process, with a code and a text of its own, where it does not know the launcher. So the library is
loaded first, asked whose it is, and started only then.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ddmpi.errors import SetupError
from ddmpi.io.mpi.launcher import refuse_other_mpi, refuse_wrong_launcher

if TYPE_CHECKING:
    from mpi4py import MPI


def start_mpi(environment: Mapping[str, str]) -> MPI.Intracomm:
    """All ranks that the launcher has started, as COMM_WORLD.

    Raises:
        SetupError: mpi4py finds no MPI library, or the launcher is of another MPI.
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
        raise SetupError(f"mpi4py finds no MPI library that it can load (see docs/mpi.md): {error}") from error
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
