"""Which signals stop a run softly."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ddmpi.core.protocol import StopReason
from ddmpi.roles.signals import Signals


@contextmanager
def watched() -> Iterator[Signals]:
    signals = Signals()
    try:
        yield signals
    finally:
        signals.restore()


@pytest.fixture
def terminal() -> Iterator[None]:
    """Have the end of a terminal count, also where the tests themselves were started by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_is_a_soft_stop(number: signal.Signals) -> None:
    with watched() as signals:
        os.kill(os.getpid(), number)
        signals.wait(5.0)
        assert signals.stop is StopReason.SIGNAL


def test_what_nohup_has_started_goes_on_without_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with watched() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signals.stop is None
    finally:
        signal.signal(signal.SIGHUP, before)
