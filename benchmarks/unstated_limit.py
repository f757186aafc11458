"""What ddmpi makes of servers that state no limit: ``python -m benchmarks.unstated_limit``.

Six servers of a fleet answer 429 above 20 requests/s, which nobody has told ddmpi (config: limit 0). After a while they
allow 5/s, and later 40/s. They differ in latency and in how many requests they take at once (a second's worth, or 3),
and one pair sends Retry-After. Two ranks download from them. All figures come from the fleet's log. The last line is
JSON; of each limit, over the time from ``--settle`` seconds (60) after it began to hold until the next one holds:

- ``share``: [least, highest] over the servers of the requests that were let through, over what the limit allows;
- ``answers_429``: [least, highest] over the servers of the share of answers that were 429.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.fleet.log import Event, EventKind, read_log
from tests.fleet.process import running_fleet
from tests.fleet.spec import ServerSpec
from tests.whole.job import make_job

LIMITS_PER_S: Final = (20.0, 5.0, 40.0)
MOST_ROWS_PER_S: Final = 60
"""Rows of each server per second of the run: more than it can be asked for."""
RUN_TIMEOUT_S: Final = 60.0
RANKS: Final = 3


def make_specs(phase_s: float) -> list[ServerSpec]:
    """The servers."""
    later = tuple((phase_s * number, limit) for number, limit in enumerate(LIMITS_PER_S) if number)
    kinds = [(0.005, 0, 0), (0.005, 3, 0), (0.02, 0, 0), (0.15, 3, 0), (0.02, 0, 2), (0.15, 3, 2)]
    return [
        ServerSpec(
            f"127.62.0.{number}",
            latency_s=latency_s,
            rate_limit_per_s=LIMITS_PER_S[0],
            burst=burst,
            retry_after_s=retry_after_s,
            later_limits=later,
        )
        for number, (latency_s, burst, retry_after_s) in enumerate(kinds, start=1)
    ]


def seen(requests: Sequence[Event], begin_s: float, end_s: float, limit_per_s: float) -> tuple[float, float]:
    """Of one server in this span: requests let through over what the limit allows, and the share of answers 429."""
    within = [event for event in requests if begin_s <= event.time_s < end_s]
    passed = sum(not event.note for event in within)
    return passed / ((end_s - begin_s) * limit_per_s), 1 - passed / max(1, len(within))


def report(log: Sequence[Event], servers: Sequence[str], phase_s: float, settle_s: float) -> dict[str, object]:
    """The figures of each limit; those of each server are printed."""
    figures: dict[str, object] = {}
    for number, limit in enumerate(LIMITS_PER_S):
        found = []
        for server in servers:
            requests = [event for event in log if event.kind is EventKind.REQUEST and event.server == server]
            begun_at = requests[0].time_s + number * phase_s
            found.append(seen(requests, begun_at + settle_s, begun_at + phase_s, limit))
            share, throttled = found[-1]
            whole = seen(requests, begun_at, begun_at + phase_s, limit)[1]
            print(f"{limit:g}/s, {server}: {share * limit:.1f}/s, {throttled:.2%} answers 429 ({whole:.2%} of all)")
        shares, throttles = zip(*found, strict=True)
        figures[f"{limit:g}/s"] = {
            "share": [round(min(shares), 3), round(max(shares), 3)],
            "answers_429": [round(min(throttles), 4), round(max(throttles), 4)],
        }
    return figures


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unstated_limit", description=__doc__.partition("\n")[0])
    parser.add_argument("--phase", type=float, default=110.0, metavar="S", help="how long each limit holds")
    parser.add_argument("--settle", type=float, default=60.0, metavar="S", help="how long ddmpi may take to find it")
    options = parser.parse_args(argv)
    specs = make_specs(options.phase)
    length_s = options.phase * len(LIMITS_PER_S)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_fleet(folder / "fleet", specs, round(length_s * MOST_ROWS_PER_S * len(specs))) as fleet:
            # The pauses of the default config, not those of the tests.
            job = make_job(folder / "job", fleet.table_path, backoff={}, breaker={}, checkpoint_interval_s=10)
            process = job.start(RANKS)
            try:
                while not any(event.kind is EventKind.REQUEST for event in read_log(fleet.log_path)):
                    time.sleep(0.1)
                time.sleep(length_s + 2)
                process.send_signal(signal.SIGTERM)
                printed, _ = process.communicate(timeout=RUN_TIMEOUT_S)
            finally:
                job.close()
            print(printed[-500:])
            servers = [spec.name(fleet.port) for spec in specs]
            figures = report(fleet.finished_log(), servers, options.phase, options.settle)
    print(json.dumps({**figures, "load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main(sys.argv[1:])
