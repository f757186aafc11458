"""Does a person watch? An MPI launcher puts a pipe between rank 0 and the terminal that it writes to itself.

How much memory a process holds, and how it gets by with less.

Bodies, what arrow makes of them and what threads decode are allocated in one place and freed in another, row after row.
Two allocators that each keep what was freed, and one of them per thread, held up to 150 MB that nobody used.

A rank ends with the process that started it.

A launcher's proxy that is killed leaves its ranks running (MPICH's hydra does): orphans that go on fetching beside
their successors, or spin in MPI for ever, waiting for ranks that have never come up.

How many threads a rank may keep busy: its share of the cores that it and its neighbors may use.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from pathlib import Path

LAUNCHERS = frozenset({"mpiexec", "mpiexec.hydra", "mpirun", "prterun", "orterun", "srun"})
_TERMINALS = ("/dev/pts/", "/dev/tty")


def terminal_columns() -> int | None:
    """Width of the terminal that gets our standard output, None if a file or a pipe gets it."""
    if sys.stdout.isatty():
        return os.get_terminal_size(sys.stdout.fileno()).columns
    try:
        target = _launcher_output(os.getppid())
        if not target.startswith(_TERMINALS):
            return None
        fd = os.open(target, os.O_RDONLY | os.O_NOCTTY)
        try:
            return os.get_terminal_size(fd).columns
        finally:
            os.close(fd)
    except OSError:
        # /proc is not there, or not for us: lines instead of a bar are never wrong.
        return None


def _launcher_output(pid: int) -> str:
    """What the nearest launcher among the ancestors has as standard output, "" without one (on this node)."""
    while pid > 1:
        stat = Path(f"/proc/{pid}/stat").read_text()
        name, _, rest = stat.partition("(")[2].rpartition(")")
        if name in LAUNCHERS:
            return str(Path(f"/proc/{pid}/fd/1").readlink())
        pid = int(rest.split()[1])
    return ""


_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def use_one_allocator(environment: MutableMapping[str, str]) -> None:
    """Let arrow use malloc, as Python and libcurl do, unless the user has said what it shall use.

    It looks at the variable when it is loaded: call this before.
    """
    environment.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def give_back_freed() -> None:
    """Give the system back what malloc keeps of freed memory: some ms. Nothing is done where malloc is not glibc's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process of this machine; 0 where /proc does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


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


def share_of_cores(own: AbstractSet[int], all_of_node: Iterable[AbstractSet[int]]) -> int:
    """Whole cores, at least one.

    Launchers differ: some pin each rank to cores of its own, some to a socket, some not at all. A core that several
    ranks may use counts for each of them as a part.

    Args:
        own: numbers of the cores that this rank may use.
        all_of_node: the same of every rank on this node that has work for them, this one included.
    """
    sets = list(all_of_node)
    return max(1, int(sum(1 / max(1, sum(core in cores for cores in sets)) for core in own) + 1e-9))
