"""A fleet as a program: ``python -m tests.fleet --demo --rows 5000 --folder DIR``.

Writes DIR/requests.log, with ``--rows`` also DIR/urls.parquet, and, once it accepts connections, DIR/ready.json:
{"port": 8080, "pid": 4711, "servers": ["127.10.0.1:8080", ...]}. Ends by SIGTERM or SIGINT, with exit code 0 and a
finished log, and by SIGTERM also when its parent ends.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fleet.server import Fleet
from tests.fleet.spec import ServerSpec, Size, decode_specs, demo_fleet, plain_fleet
from tests.fleet.table import write_table

LOG_NAME = "requests.log"
TABLE_NAME = "urls.parquet"
READY_NAME = "ready.json"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(argv: Sequence[str]) -> None:
    """Run until a signal. Raises OSError where folder or port cannot be had, ValueError for bad specs."""
    options = _parser().parse_args(argv)
    _end_with_parent()
    _allow_many_files()
    specs = _specs(options)
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / READY_NAME).unlink(missing_ok=True)
    asyncio.run(_run(Fleet(specs, folder / LOG_NAME, options.port), folder, options.rows, options.zipf))


async def _run(fleet: Fleet, folder: Path, rows: int, zipf: float | None) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await fleet.start()
    try:
        if rows:
            write_table(folder / TABLE_NAME, fleet.specs, rows, fleet.port, zipf)
        _announce(fleet, folder / READY_NAME)
        await fleet.serve(stopping)
    finally:
        await fleet.stop()


def _announce(fleet: Fleet, path: Path) -> None:
    servers = [spec.name(fleet.port) for spec in fleet.specs]
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps({"port": fleet.port, "pid": os.getpid(), "servers": servers}))
    unfinished.replace(path)
    print(f"fleet ready: {len(servers)} servers on port {fleet.port}, folder {path.parent}", flush=True)


def _specs(options: argparse.Namespace) -> list[ServerSpec]:
    if options.specs is not None:
        return decode_specs(options.specs.read_text())
    if options.demo:
        return demo_fleet(options.size)
    return plain_fleet(options.servers, options.rate, latency_s=options.latency_ms / 1000, size=options.size)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description="Many HTTP servers on loopback.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--demo", action="store_true", help="40 servers of mixed behavior")
    which.add_argument("--servers", type=int, metavar="N", help="N healthy servers")
    which.add_argument("--specs", type=Path, metavar="FILE", help="the servers of a JSON file (spec.encode_specs)")
    parser.add_argument("--folder", type=Path, required=True, help="where its files go; made if missing")
    parser.add_argument("--rows", type=int, default=0, help="rows of urls.parquet; 0: no table (default)")
    parser.add_argument("--zipf", type=float, metavar="S", help="the i-th server has rows like 1/i**S")
    parser.add_argument("--port", type=int, default=0, help="0: any free port (default)")
    parser.add_argument("--rate", type=float, default=0.0, help="with --servers: requests/s each, 0: unlimited")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="with --servers: before each answer")
    parser.add_argument("--size", type=Size, default=Size.SMALL, help="images: small (2 KB, default) or normal (30 KB)")
    return parser


def _end_with_parent() -> None:
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # A parent that ended before the call sends no signal any more.
    if os.getppid() != parent:
        sys.exit("the parent has ended")


def _allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main(sys.argv[1:])
