"""What OpenCV does when nothing else does anything: ``opencv_alone.py FOLDER FILES`` decodes, shrinks to 224 pixels and
encodes so many files of the folder (the same ones again and again), a thread per core, and prints files per second."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

LONGEST_SIDE = 224
QUALITY = 95


def shrink(path: Path) -> int:
    """One file; the size of the result in bytes."""
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(f"{path} is no image")
    height, width = pixels.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    size = (round(width * scale), round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return len(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])


def main() -> int:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    paths = sorted(folder.iterdir())
    cv2.setNumThreads(1)  # the threads below are the parallel part
    started = time.monotonic()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        total_bytes = sum(pool.map(shrink, (paths[number % len(paths)] for number in range(count)), chunksize=1))
    print(f"{total_bytes} bytes")
    print(count / (time.monotonic() - started))
    return 0


if __name__ == "__main__":
    sys.exit(main())
