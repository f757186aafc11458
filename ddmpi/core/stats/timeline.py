"""When each server group was asked, has answered and was left alone, in one run: for the report. Pure.

Decides how that is kept small: counts in ``BINS`` equal spans of the run, whose width doubles as the run grows, and the
latest waits. It must not know where the counts come from, or how they are drawn. All times are seconds since 1970.

Invariants: the counts of a group add up to what was added; of more than ``MOST_GROUPS`` groups (about 1 KB each) only
those that were asked first are kept.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ddmpi.core.protocol import Asked
from ddmpi.core.stats.audit import TICK_S

BINS = 60
MOST_GROUPS = 20_000
MOST_WAITS = 40
"""Of one group; earlier ones are forgotten."""
HEARD_S = 10.0
"""Answers are counted on their rank, which tells of them this often: where no request started in that time, they are
spread over it."""


class Wait(NamedTuple):
    """A time in which a group is not asked: it has asked for a pause, or it does not answer."""

    begin: float
    end: float
    is_parked: bool


@dataclass(frozen=True)
class Timeline:
    """What one group has done in this run."""

    group: str
    asked: tuple[int, ...]
    """(BINS,) requests that started."""
    answered: tuple[int, ...]
    """(BINS,) URLs that were done with: fetched, or failed for good."""
    waits: tuple[Wait, ...]
    """In order, within the run."""


class Timelines:
    """The timelines of all groups.

    Args:
        began_at: when the run began.
    """

    def __init__(self, began_at: float = 0.0) -> None:
        self.began_at = began_at
        self.bin_s = 1.0
        self._index: dict[str, int] = {}
        self._counts: npt.NDArray[np.uint32] = np.zeros((0, 2, BINS), np.uint32)
        """(n, asked and answered, BINS)."""
        self._waits: dict[str, list[Wait]] = {}

    def __len__(self) -> int:
        return len(self._index)

    def add(self, asked: Asked, now: float) -> None:
        """Add what a rank has noted up to ``now``."""
        row = self._row(asked.group)
        if row is None:
            return
        starts = np.frombuffer(asked.starts, "<u4") * TICK_S + asked.first_at
        self._cover(max(now, float(starts.max(initial=now))))
        requests = np.bincount(self._bins(starts), minlength=BINS)
        weights = requests
        if not len(starts):
            first, last = self._bins(np.array([now - HEARD_S, now])).tolist()
            weights = np.bincount(np.arange(first, last + 1), minlength=BINS)
        answers = np.diff(np.round(np.cumsum(weights) * (asked.urls / weights.sum())), prepend=0.0)
        self._counts[row] += np.stack([requests, answers]).astype(np.uint32)

    def wait(self, group: str, at: float, wait_s: float, *, is_parked: bool) -> None:
        """The group is not asked for ``wait_s`` from now (``at``) on; 0 = it is asked again."""
        waits = self._waits.get(group)
        if waits and at < waits[-1].end:
            last = waits.pop()
            if last.is_parked == is_parked and wait_s > 0:
                waits.append(last._replace(end=max(last.end, at + wait_s)))
                return
            waits.append(last._replace(end=at))
        if wait_s <= 0 or (waits is None and len(self._waits) >= MOST_GROUPS):
            return
        waits = self._waits.setdefault(group, [])
        waits.append(Wait(at, at + wait_s, is_parked))
        del waits[:-MOST_WAITS]

    def slowest(self, most: int, ended_at: float, unfinished: Collection[str]) -> list[Timeline]:
        """Return the groups that took longest from the first request to the last answer, longest first; those in
        ``unfinished`` took until the end of the run. What took no longer than one span is not slow."""
        names = list(self._index)
        if not names:
            return []
        self._cover(ended_at)
        is_busy: npt.NDArray[np.bool_] = self._counts[: len(names)].sum(axis=1) > 0
        last = BINS - is_busy[:, ::-1].argmax(axis=1)
        end = self._bins(np.array([ended_at]))[0] + 1
        last[np.array([name in unfinished for name in names])] = end
        spans = np.where(is_busy.any(axis=1), last - is_busy.argmax(axis=1), 0)
        chosen = np.lexsort((-self._counts[: len(names), 0].sum(axis=1, dtype=np.int64), -spans))[:most]
        return [self._timeline(names[at], at, ended_at) for at in chosen.tolist() if spans[at] > 1]

    def _timeline(self, group: str, row: int, ended_at: float) -> Timeline:
        waits = (wait._replace(end=min(wait.end, ended_at)) for wait in self._waits.get(group, ()))
        asked, answered = (tuple(counts.tolist()) for counts in self._counts[row])
        return Timeline(group, asked, answered, tuple(wait for wait in waits if wait.end > wait.begin))

    def _row(self, group: str) -> int | None:
        row = self._index.get(group)
        if row is None and len(self._index) < MOST_GROUPS:
            row = self._index[group] = len(self._index)
            if row == len(self._counts):
                self._counts = np.concatenate([self._counts, np.zeros((max(64, row), 2, BINS), np.uint32)])
        return row

    def _bins(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return (n,) the spans of these times; a clock that was set back, or is late, counts as the run's begin."""
        places: npt.NDArray[np.int64] = np.clip((times - self.began_at) / self.bin_s, 0, BINS - 1).astype(np.int64)
        return places

    def _cover(self, until: float) -> None:
        """Make the spans wide enough for a time."""
        while until - self.began_at >= BINS * self.bin_s:
            self._counts = self._counts.reshape(-1, 2, BINS // 2, 2).sum(axis=3, dtype=np.uint32)
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)], axis=2)
            self.bin_s *= 2
