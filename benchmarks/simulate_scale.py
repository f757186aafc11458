"""Rank 0 at full size: 10,000 ranks, 1,000,000 servers, 10^9 rows, on one core and without network.

``python -m benchmarks.simulate_scale`` runs the real ledger over ranks that work by the batch
(``ddmpi.core.forecast``). Every message is encoded and decoded as in a real run; what rank 0 does for it (decode,
decide, encode) is timed. Not in these figures: MPI itself, the markers of complete batches and their verification,
which are the disk's speed.

Servers have Lomax (Pareto II) sizes with shape 1.3; rates are lognormal (sigma 0.7) around 10 requests/s for a server
of the mean size and grow with the root of the size; latencies are lognormal around 0.2 s. Servers with fewer than 50
rows are packed.

The JSON line last: ``ratio`` of makespan and lower bound, ``steals_per_rank``, ``messages_per_s`` at rank 0 over the
simulated time and ``peak_messages_per_s`` in its busiest minute, ``us_per_message``, ``rank0_gb`` (rank 0 right after
the first big batch of 50 batches per rank has flowed out: its fullest moment), ``rank0_busy`` (share of the simulated
time; ``peak_busy`` in the busiest minute), ``begin_s`` (rank 0's processor time for the first big batch), ``seconds``
(processor time of it all).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ddmpi.core.arrays import FloatArray, IntArray, NameColumn
from ddmpi.core.forecast.coarse_rank import CoarseModel
from ddmpi.core.forecast.forecast import Forecast
from ddmpi.core.ledger.actions import Action, Scatter, Send
from ddmpi.core.ledger.schedule import CPU_PER_ROW_S, DEFAULT_LATENCY_S, Plan, lower_bound_s, row_time_s
from ddmpi.core.protocol import ToCoordinator, decode, encode, report_interval_s
from ddmpi.core.records import MANY_SERVERS, PACKED_PREFIX, BatchRef, Limits

SHAPE: Final = 1.3
BATCH_ROWS: Final = 10_000
SMALL_ROWS: Final = 50
LARGE_ROWS: Final = 100_000
"""A server with more has a rule of its own: more connections, and up to eight ranks at once."""
CONNECTIONS: Final = 8
LARGE_CONNECTIONS: Final = 64
MOST_RANKS_ON_LARGE: Final = 8
WINDOW_S: Final = 60.0


class Sizes:
    """The servers of a table: (S,) rows, limits in requests/s (0 = none), latencies in s."""

    def __init__(self, servers: int, rows: int) -> None:
        rng = np.random.default_rng(20_261_123)
        shares = rng.pareto(SHAPE, servers)
        self.rows: IntArray = np.maximum(1, np.rint(shares / shares.sum() * rows)).astype(np.int64)
        mean = rows / servers
        rates = rng.lognormal(np.log(10.0), 0.7, servers) * np.maximum(1.0, self.rows / mean) ** 0.5
        self.rates: FloatArray = np.clip(rates, 1.0, 2_000.0)
        self.rates[rng.random(servers) < 0.1] = 0.0
        self.latencies: FloatArray = np.clip(rng.lognormal(np.log(DEFAULT_LATENCY_S), 0.7, servers), 0.01, 3.0)
        self.connections: IntArray = np.where(self.rows < LARGE_ROWS, CONNECTIONS, LARGE_CONNECTIONS)


def make_plan(sizes: Sizes, ranks: int) -> Plan:
    """The plan as the initialization makes it: batches of single servers, and packs of small ones."""
    single = np.flatnonzero(sizes.rows >= SMALL_ROWS)
    small_rows = sizes.rows[sizes.rows < SMALL_ROWS]
    packs = -(-int(small_rows.sum()) // BATCH_ROWS)
    counts = -(-sizes.rows[single] // BATCH_ROWS)
    group = np.concatenate([np.repeat(np.arange(len(single)), counts), np.arange(packs) + len(single)])
    partition = np.arange(len(group)) - np.concatenate(
        [np.repeat(np.cumsum(counts) - counts, counts), np.arange(packs) + int(counts.sum())]
    )
    rows = np.full(len(group), BATCH_ROWS, np.int64)
    of_single = slice(0, int(counts.sum()))
    rows[of_single] = np.minimum(BATCH_ROWS, sizes.rows[single][group[of_single]] - partition[of_single] * BATCH_ROWS)
    if packs:
        rows[-1] = small_rows.sum() - (packs - 1) * BATCH_ROWS
    names = _names(single, packs)
    known: dict[str, Limits] = {}

    def limits(name: str) -> Limits:
        if name not in known:
            server = int(name.split(".", 1)[0][1:])
            known[name] = Limits(float(sizes.rates[server]), int(sizes.connections[server]))
        return known[name]

    def ref(batch_id: int) -> BatchRef:
        name = names[int(group[batch_id])]
        server = MANY_SERVERS if name.startswith(PACKED_PREFIX) else name
        return BatchRef(
            batch_id, server, int(partition[batch_id]), f"urls-{batch_id // 100:05d}.parquet", batch_id % 100, 0,
            int(rows[batch_id]),
        )  # fmt: skip

    return Plan(
        batch_rows=rows,
        batch_group=group,
        group_names=names,
        limits=limits,
        row_times=_row_times(sizes, single, packs),
        ref=ref,
        group_of_server=lambda _server, _group: None,
        max_lanes=lambda batches: MOST_RANKS_ON_LARGE if batches > LARGE_ROWS // BATCH_ROWS else 1,
        workers=range(1, ranks + 1),
    )


def _names(single: npt.NDArray[np.int64], packs: int) -> NameColumn:
    servers = [f"s{server}.images.example.org" for server in single.tolist()]
    return NameColumn(pa.array(servers + [f"{PACKED_PREFIX}{pack}" for pack in range(packs)]))


def _row_times(sizes: Sizes, single: npt.NDArray[np.int64], packs: int) -> FloatArray:
    by_rate = np.divide(1.0, sizes.rates, out=np.zeros_like(sizes.rates), where=sizes.rates > 0)
    times = np.maximum(CPU_PER_ROW_S, np.maximum(by_rate, sizes.latencies / sizes.connections))[single]
    packed = row_time_s(Limits(10.0, CONNECTIONS), DEFAULT_LATENCY_S, SMALL_ROWS, BATCH_ROWS)
    return np.concatenate([times, np.full(packs, packed)])


class Measured(Forecast):
    """A forecast that keeps account of what rank 0 does."""

    def __init__(self, plan: Plan, model: CoarseModel) -> None:
        super().__init__(plan, np.zeros_like(plan.batch_rows), model)
        self.busy_ns = 0
        self.begin_s = 0.0
        self.windows: Counter[int] = Counter()
        self.busy_windows_ns: Counter[int] = Counter()
        self.gigabytes_at_start = 0.0

    def begin(self) -> list[Action]:
        began_s = time.thread_time()
        actions = super().begin()
        for action in actions:
            _encode(action)
        self.begin_s = time.thread_time() - began_s
        self.gigabytes_at_start = _resident_gb()
        return actions

    def decide(self, rank: int, message: ToCoordinator) -> list[Action]:
        data = encode(message)  # what the sender does
        began_ns = time.thread_time_ns()
        actions = super().decide(rank, decode(data))  # type: ignore[arg-type]  # what a rank has sent goes up
        for action in actions:
            _encode(action)
        took_ns = time.thread_time_ns() - began_ns
        self.busy_ns += took_ns
        window = int(self.now // WINDOW_S)
        self.windows[window] += 1
        self.busy_windows_ns[window] += took_ns
        return actions


def _encode(action: Action) -> None:
    """Encode what the action sends, as the mailbox does."""
    match action:
        case Send(_, message):
            encode(message)
        case Scatter(assigns):
            for assign in assigns.values():
                encode(assign)


def _resident_gb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def main(argv: list[str]) -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate_scale", description=__doc__)
    parser.add_argument("--ranks", type=int, default=10_000)
    parser.add_argument("--servers", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000_000)
    parser.add_argument("--checkpoint-interval-s", type=float, default=600.0, help="a run of half a day (default 600)")
    options = parser.parse_args(argv)
    plan = make_plan(Sizes(options.servers, options.rows), options.ranks)
    interval_s = report_interval_s(options.ranks)
    model = CoarseModel(report_interval_s=interval_s, close_interval_s=options.checkpoint_interval_s / 2)
    run = Measured(plan, model)
    print(
        f"plan: {len(plan.batch_rows):,} batches, {len(plan.group_names):,} groups, {_resident_gb():.2f} GB", flush=True
    )
    makespan_s = run.run()
    work_s = float(plan.batch_rows.sum()) * CPU_PER_ROW_S / options.ranks
    bound_s = max(lower_bound_s(plan, plan.batch_rows)[0], work_s)
    figures = {
        "ratio": round(makespan_s / bound_s, 4),
        "steals_per_rank": round(run.ledger.stealing.steals / options.ranks, 3),
        "messages_per_s": round(run.messages / makespan_s, 1),
        "us_per_message": round(run.busy_ns / run.messages / 1000, 1),
        "rank0_gb": round(run.gigabytes_at_start, 2),
        "rank0_busy": round(run.busy_ns / 1e9 / makespan_s, 4),
        "seconds": round(time.process_time(), 1),
        "peak_messages_per_s": round(max(run.windows.values()) / WINDOW_S),
        "peak_busy": round(max(run.busy_windows_ns.values()) / 1e9 / WINDOW_S, 3),
        "begin_s": round(run.begin_s, 1),
        "makespan_s": round(makespan_s),
        "messages": run.messages,
        "all_gb": round(_resident_gb(), 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
