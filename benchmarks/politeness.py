"""Does every server get what it allows, and no more? ``python -m benchmarks.politeness``.

60 servers with limits from 1 to 200 requests/s, half nginx (``limit_req``) and half of a fleet, and one of 600/s
whose limit is split over ranks, are downloaded by 4 ranks. Six of the servers redirect to others. After a third of the
time the run is stopped softly and goes on with 3 ranks; after another third a rank is killed, which ends all of them,
and 4 ranks do the rest. Then ("tight") 4 ranks that may have six connections each download a sixth of the rows, so that
servers wait for their turn and are stolen by who is free first: how much of its limit a server gets does not count
there. All figures come from the servers' own logs; the last line is JSON:

- ``violations``: windows of 1, 10 and 60 s, beginning at any request, in which a server got more requests than
  ``limit * seconds + max(1, limit / 10)``;
- ``utilisation_min``, ``utilisation_median``: over the servers, requests / (limit * seconds) while rows of the server
  were left: in each run from the first request that any server got (in the first run: after profiling) until the last
  of the server's own rows was asked for, or the run was told to stop. So what a start or restart costs one server while
  others are asked already is in it; the seconds without any request (``restart_s``) are not;
- ``answers_429``: of the servers' limiters, whose bucket holds one request more than ``max(1, limit / 10)``;
- ``steals``: lanes, or parts of lanes, that went from one rank to another: in the first part all lanes start at once,
  and there is nothing to steal.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from benchmarks.polite_web import Arrival, Server, Web, burst_of, make_servers, running_web
from ddmpi.io.folder.stats_files import read_audit
from tests.whole.job import Job, make_job, outcomes, ranks_of

WINDOWS_S: Final = (1.0, 10.0, 60.0)
RUN_TIMEOUT_S: Final = 300.0
START_TIMEOUT_S: Final = 60.0
TIGHT_CONNECTIONS: Final = 6
"""Of each rank, where servers wait for their turn."""
POLL_S: Final = 0.05


@dataclass(frozen=True)
class Span:
    """From the first request of a run, after profiling, until it was told to stop (inf: it ended by itself)."""

    begin_s: float
    end_s: float


@dataclass(frozen=True)
class Excess:
    """A window that holds more requests than it may."""

    begin_s: float
    window_s: float
    requests: int


def violations(arrivals: Sequence[Arrival], limit_per_s: float) -> list[Excess]:
    """All such windows."""
    times = [arrival.time_s for arrival in arrivals]
    found = []
    for window_s in WINDOWS_S:
        most = limit_per_s * window_s + burst_of(limit_per_s)
        for index, time_s in enumerate(times):
            count = bisect_left(times, time_s + window_s) - index
            if count > most:
                found.append(Excess(time_s, window_s, count))
    return found


def utilisation(
    arrivals: Sequence[Arrival], own_paths: frozenset[str], limit_per_s: float, runs: Sequence[Span]
) -> float:
    """Requests over what the limit allowed while rows of the server were left."""
    own_end_s = max(_first_times(arrivals, own_paths).values())
    requests, allowed = 0, 0.0
    for run in runs:
        end_s = min(run.end_s, own_end_s)
        if end_s > run.begin_s:
            requests += sum(run.begin_s <= arrival.time_s <= end_s for arrival in arrivals)
            allowed += limit_per_s * (end_s - run.begin_s)
    return requests / allowed


def _first_times(arrivals: Sequence[Arrival], own_paths: frozenset[str]) -> dict[str, float]:
    """When each of the server's own rows was asked for first."""
    times: dict[str, float] = {}
    for arrival in arrivals:
        if arrival.path in own_paths:
            times.setdefault(arrival.path, arrival.time_s)
    return times


class Runs:
    """The three runs over one output folder."""

    def __init__(self, job: Job, web: Web) -> None:
        self.steals = 0
        self.job = job
        self._web = web
        self._stops: list[tuple[float, float]] = []

    @property
    def audit_path(self) -> Path:
        """What ddmpi says that it has sent."""
        return self.job.output / "logs" / "politeness.csv"

    def stopped(self, ranks: int, after_s: float, number: signal.Signals) -> None:
        """Run for so long, then send the signal: to all ranks, or SIGKILL to one of them."""
        started_at = time.monotonic()
        process = self.job.start(ranks)
        self._await_schedule(started_at)
        begun_at = time.monotonic()
        while time.monotonic() < begun_at + after_s:
            if process.poll() is not None:
                raise RuntimeError(f"the run ended too early:\n{process.communicate()[0][-3000:]}")
            time.sleep(POLL_S)
        stopped_at = time.monotonic()
        if number is signal.SIGKILL:
            os.kill(ranks_of(process)[-1], number)
        else:
            process.send_signal(number)
        printed, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        self._note(begun_at if not self._stops else started_at, stopped_at, printed)

    def last(self, ranks: int) -> None:
        """Run to the end. Raises RuntimeError where rows are left."""
        started_at = time.monotonic()
        printed, _ = (process := self.job.start(ranks)).communicate(timeout=RUN_TIMEOUT_S)
        if process.returncode:
            raise RuntimeError(f"the last run ended with {process.returncode}:\n{printed[-3000:]}")
        self._note(started_at, float("inf"), printed)

    def _await_schedule(self, started_at: float) -> None:
        """Wait for the schedule that a run writes when profiling is over."""
        schedules = self.job.output / "schedules"
        begun_at = time.time()
        while not any(path.stat().st_mtime > begun_at - POLL_S for path in schedules.glob("*/schedule.csv")):
            if time.monotonic() > started_at + START_TIMEOUT_S:
                raise TimeoutError("no schedule was written")
            time.sleep(POLL_S / 5)

    def _note(self, begun_at: float, stopped_at: float, printed: str) -> None:
        print(printed[-600:], flush=True)
        self._stops.append((begun_at, stopped_at))
        logs = "".join(path.read_text(errors="replace") for path in (self.job.output / "logs").glob("*.log"))
        self.steals = sum(int(count) for count in re.findall(r"(\d+) steals", logs))

    def spans(self, arrivals: Mapping[str, Sequence[Arrival]]) -> list[Span]:
        """The runs, each from the first request that any server got."""
        times = sorted(arrival.time_s for each in arrivals.values() for arrival in each)
        return [Span(times[bisect_left(times, begun_at)], stopped_at) for begun_at, stopped_at in self._stops]

    def restart_s(self, arrivals: Mapping[str, Sequence[Arrival]]) -> list[float]:
        """Seconds from each stop to the next request that any server got."""
        spans = self.spans(arrivals)
        return [after.begin_s - before.end_s for before, after in pairwise(spans)]


def report(web: Web, runs: Runs) -> dict[str, object]:
    """The figures; those of each server are printed."""
    arrivals = web.arrivals()
    spans = runs.spans(arrivals)
    audited = read_audit(runs.audit_path)
    used: dict[Server, float] = {}
    count = throttled = 0
    for server in web.servers:
        own = arrivals[server.address]
        found = violations(own, server.limit_per_s)
        used[server] = utilisation(own, web.own_paths[server.address], server.limit_per_s, spans)
        refused = sum(arrival.status == 429 for arrival in own)
        count += len(found)
        throttled += refused
        kind = "nginx" if server.is_nginx else "fleet"
        print(
            f"{server.address} {kind} {server.limit_per_s}/s: {len(own)} requests, {used[server]:.3f} of the limit, "
            f"{refused} answers 429, sent in the busiest second {audited[web.name(server)].highest_1s}"
            f"{f', redirects to {server.target}' if server.target else ''}"
        )
        for when in [arrival.time_s for arrival in own if arrival.status == 429]:
            print(f"    429 {min(when - span.begin_s for span in spans if span.begin_s <= when):.2f} s after a start")
        for excess in found[:3]:
            after_s = min(excess.begin_s - span.begin_s for span in spans if span.begin_s <= excess.begin_s)
            print(f"    {excess.requests} in {excess.window_s:g} s, {after_s:.2f} s after a start")
    rows, counts = sum(server.rows for server in web.servers), outcomes(runs.job)
    return {
        "violations": count,
        "utilisation_min": round(min(used.values()), 4),
        "utilisation_median": round(statistics.median(used.values()), 4),
        "answers_429": throttled,
        "requests": sum(map(len, arrivals.values())),
        "steals": runs.steals,
        "restart_s": [round(seconds, 1) for seconds in runs.restart_s(arrivals)],
        "unaccounted": abs(rows - len(counts)) + sum(number - 1 for number in counts.values()),
    }


def restarted(folder: Path, servers: Sequence[Server], part_s: float) -> dict[str, object]:
    """Three runs, of which the first two are ended after so many seconds."""
    with running_web(folder / "web", servers) as web:
        job = _job(folder / "job", web, connections_per_rank=1024)
        runs = Runs(job, web)
        try:
            runs.stopped(4, part_s, signal.SIGTERM)
            runs.stopped(3, part_s, signal.SIGKILL)
            runs.last(4)
        finally:
            job.close()
        return report(web, runs)


def tight(folder: Path, servers: Sequence[Server]) -> dict[str, object]:
    """One run whose ranks may have so few connections that servers wait for their turn, and go to who is free first."""
    with running_web(folder / "web", servers) as web:
        job = _job(folder / "job", web, connections_per_rank=TIGHT_CONNECTIONS)
        runs = Runs(job, web)
        try:
            runs.last(4)
        finally:
            job.close()
        figures = report(web, runs)
    return {key: figures[key] for key in ("violations", "answers_429", "requests", "steals", "unaccounted")}


def _job(folder: Path, web: Web, connections_per_rank: int) -> Job:
    return make_job(
        folder,
        web.table,
        downloader_parameters={
            "batch_size": 1000,
            "connections_per_rank": connections_per_rank,
            "max_attempts": 10,
        },
        servers=web.rules(),
        profiling={"samples_per_server": 3, "min_rows": 20},
        schedule_rules={1: 1, 20: 3},
        checkpoint_interval_s=5,
    )


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.politeness", description=__doc__.partition("\n")[0])
    parser.add_argument("--servers", type=int, default=60)
    parser.add_argument("--work", type=float, default=100.0, metavar="S", help="seconds of rows of the longest server")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        figures = restarted(Path(name) / "restarted", make_servers(options.servers, options.work), options.work / 3)
        figures["tight"] = tight(Path(name) / "tight", make_servers(options.servers, options.work / 6))
    print(json.dumps({**figures, "load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main(sys.argv[1:])
