"""The servers of a hostile web as a program: ``python -m tests.hostile --servers 300 --folder DIR``.

Server i behaves like case i modulo the number of cases. Writes DIR/authority.pem and, once it answers, DIR/ready.json:
{"urls": [...], "cases": [...], "connect_to": [...], "bundle": "..."}: a URL without its file name, and the index of the
case, for each server. Ends when its input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.hostile.answers import ANSWERS
from tests.hostile.server import HostileServers

READY_NAME = "ready.json"


def main(argv: Sequence[str]) -> None:
    """Serve until the end of the input. Raises OSError where sockets or folder cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("--servers", type=int, default=len(ANSWERS))
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args(argv)
    cases = [index % len(ANSWERS) for index in range(options.servers)]
    servers = HostileServers([ANSWERS[case] for case in cases], options.folder)
    ready = {
        "urls": [servers.url(index).rpartition("/")[0] for index in range(options.servers)],
        "cases": cases,
        "connect_to": servers.connect_to,
        "bundle": str(servers.bundle),
    }
    unfinished = options.folder / f"{READY_NAME}.tmp"
    unfinished.write_text(json.dumps(ready))
    unfinished.replace(options.folder / READY_NAME)
    asyncio.run(_serve(servers))
    servers.close()
    sys.exit("\n".join(servers.failures) or 0)


async def _serve(servers: HostileServers) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Most clients leave in the middle of something.
    loop.set_exception_handler(lambda _loop, _context: None)
    serving = loop.create_task(servers.serve(stopping))
    await loop.run_in_executor(None, sys.stdin.read)
    stopping.set()
    await serving


if __name__ == "__main__":
    main(sys.argv[1:])
