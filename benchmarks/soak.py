"""Does a rank stay as it is? ``python -m benchmarks.soak``: a million requests in one process, ``mpiexec`` left out.

nginx on loopback serves small files without limits; the process plays both roles. Its resident memory and its open
descriptors are sampled from outside while it fetches, and its speed is taken from the results. Each is compared between
the first tenth of the rows and the last: medians of the samples, rows per second of the whole tenth.

The JSON line last: ``{"rows", "files_per_s", "peak_rss_mb", "rss_mb", "descriptors", "tenths_per_s",
"rss_mb_by_tenth"}``; ``rss_mb``, ``descriptors`` and ``tenths_per_s`` (the speed) as ``first``, ``last`` and ``change``
(last / first - 1).
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.throughput_runners import Work, make_config
from benchmarks.web_server import SERVERS, make_bodies, serving
from ddmpi.io.process import resident_bytes
from tests.whole.job import Job, rows_of

ROWS: Final = 1_000_000
FILES: Final = 2_000
MEAN_BYTES: Final = 1_000
SAMPLE_INTERVAL_S: Final = 0.25
TIMEOUT_S: Final = 1_800.0


@dataclass(frozen=True)
class Sample:
    """The process as it was at ``at`` (wall clock, seconds)."""

    at: float
    rss_mb: float
    descriptors: int


def watch(process: subprocess.Popen[str]) -> list[Sample]:
    """Sample the process until it ends. Raises TimeoutError."""
    samples = []
    deadline = time.monotonic() + TIMEOUT_S
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done after {TIMEOUT_S:.0f} s")
        try:
            descriptors = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        except OSError:  # it ends just now
            continue
        samples.append(Sample(time.time(), resident_bytes(process.pid) / 2**20, descriptors))
        time.sleep(SAMPLE_INTERVAL_S)
    return samples


def compare(samples: Sequence[Sample], ended_at: npt.NDArray[np.float64]) -> dict[str, object]:
    """The figures; ``ended_at`` are the sorted times (wall clock, seconds) at which the rows were fetched."""
    rows = len(ended_at)
    tenth = rows // 10
    edges = [float(ended_at[min(number * tenth, rows - 1)]) for number in range(11)]
    spans = list(itertools.pairwise(edges))
    parts = [[it for it in samples if start <= it.at <= end] for start, end in spans]
    rss_mb = [median(it.rss_mb for it in part) for part in parts]
    descriptors = [median(it.descriptors for it in part) for part in parts]
    per_s = [tenth / (end - start) for start, end in spans]
    return {
        "rows": rows,
        "files_per_s": round(rows / (ended_at[-1] - ended_at[0]), 1),
        "peak_rss_mb": round(max(it.rss_mb for it in samples), 1),
        "rss_mb": _change(rss_mb),
        "descriptors": _change(descriptors),
        "tenths_per_s": _change(per_s),
        "rss_mb_by_tenth": [round(each, 1) for each in rss_mb],
    }


def _change(tenths: Sequence[float]) -> dict[str, float]:
    first, last = tenths[0], tenths[-1]
    return {"first": round(first, 1), "last": round(last, 1), "change": round(last / first - 1, 3)}


def soak(folder: Path, rows: int) -> dict[str, object]:
    """Fetch so many rows. Raises RuntimeError where the run fails or a row is missing."""
    with serving(folder / "server", make_bodies(FILES, MEAN_BYTES)) as server:
        scratch = folder / "work"
        scratch.mkdir()
        job = Job(scratch, make_config(Work(server.urls(rows, SERVERS), scratch, SERVERS)))
        process = job.start(1)
        try:
            samples = watch(process)
            printed, _ = process.communicate()
        finally:
            job.close()
    table = rows_of(job.output / "images", ["fetched_at"])
    if process.returncode or table.num_rows != rows:
        raise RuntimeError(f"exit code {process.returncode}, {table.num_rows} of {rows} rows:\n{printed[-3000:]}")
    return compare(samples, np.sort(table.column("fetched_at").cast(pa.int64()).to_numpy() / 1e6))


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--folder", type=Path, help="for input and output, about 2.5 GB per million rows")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="ddmpi-soak-") as folder:
        print(json.dumps(soak(Path(folder), options.rows)))


if __name__ == "__main__":
    main(sys.argv[1:])
