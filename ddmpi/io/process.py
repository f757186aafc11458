"""What a rank finds out about its own process, and asks of the kernel for it: parent, terminal, cores, memory.

It must not know what the process does. Where /proc or glibc is not there, each answer is one that does no harm.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from pathlib import Path

LAUNCHERS = frozenset({"mpiexec", "mpiexec.hydra", "mpirun", "prterun", "orterun", "srun"})
LAUNCHED_BY = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_STEP_ID")
"""Variables of which a launcher sets one (Hydra and Intel, Open MPI, PMIx, Slurm)."""
PR_SET_PDEATHSIG = 1  # prctl(2)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_DUMB = frozenset({"dumb", "unknown"})
_TERMINALS = ("/dev/pts/", "/dev/tty")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def die_with_launcher(environment: Mapping[str, str]) -> None:
    """Have the kernel kill this process when its parent dies, if an MPI launcher started it.

    A launcher's proxy that is killed leaves its ranks running (MPICH's hydra does): orphans that go on fetching beside
    their successors, or spin in MPI for ever, waiting for ranks that have never come up.

    One that a shell started may outlive it (nohup). To be called first of all: MPI's start notices by itself that the
    launcher died before, but waits for ever if that happens later.

    Raises:
        OSError: the kernel refuses.
    """
    if not any(name in environment for name in LAUNCHED_BY):
        return
    signal_at_parents_end(signal.SIGKILL)


def signal_at_parents_end(number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent dies, also after it has become another program. Raises
    OSError: the kernel refuses."""
    import ctypes  # noqa: PLC0415  # a third of the time that --help takes

    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the kernel was told
        os.kill(os.getpid(), number)


class _WithoutPandas:
    def find_spec(self, fullname: str, path: object, target: object = None) -> None:  # noqa: ARG002
        """Raise ModuleNotFoundError for pandas; others are looked for elsewhere."""
        if fullname == "pandas":
            raise ModuleNotFoundError(f"{fullname} is left out of this process", name=fullname)


def leave_out_pandas() -> None:
    """Have this process do without pandas, as if it were not installed.

    pyarrow (26) loads it at the first conversion where it is there: a quarter of a second and 40 MB for each rank, and
    nothing here uses it. Where it is not there, it is looked for on the whole path again and again.
    """
    sys.meta_path.insert(0, _WithoutPandas())


def leave_out_plugins(environment: MutableMapping[str, str]) -> None:
    """Have pydantic not look for plugins, unless the user has chosen some. Call before pydantic loads.

    For that it opens the metadata of every installed package, hundreds of small files on a cluster's file system.
    """
    environment.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def terminal_columns() -> int | None:
    """Return the width of the terminal that gets our standard output, None if a file or a pipe gets it, or a terminal
    that cannot move its cursor. A launcher puts a pipe between rank 0 and the terminal that it writes to itself, or a
    terminal of 0 x 0 (Open MPI), whatever it writes to: then that terminal counts."""
    if os.environ.get("TERM", "").lower() in _DUMB:
        return None
    try:
        if sys.stdout.isatty() and (columns := os.get_terminal_size(sys.stdout.fileno()).columns):
            return columns
        target = _launcher_output(os.getppid())
        if not target.startswith(_TERMINALS):
            return None
        fd = os.open(target, os.O_RDONLY | os.O_NOCTTY)
        try:
            return os.get_terminal_size(fd).columns or None
        finally:
            os.close(fd)
    except OSError:
        # /proc is not there, or not for us: lines instead of a bar are never wrong.
        return None


def share_of_cores(own: AbstractSet[int], all_of_node: Iterable[AbstractSet[int]]) -> int:
    """Return how many cores a rank may keep busy: its share of those that it and its neighbors may use, at least one.

    Launchers differ: some pin each rank to cores of its own, some to a socket, some not at all. A core that several
    ranks may use counts for each of them as a part.

    Args:
        own: numbers of the cores that this rank may use.
        all_of_node: those numbers of every rank on this node that has work for them, this one included.
    """
    sets = list(all_of_node)
    return max(1, int(sum(1 / max(1, sum(core in cores for cores in sets)) for core in own) + 1e-9))


def use_one_allocator(environment: MutableMapping[str, str]) -> None:
    """Let arrow use malloc, as Python and libcurl do, unless the user has chosen an allocator. Call before arrow loads.

    Bodies, what arrow makes of them and what threads decode are allocated in one place and freed in another, row after
    row. Two allocators that each keep what was freed, one of them per thread, held up to 150 MB of unused memory.
    """
    environment.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def keep_freed() -> None:
    """Have malloc keep what was freed until ``give_back_freed``; do nothing where malloc is not glibc's.

    By itself it gives pages and row groups back to the system one by one, and gets them again for the next ones: two
    page faults for each file of 30 KB.
    """
    set_option = _of_glibc("mallopt")
    if set_option is not None:
        set_option(_M_TRIM_THRESHOLD, 1 << 30)
        set_option(_M_MMAP_THRESHOLD, 16 << 20)


def give_back_freed() -> None:
    """Give freed memory that malloc keeps back to the system, in some ms; do nothing where malloc is not glibc's."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(function: str) -> Callable[..., object] | None:
    import ctypes  # noqa: PLC0415

    found: Callable[..., object] | None = getattr(ctypes.CDLL(None), function, None)
    return found


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process of this machine; 0 where /proc does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def _launcher_output(pid: int) -> str:
    """Return the standard output of the nearest launcher among the ancestors, "" without one (on this node)."""
    while pid > 1:
        stat = Path(f"/proc/{pid}/stat").read_text()
        name, _, rest = stat.partition("(")[2].rpartition(")")
        if name in LAUNCHERS:
            return str(Path(f"/proc/{pid}/fd/1").readlink())
        pid = int(rest.split()[1])
    return ""
