"""A rank ends with the process that started it.

A launcher's proxy that is killed leaves its ranks running (MPICH's hydra does): orphans that go on fetching beside
their successors, or spin in MPI for ever, waiting for ranks that have never come up.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Mapping

PR_SET_PDEATHSIG = 1  # prctl(2)
LAUNCHED_BY = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_STEP_ID")
"""Variables of which a launcher sets one (Hydra and Intel, Open MPI, PMIx, Slurm)."""


def die_with_launcher(environment: Mapping[str, str]) -> None:
    """Have the kernel kill this process when its parent dies, if an MPI launcher started it.

    One that a shell started may outlive it (nohup). To be called first of all: MPI's start notices by itself that the
    launcher died before, but waits for ever if that happens later.

    Raises:
        OSError: the kernel refuses.
    """
    if not any(name in environment for name in LAUNCHED_BY):
        return
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)
