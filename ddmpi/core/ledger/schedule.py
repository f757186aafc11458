"""Batches, rates and the number of ranks -> in which order batches flow, and which rank gets which lane. Pure.

No schedule can end before the slowest server: rows of a server / its rate. So a server's batches start as early as its
pace can take them, those with the most work left first, and ranks only matter where their capacity is the limit.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ddmpi.core.arrays import FloatArray, IntArray
from ddmpi.core.records import CONNECTIONS_PER_RANK, INVALID_SERVER, BatchRef, Limits, is_packed

CPU_PER_ROW_S = 0.0003
"""What a row costs a rank at least (fetch, hash, Parquet), of the order measured with 30 KB files."""
DEFAULT_LATENCY_S = 0.2
"""Assumed time of one request where no profile says otherwise."""
BATCHES_PER_WORKER = 50
"""Size of a big batch, as in distributed-downloader: its users find their files as they know them."""
SPLIT_ABOVE_PER_S = 500.0
"""A server that allows less than this is no work for two ranks: its rate is the limit, not a rank's capacity."""


@dataclass(frozen=True)
class Plan:
    """What there is to do, as columns: B batches of G groups. A *group* here is what one lane may serve: a group of
    servers, or one packed batch of many small ones."""

    batch_rows: IntArray
    """(B,) rows of each batch."""
    batch_group: IntArray
    """(B,) index of each batch's group."""
    group_names: Sequence[str]
    """(G,)"""
    limits: Callable[[str], Limits]
    """Limits of a group by name (not asked for packed groups, whose servers have their own)."""
    row_times: FloatArray
    """(G,) seconds per row when one group has all of its limits."""
    ref: Callable[[int], BatchRef]
    group_of_server: Callable[[str, str], int | None]
    """(server, its server group) -> index of the group that serves it, or None when no input row is on it."""
    max_lanes: Callable[[int], int]
    """Batches of a group -> ranks that may work on it at once (``schedule_rules``)."""
    workers: Sequence[int]
    """Ranks that download."""
    connections_per_rank: int = CONNECTIONS_PER_RANK
    server_limits: Mapping[str, Mapping[str, Limits]] = field(default_factory=dict)
    """Packed group -> its servers whose limits are not the config's (``Lane.limits``)."""
    batch_partition: IntArray | None = None
    """(B,) place of each batch among those of its server; None where each group has one server."""
    urls_per_row: FloatArray | None = None
    """(G,) different URLs per row; None: no URL stands in several rows."""

    @cached_property
    def group_batches(self) -> IntArray:
        """(G,) batches of each group, complete ones included."""
        return np.bincount(self.batch_group, minlength=len(self.group_names))


def row_time_s(limits: Limits, latency_s: float, max_rows_of_one_server: int = 0, rows: int = 1) -> float:
    """Seconds per row: the slowest of the rate, the latency over all connections, and a rank's own speed.

    For a packed batch the servers run side by side, so its time is that of its largest server: pass that server's rows
    and the batch's.
    """
    concurrency = max(1, limits.connections)
    by_rate = 1.0 / limits.rate_per_s if limits.rate_per_s > 0 else 0.0
    slowest = max(by_rate, latency_s / concurrency)
    if max_rows_of_one_server:
        slowest *= max_rows_of_one_server / max(1, rows)
    return max(slowest, CPU_PER_ROW_S)


def flow_order(plan: Plan, open_batches: IntArray) -> IntArray:
    """The open batches in the order in which they flow into big batches.

    Each batch's key is when its group's pace could start it if the group ran without pause from now on; of those
    that could start at once, the group with the most time left comes first. So every server runs early, and the
    longest never waits; servers of one group take turns. O(B log B).
    """
    groups = plan.batch_group[open_batches]
    times = plan.batch_rows[open_batches] * plan.row_times[groups]
    turns = open_batches if plan.batch_partition is None else plan.batch_partition[open_batches]
    by_group = np.lexsort((open_batches, turns, groups))
    sorted_times = times[by_group]
    ends = np.cumsum(sorted_times)
    _, first, counts = np.unique(groups[by_group], return_index=True, return_counts=True)
    before_group = np.repeat(ends[first] - sorted_times[first], counts) if len(first) else ends
    starts = np.empty_like(times)
    starts[by_group] = ends - sorted_times - before_group
    totals = np.bincount(groups, weights=times, minlength=len(plan.group_names))
    order = np.lexsort((open_batches, -totals[groups], np.round(starts, 6)))
    return open_batches[order]


def lower_bound_s(plan: Plan, rows_left: IntArray) -> tuple[float, int]:
    """max over groups of rows/rate, in seconds, and the index of the group that sets it (-1: nothing to do).

    Args:
        rows_left: (B,) rows of each batch that are not final.
    """
    times = np.bincount(plan.batch_group, weights=rows_left, minlength=len(plan.group_names)) * plan.row_times
    if not len(times):
        return 0.0, -1
    worst = int(np.argmax(times))
    return float(times[worst]), worst


def lanes_for(plan: Plan, group: str, batches: int, total_batches: int) -> int:
    """Lanes into which a group's batches are cut at the start: more than one only where a rank is the limit."""
    if is_packed(group) or group == INVALID_SERVER:
        return 1
    limits = plan.limits(group)
    if is_held_by_one(limits):
        return 1
    return max(1, min(plan.max_lanes(total_batches), limits.connections, batches, len(plan.workers)))


def is_held_by_one(limits: Limits) -> bool:
    """Whether a group with these limits has one lane at most: a second rank could not help, or bytes are counted."""
    return 0 < limits.rate_per_s <= SPLIT_ABOVE_PER_S or limits.has_byte_budget


def lane_cost_s(rows: int, time_s: float, share: Limits, row_time: float, connections_per_rank: int) -> float:
    """How much of one rank a lane uses up: its CPU, and its part of the rank's connections for its time."""
    busy = share.connections if share.rate_per_s <= 0 else min(share.connections, DEFAULT_LATENCY_S / row_time)
    return rows * CPU_PER_ROW_S + time_s * busy / connections_per_rank


class LeastLoaded:
    """Hands out ranks, the least loaded first (longest-processing-time rule: give it lanes in falling order)."""

    def __init__(self, loads: dict[int, float]) -> None:
        self._heap = [(load, rank) for rank, load in loads.items()]
        heapq.heapify(self._heap)

    def take(self, cost_s: float, but_not: Collection[int] = ()) -> int:
        """The least loaded rank that is not in ``but_not``; it is charged ``cost_s``. Raises IndexError: every rank is
        in ``but_not``."""
        passed_over = []
        while self._heap[0][1] in but_not:
            passed_over.append(heapq.heappop(self._heap))
        load, rank = self._heap[0]
        heapq.heapreplace(self._heap, (load + cost_s, rank))
        for entry in passed_over:
            heapq.heappush(self._heap, entry)
        return rank
