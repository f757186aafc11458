"""How each server was asked and how fast it answered: counted on each rank, added up on rank 0. Pure.

Decides what is counted and in which form counts can be added: latencies are counts in buckets of a fixed width (a
factor of sqrt(2)), so that the sum over ranks and runs has percentiles too, each right to within a fifth. It must not
know where counts come from or go to. Memory is bounded by the number of server groups; packed servers are one of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ddmpi.core.protocol import Usage

BUCKETS = 36
"""From 1 ms to three minutes; what is faster or slower counts as the first or the last."""
LEAST_SPAN_S = 10.0
"""Over a shorter time a rate says nothing: the first request waits for none, and makes it more than the limit."""


def buckets_of(latencies_s: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return (n,) the bucket of each latency."""
    halves = 2 * np.log2(np.maximum(latencies_s, 0.001) * 1000)
    buckets: npt.NDArray[np.int64] = np.minimum(halves, BUCKETS - 1).astype(np.int64)
    return buckets


class UsageCounter:
    """The counts of one rank since they were last taken. Answers are kept until then: counted together, each of them
    takes a tenth of the time."""

    def __init__(self) -> None:
        self._answers: list[tuple[str, float, float, int, bool]] = []

    def add(self, group: str, started_at: float, now: float, size_bytes: int, *, throttled: bool) -> None:
        """Count an answer; times are seconds, monotonic."""
        self._answers.append((group, started_at, now, size_bytes, throttled))

    def take(self, now: float) -> tuple[Usage, ...]:
        """All counts, which begin anew."""
        answers, self._answers = self._answers, []
        if not answers:
            return ()
        groups, started_at, ended_at, sizes, throttled = zip(*answers, strict=True)
        names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
        codes = np.array([names[group] for group in groups])
        first_at, last_at = np.full(len(names), np.inf), np.zeros(len(names))
        np.minimum.at(first_at, codes, started_at)
        np.maximum.at(last_at, codes, ended_at)
        sums = (np.bincount(codes), np.bincount(codes, throttled), np.bincount(codes, sizes))
        latencies: list[dict[int, int]] = [{} for _ in names]
        buckets = buckets_of(np.array(ended_at) - np.array(started_at))
        pairs, counts = np.unique(codes * BUCKETS + buckets, return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            latencies[pair // BUCKETS][pair % BUCKETS] = count
        figures = (*(each.astype(int).tolist() for each in sums), (now - first_at).tolist(), (now - last_at).tolist())
        return tuple(Usage(*row) for row in zip(names, *figures, latencies, strict=True))


def reached_per_s(requests: int, span_s: float) -> float:
    """Return the mean rate of requests whose first and last one are so far apart; 0 below ``LEAST_SPAN_S``."""
    return max(0, requests - 1) / span_s if span_s >= LEAST_SPAN_S else 0.0


@dataclass(frozen=True)
class GroupUsage:
    """What is known of one server group, over all ranks and runs."""

    requests: int
    throttled: int
    bytes: int
    span_s: float
    """From the first request to the last answer of each run, added up."""
    paused_s: float
    p50_s: float
    p95_s: float

    @property
    def rate_per_s(self) -> float:
        """Requests per second in that time, as in ``reached_per_s``."""
        return reached_per_s(self.requests, self.span_s)


COLUMNS = ("requests", "throttled", "bytes", "span_s", "paused_s")


class UsageTable:
    """The sum over all ranks, by server group."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.numbers: npt.NDArray[np.float64] = np.zeros((0, len(COLUMNS)))
        """(n, ``COLUMNS``); spans are those of earlier runs, to which this run's come in ``finished``."""
        self.latencies: npt.NDArray[np.uint32] = np.zeros((0, BUCKETS), np.uint32)
        self._index: dict[str, int] = {}
        self._times: npt.NDArray[np.float64] = np.zeros((0, 3))
        """(n, 3): first request, last answer and end of the pause of this run; seconds, monotonic."""

    def __len__(self) -> int:
        return len(self.names)

    def load(
        self, names: Iterable[str], numbers: npt.NDArray[np.float64], latencies: npt.NDArray[np.uint32]
    ) -> None:  # fmt: skip
        """Begin with the counts of earlier runs."""
        for name, row, counts in zip(names, numbers, latencies, strict=True):
            at = self._row(name)
            self.numbers[at] = row
            self.latencies[at] = counts

    def _row(self, group: str) -> int:
        at = self._index.get(group)
        if at is None:
            at = self._index[group] = len(self.names)
            self.names.append(group)
            if at == len(self.numbers):
                more = max(64, at)
                self.numbers = np.concatenate([self.numbers, np.zeros((more, len(COLUMNS)))])
                self.latencies = np.concatenate([self.latencies, np.zeros((more, BUCKETS), np.uint32)])
                self._times = np.concatenate([self._times, np.tile([math.inf, -math.inf, -math.inf], (more, 1))])
        return at

    def add(self, usages: Iterable[Usage], now: float) -> None:
        """Add what a rank has counted up to ``now`` (seconds, monotonic, of this process)."""
        for usage in usages:
            at = self._row(usage.group)
            self.numbers[at, :3] += (usage.requests, usage.throttled, usage.bytes)
            times = self._times[at]
            times[0] = min(times[0], now - usage.first_s)
            times[1] = max(times[1], now - usage.last_s)
            for bucket, count in usage.latencies.items():
                self.latencies[at, min(bucket, BUCKETS - 1)] += count

    def note_pause(self, group: str, wait_s: float, now: float) -> None:
        """The group is left alone for so long from now on; pauses that overlap count once."""
        at = self._row(group)
        until = float(self._times[at, 2])
        self.numbers[at, 4] += max(0.0, now + wait_s - max(now, until))
        self._times[at, 2] = max(until, now + wait_s)

    def finished(self, now: float) -> npt.NDArray[np.float64]:
        """(n, ``COLUMNS``) with the spans of this run, and without what is left of pauses."""
        count = len(self.names)
        first, last, until = self._times[:count].T
        numbers: npt.NDArray[np.float64] = self.numbers[:count].copy()
        numbers[:, 3] += np.clip(last - first, 0.0, None)
        numbers[:, 4] -= np.clip(until - now, 0.0, None)
        return numbers

    def get(self, group: str, now: float) -> GroupUsage | None:
        """What is known of a group, None if it was never asked."""
        at = self._index.get(group)
        if at is None:
            return None
        first, last, until = self._times[at].tolist()
        requests, throttled, size_bytes, span_s, paused_s = self.numbers[at].tolist()
        p50_s, p95_s = percentiles(self.latencies[at])
        return GroupUsage(
            int(requests), int(throttled), int(size_bytes), span_s + max(0.0, last - first),
            paused_s - max(0.0, until - now), p50_s, p95_s,
        )  # fmt: skip


def percentiles(counts: npt.NDArray[np.uint32]) -> tuple[float, float]:
    """The median and the 95th percentile in seconds, 0 where nothing was counted: the middle of their buckets."""
    total = int(counts.sum())
    if not total:
        return 0.0, 0.0
    reached = np.cumsum(counts)
    low, high = (int(np.searchsorted(reached, math.ceil(total * part))) for part in (0.5, 0.95))
    return _middle_s(low), _middle_s(high)


def _middle_s(bucket: int) -> float:
    return 0.001 * math.pow(2.0, (bucket + 0.5) / 2)
