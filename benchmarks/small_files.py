"""An input of many small files: how long it takes to open them, and to find at a later start that they are as before.

``python -m benchmarks.small_files --files 10000`` makes the files, runs the initialization of a new output folder and
then that of a later start, and prints one JSON line per kind of file: seconds to list and open the files, seconds of
the whole first initialization, and of the later one. Each is the fastest of ``--repeat``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.config.config import Config, parse
from ddmpi.core.records import Orders
from ddmpi.io.folder.layout import Layout
from ddmpi.roles.coordinator.initialization import InitCallbacks, initialize, input_of, own_output

KINDS: Final = ("parquet", "csv", "jsonl", "txt")
ROWS_PER_FILE: Final = 10


def write_file(path: Path, number: int) -> None:
    """Write a table of two columns, or its URLs alone."""
    urls = [f"http://img{number % 545}.example.org/{number}/{row}.jpg" for row in range(ROWS_PER_FILE)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"identifier": urls, "title": ["a title"] * len(urls)}), path)
    elif path.suffix == ".csv":
        path.write_text("identifier,title\n" + "".join(f"{url},a title\n" for url in urls))
    elif path.suffix == ".jsonl":
        path.write_text("".join(f'{{"identifier": "{url}", "title": "a title"}}\n' for url in urls))
    else:
        path.write_text("".join(f"{url}\n" for url in urls))


def seconds_of_start(config: Config) -> float:
    """Initialize once; seconds."""
    layout = Layout(Path(config.path_to_output_folder), config.output_structure)
    started = time.perf_counter()
    lock = own_output(layout, {})
    initialize(config, layout, lock, Orders(), InitCallbacks(lambda _: None, lambda _: None, lambda: False))
    lock.release()
    return time.perf_counter() - started


def seconds_of_opening(config: Config) -> float:
    """List and open all files; seconds."""
    started = time.perf_counter()
    input_of(config).fingerprint()
    return time.perf_counter() - started


def measure(scratch: Path, kind: str, files: int, repeat: int) -> dict[str, object]:
    """The figures of one kind of file."""
    source = scratch / kind
    source.mkdir()
    for number in range(files):
        write_file(source / f"part-{number:05d}.{kind}", number)
    config = parse({"path_to_input": str(source), "path_to_output_folder": str(scratch / "out")}, "benchmark")
    opening, first, later = [], [], []
    for _ in range(repeat):
        opening.append(seconds_of_opening(config))
        first.append(seconds_of_start(config))
        later.append(seconds_of_start(config))
        shutil.rmtree(scratch / "out")
    shutil.rmtree(source)
    seconds = {"open_s": min(opening), "first_start_s": min(first), "later_start_s": min(later)}
    rounded = {name: round(value, 2) for name, value in seconds.items()}
    return {"kind": kind, "files": files, **rounded, "load": round(os.getloadavg()[0], 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ddmpi-small-files-") as scratch:
        for kind in arguments.kinds:
            print(json.dumps(measure(Path(scratch), kind, arguments.files, arguments.repeat)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
