"""What each server was really sent: start times from all ranks, merged into the highest rates of any window. Pure.

Decides how a rank's notes about its requests are kept small, and how those of several ranks become one figure. It must
not know limits (the audit compares nothing, so that it cannot be wrong in the same way as what it audits), and not
where its figures are written.

A rank sends the start of each request, four bytes each, by the wall clock: highest rates of single ranks would not add
up. Rank 0 merges them per server group and keeps the last minute and some; the clocks of two nodes differ by some
milliseconds, which changes a highest rate over a second by at most as much of it.

Invariants: every request is counted once; a window is counted as soon as all ranks have reported it, unless a rank is
more than ``LATE_S`` late: then its requests may be missed in the windows, not in the sums.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ddmpi.core.protocol import Asked

TICK_S = 1e-4
"""Resolution of start times."""
MINUTE_S = 60.0
LATE_S = 30.0
MERGE_STARTS = 4_096
MERGE_S = 90.0
"""Starts of a group are merged when there are so many new ones, or when they span so long."""
MOST_GROUPS = 200_000
"""Groups whose windows rank 0 watches; about 1 KB each. Of others only the sums are kept."""


@dataclass(frozen=True)
class Audited:
    """One row of the table: a server group over all ranks."""

    group: str
    requests: int = 0
    highest_1s: int = 0
    """Requests that started in the busiest window of one second."""
    highest_60s: int = 0
    connections: int = 0
    """The most that one rank has had open at once. Lanes move, and what two ranks have had at different times does not
    add up."""
    bytes: int = 0
    throttled: int = 0
    pauses: int = 0
    paused_s: float = 0.0

    def joined(self, other: Audited) -> Audited:
        return Audited(
            self.group,
            self.requests + other.requests,
            max(self.highest_1s, other.highest_1s),
            max(self.highest_60s, other.highest_60s),
            max(self.connections, other.connections),
            self.bytes + other.bytes,
            self.throttled + other.throttled,
            self.pauses + other.pauses,
            self.paused_s + other.paused_s,
        )


# ---- on each rank


class _Notes:
    __slots__ = ("bytes", "connections", "paused_s", "pauses", "starts", "throttled")

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.bytes = self.throttled = self.connections = self.pauses = 0
        self.paused_s = 0.0


class AskedNotes:
    """The notes of one rank since they were last taken. Times are wall clock, seconds since 1970."""

    def __init__(self) -> None:
        self._groups: defaultdict[str, _Notes] = defaultdict(_Notes)
        self._paused_until: dict[str, float] = {}

    def started(self, group: str, at: float) -> None:
        self._groups[group].starts.append(at)

    def answered(self, group: str, size_bytes: int, *, throttled: bool) -> None:
        notes = self._groups[group]
        notes.bytes += size_bytes
        notes.throttled += throttled

    def paused(self, group: str, at: float, wait_s: float) -> None:
        """The group is left alone from ``at`` on; a pause that was known is not another one."""
        notes = self._groups[group]
        until, known_until = at + wait_s, self._paused_until.get(group, 0.0)
        if at >= known_until:
            notes.pauses += 1
            notes.paused_s += wait_s
        else:
            notes.paused_s += max(0.0, until - known_until)
        self._paused_until[group] = max(until, known_until)

    def connected(self, group: str, connections: int) -> None:
        """So many connections are open to the group now."""
        notes = self._groups[group]
        notes.connections = max(notes.connections, connections)

    def take(self, now: float) -> tuple[Asked, ...]:
        """All notes, which begin anew; only pauses that go on are remembered."""
        groups, self._groups = self._groups, defaultdict(_Notes)
        self._paused_until = {name: until for name, until in self._paused_until.items() if until > now}
        return tuple(_asked(name, notes) for name, notes in groups.items())


def _asked(group: str, notes: _Notes) -> Asked:
    first_at = min(notes.starts, default=0.0)
    ticks = np.round((np.array(notes.starts) - first_at) / TICK_S).astype("<u4")
    return Asked(
        group, first_at, ticks.tobytes(), notes.bytes, notes.throttled, notes.connections, notes.pauses, notes.paused_s
    )


# ---- on rank 0

FloatArray = npt.NDArray[np.float64]
_NO_STARTS: FloatArray = np.zeros(0)


class _Windows:
    """The starts of one group in the last minute and some, and the busiest windows so far."""

    __slots__ = ("_added", "_kept", "_new", "highest_1s", "highest_60s")

    def __init__(self) -> None:
        self._kept = _NO_STARTS
        self._new: list[FloatArray] = []
        self._added = 0
        self.highest_1s = self.highest_60s = 0

    def add(self, starts: FloatArray) -> None:
        self._new.append(starts)
        self._added += len(starts)
        if self._added >= MERGE_STARTS or float(starts[-1] - self._new[0][0]) >= MERGE_S:
            self.merge()

    def merge(self) -> None:
        if not self._new:
            return
        starts = np.sort(np.concatenate([self._kept, *self._new]))
        self.highest_1s = max(self.highest_1s, _highest(starts, 1.0))
        self.highest_60s = max(self.highest_60s, _highest(starts, MINUTE_S))
        self._kept = starts[starts >= starts[-1] - MINUTE_S - LATE_S]
        self._new.clear()
        self._added = 0


def _highest(starts: FloatArray, window_s: float) -> int:
    """Most starts in one window [t, t + window_s), over all t; the starts are sorted."""
    # Half a tick: two starts a whole window apart are in none together, however they were rounded.
    ends = np.searchsorted(starts, starts + (window_s - TICK_S / 2), side="left")
    return int((ends - np.arange(len(starts))).max(initial=0))


class Audit:
    """The figures of all groups. ``before`` is what earlier runs have left."""

    def __init__(self, before: Mapping[str, Audited] | None = None) -> None:
        self._rows = dict(before or {})
        self._windows: dict[str, _Windows] = {}

    def add(self, notes: Iterable[Asked]) -> None:
        """What a rank has noted."""
        for asked in notes:
            ticks = np.frombuffer(asked.starts, "<u4")
            row = self._rows.get(asked.group) or Audited(asked.group)
            sums = (asked.connections, asked.body_bytes, asked.throttled, asked.pauses, asked.paused_s)
            self._rows[asked.group] = row.joined(Audited(asked.group, len(ticks), 0, 0, *sums))
            if len(ticks):
                self._watch(asked.group, np.sort(ticks) * TICK_S + asked.first_at)

    def _watch(self, group: str, starts: FloatArray) -> None:
        windows = self._windows.get(group)
        if windows is None:
            if len(self._windows) >= MOST_GROUPS:
                return
            windows = self._windows[group] = _Windows()
        windows.add(starts)

    def rows(self) -> list[Audited]:
        """All groups, those with the most requests first."""
        for group, windows in self._windows.items():
            windows.merge()
            highest = Audited(group, 0, windows.highest_1s, windows.highest_60s)
            self._rows[group] = self._rows[group].joined(highest)
        return sorted(self._rows.values(), key=lambda row: (-row.requests, row.group))
