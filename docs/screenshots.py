"""Takes the pictures of docs/images with Chromium: ``python -m docs.screenshots`` (see ``tests/browser.py``)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from ddmpi.report.page import render
from docs.sample_report import sample_report
from tests.whole.browser import running_browser, screenshot, show_as

FOLDER = Path(__file__).resolve().parent / "images"
SHOTS = tuple(
    (f"report-{servers}-servers{name}", servers, width, height, is_dark)
    for servers in (40, 10_000)
    for name, width, height, is_dark in (
        ("", 1280, 2700, False),
        ("-phone", 390, 2400, False),
        ("-dark", 1280, 1700, True),
    )
)
"""(name, servers, width and height in pixels, dark or light)."""
COLORS = 256
SHRUNK = 0.75


def main() -> int:
    """Write all pictures; returns the exit code."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running_browser() as browser:
        for name, servers, width, height, is_dark in SHOTS:
            page, picture = Path(folder) / f"{name}.html", Path(folder) / f"{name}.png"
            page.write_text(render(sample_report(servers)), encoding="utf-8")
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
    sys.exit(main())
