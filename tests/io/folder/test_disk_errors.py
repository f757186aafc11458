"""Faults of the machine end a run in order; bugs keep their tracebacks."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from ddmpi.errors import EXIT_PENDING, StorageError
from ddmpi.io.folder.disk_errors import machine_faults, named_disk_errors


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.EROFS, errno.ESTALE])
def test_a_fault_of_the_machine_is_named(code: int) -> None:
    with pytest.raises(StorageError, match=rf"/out/file: .* \({errno.errorcode[code]}\)") as raised, machine_faults():
        raise OSError(code, "what the system says", "/out/file")
    assert raised.value.exit_code == EXIT_PENDING


def test_a_bug_stays_one() -> None:
    with pytest.raises(FileNotFoundError), machine_faults():
        raise FileNotFoundError(errno.ENOENT, "never made", "/out/file")


def test_a_close_that_fails_is_named_although_the_folder_is_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the disk may answer shutil.rmtree: the descriptor is gone, and so is what was written."""
    closed, faults = os.close, [OSError(errno.EIO, "Input/output error")]

    def close(fd: int) -> None:
        closed(fd)
        if faults:
            raise faults.pop()

    (tmp_path / "folder" / "inner").mkdir(parents=True)
    monkeypatch.setattr(os, "close", close)
    with pytest.raises(StorageError, match=r"cannot clean .*\(EIO\)"), named_disk_errors("cannot clean", tmp_path):
        shutil.rmtree(tmp_path / "folder")
