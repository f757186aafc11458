"""The loop of a rank: when it ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import pytest

from ddmpi.core.protocol import Exit, Message
from ddmpi.roles import loop
from ddmpi.roles.downloader.downloader import Downloader
from ddmpi.roles.loop import Loop
from ddmpi.roles.signals import Signals

if TYPE_CHECKING:
    from ddmpi.io.mpi.mailbox import Mailbox


class FullMailbox:
    """The run has ended; one message never leaves, for its receiver stands still."""

    size = 2
    has_local = False
    unsent = 1

    def poll(self) -> list[tuple[int, Message]]:
        return [(0, Exit(75, ""))]


def no_downloader(_: object) -> Downloader:
    raise AssertionError("nobody said Begin")


def test_a_message_that_never_leaves_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LEAVE_TIMEOUT_S", 0.3)
    signals = Signals()
    try:
        began_at = time.monotonic()
        ending = Loop(cast("Mailbox", FullMailbox()), signals, no_downloader).run()
        waited_s = time.monotonic() - began_at
    finally:
        signals.restore()
    assert ending == Exit(75, "")
    assert waited_s >= 0.3
