"""Faults of the machine, put between the program and its C library by ``faults.c``."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CHANGES = ("create", "write", "fsync", "close", "rename", "mkdir", "unlink", "touch")
CALLS_OF = {
    errno.ENOSPC: ("create", "write", "fsync", "close", "rename", "mkdir"),
    errno.EDQUOT: ("create", "write", "fsync", "close", "rename", "mkdir"),
    errno.EIO: (*CHANGES, "open", "release"),
    errno.EMFILE: ("create", "open"),
    errno.EROFS: ("create", "rename", "mkdir", "unlink", "touch"),
}
"""Which calls can end with which error. NFS reports a full disk as late as at fsync or close."""
_ARROW_CANNOT_CLOSE = "error closing file"
"""What Arrow says of a close(2) that fails, without the errno (26.0)."""
_SOURCE = Path(__file__).with_name("faults.c")


@dataclass(frozen=True)
class Fault:
    """What happens at the ``at``-th call (from 1) of ``calls`` on a file of the output folder.

    ``action`` is an errno, or "before" or "after": SIGKILL before or after the call.
    """

    action: int | str
    at: int = 0
    lasting: bool = False
    """All later calls fail too."""

    @property
    def calls(self) -> tuple[str, ...]:
        """The calls that are counted."""
        return CALLS_OF[self.action] if isinstance(self.action, int) else CHANGES

    @property
    def is_kill(self) -> bool:
        """The process ends there, by SIGKILL."""
        return isinstance(self.action, str)

    def environment(self, folder: Path, log: Path, rank: int | None = None) -> dict[str, str]:
        """What tells the library. ``log`` gets one line per counted call."""
        variables = {
            "FAULTS_FOLDER": str(folder),
            "FAULTS_CALLS": ",".join(self.calls),
            "FAULTS_ACTION": str(self.action),
            "FAULTS_AT": str(self.at),
            "FAULTS_UNTIL": str(0 if self.lasting else self.at),
            "FAULTS_LOG": str(log),
        }
        return variables if rank is None else {**variables, "FAULTS_RANK": str(rank)}

    def __str__(self) -> str:
        action = f"SIGKILL {self.action}" if isinstance(self.action, str) else errno.errorcode[self.action]
        return f"{action} at call {self.at}{' and all later ones' if self.lasting else ''}"

    def is_named_in(self, printed: str) -> bool:
        """Whether a message says what happened, as the errno or in words."""
        assert isinstance(self.action, int)
        words = (errno.errorcode[self.action], os.strerror(self.action), _ARROW_CANNOT_CLOSE)
        return any(word in printed for word in words)


def built(folder: Path) -> Path:
    """The library, compiled into ``folder``. Raises FileNotFoundError without a C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("no C compiler (Debian: apt-get install gcc libc6-dev)")
    library = folder / "faults.so"
    options = ["-O2", "-Wall", "-Wextra", "-Werror", "-Wno-nonnull-compare", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", str(library), str(_SOURCE), "-ldl", "-pthread"], check=True)
    return library
