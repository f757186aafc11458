"""The programs that ``throughput`` compares: how each one is told to fetch a list of URLs, and how many it stored."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.processes import run
from tests.whole.job import ROOT

CONNECTIONS: Final = 64
QUIET: Final = {"NO_ALBUMENTATIONS_UPDATE": "1"}
"""img2dataset's library asks the package index for a newer version otherwise."""


@dataclass(frozen=True)
class Work:
    """What is to be fetched, and where whatever a program writes may go.

    Args:
        scratch: a folder; there and empty while a program runs.
        servers: that the URLs ask.
        rate_per_s: requests per second of each server; 0 = no limit.
    """

    urls: Sequence[str]
    scratch: Path
    servers: int
    rate_per_s: float = 0.0

    @property
    def target(self) -> Path:
        return self.scratch / "out"

    @property
    def table(self) -> Path:
        """The URLs as a Parquet file; written at the first call."""
        path = self.scratch / "urls.parquet"
        if not path.exists():
            pq.write_table(pa.table({"identifier": self.urls}), path)
        return path


@dataclass(frozen=True)
class Program:
    """One that takes part.

    Args:
        command: what is run; may write input for it.
        stored: how many files it has stored, by what it left behind and printed.
        needs: the executable on the PATH without which it is left out.
        hash_name: of each body; empty = none.
        checkout: the folder that it is run in.
    """

    command: Callable[[Work], list[str]]
    stored: Callable[[Work, str], int]
    needs: str
    hash_name: str = ""
    checkout: Path = ROOT

    def is_installed(self) -> bool:
        return shutil.which(self.needs) is not None


@dataclass(frozen=True)
class Run:
    """What one run has cost, all its processes together (memory: the largest one)."""

    files: int
    wall_s: float
    cpu_s: float
    peak_rss_mb: float


def measure(program: Program, work: Work) -> Run:
    """Run it once, from a machine whose disk is at rest to an empty folder.

    Raises RuntimeError where it fails or a file is missing.
    """
    work.scratch.mkdir()
    try:
        command = program.command(work)
        os.sync()
        ended = run(command, work.scratch / "printed", program.checkout)
        stored = program.stored(work, ended.printed)
        if stored != len(work.urls):
            raise RuntimeError(f"{stored} of {len(work.urls)} files:\n{ended.printed[-3000:]}")
    finally:
        shutil.rmtree(work.scratch)
    return Run(stored, ended.wall_s, ended.usage.cpu_s, ended.usage.peak_rss_mb)


def ddmpi(hash_name: str, ranks: int = 2, checkout: Path = ROOT) -> Program:
    """Rank 0 and ``ranks - 1`` that download, as it is in ``checkout``."""

    def command(work: Work) -> list[str]:
        config = work.scratch / "config.yaml"
        config.write_text(yaml.safe_dump(make_config(work, hash_name)))
        return ["mpiexec", "-n", str(ranks), sys.executable, "-m", "ddmpi", str(config)]

    return Program(command, _rows_of_ddmpi, "mpiexec", hash_name, checkout)


def make_config(work: Work, hash_name: str = "sha256") -> dict[str, Any]:
    """The defaults, but for what a server on loopback that allows everything needs."""
    return {
        "path_to_input": str(work.table),
        "path_to_output_folder": str(work.target),
        "downloader_parameters": {
            "default_rate_limit": work.rate_per_s,
            "max_connections_per_server": max(1, CONNECTIONS // work.servers),
            "header": "User-Agent: ddmpi-benchmark (+https://example.org)",
            "hash_algorithm": hash_name,
            "proxy": "",
            "allow_private_addresses": ["127.0.0.0/8"],
        },
    }


def _rows_of_ddmpi(work: Work, _printed: str) -> int:
    return _parquet_rows(work.target / "images")


def _parquet_rows(folder: Path) -> int:
    return sum(int(pq.read_metadata(path).num_rows) for path in folder.rglob("*.parquet"))


def _daft(work: Work) -> list[str]:
    """By the Python of its own environment, which lies beside its command: it asks for an older pyarrow than ours."""
    program = shutil.which("daft")
    if program is None:
        raise FileNotFoundError("daft")
    return [
        str(Path(program).with_name("python")),
        str(ROOT / "benchmarks" / "daft_alone.py"),
        str(work.table),
        str(work.target),
    ]


def _curl(work: Work) -> list[str]:
    """Each URL into a file of its own."""
    work.target.mkdir()
    config = work.scratch / "curl.config"
    config.write_text("".join(f'url = "{url}"\noutput = "{work.target}/{row}"\n' for row, url in enumerate(work.urls)))
    return ["curl", "--silent", "--fail", "--parallel", "--parallel-max", str(CONNECTIONS), "--config", str(config)]


def _img2dataset(work: Work) -> list[str]:
    """Into Parquet, without re-encoding."""
    options = {
        "url_list": work.table,
        "input_format": "parquet",
        "url_col": "identifier",
        "output_format": "parquet",
        "output_folder": work.target,
        "processes_count": 2,
        "thread_count": 2 * CONNECTIONS,
        "resize_mode": "no",
        "disable_all_reencoding": True,
        "compute_hash": "sha256",
        "number_sample_per_shard": 1_000,
        "enable_wandb": False,
    }
    return ["env", *(f"{name}={value}" for name, value in QUIET.items()), "img2dataset"] + [
        f"--{name}={value}" for name, value in options.items()
    ]


def _rows_of_img2dataset(work: Work, _printed: str) -> int:
    states = [pq.read_table(path, columns=["status"]).column("status") for path in work.target.glob("*.parquet")]
    return sum(state.to_pylist().count("success") for state in states)


def _floor(job: str, hash_name: str = "") -> Program:
    def command(work: Work) -> list[str]:
        return [sys.executable, "-m", "benchmarks.floor", job, str(work.table), str(work.scratch / "bodies.parquet")]

    return Program(command, lambda _work, printed: int(printed), sys.executable, hash_name)


def programs(against: Path | None) -> Mapping[str, Program]:
    """All of them by name; ``against`` is a checkout of another commit of ddmpi."""
    found = {
        "ddmpi_sha256": ddmpi("sha256"),
        "ddmpi_blake3": ddmpi("blake3"),
        "ddmpi_xxh3_128": ddmpi("xxh3_128"),
        "ddmpi_blake3_all": ddmpi("blake3", 1 + len(os.sched_getaffinity(0))),
        "daft": Program(_daft, lambda work, _printed: _parquet_rows(work.target), "daft"),
        "curl": Program(_curl, lambda work, _printed: len(list(work.target.iterdir())), "curl"),
        "img2dataset": Program(_img2dataset, _rows_of_img2dataset, "img2dataset", "sha256"),
        "floor_fetch": _floor("fetch"),
        "floor_hash": _floor("hash", "sha256"),
        "floor_store": _floor("store", "sha256"),
    }
    if against is not None:
        found["against"] = ddmpi("sha256", checkout=against.resolve())
    return found
