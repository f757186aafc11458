"""How close to the least possible time a run ends: ``python -m benchmarks.makespan``.

200 servers of the fleet, with sizes by a Zipf law, limits from 2 to 500 requests/s (lognormal around what grows with
the size; every tenth server has none) and latencies from 1 to 500 ms, are downloaded by four ranks, of which three
download. No schedule ends before the slowest server: its rows over what its limit, or its eight connections at its
latency, let through. Then the same job again, while one rank is stopped (SIGSTOP) for 15 s.

What a stopped rank has begun waits with it: its servers may be asked by nobody else, as nobody knows what it has in
flight. So the rank is stopped that has the most time to spare, and ``--stop-slowest`` shows the other case, the rank
that holds the slowest server: there the least possible time is longer by these 15 s.

All times are from the start of mpiexec to its exit, profiling, verification and report included. The JSON line last:

- ``lower_bound_s``, ``makespan_s``, ``ratio``; ``stopped_ratio``: the same with a rank that is stopped;
- ``download_ratio``: without start, profiling and end (from the schedule to the last answer);
- ``without_stealing_ratio``: the same ledger and schedule simulated, where no rank ever asks for work, beside
  ``simulated_ratio`` where they do; ``one_at_a_time_ratio``: a static list per rank, worked off server by server, as
  distributed-downloader does;
- ``plan_s``: what ``--plan --ranks 4`` predicts once the servers are profiled.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.csv as pa_csv

from benchmarks.processes import numbers_of
from ddmpi.config import config as config_module
from ddmpi.core.forecast.coarse_rank import CoarseModel
from ddmpi.core.forecast.forecast import Forecast
from ddmpi.core.ledger.schedule import LeastLoaded
from ddmpi.io.folder.checkpoint import load
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.profiles import read_profiles
from ddmpi.io.urls.batch_table import BatchTable, limits_by_group, make_plan
from ddmpi.roles.coordinator.forecast import predict_run
from tests.fleet.log import NOTE_LIMITED, Event, EventKind, most_connections
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import ServerSpec, plain_address
from tests.whole.job import Job, assert_every_row_once, make_job, ranks_of, wait_until

RANKS: Final = 4
SERVERS: Final = 200
BOUND_S: Final = 60.0
CONNECTIONS: Final = 8
"""To each server, the default."""
RATES: Final = (2.0, 500.0)
LATENCIES_S: Final = (0.001, 0.5)
TYPICAL_RATE: Final = 25.0
UNLIMITED_SHARE: Final = 0.1
SEED: Final = 2
STOP_AFTER_S: Final = 15.0
STOP_S: Final = 15.0
RUN_TIMEOUT_S: Final = 200.0


@dataclass(frozen=True)
class Work:
    """The servers, and what they have to do at least."""

    specs: list[ServerSpec]
    rows: int
    times_s: dict[str, float]
    """By address: rows over what the limits let through."""

    @property
    def bound_s(self) -> float:
        return max(self.times_s.values())


def make_work(bound_s: float) -> Work:
    """As many rows as make the slowest server take ``bound_s``."""
    rng = np.random.default_rng(SEED)
    shares = 1.0 / np.arange(1, SERVERS + 1)
    shares /= shares.sum()
    rates = np.clip(TYPICAL_RATE * rng.lognormal(0.0, 0.7, SERVERS) * shares * SERVERS, *RATES)
    latencies = np.exp(rng.uniform(np.log(LATENCIES_S[0]), np.log(LATENCIES_S[1]), SERVERS))
    limited = rng.random(SERVERS) >= UNLIMITED_SHARE
    through = np.minimum(np.where(limited, rates, np.inf), CONNECTIONS / latencies)
    rows = int(bound_s / (shares / through).max())
    specs = [
        ServerSpec(
            plain_address(index),
            latency_s=round(float(latencies[index]), 4),
            rate_limit_per_s=round(float(rates[index]), 1) if limited[index] else 0.0,
            row_weight=float(shares[index]),
        )
        for index in range(SERVERS)
    ]
    times = {spec.address: spec.row_weight * rows / float(rate) for spec, rate in zip(specs, through, strict=True)}
    return Work(specs, rows, times)


@dataclass(frozen=True)
class Run:
    """One run that ended well."""

    makespan_s: float
    download_s: float
    """From the schedule to the last answer."""
    stopped_bound_s: float
    """The least time where a rank was stopped: what that one held waits for as long."""


def run(folder: Path, work: Work, *, stop: str = "") -> tuple[Run, dict[str, float]]:
    """A run over its own fleet, checked for politeness and accounting, and what is said of it beforehand.

    ``stop`` is "" for no rank, "spare" for the one with the most time to spare, "slowest" for the one that holds the
    slowest server. Raises RuntimeError where the run fails, AssertionError where it breaks a law.
    """
    with running_fleet(folder / "fleet", work.specs, work.rows) as fleet:
        job = make_job(folder, fleet.table_path, **_config(fleet))
        began_s = time.monotonic()
        process = job.start(RANKS)
        bound_s = work.bound_s
        try:
            if stop:
                wait_until((job.output / "profiles.csv").exists, process)  # all servers are in the schedules
                bound_s = _stop_one(
                    work, _held_by(job), numbers_of(ranks_of(process)), began_s, slowest=stop == "slowest"
                )
            printed, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        finally:
            job.close()
        makespan_s = time.monotonic() - began_s
        print(printed[-1200:], flush=True)
        if process.returncode:
            raise RuntimeError(f"the run ended with {process.returncode}")
        log = fleet.finished_log()
        assert_every_row_once(job, work.rows)
        _check_politeness(log, [spec.name(fleet.port) for spec in work.specs])
    scheduled_s = scheduled_at(job)
    last_s = max(event.time_s for event in log if event.kind is EventKind.ANSWER)
    print(
        f"scheduled after {scheduled_s - began_s:.2f} s, last answer {last_s - began_s:.2f} s, end {makespan_s:.2f} s"
    )
    return Run(makespan_s, last_s - scheduled_s, bound_s), predictions(job, work)


def _check_politeness(log: Sequence[Event], servers: Sequence[str]) -> None:
    """By what the servers themselves count: a full machine bunches arrivals, and that is nobody's impoliteness."""
    refused = sum(event.note == NOTE_LIMITED for event in log)
    assert refused == 0, f"{refused} requests above a server's limit"
    opened = Counter(event.server for event in log if event.kind is EventKind.OPEN)
    for server in servers:
        # Most servers never saw more connections than that: only the others need the long look.
        assert opened[server] <= CONNECTIONS or most_connections(log, server) <= CONNECTIONS, server


def _config(fleet: RunningFleet) -> dict[str, Any]:
    """Each limit as a rule, and the defaults for all else."""
    rules = [
        {"match": spec.name(fleet.port), "rate_limit": spec.rate_limit_per_s}
        for spec in fleet.specs
        if spec.rate_limit_per_s
    ]
    return {
        "downloader_parameters": {"max_connections_per_server": CONNECTIONS, "batch_size": 10_000},
        "servers": rules,
        "profiling": {"samples_per_server": 3, "min_rows": 50},
        "checkpoint_interval_s": 60,
    }


def scheduled_at(job: Job) -> float:
    """When the download stage of the job's last run began, in seconds of the fleet's clock."""
    checkpoint, _ = load(_layout(job))
    assert checkpoint is not None
    return float(checkpoint.stages["downloading"]["began_at"]) + time.monotonic() - time.time()


def _layout(job: Job) -> Layout:
    config = config_module.load(job.folder / "config.yaml")
    return Layout(job.output, config.output_structure)


# ---- a rank that is stopped


def _held_by(job: Job) -> dict[str, int]:
    """The rank that holds each server (by address), as far as the download is scheduled."""
    held_by = {}
    for path in sorted((job.output / "schedules").glob("*/schedule.csv")):
        rows: list[dict[str, Any]] = pa_csv.read_csv(path).to_pylist()
        held_by.update({row["server_name"].partition(":")[0]: row["rank"] for row in rows})
    return held_by


def _stop_one(work: Work, held_by: dict[str, int], ranks: dict[int, int], began_s: float, *, slowest: bool) -> float:
    """Stop one of the ranks for a while; the least possible time of the run is then what is returned."""
    ends_s = dict.fromkeys(held_by.values(), 0.0)
    for address, time_s in work.times_s.items():
        rank = held_by.get(address)
        if rank is not None:
            ends_s[rank] = max(ends_s[rank], time_s)
    chosen = (max if slowest else min)(ends_s, key=ends_s.__getitem__)
    (pid,) = (pid for pid, number in ranks.items() if number == chosen)
    time.sleep(max(0.0, began_s + STOP_AFTER_S - time.monotonic()))
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(STOP_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    print(
        f"rank {chosen} was stopped for {STOP_S:.0f} s; its servers need {ends_s[chosen]:.1f} s of {work.bound_s:.1f} s"
    )
    return max(work.bound_s, ends_s[chosen] + STOP_S)


# ---- what is said of it beforehand


def predictions(job: Job, work: Work) -> dict[str, float]:
    """Of the whole job, by what a finished run has left in its folder: seconds, and ratios to the lower bound."""
    config = config_module.load(job.folder / "config.yaml")
    layout = _layout(job)
    table = BatchTable(layout)
    profiles = read_profiles(layout.profiles)
    plan = make_plan(
        table, config, rows=table.rows, profiles=profiles, limits=limits_by_group(config, profiles), ref=table.ref,
        workers=range(1, RANKS),
    )  # fmt: skip
    nothing_done = np.zeros_like(table.rows)
    static_s = Forecast(plan, nothing_done, CoarseModel(steals=False)).run()
    stealing_s = Forecast(plan, nothing_done, CoarseModel()).run()
    lists = LeastLoaded(dict.fromkeys(range(1, RANKS), 0.0))
    loads = dict.fromkeys(range(1, RANKS), 0.0)
    for time_s in sorted(work.times_s.values(), reverse=True):
        loads[lists.take(time_s)] += time_s
    return {
        "without_stealing_ratio": static_s / work.bound_s,
        "simulated_ratio": stealing_s / work.bound_s,
        "one_at_a_time_ratio": max(loads.values()) / work.bound_s,
        "plan_s": predict_run(config, table, table.rows, profiles, RANKS - 1).makespan_s,
        "unprofiled_plan_s": predict_run(config, table, table.rows, {}, RANKS - 1).makespan_s,
    }


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.makespan", description=__doc__.partition("\n")[0])
    parser.add_argument("--bound", type=float, default=BOUND_S, help="seconds that the slowest server needs")
    parser.add_argument("--stop-slowest", action="store_true", help="stop the rank that holds the slowest server")
    parser.add_argument("--only-plain", action="store_true", help="leave out the run with a stopped rank")
    options = parser.parse_args(argv)
    work = make_work(options.bound)
    print(f"{work.rows:,} rows, bound {work.bound_s:.1f} s", flush=True)
    with tempfile.TemporaryDirectory() as name:
        plain, predicted = run(Path(name) / "plain", work)
        figures = {
            "lower_bound_s": work.bound_s,
            "makespan_s": plain.makespan_s,
            "ratio": plain.makespan_s / work.bound_s,
            "download_ratio": plain.download_s / work.bound_s,
            **predicted,
            "plan_error": predicted["plan_s"] / plain.makespan_s - 1,
        }
        if not options.only_plain:
            stopped, _ = run(Path(name) / "stopped", work, stop="slowest" if options.stop_slowest else "spare")
            figures["stopped_ratio"] = stopped.makespan_s / work.bound_s
            figures["stopped_over_its_bound"] = stopped.makespan_s / stopped.stopped_bound_s
    figures["load"] = os.getloadavg()[0]
    print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


if __name__ == "__main__":
    main(sys.argv[1:])
