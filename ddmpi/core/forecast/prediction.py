"""How long a run takes with so many ranks, and how many are worth having: the figures of ``--plan``. Pure.

The answer comes from a simulated run (``forecast``) of the same ledger over the same plan. Its cost is bounded: of very
many batches neighbors are taken together, and of very many servers those that take longest are simulated, while the
rows of all others only keep the ranks busy. ``Prediction.is_whole`` says whether that was necessary.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ddmpi.core.arrays import IntArray
from ddmpi.core.forecast.coarse_rank import CoarseModel
from ddmpi.core.forecast.forecast import Forecast
from ddmpi.core.ledger.schedule import CPU_PER_ROW_S, DEFAULT_LATENCY_S, Plan, lower_bound_s
from ddmpi.core.records import BatchRef

MOST_BATCHES = 10_000
"""Batches that are simulated, about a second's work for each number of ranks."""
MOST_GROUPS = 5_000
WORTHWHILE = 1.02
"""More ranks are worth having while the run takes longer than the least possible time by this factor ..."""
NO_HELP = 0.98
"""... and twice as many ranks bring it at least to this share."""
MOST_DOUBLINGS = 8
ROUNDS_PER_RUN = 200
"""A simulated rank reports, closes its parts and asks again for work so often, however long the run is: more often
would hardly change how long it takes."""
START_AND_END_S = 2.0
"""From the start of the launcher to the first request, and from the last answer to the end; measured, four ranks."""


@dataclass(frozen=True)
class Prediction:
    """What ``--plan`` says of the time. Workers are ranks that download."""

    bound_s: float
    """No schedule ends before: the slowest group's rows / its rate."""
    bound_group: int
    """Index of that group, -1 if there is nothing to do."""
    makespan_s: float
    workers: int
    advised_workers: int
    is_whole: bool
    """Every batch was simulated."""


def predict(plan: Plan, rows_left: IntArray, workers: int | None, samples_per_server: int = 0) -> Prediction:
    """Simulate the run.

    Args:
        rows_left: (B,) rows of each batch that are not final.
        workers: ranks that download; None = as many as are worth having.
        samples_per_server: requests to each server that is still to be profiled; 0 = none is.
    """
    bound_s, bound_group = lower_bound_s(plan, rows_left)
    small = _simplified(plan, rows_left)
    model = _model(rows_left, small, bound_s, plan.connections_per_rank)

    @cache
    def makespan_s(number: int) -> float:
        staffed = replace(small, workers=range(1, number + 1))
        return Forecast(staffed, np.zeros_like(small.batch_rows), model).run()

    work_s = float(rows_left.sum()) * CPU_PER_ROW_S
    first = max(1, int(np.ceil(work_s / bound_s))) if bound_s > 0 else 1
    advised = _advised(makespan_s, WORTHWHILE * bound_s + model.commit_s + 1.0, first)
    overhead_s = START_AND_END_S + _profiling_s(plan, rows_left, samples_per_server)
    whole_s = makespan_s(workers or advised) + (overhead_s if rows_left.any() else 0.0)
    is_whole = len(small.batch_rows) == int(np.count_nonzero(rows_left))
    return Prediction(bound_s, bound_group, whole_s, workers or advised, advised, is_whole)


def _advised(makespan_s: Callable[[int], float], enough_s: float, first: int) -> int:
    """The fewest workers with which the run takes no longer than ``enough_s``, or beyond which more do not help."""
    fewest, most = first, first
    for _ in range(MOST_DOUBLINGS):
        if makespan_s(most) <= enough_s:
            break
        if makespan_s(2 * most) > NO_HELP * makespan_s(most):
            return most
        fewest, most = most + 1, 2 * most
    return fewest + bisect_left(range(fewest, most), True, key=lambda workers: makespan_s(workers) <= enough_s)


def _model(rows_left: IntArray, small: Plan, bound_s: float, connections: int) -> CoarseModel:
    """A rank that has to do with the rows that are not simulated as well, and reports only now and then."""
    simulated = int(small.batch_rows.sum())
    cpu_per_row_s = CPU_PER_ROW_S * float(rows_left.sum()) / simulated if simulated else CPU_PER_ROW_S
    interval_s = max(1.0, bound_s / ROUNDS_PER_RUN)
    return CoarseModel(
        cpu_per_row_s,
        close_interval_s=interval_s,
        report_interval_s=interval_s,
        connections=connections,
        least_refused_wait_s=interval_s,
    )


def _profiling_s(plan: Plan, rows_left: IntArray, samples: int) -> float:
    """The time of the slowest server's samples: all servers are profiled side by side."""
    if not samples or not rows_left.any():
        return 0.0
    slowest_s = float(plan.row_times[np.unique(plan.batch_group[rows_left > 0])].max())
    return (samples - 1) * slowest_s + DEFAULT_LATENCY_S


# ---- a smaller plan with the same makespan


def _simplified(plan: Plan, rows_left: IntArray) -> Plan:
    """The batches with rows left; of too many groups those that take longest, of too many batches joined ones."""
    groups = len(plan.group_names)
    group_rows = np.bincount(plan.batch_group, weights=rows_left, minlength=groups)
    group_batches = np.bincount(plan.batch_group[rows_left > 0], minlength=groups)
    kept = np.flatnonzero(group_rows)
    if len(kept) > MOST_GROUPS:
        times = group_rows[kept] * plan.row_times[kept]
        kept = np.sort(kept[np.argpartition(-times, MOST_GROUPS)[:MOST_GROUPS]])
    joined = max(1.0, float(group_batches[kept].sum()) / MOST_BATCHES)
    counts = np.maximum(1, np.ceil(group_batches[kept] / joined)).astype(np.int64)
    batch_group = np.repeat(np.arange(len(kept)), counts)
    partition = np.arange(len(batch_group)) - np.repeat(np.cumsum(counts) - counts, counts)
    whole, rest = np.divmod(group_rows[kept].astype(np.int64), counts)
    batch_rows = whole[batch_group] + (partition < rest[batch_group])
    names = [plan.group_names[index] for index in kept.tolist()]

    def ref(batch_id: int) -> BatchRef:
        name = names[int(batch_group[batch_id])]
        return BatchRef(batch_id, name, int(partition[batch_id]), "", 0, 0, int(batch_rows[batch_id]))

    return Plan(
        batch_rows=batch_rows,
        batch_group=batch_group,
        group_names=names,
        limits=plan.limits,
        row_times=plan.row_times[kept],
        ref=ref,
        group_of_server=lambda _server, _group: None,
        max_lanes=lambda batches: plan.max_lanes(round(batches * joined)),
        workers=plan.workers,
        connections_per_rank=plan.connections_per_rank,
    )
