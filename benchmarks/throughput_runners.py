"""The programs that ``throughput`` compares: how each one is told to fetch the same URLs, and what it did.

Each function runs one program once and returns its figures: files and megabytes per second, processor time per file,
peak memory.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.processes import Ended, Usage, run, run_job
from benchmarks.web_server import ADDRESSES, WebServer
from tests.whole.job import Job, rows_of

Figures: TypeAlias = "dict[str, float]"

CONNECTIONS: Final = 64
WRK_SECONDS: Final = 5
TIMEOUT_S: Final = 300.0


@dataclass(frozen=True)
class Work:
    """What is to be fetched, and a folder for whatever a program writes; it is empty before each run."""

    server: WebServer
    scratch: Path
    rows: int

    @property
    def printed(self) -> Path:
        return self.scratch / "printed"


def _figures(work: Work, files: int, size_bytes: int, seconds: float, usage: Usage) -> Figures:
    if not files:
        raise RuntimeError(f"nothing was fetched:\n{work.printed.read_text()[-3000:]}")
    return {
        "files_per_s": round(files / seconds, 1),
        "mb_per_s": round(size_bytes / seconds / 1e6, 1),
        "cpu_ms_per_file": round(usage.cpu_s * 1e3 / files, 4),
        "peak_rss_mb": round(usage.peak_rss_mb, 1),
    }


def run_wrk(work: Work) -> Figures:
    """The server's own limit: requests over kept connections whose answers are dropped."""
    paths = ",".join(f'"/{name}"' for name in work.server.names)
    script = work.scratch / "paths.lua"
    script.write_text(
        f"local paths = {{{paths}}}\nlocal at = 0\n"
        "request = function()\n  at = at % #paths + 1\n  return wrk.format('GET', paths[at])\nend\n"
    )
    url = f"http://{ADDRESSES[0]}:{work.server.ports['plain']}"
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{WRK_SECONDS}s", "-s", str(script)]
    ended = run(["wrk", *options, url], work.printed, work.scratch)
    words = ended.printed.split()
    return {"files_per_s": float(words[words.index("Requests/sec:") + 1])}


def run_curl(work: Work) -> Figures:
    """``curl --parallel``, each URL into a file of its own."""
    target = work.scratch / "files"
    target.mkdir()
    urls = work.server.urls("plain", work.rows)
    lines = (f'url = "{url}"\noutput = "{target}/{row}"\n' for row, url in enumerate(urls))
    config = work.scratch / "curl.config"
    config.write_text("".join(lines))
    command = ["curl", "--silent", "--fail", "--parallel", "--parallel-max", str(CONNECTIONS), "--config", str(config)]
    return _stored(work, run(command, work.printed, work.scratch), target)


def run_aria2(work: Work) -> Figures:
    """``aria2c`` without preallocation, each URL into a file of its own."""
    target = work.scratch / "files"
    target.mkdir()
    urls = work.server.urls("plain", min(work.rows, len(work.server.names)))
    source = work.scratch / "aria2.input"
    source.write_text("".join(f"{url}\n  out={row}\n" for row, url in enumerate(urls)))
    options = ["--quiet", "--file-allocation=none", f"--max-concurrent-downloads={CONNECTIONS}", f"--dir={target}"]
    return _stored(work, run(["aria2c", *options, f"--input-file={source}"], work.printed, work.scratch), target)


def _stored(work: Work, ended: Ended, target: Path) -> Figures:
    sizes = [file.stat().st_size for file in target.iterdir()]
    return _figures(work, len(sizes), sum(sizes), ended.wall_s, ended.usage)


def run_img2dataset(work: Work) -> Figures:
    """img2dataset without re-encoding, into Parquet; from its own ``count`` and the whole process's time."""
    program = shutil.which("img2dataset")
    if program is None:
        raise FileNotFoundError("img2dataset")
    source, target = _write_table(work, "plain", min(work.rows, 10_000)), work.scratch / "dataset"
    options = {
        "url_list": source,
        "input_format": "parquet",
        "url_col": "identifier",
        "output_format": "parquet",
        "output_folder": target,
        "processes_count": 2,
        "thread_count": 2 * CONNECTIONS,
        "resize_mode": "no",
        "disable_all_reencoding": True,
        "compute_hash": "md5",
        "number_sample_per_shard": 1_000,
        "enable_wandb": False,
    }
    ended = run([program, *(f"--{name}={value}" for name, value in options.items())], work.printed, work.scratch)
    tables = [pq.read_table(path, columns=["jpg"]) for path in target.glob("*.parquet")]
    sizes = [len(body) for table in tables for body in table.column("jpg").to_pylist() if body is not None]
    return _figures(work, len(sizes), sum(sizes), ended.wall_s, ended.usage)


def run_ddmpi(work: Work, protocol: str, downloaders: int, image_size: int = 0) -> Figures:
    """A whole job: rank 0 and ``downloaders`` ranks. Time runs from the first request to the last part on the disk;
    processor time and memory are those of the downloading ranks, from their start to their end."""
    job = Job(work.scratch, make_config(work, protocol, image_size))
    usages, printed = run_job(job, downloaders + 1, TIMEOUT_S)
    work.printed.write_text(printed)
    table = rows_of(job.output / "images", ["fetched_at", "total_ms", "bytes"])
    if table.num_rows != work.rows:
        raise RuntimeError(f"{table.num_rows} of {work.rows} rows:\n{printed[-3000:]}")
    downloading = [usage for rank, usage in usages.items() if rank > 0]
    used = Usage(sum(usage.cpu_s for usage in downloading), max(usage.peak_rss_mb for usage in downloading))
    size_bytes = int(pc.sum(table.column("bytes")).as_py() or 0)
    return _figures(work, table.num_rows, size_bytes, _seconds(job.output / "images", table), used)


def _seconds(images: Path, table: pa.Table) -> float:
    """From the first request's start to the last part's end."""
    ends_us = table.column("fetched_at").cast(pa.int64()).to_numpy()
    first_s = float((ends_us / 1e6 - table.column("total_ms").to_numpy() / 1e3).min())
    return max(part.stat().st_mtime for part in images.rglob("*.parquet")) - first_s


def make_config(work: Work, protocol: str, image_size: int = 0) -> dict[str, Any]:
    """The defaults, but for what a server on loopback that allows everything needs."""
    return {
        "path_to_input": str(_write_table(work, protocol, work.rows)),
        "path_to_output_folder": str(work.scratch / "out"),
        "downloader_parameters": {
            "default_rate_limit": 0,
            "max_connections_per_server": CONNECTIONS // len(ADDRESSES),
            "header": "User-Agent: ddmpi-benchmark (+https://example.org)",
            "image_size": image_size,
            "ca_bundle": str(work.server.ca_path) if protocol != "plain" else None,
            "proxy": "",
            "allow_private_addresses": ["127.0.0.0/8"],
        },
    }


def _write_table(work: Work, protocol: str, rows: int) -> Path:
    path = work.scratch / "urls.parquet"
    pq.write_table(pa.table({"identifier": work.server.urls(protocol, rows)}), path)
    return path


def run_opencv(work: Work) -> Figures:
    """OpenCV alone: decode, shrink, encode the same files from the page cache, a thread per core."""
    script = Path(__file__).with_name("opencv_alone.py")
    command: Sequence[str] = [sys.executable, str(script), str(work.server.files), str(work.rows)]
    return {"opencv_alone_files_per_s": float(run(command, work.printed, work.scratch).printed.split()[-1])}
