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

import msgspec
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
MOST_SIGNALS = 50
"""Different texts of one group, and of a run: a server may make up as many as it likes."""
OTHER_SIGNALS = "others"
MOST_HOSTS = 10_000
"""Server groups of which ``RunAudit`` tells."""
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
    urls: int = 0
    """Different URLs that were done with."""
    refused: int = 0
    """Answers with a status of 400 or more."""
    kept_bytes: int = 0
    """Bytes of files that were stored, of each URL once."""

    @property
    def requests_per_url(self) -> float:
        """1 where no URL was asked for twice; 0 where none was done with."""
        return self.requests / self.urls if self.urls else 0.0

    @property
    def bytes_per_kept_byte(self) -> float:
        """1 where all that came in was stored as it was; 0 where nothing was stored."""
        return self.bytes / self.kept_bytes if self.kept_bytes else 0.0

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
            self.urls + other.urls,
            self.refused + other.refused,
            self.kept_bytes + other.kept_bytes,
        )


class AskedHost(msgspec.Struct, frozen=True):
    """What one server group was asked in one run, for its operator. Times are seconds since 1970."""

    audited: Audited
    first_at: float
    last_at: float
    """When the first and the last request started; 0 = there was none."""
    nodes: tuple[str, ...]
    """Host names of the machines that asked."""
    signals: dict[str, tuple[int, int]]
    """As in ``Asked``."""


class RunAudit(msgspec.Struct, frozen=True):
    """What one run has asked of servers."""

    run: int
    began_at: float
    ended_at: float
    version: str
    user_agent: str
    respect: str
    """What of the servers' signals was obeyed, for people."""
    hosts: tuple[AskedHost, ...]
    """Those with the most requests first."""
    left_out: int = 0
    """Further ones."""


# ---- on each rank


class _Notes:
    __slots__ = ("bytes", "connections", "paused_s", "pauses", "refused", "signals", "starts", "throttled", "urls")

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.bytes = self.throttled = self.connections = self.pauses = self.urls = self.refused = 0
        self.paused_s = 0.0
        self.signals: dict[str, tuple[int, int]] = {}


class AskedNotes:
    """The notes of one rank since they were last taken. Times are wall clock, seconds since 1970."""

    def __init__(self) -> None:
        self._groups: defaultdict[str, _Notes] = defaultdict(_Notes)
        self._paused_until: dict[str, float] = {}

    def started(self, group: str, at: float) -> None:
        self._groups[group].starts.append(at)

    def answered(
        self, group: str, size_bytes: int, *, throttled: bool, refused: bool = False, is_done: bool = False
    ) -> None:
        """Note an answer. ``is_done``: its URL will not be asked for again."""
        notes = self._groups[group]
        notes.bytes += size_bytes
        notes.throttled += throttled
        notes.refused += refused
        notes.urls += is_done

    def heard(self, group: str, signals: str, rows: int, *, is_obeyed: bool) -> None:
        """Note what was said of the use of a file, for so many rows; ``is_obeyed``: it is not stored for that."""
        add_signals(self._groups[group].signals, {signals: (rows, rows * is_obeyed)})

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
        group, first_at, ticks.tobytes(), notes.bytes, notes.throttled, notes.connections, notes.pauses, notes.paused_s,
        notes.urls, notes.refused, notes.signals,
    )  # fmt: skip


def add_signals(sums: dict[str, tuple[int, int]], more: Mapping[str, tuple[int, int]]) -> None:
    """Add counts of signals, as in ``Asked``, to others; of very many different ones the later ones are counted
    together."""
    for text, (rows, obeyed) in more.items():
        name = text if text in sums or len(sums) < MOST_SIGNALS else OTHER_SIGNALS
        before = sums.get(name, (0, 0))
        sums[name] = before[0] + rows, before[1] + obeyed


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


class _Group:
    """What is known of one group in this run."""

    __slots__ = ("audited", "first_at", "last_at", "nodes", "signals", "windows")

    def __init__(self, group: str) -> None:
        self.audited = Audited(group)
        self.first_at = self.last_at = 0.0
        self.nodes: set[str] = set()
        self.signals: dict[str, tuple[int, int]] = {}
        self.windows: _Windows | None = None

    def figures(self) -> Audited:
        if self.windows is None:
            return self.audited
        self.windows.merge()
        return self.audited.joined(Audited("", 0, self.windows.highest_1s, self.windows.highest_60s))


class Audit:
    """The figures of all groups. ``before`` is what earlier runs have left."""

    def __init__(self, before: Mapping[str, Audited] | None = None) -> None:
        self._before = dict(before or {})
        self._groups: dict[str, _Group] = {}
        self._watched = 0
        self.total = Audited("")
        """The sums over all groups of this run, without windows and connections."""
        self.signals: dict[str, tuple[int, int]] = {}
        """Those of all groups in this run, as in ``Asked``."""

    def __len__(self) -> int:
        """How many groups were asked in this run."""
        return len(self._groups)

    def add(self, notes: Iterable[Asked], node: str = "") -> None:
        """Add what a rank on this machine has noted."""
        for asked in notes:
            group = self._group(asked.group)
            ticks = np.frombuffer(asked.starts, "<u4")
            sums = (asked.connections, asked.body_bytes, asked.throttled, asked.pauses, asked.paused_s)
            self._count(group, Audited("", len(ticks), 0, 0, *sums, asked.urls, asked.refused))
            add_signals(group.signals, asked.signals)
            add_signals(self.signals, asked.signals)
            if node:
                group.nodes.add(node)
            if len(ticks):
                self._watch(group, np.sort(ticks) * TICK_S + asked.first_at)

    def keep(self, name: str, size_bytes: int) -> None:
        """Count files of a group that are stored."""
        self._count(self._group(name), Audited("", kept_bytes=size_bytes))

    def _group(self, name: str) -> _Group:
        found = self._groups.get(name)
        if found is None:
            found = self._groups[name] = _Group(name)
        return found

    def _count(self, group: _Group, more: Audited) -> None:
        group.audited = group.audited.joined(more)
        self.total = self.total.joined(more)

    def _watch(self, group: _Group, starts: FloatArray) -> None:
        group.first_at = min(group.first_at or float(starts[0]), float(starts[0]))
        group.last_at = max(group.last_at, float(starts[-1]))
        if group.windows is None:
            if self._watched >= MOST_GROUPS:
                return
            self._watched += 1
            group.windows = _Windows()
        group.windows.add(starts)

    def rows(self) -> list[Audited]:
        """All groups over all runs, those with the most requests first."""
        rows = dict(self._before)
        for name, group in self._groups.items():
            rows[name] = (rows.get(name) or Audited(name)).joined(group.figures())
        return sorted(rows.values(), key=lambda row: (-row.requests, row.group))

    def spans_s(self) -> dict[str, tuple[int, float]]:
        """Return of each group its requests in this run, and how long after the first one the last one started."""
        return {name: (it.audited.requests, it.last_at - it.first_at) for name, it in self._groups.items()}

    def hosts(self) -> tuple[AskedHost, ...]:
        """The groups that were asked in this run, those with the most requests first: ``MOST_HOSTS`` of them."""
        chosen = sorted(self._groups.items(), key=lambda item: (-item[1].audited.requests, item[0]))[:MOST_HOSTS]
        return tuple(
            AskedHost(it.figures(), it.first_at, it.last_at, tuple(sorted(it.nodes)), it.signals) for _, it in chosen
        )
