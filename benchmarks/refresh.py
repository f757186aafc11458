"""A refresh of files that have not changed: ``python -m benchmarks.refresh``.

20,000 rows on 16 servers are downloaded, then asked for again, of a server (nginx) that answers 304 to each: by a
process of ddmpi; by one without anything but the same conditional requests (pycurl, the same limits and connections);
and by ddmpi once more, killed (SIGKILL) in the middle and started again. Once under a rate limit per server, which is
what users have, and once without any. The seconds of ddmpi are those of the whole command, from its start to its exit;
of the requests alone those from the first to the last. What was asked is counted in the server's own log; ``asking_s``
is from the first to the last line there, ``cpu_s`` the processor time, which does not depend on what else the machine
does.

Prints one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pycurl

import ddmpi
from benchmarks.processes import cache_bytecode, run
from benchmarks.web_server import SERVERS, WebServer, make_bodies, serving
from tests.whole.job import Job, make_job, wait_until

FILES: Final = 200
MEAN_BYTES: Final = 30_000
CONNECTIONS: Final = 8
"""To each server."""
MOST: Final = 1.1
WAIT_S: Final = 0.05
TIMEOUT_S: Final = 3_600.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns 0 if the limited refresh was as quick as it is to be, and nothing was asked for twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=10.0, help="requests per second for each of the 16 servers")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.alone is not None:
        print(json.dumps(ask(pq.read_table(given.alone).to_pylist(), given.rate)))
        return 0
    cache_bytecode()
    found: dict[str, Any] = {"rows": given.rows, "servers": SERVERS}
    for name, rate in (("limited", given.rate), ("unlimited", 0.0)):
        with tempfile.TemporaryDirectory(prefix="ddmpi-refresh-") as folder:
            found[name] = {"rate_per_server": rate, **measure(Path(folder), given.rows, rate)}
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    print(json.dumps({**found, "load": round(os.getloadavg()[0], 1)}))
    limited = found["limited"]
    whole = [found[name][how] for name in ("limited", "unlimited") for how in ("refresh", "alone")]
    is_exact = all(each["requests"] == given.rows and not each["body_bytes"] for each in whole)
    return 0 if limited["ratio"] <= MOST and is_exact else 1


def measure(folder: Path, rows: int, rate: float) -> dict[str, Any]:
    """What the three cost in one regime."""
    log = folder / "access.log"
    with serving(folder / "web", make_bodies(FILES, MEAN_BYTES), log=log) as web:
        job = _downloaded(folder, web, rows)
        job.config["downloader_parameters"]["default_rate_limit"] = rate
        known = ddmpi.open_results(job.output).to_table(columns=["final_url", "etag", "last_modified"])
        pq.write_table(known, folder / "known.parquet")
        refresh = _measured(log, lambda: _refresh(job))
        alone = _measured(log, lambda: _alone(folder, rate))
        killed = _measured(log, lambda: _refresh(job, log, rows))
        inspected, printed = job.inspect("--verify", "--rehash")
    if inspected:
        raise RuntimeError(printed)
    ratio = refresh["seconds"] / alone["seconds"]
    return {"refresh": refresh, "alone": alone, "ratio": round(ratio, 3), "killed": killed, "verified": printed.strip()}


def _downloaded(folder: Path, web: WebServer, rows: int) -> Job:
    """A job whose files are all there; without a limit, since this is not what is measured."""
    pq.write_table(pa.table({"identifier": web.urls(rows, SERVERS)}), folder / "urls.parquet")
    parameters = {"default_rate_limit": 0, "max_connections_per_server": CONNECTIONS, "batch_size": 10_000}
    job = make_job(
        folder / "job", folder / "urls.parquet", profiling={"mode": "uniform"}, downloader_parameters=parameters
    )
    _run(job)
    return job


def _run(job: Job) -> str:
    process = job.start(1)
    printed, _ = process.communicate(timeout=TIMEOUT_S)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}:\n{printed}")
    return printed


def _measured(log: Path, act: Any) -> dict[str, Any]:
    """What was asked meanwhile, and how long it took."""
    before, cpu_before_s = len(log.read_bytes().splitlines()), _cpu_s()
    seconds, told = act()
    lines = [line.split() for line in log.read_text().splitlines()[before:]]
    return {
        "seconds": round(seconds, 2),
        "cpu_s": round(_cpu_s() - cpu_before_s, 2),
        "asking_s": round(float(lines[-1][0]) - float(lines[0][0]), 2),
        "requests": len(lines),
        "body_bytes": sum(int(line[2]) for line in lines),
        "statuses": dict(Counter(line[1] for line in lines)),
        "twice": sum(count - 1 for count in Counter(line[3] for line in lines).values()),
        **told,
    }


def _cpu_s() -> float:
    """Processor time of the programs that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _refresh(job: Job, log: Path | None = None, rows: int = 0) -> tuple[float, dict[str, Any]]:
    """Ask for all files again; with ``log``, a process that is killed in the middle begins it."""
    job.config["refresh"] = {"older_than": datetime.now(timezone.utc).isoformat()}
    job.config["checkpoint_interval_s"] = 5
    started = time.monotonic()
    if log is not None:
        before = log.read_bytes().count(b"\n")
        process = job.start(1)
        wait_until(lambda: log.read_bytes().count(b"\n") - before >= rows // 2, process, timeout_s=TIMEOUT_S)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    printed = _run(job)
    seconds = time.monotonic() - started
    return seconds, {"told": next(line for line in printed.splitlines() if line.startswith("Refreshed: "))}


def _alone(folder: Path, rate: float) -> tuple[float, dict[str, Any]]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.refresh",
        "--alone",
        str(folder / "known.parquet"),
        "--rate",
        str(rate),
    ]
    ended = run(command, folder / "alone.txt", Path.cwd())
    return float(json.loads(ended.printed)["seconds"]), {}


def ask(known: Sequence[dict[str, str | None]], rate: float) -> dict[str, float]:
    """Ask whether each file has changed, each server at most ``rate`` times per second (0: no limit) over at most
    CONNECTIONS connections; how long that takes (s). Raises RuntimeError: an answer is not 304."""
    waiting: dict[str, deque[dict[str, str | None]]] = {}
    for file in known:
        waiting.setdefault(urlsplit(str(file["final_url"])).netloc, deque()).append(file)
    free = {server: [_handle() for _ in range(CONNECTIONS)] for server in waiting}
    multi = pycurl.CurlMulti()
    busy: dict[pycurl.Curl, str] = {}
    started = time.monotonic()
    due = dict.fromkeys(waiting, started)
    left = len(known)
    while left:
        now = time.monotonic()
        for server, files in waiting.items():
            while files and free[server] and due[server] <= now:
                curl, file = free[server].pop(), files.popleft()
                curl.setopt(pycurl.URL, str(file["final_url"]))
                lines = [f"If-None-Match: {file['etag']}", f"If-Modified-Since: {file['last_modified']}"]
                curl.setopt(pycurl.HTTPHEADER, lines)
                busy[curl] = server
                multi.add_handle(curl)
                due[server] = max(due[server], now - WAIT_S) + 1 / rate if rate else now
        multi.perform()
        more = 1
        while more:
            more, done, failed = multi.info_read()
            for curl in done:
                if failed or curl.getinfo(pycurl.RESPONSE_CODE) != 304:
                    raise RuntimeError(f"{curl.getinfo(pycurl.RESPONSE_CODE)} {failed}")
                multi.remove_handle(curl)
                free[busy.pop(curl)].append(curl)
                left -= 1
        if left:
            wake_at = min((due[server] for server, files in waiting.items() if files and free[server]), default=now + 1)
            wait_s = max(0.0, min(WAIT_S, wake_at - time.monotonic()))
            if multi.select(wait_s) < 0:  # nothing is in flight, so there is nothing to wait for but the time
                time.sleep(wait_s)
    return {"seconds": time.monotonic() - started}


def _handle() -> pycurl.Curl:
    curl = pycurl.Curl()
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.TCP_NODELAY, 1)
    curl.setopt(pycurl.WRITEFUNCTION, len)
    return curl


if __name__ == "__main__":
    sys.exit(main())
