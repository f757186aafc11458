"""A rank that cannot begin, although rank 0 could: it must not leave silently while the others wait for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from ddmpi.core.protocol import Begin
from ddmpi.errors import OutputError, SetupError, StorageError
from ddmpi.roles.coordinator.coordinator import Coordinator
from ddmpi.roles.downloader.downloader import Downloader
from ddmpi.roles.loop import Loop


class OneMessage:
    """A mailbox into which rank 0 has put ``Begin``."""

    size, unsent, has_local = 2, 0, False

    def poll(self) -> list[tuple[int, Begin]]:
        return [(0, Begin(1, b"{}"))]


class IdleCoordinator:
    core, is_busy = SimpleNamespace(exit=None), False

    def start(self, now: float) -> None:
        """Nothing to do."""


def refuse(_: Begin) -> Downloader:
    raise OutputError("out/urls/addresses.parquet is missing")


def begin(coordinator: object = None) -> NoReturn:
    Loop(cast("Any", OneMessage()), cast("Any", None), refuse, cast("Coordinator | None", coordinator)).run()
    raise AssertionError("it went on")


def test_what_one_rank_lacks_ends_all_with_its_text() -> None:
    with pytest.raises(StorageError, match=r"cannot begin: out/urls/addresses.parquet is missing"):
        begin()


def test_what_the_only_process_lacks_is_refused_as_before() -> None:
    with pytest.raises(SetupError, match="missing"):
        begin(IdleCoordinator())
