"""The exact log of a fleet: writer, reader, and the audits that the laws of politeness and accounting are checked by.

One line per event, tab-separated, in the order of ``Event``'s fields. Invariants of a finished log: times never
decrease; every connection has one ``open`` and one ``close``; every request has one ``answer`` after it, on the same
connection, whose note is "cut" unless all its bytes went to the kernel.
A busy server sees requests late: audits of rates over short windows need a margin of some 10 ms.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import NamedTuple

FLUSH_INTERVAL_S = 0.1
"""A line is in the file at most so long after its event."""
_COLUMNS = 8


class EventKind(str, Enum):
    OPEN = "open"
    REQUEST = "request"
    ANSWER = "answer"
    CLOSE = "close"


NOTE_WHOLE = "whole"
"""Of an answer all of whose bytes went to the kernel."""
NOTE_CUT = "cut"
"""Of any other answer, silence included."""
NOTE_LIMITED = "limited"
"""Of a request above the server's limit: answered 429, and the start of a pause where that carries Retry-After."""
NOTE_PAUSED = "paused"
"""Of a request in such a pause: answered 429."""


class Event(NamedTuple):
    """One line of the log."""

    time_s: float
    """``time.monotonic_ns`` of the fleet's machine, in seconds."""
    kind: EventKind
    server: str
    """Name as in URLs: "127.10.0.7:8080"."""
    connection: int
    """Number of the connection in this fleet, from 1."""
    path: str = ""
    """Of requests and answers."""
    status: int = 0
    """Of answers; 0 where none was sent."""
    size_bytes: int = 0
    """Of answers: bytes of the body that went to the kernel if the answer is whole, else 0."""
    note: str = ""
    """One of the ``NOTE_`` words; empty for requests that pass the limit."""


def now_s() -> float:
    """The clock of the log."""
    return time.monotonic_ns() / 1e9


class LogWriter:
    """Collects lines in memory; its owner calls ``flush`` at least each ``FLUSH_INTERVAL_S``, and ``close``."""

    def __init__(self, path: Path) -> None:
        """Create the file, or empty it. Raises OSError where that is not possible."""
        self._file = path.open("w", encoding="utf-8", newline="\n")
        self._lines: list[str] = []

    def write(self, event: Event) -> None:
        """Log an event that happens now."""
        time_s, kind, server, connection, path, status, size_bytes, note = event
        self._lines.append(
            f"{time_s:.9f}\t{kind.value}\t{server}\t{connection}\t{path}\t{status}\t{size_bytes}\t{note}\n"
        )

    def flush(self) -> None:
        """Hand all lines to the kernel. Raises OSError."""
        self._file.writelines(self._lines)
        self._file.flush()
        self._lines.clear()

    def close(self) -> None:
        self.flush()
        self._file.close()


def read_log(path: Path) -> list[Event]:
    """All events so far; a last line that is still being written is left out. Raises OSError, ValueError."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [_parsed(line) for line in lines[:-1]]


def _parsed(line: str) -> Event:
    fields = line.split("\t")
    if len(fields) != _COLUMNS:
        raise ValueError(f"not a line of a fleet's log: {line!r}")
    time_s, kind, server, connection, path, status, size_bytes, note = fields
    return Event(float(time_s), EventKind(kind), server, int(connection), path, int(status), int(size_bytes), note)


def requests_per_path(log: Iterable[Event]) -> Counter[str]:
    """How often each path was answered by a whole 200. Paths of ``write_table`` are unique over all servers."""
    return Counter(
        event.path
        for event in log
        if event.kind is EventKind.ANSWER and event.status == 200 and event.note == NOTE_WHOLE
    )


def highest_rate(log: Iterable[Event], server: str, window_s: float) -> int:
    """Largest number of requests to ``server`` whose arrivals lie in one window [t, t + window_s), over all t."""
    arrivals = [event.time_s for event in log if event.kind is EventKind.REQUEST and event.server == server]
    return max(
        (bisect_left(arrivals, time_s + window_s) - index for index, time_s in enumerate(arrivals)),
        default=0,
    )


def most_bytes(log: Iterable[Event], server: str, window_s: float) -> int:
    """Largest number of body bytes of whole answers of ``server`` that ended in one window [t, t + window_s)."""
    answers = [event for event in log if event.kind is EventKind.ANSWER and event.server == server]
    most = total = first = 0
    for answer in answers:
        total += answer.size_bytes
        while answer.time_s - answers[first].time_s >= window_s:
            total -= answers[first].size_bytes
            first += 1
        most = max(most, total)
    return most


def most_connections(log: Iterable[Event], server: str, grace_s: float = 0.0) -> int:
    """Largest number of connections to ``server`` that were open at the same time.

    One that its client has closed is logged some turns of the fleet's loop later: it counts as closed ``grace_s``
    before.
    """
    steps = []
    for event in log:
        if event.server == server and event.kind is EventKind.OPEN:
            steps.append((event.time_s, 1))
        elif event.server == server and event.kind is EventKind.CLOSE:
            steps.append((event.time_s - grace_s, -1))
    most = now_open = 0
    for _, step in sorted(steps, key=lambda step: step[0]):
        now_open += step
        most = max(most, now_open)
    return most


def requests_during_pause(log: Iterable[Event], server: str, grace_s: float = 0.0) -> int:
    """Requests to ``server`` in a pause that its client knew of, and so should not have sent.

    The client knows from ``grace_s`` after the first 429 of the pause went out: requests already on the way are
    not its fault. ``grace_s`` stands for the client's own delay in reading that answer.
    """
    faults = 0
    known_at: float | None = None
    asking: set[int] = set()  # connections whose answer will tell of the pause that runs now
    for event in log:
        if event.server != server:
            continue
        if event.kind is EventKind.REQUEST and event.note == NOTE_LIMITED:
            asking, known_at = {event.connection}, None
        elif event.kind is EventKind.REQUEST and event.note == NOTE_PAUSED:
            faults += known_at is not None and event.time_s > known_at + grace_s
            asking.add(event.connection)
        elif event.kind is EventKind.ANSWER and event.connection in asking:
            asking.discard(event.connection)
            known_at = event.time_s if known_at is None and event.note == NOTE_WHOLE else known_at
    return faults
