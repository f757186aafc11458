"""What a bad URL or host costs the others: ``python -m benchmarks.isolation``.

Each case is one job that is run twice by two ranks, with its bad part and without it, by the pauses of the default
config unless the case says otherwise. A host or URL that answers costs its requests in any case, so without the bad
part its rows are answered as all others; rows of a host that does not answer are left out then. One limit of
``RATE_PER_S`` for all hosts of a case decides how long it takes. The last line is JSON; of each case:

- ``healthy_fetched``: share of the healthy rows that are successes; 1.0 is wanted;
- ``time_ratio``: the time from the first request until the last healthy row was fetched, with the bad part over without
  it; at most 1.10 is wanted. null where healthy rows were not fetched. ``healthy_s`` and ``job_s``: these times, and
  those of the whole commands, [with, without];
- ``bad_errors``: share of the bad rows that are errors with their true reason; of ``slow_host``, whose rows are there
  to be fetched, ``bad_fetched``: those that are successes. 1.0 is wanted;
- ``exit_code`` with the bad part: 0 is wanted. A run that takes longer than ``--timeout`` is stopped: ``timed_out``;
- ``requests_to_bad``: requests for bad rows, by the audit where their host has no log.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.io.folder.stats_files import read_audit
from tests.fleet.log import EventKind
from tests.fleet.process import running_fleet
from tests.fleet.spec import Mode, ServerSpec
from tests.fleet.table import path_of
from tests.whole.job import Job, make_job, rows_of

RANKS: Final = 2
RATE_PER_S: Final = 50.0
CONNECTIONS: Final = 32
"""Of all hosts of a case: more than a slow one needs for its own rows."""
STOP_TIMEOUT_S: Final = 40.0
BAD: Final = "/bad"
"""How the paths of bad rows begin."""
ACCESS_DENIED: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
)
"""What S3 says of a key that is missing to who may not list the bucket."""
HOSTS: Final = "127.70.0"
FETCHED: Final = "fetched"
ERROR_COLUMNS: Final = ("error_kind", "error_code", "fetched_at")


def _first(share: float) -> Callable[[int, int], bool]:
    return lambda row, rows: row < share * rows


def _spread(share: float) -> Callable[[int, int], bool]:
    return lambda row, _: row % round(1 / share) == 0


def _consecutive(share: float) -> Callable[[int, int], bool]:
    return lambda row, rows: 0.2 * rows <= row < (0.2 + share) * rows


@dataclass(frozen=True)
class Case:
    """A job with a bad part: the rows for which ``is_bad`` says so, given their number and that of all."""

    is_bad: Callable[[int, int], bool]
    bad: ServerSpec
    """The server of the bad rows; one that refuses some paths has the healthy rows too."""
    ends: frozenset[str]
    """How bad rows end truly: FETCHED, the status that was the answer, or another kind of errors."""
    others: tuple[ServerSpec, ...] = ()
    stall_timeout_s: float = 40.0
    has_short_pauses: bool = False
    """So that a host which does not answer is given up soon."""

    @property
    def healthy(self) -> tuple[ServerSpec, ...]:
        """The servers of the healthy rows."""
        return self.others or (self.bad,)

    @property
    def is_silent(self) -> bool:
        """Whether bad rows get no answer."""
        return self.bad.mode is not Mode.OK

    @property
    def mended(self) -> Case:
        """The same job, whose bad rows are answered as all others where they are answered."""
        return replace(self, bad=replace(self.bad, latency_s=0.0, refused_prefix=""))


def _refusing(status: int, retry_after_s: int = 0, body: str = "") -> ServerSpec:
    return ServerSpec(
        f"{HOSTS}.1", refused_prefix=BAD, refused_status=status, refused_retry_after_s=retry_after_s, refused_body=body
    )


GROUP: Final = tuple(ServerSpec(f"{HOSTS}.{number}") for number in (2, 3, 4))
DEAD: Final = ServerSpec(f"{HOSTS}.1", mode=Mode.REFUSED)
SILENT: Final = ServerSpec(f"{HOSTS}.1", mode=Mode.BLACKHOLE)
CASES: Final = {
    "group_half_dead": Case(_first(0.3), DEAD, frozenset({"unreachable"}), GROUP, has_short_pauses=True),
    "group_half_silent": Case(
        _first(0.3), SILENT, frozenset({"stalled", "timeout", "unreachable"}), GROUP,
        stall_timeout_s=3.0, has_short_pauses=True,
    ),
    "url_429": Case(_spread(0.05), _refusing(429), frozenset({"429"})),
    "url_429_retry_after": Case(_spread(0.05), _refusing(429, 2), frozenset({"429"})),
    "bucket_403": Case(_first(0.3), _refusing(403, body=ACCESS_DENIED), frozenset({"403"})),
    "bucket_403_no_body": Case(_first(0.3), _refusing(403), frozenset({"403"})),
    "slow_host": Case(_spread(0.05), ServerSpec(f"{HOSTS}.1", latency_s=20.0), frozenset({FETCHED}), GROUP),
    "poisoned_cdn": Case(_consecutive(0.2), _refusing(429), frozenset({"429"})),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What one run showed."""

    job_s: float
    healthy_s: float
    """From the first request until the last healthy row was fetched."""
    healthy_fetched: float
    bad_right: float
    """Share of the bad rows that ended as they should."""
    requests_to_bad: int
    exit_code: int
    timed_out: bool


def measure(folder: Path, case: Case, bad_rows: Sequence[bool], timeout_s: float) -> Run:
    """Run the job of the case over a row for each of ``bad_rows``, which says whether it is bad."""
    folder.mkdir()
    table = folder / "urls.parquet"
    with running_fleet(folder / "fleet", [*case.others, case.bad]) as fleet:
        urls = [
            case.bad.url(fleet.port, BAD + path_of(row))
            if is_bad
            else case.healthy[row % len(case.healthy)].url(fleet.port, path_of(row))
            for row, is_bad in enumerate(bad_rows)
        ]
        pq.write_table(pa.table({"identifier": urls}), table)
        job = make_job(folder / "job", table, **_config(case))
        started_at = time.monotonic()
        process = job.start(RANKS)
        try:
            printed, timed_out = _finish(process, timeout_s)
        finally:
            job.close()
        job_s = time.monotonic() - started_at
        log = fleet.finished_log()
    print(printed[-900:], flush=True)
    healthy, bad = _right(job, case, bad_rows)
    asked = [event for event in log if event.kind is EventKind.REQUEST]
    begun_at = min((event.time_s for event in asked), default=0.0)
    fetched = (event.time_s for event in log if event.status == 200 and not event.path.startswith(BAD))
    started = sum(audited.requests for audited in read_audit(job.output / "logs/politeness.csv").values())
    return Run(
        job_s=job_s,
        healthy_s=max(fetched, default=begun_at) - begun_at,
        healthy_fetched=healthy,
        bad_right=bad,
        requests_to_bad=started - sum(not event.path.startswith(BAD) for event in asked),
        exit_code=process.returncode,
        timed_out=timed_out,
    )


def _config(case: Case) -> dict[str, Any]:
    parameters = {
        "connect_timeout_s": 10,
        "stall_timeout_s": case.stall_timeout_s,
        "total_timeout_s": 120,
        "max_attempts": 5,
    }
    rule = {"match": f"{HOSTS}.*", "rate_limit": RATE_PER_S, "max_connections": CONNECTIONS}
    return {
        "downloader_parameters": parameters,
        "servers": [{**rule, "group": "hosts"} if case.others else rule],
        "profiling": {},
        "backoff": {"base_s": 1, "cap_s": 4} if case.has_short_pauses else {},
        "breaker": {},
        "checkpoint_interval_s": 5,
    }


def _finish(process: subprocess.Popen[str], timeout_s: float) -> tuple[str, bool]:
    """What the run printed, and whether it had to be stopped: softly, so that what it has fetched counts."""
    try:
        return process.communicate(timeout=timeout_s)[0], False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    try:
        return process.communicate(timeout=STOP_TIMEOUT_S)[0], True
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0], True


def _right(job: Job, case: Case, bad_rows: Sequence[bool]) -> tuple[float, float]:
    """Share of the healthy rows that are successes, and of the bad ones that ended as they should.

    A status is the true reason of no row that was not asked for.
    """
    ends: Counter[tuple[bool, str]] = Counter()
    for name, columns in (("images", ["row_number"]), ("errors", ["row_number", *ERROR_COLUMNS])):
        if any((job.output / name).rglob("*.parquet")):
            rows: list[dict[str, Any]] = rows_of(job.output / name, columns).to_pylist()
            ends.update((bad_rows[row["row_number"]], _end_of(row)) for row in rows)
    for (is_bad, end), count in sorted(ends.items()):
        print(f"{'bad' if is_bad else 'healthy'} rows, {end}: {count}")
    bad = sum(bad_rows)
    right = sum(ends[True, end] for end in case.ends)
    return ends[False, FETCHED] / (len(bad_rows) - bad), right / bad if bad else 1.0


def _end_of(row: dict[str, Any]) -> str:
    if "error_kind" not in row:
        return FETCHED
    kind, code, fetched_at = (row[name] for name in ERROR_COLUMNS)
    if code > 0:
        return str(code) if fetched_at is not None else f"{code}, not asked"
    return str(kind)


def report(case: Case, mixed: Run, alone: Run) -> dict[str, object]:
    """The figures of a case."""
    is_whole = mixed.healthy_fetched == alone.healthy_fetched == 1
    return {
        "healthy_fetched": round(mixed.healthy_fetched, 4),
        "time_ratio": round(mixed.healthy_s / alone.healthy_s, 3) if is_whole else None,
        "healthy_s": [round(mixed.healthy_s, 1), round(alone.healthy_s, 1)],
        "job_s": [round(mixed.job_s, 1), round(alone.job_s, 1)],
        "bad_fetched" if FETCHED in case.ends else "bad_errors": round(mixed.bad_right, 4),
        "exit_code": mixed.exit_code,
        "timed_out": mixed.timed_out,
        "requests_to_bad": mixed.requests_to_bad,
    }


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.isolation", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--rows", type=int, default=3000, help="of each case, bad ones included")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="S", help="of each run")
    options = parser.parse_args(argv)
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        for case_name in options.only:
            print(f"==== {case_name}", flush=True)
            case = CASES[case_name]
            bad_rows = [case.is_bad(row, options.rows) for row in range(options.rows)]
            folder = Path(name) / case_name
            folder.mkdir()
            mixed = measure(folder / "mixed", case, bad_rows, options.timeout)
            answered = [is_bad for is_bad in bad_rows if not (is_bad and case.is_silent)]
            alone = measure(folder / "alone", case.mended, answered, options.timeout)
            figures[case_name] = report(case, mixed, alone)
    print(json.dumps({**figures, "load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main(sys.argv[1:])
