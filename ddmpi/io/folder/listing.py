"""What a folder holds."""

from __future__ import annotations

import os
from pathlib import Path

from ddmpi.io.folder.disk_errors import storage_error


def names_in(folder: Path) -> list[str]:
    """The names in a folder, in no order; none where there is no folder.

    Raises:
        StorageError: the disk fails. That is no empty folder.
    """
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise storage_error("cannot list", folder, error) from error


def read_bytes(path: Path | str) -> bytes | None:
    """What a file holds, None where there is none.

    Raises:
        StorageError: the disk fails.
    """
    try:
        # A Path's own way takes as long as the file system does, which counts where there are thousands of files.
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.readall()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("cannot read", path, error) from error
