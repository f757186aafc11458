"""Many host names to their addresses, by the resolver of this machine, in bounded time.

The resolver blocks, and nothing can take a call back. So the calls are made by threads that end with the process: one
that answers too late is given up, and another takes its place. What is not answered in time counts as unknown.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from ddmpi.errors import Interrupted

Lookup = Callable[[str], Sequence[str]]
"""The addresses of a host, as text; an OSError or a UnicodeError where it has none."""
POLL_S: Final = 0.1
"""How often it is looked for a stop, and for names that take too long."""
MOST_LATE: Final = 4
"""Threads that were given up and still wait, for each that works: beyond, the resolver is no good."""


@dataclass(frozen=True)
class Bounds:
    """How much of the resolver, and of time, may be used."""

    threads: int = 64
    """Names that are asked for at once."""
    name_s: float = 20.0
    """Seconds for one name; a resolver that gives up by itself mostly needs less."""
    least_s: float = 60.0
    """Seconds for all names, beside these for each of them:"""
    per_name_s: float = 0.001


def system_lookup(host: str) -> list[str]:
    """Ask getaddrinfo, as libcurl does: /etc/hosts and what else this machine knows count.

    Raises:
        OSError: there is no such host, or no name server answers.
        UnicodeError: it cannot be asked for.
    """
    return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


def resolve(
    hosts: Collection[str],
    lookup: Lookup,
    *,
    bounds: Bounds = Bounds(),
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Sequence[str]]:
    """Return the addresses of the hosts that have some; the others are missing. ``on_progress`` is told often how many
    of how many names are done. Raises Interrupted: ``should_stop`` turned true."""
    callers = _Callers(hosts, lookup, bounds)
    found: dict[str, Sequence[str]] = {}
    ends_at = time.monotonic() + bounds.least_s + bounds.per_name_s * len(hosts)
    try:
        while callers.waiting_for and callers.active:
            if should_stop():
                raise Interrupted("stopped while addresses were looked up; run the same command again")
            now = time.monotonic()
            if now >= ends_at:
                break
            callers.replace_late(now)
            found.update(callers.take(POLL_S))
            on_progress(len(hosts) - len(callers.waiting_for), len(hosts))
    finally:
        callers.close()
    return {host: addresses for host, addresses in found.items() if addresses}


@dataclass(eq=False)
class _Caller:
    """A thread, and what it does now: (host, since when, s monotonic), None between two calls."""

    thread: threading.Thread | None = None
    call: tuple[str, float] | None = None


@dataclass
class _Callers:
    """The threads of one ``resolve``. A name is waited for until it is answered or late."""

    hosts: Collection[str]
    lookup: Lookup
    bounds: Bounds
    waiting_for: set[str] = field(init=False)
    _questions: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue)
    _answers: queue.SimpleQueue[tuple[str, Sequence[str] | Exception]] = field(default_factory=queue.SimpleQueue)
    active: list[_Caller] = field(default_factory=list)
    """Those that may still answer in time."""
    _late: list[threading.Thread] = field(default_factory=list)
    _is_closed: bool = False

    def __post_init__(self) -> None:
        self.waiting_for = set(self.hosts)
        for host in self.waiting_for:
            self._questions.put(host)
        for _ in range(min(self.bounds.threads, len(self.waiting_for))):
            self._start()

    def _start(self) -> None:
        caller = _Caller()
        self.active.append(caller)
        caller.thread = threading.Thread(target=self._work, args=(caller,), name="ddmpi-resolve", daemon=True)
        caller.thread.start()

    def _work(self, caller: _Caller) -> None:
        while (host := self._questions.get()) is not None and not self._is_closed:
            caller.call = host, time.monotonic()
            answer: Sequence[str] | Exception
            try:
                answer = self.lookup(host)
            except (OSError, UnicodeError):
                answer = ()
            except Exception as error:  # noqa: BLE001  # the thread that waits raises it
                answer = error
            self._answers.put((host, answer))
            if caller not in self.active:
                return  # another thread has its place
            caller.call = None

    def take(self, timeout_s: float) -> list[tuple[str, Sequence[str]]]:
        """Return what has been answered since the last call, after a wait of ``timeout_s`` at most."""
        taken: list[tuple[str, Sequence[str]]] = []
        try:
            host, answer = self._answers.get(timeout=timeout_s)
            while True:
                if isinstance(answer, Exception):
                    raise answer
                if host in self.waiting_for:
                    self.waiting_for.remove(host)
                    taken.append((host, answer))
                host, answer = self._answers.get_nowait()
        except queue.Empty:
            return taken

    def replace_late(self, now: float) -> None:
        """Wait no longer for names that take too long."""
        self._late = [thread for thread in self._late if thread.is_alive()]
        for caller in list(self.active):
            call = caller.call
            if call is None or now - call[1] <= self.bounds.name_s:
                continue
            self.waiting_for.discard(call[0])
            self.active.remove(caller)
            if caller.thread is not None:
                self._late.append(caller.thread)
            if len(self._late) < MOST_LATE * self.bounds.threads:
                self._start()

    def close(self) -> None:
        """Let the threads end: now those that are in no call, the others when theirs returns."""
        self._is_closed = True
        for _ in self.active:
            self._questions.put(None)
