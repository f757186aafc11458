"""Errors of the operating system: which are the machine's fault, and what the person who runs the program is told.

A full disk, a failing one, or a lack of file descriptors may meet any call, also one that only reads. They end a run
in order, with a message and the exit code of a run that is to be started again. All other errors of the operating
system are bugs where no caller expects them, and keep their tracebacks. ``names_in`` and ``read_bytes`` tell what is
not there from what cannot be read: a failing disk must never look like an empty folder.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ddmpi.errors import StorageError

MACHINE_FAULTS: Final = frozenset(
    {
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENXIO, errno.ENODEV, errno.EMFILE,
        errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EREMOTEIO, errno.EACCES,
        errno.EPERM,
    }
)  # fmt: skip
"""What a disk, its server or the limits of this machine answer; no call of a sound program causes one of them."""


def storage_error(what: str, path: Path | str, error: OSError) -> StorageError:
    """Return the error of ``what`` done to ``path``; its text has the reason in words and as its errno's name."""
    error = _first(error)
    code = errno.errorcode.get(error.errno, "?") if error.errno is not None else "?"
    return StorageError(f"{what} {path}: {error.strerror or error} ({code})")


def _first(error: OSError) -> OSError:
    """Return the reason that shutil.rmtree (Python 3.11) hides: it closes a folder again whose first close failed."""
    before = error.__context__
    return before if error.errno == errno.EBADF and isinstance(before, OSError) else error


@contextmanager
def named_disk_errors(what: str, path: Path) -> Iterator[None]:
    """Turn every error of the operating system in the block into a StorageError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise storage_error(what, path, error) from error


@contextmanager
def machine_faults() -> Iterator[None]:
    """Turn faults of the machine, at calls that expect no error, into a StorageError; others pass. Raises StorageError:
    with the path, where the operating system has named one."""
    try:
        yield
    except OSError as error:
        if error.errno not in MACHINE_FAULTS:
            raise
        raise storage_error("cannot use", error.filename or "the disk", error) from error


def one_line(error: Exception) -> str:
    """Return an exception's text as part of a message: in one line, and not longer than a screen."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return " ".join(str(error).split())[:500]


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, in no order; none where there is no folder. Raises StorageError: the disk fails."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise storage_error("cannot list", folder, error) from error


def read_bytes(path: Path | str) -> bytes | None:
    """Return the content of a file, None where there is none. Raises StorageError: the disk fails."""
    try:
        # A Path's own way takes as long as the file system does, which counts where there are thousands of files.
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.readall()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("cannot read", path, error) from error
