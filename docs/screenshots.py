"""Takes the pictures of docs/images with Chromium: ``python -m docs.screenshots [NAME ...]`` (see
``tests/whole/browser.py``)."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from ddmpi.report.page import render
from docs.sample_gallery import sample_gallery
from docs.sample_report import sample_report
from tests.whole.browser import running_browser, screenshot, show_as


def _report(servers: int) -> str:
    return render(sample_report(servers))


FOLDER = Path(__file__).resolve().parent / "images"
SHOTS: tuple[tuple[str, Callable[[], str], int, int, bool], ...] = (
    *(
        (f"report-{servers}-servers{name}", partial(_report, servers), width, height, is_dark)
        for servers in (40, 10_000)
        for name, width, height, is_dark in (
            ("", 1280, 2700, False),
            ("-phone", 390, 2400, False),
            ("-dark", 1280, 1700, True),
        )
    ),
    ("export-hf", sample_gallery, 1280, 900, False),
)
"""(name, what makes the page, width and height in pixels, dark or light)."""
COLORS = 256
SHRUNK = 0.75


def main(names: Sequence[str]) -> int:
    """Write these pictures, all if none is named; returns the exit code."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running_browser() as browser:
        for name, make, width, height, is_dark in SHOTS:
            if names and name not in names:
                continue
            page, picture = Path(folder) / f"{name}.html", Path(folder) / f"{name}.png"
            page.write_text(make(), encoding="utf-8")
            show_as(browser, width, 900, dark=is_dark)
            browser.get(page.as_uri())
            screenshot(browser, picture, height=height)
            with Image.open(picture) as shot:
                small = shot.convert("RGB").resize(
                    (int(shot.width * SHRUNK), int(shot.height * SHRUNK)), Image.Resampling.LANCZOS
                )
                small.quantize(COLORS).save(FOLDER / f"{name}.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
