"""Have a job shrink damaged images: ``python -m tests.chaos.mutated_images --images 10000``.

Images of eight formats, mutated by a seed: changed, missing and doubled bytes, and headers that claim up to 2**30
pixels. A job of one process fetches them from loopback with ``image_size``. It has to end well with every row final,
what it stores has to be an image of that size, nothing may be on standard error, and its resident memory has to stay
below ``MOST_BYTES``. The last line is JSON; exit code 1 if any of that is not so.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from PIL import Image

import ddmpi
from tests.fleet.threaded import QuietHandler, serving
from tests.whole.job import make_job

MOST_BYTES: Final = 450_000_000
IMAGE_SIZE: Final = 64
FORMATS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "JPEG": ("RGB", {}),
    "progressive JPEG": ("RGB", {"progressive": True, "subsampling": 0}),
    "PNG": ("RGBA", {}),
    "GIF": ("P", {}),
    "WEBP": ("RGB", {}),
    "TIFF": ("RGB", {"compression": "tiff_lzw"}),
    "BMP": ("RGB", {}),
    "AVIF": ("RGB", {}),
    "JPEG2000": ("RGB", {}),
}
_SIZE_FIELDS: Final = {
    "JPEG": (b"\xff\xc0", 5, 2, "big"),
    "progressive JPEG": (b"\xff\xc2", 5, 2, "big"),
    "PNG": (b"IHDR", 4, 4, "big"),
    "GIF": (b"GIF8", 6, 2, "little"),
    "BMP": (b"BM", 18, 4, "little"),
    "AVIF": (b"ispe", 8, 4, "big"),
    "JPEG2000": (b"ihdr", 4, 4, "big"),
}
"""Where a format has its size: behind these bytes, so far, so wide."""


def original(name: str) -> bytes:
    """Return an image of 300 x 200 pixels."""
    mode, options = FORMATS[name]
    stream = io.BytesIO()
    coarse = np.random.default_rng(5).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((300, 200)).convert(mode)
    picture.save(stream, name.removeprefix("progressive "), **options)
    return stream.getvalue()


def mutated(originals: Sequence[tuple[str, bytes]], seed: int) -> bytes:
    """Return one of the images, damaged."""
    rng = random.Random(seed)
    name, whole = originals[seed % len(originals)]
    body = bytearray(whole)
    if rng.random() < 0.2 and name in _SIZE_FIELDS:
        magic, at, width, order = _SIZE_FIELDS[name]
        place = body.index(magic) + at
        for side in (place, place + width):
            claimed = min(rng.choice([1, 7_000, 16_383, 32_768, 65_500]), 256**width - 1)
            body[side : side + width] = claimed.to_bytes(width, "little" if order == "little" else "big")
    for _ in range(rng.choice([0, 1, 2, 8])):
        place = rng.randrange(min(len(body), 600) if rng.random() < 0.5 else len(body))
        match rng.randrange(4):
            case 0:
                body[place] = rng.randrange(256)
            case 1:
                del body[place : place + rng.choice([1, 2, 40])]
            case 2:
                body[place:place] = rng.randbytes(rng.choice([1, 2, 40]))
            case _:
                body[place:place] = body[place : place + 30]
    return bytes(body[: rng.randrange(len(body))] if rng.random() < 0.1 else body)


@dataclass(frozen=True)
class Run:
    code: int
    stderr: str
    peak_bytes: int
    outcomes: Counter[str]
    wrong: list[str]
    """What was stored that is no image of the size."""
    warned: int


def run(folder: Path, images: int, first_seed: int) -> Run:
    """Run the job over so many images."""
    originals = [(name, original(name)) for name in FORMATS]

    class Handler(QuietHandler):
        def get(self) -> None:
            self.answer(200, mutated(originals, int(self.path[1:])), Content_Type="image/jpeg")

    with serving(Handler) as port:
        table = folder / "urls.csv"
        with table.open("w", newline="") as file:
            urls = (f"http://127.0.0.1:{port}/{seed}" for seed in range(first_seed, first_seed + images))
            csv.writer(file).writerows([("identifier",), *((url,) for url in urls)])
        job = make_job(
            folder / "job", table, downloader_parameters={"image_size": IMAGE_SIZE}, profiling={"mode": "uniform"}
        )
        config = job.folder / "config.yaml"
        config.write_text(yaml.safe_dump(job.config))
        errors = folder / "stderr"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "ddmpi", str(config)], stdout=subprocess.DEVNULL, stderr=stderr
            )
            peak_bytes = _peak_bytes(process)
    rows = ddmpi.open_results(job.output).to_table(columns=["outcome", "error_kind", "image", "warnings"]).to_pylist()
    outcomes = Counter(row["error_kind"] or row["outcome"] for row in rows)
    wrong = [text for row in rows if row["outcome"] == "success" and (text := _objection(row["image"]))]
    warned = sum(bool(row["warnings"]) for row in rows)
    return Run(process.returncode, errors.read_text(), peak_bytes, outcomes, wrong, warned)


def _peak_bytes(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; return the most resident memory that it was seen to have had. What the kernel counts of a
    process that has ended begins with that of the one that started it."""
    peak_bytes = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:  # it has just ended
            continue
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        peak_bytes = max(peak_bytes, int(found[1]) << 10 if found else 0)
        time.sleep(0.02)
    return peak_bytes


def _objection(body: bytes) -> str:
    with Image.open(io.BytesIO(body)) as image:
        return "" if max(image.size) <= IMAGE_SIZE else f"{image.format} of {image.size} pixels"


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.mutated_images", description=__doc__)
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="ddmpi-mutated-") as name:
        done = run(Path(name), options.images, options.first_seed)
    is_well = done.code == 0 and not done.wrong and not done.stderr and done.peak_bytes < MOST_BYTES
    is_well = is_well and done.outcomes.total() == options.images
    figures = {
        "images": options.images,
        "exit_code": done.code,
        "peak_mib": done.peak_bytes >> 20,
        "outcomes": dict(done.outcomes),
        "warned": done.warned,
        "wrong": done.wrong[:5],
        "stderr": done.stderr[:2_000],
    }
    print(json.dumps(figures))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
