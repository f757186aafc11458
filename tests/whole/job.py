"""A ddmpi job as a child process, and the checks that its results must pass."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import yaml

from ddmpi.cli import inspection
from ddmpi.cli.arguments import parse_arguments
from tests.fleet.images import body_of
from tests.fleet.log import Event, EventKind, highest_rate, most_connections
from tests.fleet.process import RunningFleet
from tests.fleet.table import path_of, row_of

JOB_TIMEOUT_S = 90.0
ROOT = Path(__file__).resolve().parents[2]
ARRIVAL_SLACK_S = 0.05
"""How much closer together requests may arrive than they were sent: the fleet shares the machine with the ranks."""


@dataclass
class Job:
    """One config, to be run as often as needed over the same output folder."""

    folder: Path
    config: dict[str, Any]
    runs: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """The output folder."""
        return Path(self.config["path_to_output_folder"])

    def inspect(self, *options: str) -> tuple[int, str]:
        """``--status`` or ``--verify``, within this process: exit code and what was printed. Raises DdmpiError.

        A process of its own takes a second to load what is loaded here.
        """
        printed = io.StringIO()
        with redirect_stdout(printed):
            code = inspection.run(parse_arguments([str(self._written_config()), *options]), {})
        return code, printed.getvalue()

    def start(self, ranks: int, *options: str, program: Sequence[str] = ("-m", "ddmpi")) -> subprocess.Popen[str]:
        """Start the program under mpiexec (as one plain process for one rank)."""
        command = [sys.executable, *program, str(self._written_config()), *options]
        if ranks > 1:
            mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
            if mpiexec is None:
                raise FileNotFoundError("mpiexec: neither beside this Python nor on PATH")
            command = [mpiexec, "-n", str(ranks), *command]
        process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.runs.append(process)
        return process

    def _written_config(self) -> Path:
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.config))
        return path

    def run(self, ranks: int, *options: str, program: Sequence[str] = ("-m", "ddmpi")) -> tuple[int, str]:
        """Run to the end: exit code and what was printed."""
        return finish(self.start(ranks, *options, program=program))

    def close(self) -> None:
        """End what a failed test has left."""
        for process in self.runs:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a run: exit code and what it printed."""
    printed, _ = process.communicate(timeout=JOB_TIMEOUT_S)
    return process.returncode, printed


MakeJob = Callable[..., Job]
"""Makes a job for a table; keywords are config keys."""


def make_job(folder: Path, table: Path, **changes: Any) -> Job:
    """A job over a table of the fleet, with settings for tests: loopback allowed, short pauses.

    ``changes`` are top-level keys; those of ``downloader_parameters`` are merged.
    """
    parameters: dict[str, Any] = {
        "batch_size": 100,
        "default_rate_limit": 0,
        "header": "User-Agent: ddmpi-tests (+https://example.org)",
        "connect_timeout_s": 2,
        "stall_timeout_s": 3,
        "total_timeout_s": 10,
        "max_attempts": 3,
        "proxy": "",
        "allow_private_addresses": ["127.0.0.0/8"],
    }
    parameters.update(changes.pop("downloader_parameters", {}))
    config = {
        "path_to_input": str(table),
        "path_to_output_folder": str(folder / "out"),
        "downloader_parameters": parameters,
        "profiling": {"samples_per_server": 2, "min_rows": 20},
        "backoff": {"base_s": 1, "cap_s": 4},
        "breaker": {"failures": 3, "probes": 2},
        "checkpoint_interval_s": 1,
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    return Job(folder, config)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 30.0) -> None:
    """Poll until ``condition`` holds, while the process runs."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"the run ended first, with {process.returncode}:\n{process.communicate()[0]}")
        if time.monotonic() > deadline:
            raise AssertionError(f"the condition did not hold within {timeout_s:.0f} s")
        ends_within(process, 0.02)


def ends_within(process: subprocess.Popen[str], timeout_s: float) -> bool:
    """Whether the run ends in this time, which is waited for if it does not."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def rows_of(folder: Path, columns: Sequence[str]) -> pa.Table:
    """All rows of a hive-partitioned result folder."""
    return ds.dataset(folder, format="parquet", partitioning="hive").to_table(columns=list(columns))


def parts(job: Job) -> list[Path]:
    """All published parts."""
    return sorted([*(job.output / "images").rglob("*.parquet"), *(job.output / "errors").rglob("*.parquet")])


def outcomes(job: Job) -> Counter[int]:
    """How many outcomes each input row has."""
    counts: Counter[int] = Counter()
    for name in ("images", "errors"):
        if any((job.output / name).rglob("*.parquet")):
            counts.update(rows_of(job.output / name, ["row_number"]).column("row_number").to_numpy().tolist())
    return counts


def assert_every_row_once(job: Job, rows: int) -> None:
    """Law 1, by the result files."""
    assert outcomes(job) == Counter(range(rows))


def assert_bodies_as_served(job: Job, fleet: RunningFleet) -> int:
    """Each stored file is what its (final) server serves for the row; the number of files."""
    by_address = {spec.address: spec for spec in fleet.specs}
    table = rows_of(job.output / "images", ["row_number", "final_url", "image", "bytes"])
    for row, url, image, size in zip(*(table.column(i).to_pylist() for i in range(4)), strict=True):
        address = url.split("/")[2].partition(":")[0]
        expected = body_of(by_address[address], path_of(row))
        assert image == expected, f"row {row}: {size} bytes differ from what {url} serves"
    return table.num_rows


def repeated_fetches(log: Sequence[Event]) -> int:
    """Successful answers beyond the first, summed over the rows."""
    served = Counter(
        row_of(event.path)
        for event in log
        if event.kind is EventKind.ANSWER and event.status == 200 and event.note == "whole"
    )
    return sum(count - 1 for count in served.values())


def assert_polite(
    log: Sequence[Event], rates: Mapping[str, float], connections: int, *, closing_s: float = 0.0
) -> None:
    """Law 2, by the servers' own log: ``rates`` are requests/s by server name, 0 = no limit.

    ``closing_s``: how much later a server may hear of a connection that was closed for the sake of another one.
    """
    for server, rate in rates.items():
        assert most_connections(log, server, closing_s) <= connections, server
        for window_s in (1.0, 10.0) if rate else ():
            burst = max(1.0, rate * 0.1)
            allowed = rate * (window_s + ARRIVAL_SLACK_S) + burst
            assert highest_rate(log, server, window_s) <= allowed, f"{server}: above {rate}/s in {window_s} s"


def signal_run(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal mpiexec, which passes it on to all ranks."""
    process.send_signal(number)


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Pids of the ranks: Python processes below mpiexec, in order of start."""
    commands = {pid: _command(pid) for pid in descendants_of(process.pid)}
    return [pid for pid, command in commands.items() if b"ddmpi" in command and b"python" in command[0]]


def descendants_of(pid: int) -> list[int]:
    """Pids of the process's children, then of theirs, and so on."""
    found = children_of(pid)
    for child in found:  # it grows meanwhile
        found += children_of(child)
    return found


def children_of(pid: int) -> list[int]:
    """Pids of the process's children; none when it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _command(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return [b""]
