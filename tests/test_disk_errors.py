"""Faults of the machine end a run in order; bugs keep their tracebacks."""

from __future__ import annotations

import errno

import pytest

from ddmpi.errors import EXIT_PENDING, StorageError
from ddmpi.io.disk_errors import machine_faults


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.EROFS, errno.ESTALE])
def test_a_fault_of_the_machine_is_named(code: int) -> None:
    with pytest.raises(StorageError, match=rf"/out/file: .* \({errno.errorcode[code]}\)") as raised, machine_faults():
        raise OSError(code, "what the system says", "/out/file")
    assert raised.value.exit_code == EXIT_PENDING


def test_a_bug_stays_one() -> None:
    with pytest.raises(FileNotFoundError), machine_faults():
        raise FileNotFoundError(errno.ENOENT, "never made", "/out/file")
