"""Does a person watch? An MPI launcher puts a pipe between rank 0 and the terminal that it writes to itself."""

from __future__ import annotations

import os
import sys
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
