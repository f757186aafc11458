"""Downloading against others on the same files: Daft, curl --parallel, img2dataset, pycurl alone, another commit.

``python -m benchmarks.throughput`` starts nginx (one worker) on loopback and has each program fetch a smaller and a
larger list of URLs, in turn, ``--rounds`` times, for each size of files:

- ``1kb``, ``30kb``, ``5mb``: at 16 addresses without a limit, 64 connections in all;
- ``many``: files of 30 KB at 1,500 and then 3,000 addresses, 20 at each, which ddmpi asks 10 times a second each.

What differs between the two lists is what one more file costs (``marginal``): start and end cancel out. Time is that of
the whole program, processor time that of all its processes, rank 0 and mpiexec included. ddmpi does its whole job: it
fetches, hashes, and writes all columns as Parquet parts that are synced to the disk. Daft writes Parquet and curl plain
files; both hash and sync nothing. ``ddmpi_blake3_all`` has a downloading rank per core; ``--against FOLDER`` adds a
checkout of another commit, with its default hash. Daft and img2dataset take part where their commands are on the PATH:
install each in an environment of its own, as both ask for other versions of libraries than ddmpi. The last lines are
JSON, one per size; ``ratios`` are ours over theirs, marginal processor time but for ``daft_files_per_s``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

from benchmarks.processes import cache_bytecode
from benchmarks.throughput_figures import figures_of, figures_text, hash_ms, ratios, ratios_text
from benchmarks.throughput_runners import Program, Run, Work, measure, programs
from benchmarks.web_server import SERVERS, WebServer, make_bodies, serving


@dataclass(frozen=True)
class Size:
    """The files of one comparison.

    Args:
        rows: of the smaller and the larger job.
        servers: that these ask.
        rate_per_s: requests per second of each server; 0 = no limit.
    """

    mean_bytes: int
    files: int
    rows: tuple[int, int]
    servers: tuple[int, int] = (SERVERS, SERVERS)
    rate_per_s: float = 0.0


SIZES: Final[Mapping[str, Size]] = {
    "1kb": Size(1_000, 2_000, (5_000, 45_000)),
    "30kb": Size(30_000, 2_000, (5_000, 25_000)),
    "5mb": Size(5_000_000, 20, (60, 260)),
    "many": Size(30_000, 2_000, (30_000, 60_000), (1_500, 3_000), 10.0),
}


def compare(name: str, chosen: Mapping[str, Program], rounds: int, folder: Path) -> dict[str, Any]:
    """All figures of one size."""
    size = SIZES[name]
    bodies = make_bodies(size.files, size.mean_bytes)
    runs: dict[str, list[tuple[Run, Run]]] = {program: [] for program in chosen}
    hashes: list[dict[str, float]] = []
    with serving(folder / name, bodies, size.servers[1]) as server:
        for _ in range(rounds):
            hashes.append(hash_ms(bodies.values()))
            for program in chosen:
                pair = _pair(chosen[program], server, size, folder)
                runs[program].append(pair)
                spent = ", ".join(f"{run.files} files in {run.wall_s:.2f} s ({run.cpu_s:.2f} s of CPU)" for run in pair)
                print(f"{name} {program}: {spent}", flush=True)
    shutil.rmtree(folder / name)
    figures = {program: figures_of(pairs) for program, pairs in runs.items()}
    alone_ms = {hash_name: median(each[hash_name] for each in hashes) for hash_name in hashes[0]}
    found = ratios(figures, {program: chosen[program].hash_name for program in chosen}, alone_ms)
    mean_bytes = fmean(map(len, bodies.values()))
    print(f"\n{name}: {size.rows[0]:,} and {size.rows[1]:,} files of {mean_bytes:,.0f} bytes, {rounds} rounds")
    print(figures_text(figures), f"hash alone, ms: {_rounded(alone_ms)}", ratios_text(found), "", sep="\n", flush=True)
    return {
        "size": name,
        "mean_bytes": mean_bytes,
        "rows": size.rows,
        "rounds": rounds,
        "load": os.getloadavg()[0],
        "hash_ms": alone_ms,
        "programs": {program: asdict(each) for program, each in figures.items()},
        "ratios": found,
    }


def _pair(program: Program, server: WebServer, size: Size, folder: Path) -> tuple[Run, Run]:
    small, large = (
        measure(program, Work(server.urls(rows, servers), folder / "work", servers, size.rate_per_s))
        for rows, servers in zip(size.rows, size.servers, strict=True)
    )
    return small, large


def _rounded(value: Any) -> Any:
    """Without digits that are noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, (list, tuple)) else value


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--only", nargs="+", metavar="PROGRAM", help="in this order")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="a checkout of another commit of ddmpi")
    parser.add_argument("--folder", type=Path, help="for input and output, 2 GB")
    given = parser.parse_args(argv)
    cache_bytecode()
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    known = programs(given.against)
    if unknown := set(given.only or ()) - set(known):
        parser.error(f"--only: {', '.join(sorted(unknown))}: not one of {', '.join(known)}")
    chosen = {name: known[name] for name in given.only or known}
    for name in [name for name, program in chosen.items() if not program.is_installed()]:
        print(f"{name}: left out, {chosen.pop(name).needs} is not installed")
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="ddmpi-throughput-") as scratch:
        found = [compare(size, chosen, given.rounds, Path(scratch)) for size in given.size]
    for each in found:
        print(json.dumps(_rounded(each)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
