"""The loop of a rank: mailbox, coordinator and downloader (rank 0 of a job of one plays both), until ``Exit``.

A rank that waits sleeps: in the downloader's epoll, or in a select on the signal pipe. MPI cannot wake it, so the
mailbox is polled, after 0.5 ms when messages come and ever more rarely when none do: every 20 ms, and after a second
every 60 ms, so that a run that waits for a server costs next to nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddmpi.core.protocol import Begin, Exit, Message, StopReason, ToCoordinator
from ddmpi.errors import EXIT_PENDING, OutputError, SetupError, StorageError
from ddmpi.io.folder.disk_errors import machine_faults
from ddmpi.io.mpi.mailbox import Mailbox
from ddmpi.roles.downloader.downloader import Downloader
from ddmpi.roles.signals import Signals

if TYPE_CHECKING:
    from ddmpi.roles.coordinator.coordinator import Coordinator  # what it needs is loaded on rank 0 alone

log = logging.getLogger(__name__)

POLL_LEAST_S = 0.0005
POLL_MOST_S = 0.02
POLL_IDLE_S = 0.06
IDLE_GROWTH = 1.02
"""Per poll, from ``POLL_MOST_S`` to ``POLL_IDLE_S``."""
LONGEST_WAIT_S = 1.0
LEAVE_TIMEOUT_S = 5.0


@dataclass
class Loop:
    mailbox: Mailbox
    signals: Signals
    make_downloader: Callable[[Begin], Downloader]
    """Called when the coordinator says ``Begin``."""
    coordinator: Coordinator | None = None
    """On rank 0."""
    on_turn: Callable[[float], None] | None = None
    """Called on rank 0 each turn with ``now`` (the progress display)."""
    _downloader: Downloader | None = None
    _exit: Exit | None = None
    _poll_s: float = POLL_LEAST_S
    _asked_to_stop: bool = False

    def run(self) -> Exit:
        """Turn until the coordinator says ``Exit``, and until the last messages have left, which those that stand still
        do not take: they are waited for only ``LEAVE_TIMEOUT_S``. Returns that message."""
        if self.coordinator is not None:
            now = time.monotonic()
            self._guarded(self.coordinator, lambda coordinator: coordinator.start(now), now)
        while self._exit is None:
            self._turn()
        deadline = time.monotonic() + LEAVE_TIMEOUT_S
        while self.mailbox.unsent and time.monotonic() < deadline:
            self._turn()
        if self._downloader is not None:
            self._downloader.close()
        return self._exit

    def _turn(self) -> None:
        now = time.monotonic()
        arrived = self.mailbox.poll()
        if arrived:
            self._poll_s = POLL_LEAST_S
        elif self._poll_s < POLL_MOST_S:
            self._poll_s = min(POLL_MOST_S, self._poll_s * 2)
        else:
            self._poll_s = min(POLL_IDLE_S, self._poll_s * IDLE_GROWTH)
        for source, message in arrived:
            self._dispatch(source, message, now)
        self._pass_signal_on(now)
        if self.coordinator is not None:
            self._guarded(self.coordinator, lambda it: it.step(now), now)
            self._exit = self.coordinator.core.exit
        if self._downloader is not None:
            self._step_downloader(self._downloader, now)
        if self.on_turn is not None:
            self.on_turn(now)
        self._wait()

    def _dispatch(self, source: int, message: Message, now: float) -> None:
        match message:
            case Exit():
                self._exit = message
            case Begin():
                self._downloader = self._begun(message)
                self._downloader.watch(self.signals.fd, self.signals.drain)
            case _ if isinstance(message, ToCoordinator):
                if self.coordinator is None:
                    raise TypeError(f"rank {source} sent {message!r} to a rank that is not the coordinator")
                self._guarded(self.coordinator, lambda coordinator: coordinator.handle(source, message, now), now)
            case _:
                if self._downloader is None:
                    raise TypeError(f"{message!r} came before Begin")
                self._downloader.handle(message, now)

    def _begun(self, message: Begin) -> Downloader:
        """What this rank alone cannot use, as its node lacks it, ends all: they would wait for it for ever. Raises
        StorageError: see above."""
        try:
            with machine_faults():
                return self.make_downloader(message)
        except SetupError as error:
            if self.coordinator is not None:
                raise
            raise StorageError(f"cannot begin: {error}") from error

    @staticmethod
    def _guarded(coordinator: Coordinator, action: Callable[[Coordinator], None], now: float) -> None:
        """A disk that does not take or give rank 0's files stops the run softly, as on any other rank."""
        try:
            with machine_faults():
                action(coordinator)
        except (StorageError, OutputError) as error:
            log.exception("rank 0 cannot go on")
            coordinator.fail(str(error), now)

    @staticmethod
    def _step_downloader(downloader: Downloader, now: float) -> None:
        try:
            with machine_faults():
                downloader.step(now)
        except (StorageError, OutputError) as error:
            downloader.fail(StorageError(str(error)))

    def _pass_signal_on(self, now: float) -> None:
        if self.signals.stop is None or self._asked_to_stop:
            return
        if self._downloader is not None:
            self._downloader.ask_to_stop(StopReason.SIGNAL)
        elif self.coordinator is not None:
            self.coordinator.stop(StopReason.SIGNAL, now)
        else:
            return  # it came before there was anything to stop
        self._asked_to_stop = True

    def _wait(self) -> None:
        if self._exit is not None:
            timeout_s = POLL_LEAST_S
        elif self.coordinator is not None and self.coordinator.is_busy:
            timeout_s = 0.0
        else:
            timeout_s = self._poll_s if self.mailbox.size > 1 else LONGEST_WAIT_S
        if self.mailbox.has_local:
            timeout_s = 0.0
        if self._downloader is not None:
            self._downloader.wait(timeout_s)
        else:
            self.signals.wait(timeout_s)


def leave(mailbox: Mailbox, signals: Signals) -> bool:
    """Wait for all ranks without spinning before MPI is finalized; False if some rank does not come."""
    deadline = time.monotonic() + LEAVE_TIMEOUT_S
    while not mailbox.parted():
        if time.monotonic() > deadline:
            log.error("some rank does not end; exit %d", EXIT_PENDING)
            return False
        signals.wait(POLL_LEAST_S)
    return True
