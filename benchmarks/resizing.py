"""Downloading with ``image_size`` beside OpenCV alone: ``python -m benchmarks.resizing``.

JPEG of 600 x 600 pixels from nginx on loopback, made smaller to 224, by one downloading rank; then the same files from
the page cache by OpenCV with a thread per core. The JSON line last: files/s and ms of processor time per file of both,
with start and end.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import yaml

from benchmarks.processes import cache_bytecode, run
from benchmarks.throughput_runners import Work, ddmpi, make_config, measure
from benchmarks.web_server import SERVERS, serving

IMAGES: Final = 200
IMAGE_SIDE: Final = 600
IMAGE_SIZE: Final = 224


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


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resizing", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4_000)
    rows = parser.parse_args(argv).rows
    cache_bytecode()
    plain = ddmpi("sha256")

    def command(work: Work) -> list[str]:
        words = plain.command(work)
        config: dict[str, Any] = make_config(work)
        config["downloader_parameters"]["image_size"] = IMAGE_SIZE
        Path(words[-1]).write_text(yaml.safe_dump(config))
        return words

    with tempfile.TemporaryDirectory(prefix="ddmpi-resizing-") as name:
        folder = Path(name)
        with serving(folder / "server", make_images()) as server:
            done = measure(replace(plain, command=command), Work(server.urls(rows, SERVERS), folder / "work", SERVERS))
            script = str(Path(__file__).with_name("opencv_alone.py"))
            alone = run([sys.executable, script, str(server.files), str(rows)], folder / "printed", folder)
    figures = {
        "files_per_s": done.files / done.wall_s,
        "cpu_ms": done.cpu_s * 1e3 / done.files,
        "peak_rss_mb": done.peak_rss_mb,
        "opencv_alone_files_per_s": float(alone.printed.split()[-1]),
        "opencv_alone_cpu_ms": alone.usage.cpu_s * 1e3 / rows,
    }
    print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


if __name__ == "__main__":
    main(sys.argv[1:])
