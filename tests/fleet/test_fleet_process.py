"""The fleet as a process: how it starts, what it needs, and that it ends."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fleet import sockets
from tests.fleet.images import body_of
from tests.fleet.log import EventKind, read_log
from tests.fleet.process import FleetError, running_fleet
from tests.fleet.server import Fleet
from tests.fleet.spec import ServerSpec, plain_fleet

TIMEOUT_S = 10.0


def test_a_fleet_that_cannot_start_says_why(tmp_path: Path) -> None:
    specs = [ServerSpec("127.21.0.1")]
    with (
        running_fleet(tmp_path / "first", specs) as first,
        pytest.raises(FleetError, match="Address already in use"),
        running_fleet(tmp_path / "second", specs, port=first.port),
    ):
        pytest.fail("two fleets on one port")


def test_one_socket_per_address_where_the_device_cannot_be_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_bound_to_device", lambda _port: None)
    specs = plain_fleet(3)
    log_path = tmp_path / "requests.log"

    async def bodies() -> list[bytes]:
        fleet, stopping = Fleet(specs, log_path), asyncio.Event()
        await fleet.start()
        serving = asyncio.create_task(fleet.serve(stopping))
        received = []
        for spec in specs:
            reader, writer = await asyncio.open_connection(spec.address, fleet.port)
            writer.write(b"GET /1.jpg HTTP/1.1\r\nConnection: close\r\n\r\n")
            received.append((await reader.read()).partition(b"\r\n\r\n")[2])
            writer.close()
            await writer.wait_closed()
        stopping.set()
        await serving
        await fleet.stop()
        return received

    assert asyncio.run(bodies()) == [body_of(spec, "/1.jpg") for spec in specs]
    per_connection = [EventKind.OPEN, EventKind.REQUEST, EventKind.ANSWER, EventKind.CLOSE]
    assert [
        event.kind for event in sorted(read_log(log_path), key=lambda event: event.connection)
    ] == per_connection * 3


def test_the_program_writes_its_files_and_ends_with_its_parent(tmp_path: Path) -> None:
    starts_it = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'tests.fleet', *sys.argv[1:]],"
        " stdout=subprocess.PIPE); print(p.stdout.readline().decode(), flush=True); sys.stdin.read()"
    )
    arguments = ["--demo", "--rows=100", f"--folder={tmp_path}"]
    with subprocess.Popen(
        [sys.executable, "-c", starts_it, *arguments],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith(b"fleet ready: 40 servers on port ")
        ready = json.loads((tmp_path / "ready.json").read_text())
        child = os.pidfd_open(ready["pid"])
        parent.send_signal(signal.SIGKILL)
        assert parent.wait(TIMEOUT_S) == -signal.SIGKILL
    ended, _, _ = select.select([child], [], [], TIMEOUT_S)
    os.close(child)
    assert ended, "the fleet outlived its parent"
    assert len(ready["servers"]) == 40 and ready["servers"][0] == f"127.10.0.1:{ready['port']}"
    assert (tmp_path / "urls.parquet").stat().st_size > 0
    assert read_log(tmp_path / "requests.log") == []
