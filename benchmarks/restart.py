"""The start of a restart over many completed batches: ``python -m benchmarks.restart --batches 20000``.

Makes an output folder as a run leaves it that has completed all batches (a marker, a part and a line in
verification.csv each), then runs the program over it, which finds that nothing is left to do. Nothing is fetched. The
time is that of the whole command, Python's start and the last checkpoint included. Prints one JSON line last.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from ddmpi.config import config as config_module
from ddmpi.core.records import Orders
from ddmpi.io.folder.layout import Layout, part_name
from ddmpi.io.folder.markers import Marker
from ddmpi.io.folder.schedules import VerificationRow, write_verification
from ddmpi.roles.coordinator.initialization import InitCallbacks, initialize, own_output
from ddmpi.roles.coordinator.run_state import RunState

ROWS_PER_BATCH: Final = 10
BATCHES_PER_SERVER: Final = 40
BIG_BATCH: Final = 1_000
LIMIT_S: Final = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns 0 if the median start is quick enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="show where the initialization spends its time")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="ddmpi-restart-") as name:
        config = make_config(Path(name), given.batches)
        complete(config)
        times_s = sorted(timed_run(config) for _ in range(given.repeat))
        if given.profile:
            profile(config)
    median_s = times_s[len(times_s) // 2]
    print(json.dumps({"batches": given.batches, "seconds": [round(time_s, 2) for time_s in times_s], "load": _load()}))
    return 0 if median_s < LIMIT_S else 1


def make_config(folder: Path, batches: int) -> Path:
    """A table with so many batches' rows, and a config for it; gives the config's path."""
    rows = batches * ROWS_PER_BATCH
    per_server = BATCHES_PER_SERVER * ROWS_PER_BATCH
    urls = [f"http://127.{16 + i // per_server // 250}.{i // per_server % 250}.1/{i}.jpg" for i in range(rows)]
    pq.write_table(pa.table({"identifier": urls}), folder / "urls.parquet")
    path = folder / "config.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "path_to_input": str(folder / "urls.parquet"),
                "path_to_output_folder": str(folder / "out"),
                "downloader_parameters": {"batch_size": ROWS_PER_BATCH},
                "profiling": {"mode": "uniform"},
            }
        )
    )
    return path


def complete(config_path: Path) -> None:
    """Mark all batches as completed and verified."""
    state = opened(config_path)
    layout, table = state.layout, state.table
    marker = json.dumps({"rows": ROWS_PER_BATCH, "successes": ROWS_PER_BATCH, "errors": 0}).encode()
    assert json.loads(marker) == {name: getattr(Marker(10, 10, 0), name) for name in json.loads(marker)}
    verified: list[VerificationRow] = []
    for batch_id in range(len(table)):
        ref = table.ref(batch_id)
        parts = layout.parts_folder("successes", ref.server_name, ref.partition_id)
        completed = layout.completed(ref.server_name, ref.partition_id)
        for folder in (parts, completed.parent):
            folder.mkdir(parents=True)
        (parts / part_name("successes", 1, 1, batch_id)).touch()  # of a completed batch only the name is looked at
        completed.write_bytes(marker)
        verified.append(VerificationRow(ref.server_name, ref.partition_id, "completed", 10, 10, 0, 0))
    for number, first in enumerate(range(0, len(verified), BIG_BATCH), 1):
        write_verification(layout, number, verified[first : first + BIG_BATCH])
    if state.lock is not None:
        state.lock.release()


def opened(config_path: Path) -> RunState:
    """The output folder, initialized by this process."""
    config = config_module.load(config_path)
    layout = Layout(Path(config.path_to_output_folder), config.output_structure)
    quiet = InitCallbacks(lambda _: None, lambda _: None, lambda: False)
    return initialize(config, layout, own_output(layout, {}), Orders(), quiet)


def timed_run(config_path: Path) -> float:
    """Seconds of one whole run. Raises CalledProcessError where it does not end well."""
    started_at = time.monotonic()
    subprocess.run([sys.executable, "-m", "ddmpi", str(config_path)], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started_at


def profile(config_path: Path) -> None:
    """Print the functions in which the initialization spends most time."""
    profiler = cProfile.Profile()
    profiler.enable()
    state = opened(config_path)
    profiler.disable()
    if state.lock is not None:
        state.lock.release()
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(30)


def _load() -> float:
    return round(os.getloadavg()[0], 1)


if __name__ == "__main__":
    sys.exit(main())
