"""A fleet as a child process, for the length of a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fleet.log import Event, read_log
from tests.fleet.spec import ServerSpec, encode_specs
from tests.fleet.table import read_urls

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
_POLL_INTERVAL_S = 0.02
_ROOT = Path(__file__).resolve().parents[2]


class FleetError(Exception):
    """The fleet did not start or did not end in order; the text holds what it printed."""


@dataclass(slots=True)
class RunningFleet:
    """A fleet that accepts connections."""

    folder: Path
    specs: tuple[ServerSpec, ...]
    port: int
    _process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log_path(self) -> Path:
        return self.folder / "requests.log"

    @property
    def table_path(self) -> Path:
        """The input table; it exists if the fleet was started with rows."""
        return self.folder / "urls.parquet"

    def urls(self) -> list[str]:
        """The table's URLs in row order."""
        return read_urls(self.table_path)

    def stop(self) -> None:
        """End the fleet; a second call does nothing. Raises FleetError where it ends in disorder."""
        code = _end(self._process)
        if code != 0:
            raise FleetError(f"the fleet ended with exit code {code}:\n{_printed(self.folder)}")

    def finished_log(self) -> list[Event]:
        """Stop the fleet and read its log, which is exact only then. Raises FleetError."""
        self.stop()
        return read_log(self.log_path)


@contextmanager
def running_fleet(
    folder: Path, specs: Sequence[ServerSpec], rows: int = 0, *, zipf: float | None = None, port: int = 0
) -> Iterator[RunningFleet]:
    """Start a fleet whose files go to ``folder`` (made if missing), and end it in the end.

    The fleet ends with the thread that calls this. Raises FleetError where it does not start within
    ``START_TIMEOUT_S`` or ends in disorder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    specs_path = folder / "specs.json"
    specs_path.write_text(encode_specs(specs))
    arguments = [f"--specs={specs_path.resolve()}", f"--folder={folder.resolve()}", f"--rows={rows}", f"--port={port}"]
    if zipf is not None:
        arguments.append(f"--zipf={zipf}")
    (folder / "ready.json").unlink(missing_ok=True)
    with (folder / "fleet.out").open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fleet", *arguments],
            cwd=_ROOT,
            env=_unmeasured(os.environ),
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
    try:
        fleet = RunningFleet(folder, tuple(specs), _await_port(process, folder), process)
        yield fleet
        fleet.stop()
    finally:
        _end(process)


def _unmeasured(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what has coverage follow into it: servers are not what is measured, and slow enough."""
    return {name: value for name, value in environment.items() if not name.startswith("COVERAGE_")}


def _end(process: subprocess.Popen[bytes]) -> int:
    process.terminate()  # does nothing to a process that has ended
    try:
        return process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _await_port(process: subprocess.Popen[bytes], folder: Path) -> int:
    ready = folder / "ready.json"
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if ready.exists():
            return int(json.loads(ready.read_text())["port"])
        try:
            code = process.wait(_POLL_INTERVAL_S)
        except subprocess.TimeoutExpired:
            continue
        raise FleetError(f"the fleet ended at once with exit code {code}:\n{_printed(folder)}")
    raise FleetError(f"the fleet was not ready after {START_TIMEOUT_S:.0f} s:\n{_printed(folder)}")


def _printed(folder: Path) -> str:
    return (folder / "fleet.out").read_text(errors="replace")
