"""Downloading against others on the same files: wrk, curl --parallel, aria2c, img2dataset, and OpenCV alone.

``python -m benchmarks.throughput`` starts nginx (one worker) on loopback with 2,000 files of about 30 KB, runs each
program ``--repeat`` times in turn, and prints the medians as one JSON line last; what is not installed is null.
ddmpi runs as its users run it, ``mpiexec -n 2`` (rank 0 and one downloading rank) and ``-n 3``: it fetches, hashes, and
writes all columns as Parquet parts that are synced to the disk. wrk drops what it reads, curl and aria2c write plain
files and sync nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from benchmarks.throughput_runners import (
    Figures,
    Work,
    run_aria2,
    run_curl,
    run_ddmpi,
    run_img2dataset,
    run_opencv,
    run_wrk,
)
from benchmarks.web_server import make_bodies, serving

FILES: Final = 2_000
IMAGES: Final = 200
IMAGE_SIDE: Final = 600
IMAGE_SIZE: Final = 224
ROWS: Final = 60_000
ROWS_PER_IMAGE_ROW: Final = 15
"""A row that is decoded takes so many times longer."""


def _run_resize(work: Work) -> Figures:
    return {**run_ddmpi(work, "plain", 1, IMAGE_SIZE), **run_opencv(work)}


RUNNERS: Final[dict[str, tuple[Callable[[Work], Figures], str]]] = {
    "wrk": (run_wrk, "wrk"),
    "curl": (run_curl, "curl"),
    "ddmpi_1": (lambda work: run_ddmpi(work, "plain", 1), "mpiexec"),
    "ddmpi_2": (lambda work: run_ddmpi(work, "plain", 2), "mpiexec"),
    "ddmpi_tls_h1": (lambda work: run_ddmpi(work, "tls_h1", 1), "mpiexec"),
    "ddmpi_tls_h2": (lambda work: run_ddmpi(work, "tls_h2", 1), "mpiexec"),
    "ddmpi_resize": (_run_resize, "mpiexec"),
    "aria2": (run_aria2, "aria2c"),
    "img2dataset": (run_img2dataset, "img2dataset"),
}
"""By name: how one run is made, and the program without which it cannot be."""


def make_images() -> dict[str, bytes]:
    """JPEG files of 600 x 600 pixels, between a drawing and noise, about 90 KB each."""
    rng = np.random.default_rng(11)
    bodies = {}
    for number in range(IMAGES):
        coarse = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, (IMAGE_SIDE, IMAGE_SIDE), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(smooth + rng.integers(0, 24, smooth.shape), 0, 255).astype(np.uint8)
        encoded = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
        bodies[f"{number:05d}.jpg"] = encoded.tobytes()
    return bodies


@contextmanager
def _servers(folder: Path, names: list[str], rows: int) -> Iterator[Callable[[str], Work]]:
    """What each program of that name has to fetch."""
    with (
        serving(folder / "small", make_bodies(FILES)) as small,
        serving(folder / "images", make_images() if "ddmpi_resize" in names else {}) as images,
    ):
        yield (
            lambda name: (
                Work(images, folder / "work", rows // ROWS_PER_IMAGE_ROW)
                if name == "ddmpi_resize"
                else Work(small, folder / "work", rows)
            )
        )


def measure(name: str, work: Work) -> Figures:
    """One run, from a machine whose disk is at rest to an empty folder."""
    work.scratch.mkdir()
    os.sync()
    try:
        figures = RUNNERS[name][0](work)
    finally:
        shutil.rmtree(work.scratch)
    print(f"{name}: {figures}, load {os.getloadavg()[0]:.1f}", flush=True)
    return figures


def compare(names: list[str], folder: Path, rows: int, repeat: int) -> dict[str, Figures | None]:
    """The median of each figure over ``repeat`` runs of each program, taken in turn; None for what is not installed."""
    installed = [name for name in names if shutil.which(RUNNERS[name][1]) is not None]
    runs: dict[str, list[Figures]] = {name: [] for name in installed}
    with _servers(folder, installed, rows) as work_of:
        for _ in range(repeat):
            for name in installed:
                runs[name].append(measure(name, work_of(name)))
    return {name: _medians(runs[name]) if name in runs else None for name in RUNNERS}


def _medians(runs: list[Figures]) -> Figures:
    return {key: statistics.median(figures[key] for figures in runs) for key in runs[0]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS, help="of one run (some programs take fewer)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=RUNNERS, default=list(RUNNERS))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for input and output")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir=arguments.folder, prefix="ddmpi-throughput-"))
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    try:
        figures = compare(arguments.only, scratch, arguments.rows, arguments.repeat)
    finally:
        shutil.rmtree(scratch)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
