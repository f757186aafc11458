"""Signals become a flag and a readable descriptor: a handler that raised would end libcurl's callbacks half-way."""

from __future__ import annotations

import os
import select
import signal

from ddmpi.core.protocol import StopReason

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class Signals:
    """The stop signals of this process. Slurm sends several within milliseconds: the first counts."""

    def __init__(self) -> None:
        self.stop: StopReason | None = None
        self.fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        """``fd`` is readable after a signal."""
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        # nohup has a process ignore that its terminal is closed.
        numbers = [it for it in STOP_SIGNALS if it != signal.SIGHUP or signal.getsignal(it) != signal.SIG_IGN]
        self._handlers_before = {number: signal.signal(number, self._on_signal) for number in numbers}

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.stop = StopReason.SIGNAL

    def restore(self) -> None:
        """Give the signals back to the program that had them before."""
        for number, handler in self._handlers_before.items():
            # None: it was not Python that had set it, and Python cannot give it back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self.fd)
        os.close(self._write_fd)

    def ignore(self) -> None:
        """The run is over. Python gives the signals their default meaning back while it ends, which is to kill it."""
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def drain(self) -> None:
        """Take the wake-up bytes out, so that the descriptor can wake again."""
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            return

    def wait(self, timeout_s: float) -> None:
        """Sleep until a signal comes, at most so long."""
        if select.select([self.fd], [], [], max(0.0, timeout_s))[0]:
            self.drain()
