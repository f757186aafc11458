"""Makes the n-th system call of ``ddmpi.io.folder.durable`` fail, and records the calls in their order."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddmpi.io.folder import durable

CALLS = ("os_open", "os_write", "os_fsync", "os_close", "os_rename", "os_mkdir", "os_unlink")


class Faults:
    """Counts the calls of ``names``; the ``fail_at``-th (from 1) raises, and all later ones if ``lasting``."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, fail_at: int = 0, code: int = errno.ENOSPC, *, lasting: bool = False
    ) -> None:
        self.calls: list[tuple[str, str]] = []
        self.fired = False
        self._fail_at = fail_at
        self._code = code
        self._lasting = lasting
        for name in CALLS:
            monkeypatch.setattr(durable, name, self._wrap(name, getattr(durable, name)))

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def _wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            self.calls.append((name, str(args[0]) if isinstance(args[0], Path) else ""))
            count = len(self.calls)
            if self._fail_at and (count == self._fail_at or (self._lasting and count > self._fail_at)):
                self.fired = True
                if name == "os_close":
                    call(*args)  # Linux closes the descriptor whatever it answers (close(2))
                raise OSError(self._code, "injected")
            return call(*args)

        return wrapped
