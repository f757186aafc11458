"""Takes the pictures of docs/images with Chromium: ``python -m docs.screenshots`` (needs chromium and Pillow)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from ddmpi.report.page import render
from docs.sample_report import sample_report

FOLDER = Path(__file__).resolve().parent / "images"
SHOTS = (
    ("report-40-servers", 40, 1280, 3100),
    ("report-10000-servers", 10_000, 1280, 1900),
    ("report-10000-servers-phone", 10_000, 500, 2600),
)
"""(name, servers, width and height in pixels); Chromium has no windows below 500 pixels."""
COLORS = 256
SHRUNK = 0.75


def main() -> int:
    """Write all pictures; returns the exit code."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.stderr.write("chromium is not installed\n")
        return 2
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, servers, width, height in SHOTS:
            page, picture = Path(folder) / f"{name}.html", Path(folder) / f"{name}.png"
            page.write_text(render(sample_report(servers)), encoding="utf-8")
            command = [
                chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-extensions",
                f"--user-data-dir={folder}/profile", f"--window-size={width},{height}", f"--screenshot={picture}",
                page.as_uri(),
            ]  # fmt: skip
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            with Image.open(picture) as shot:
                small = shot.convert("RGB").resize(
                    (int(width * SHRUNK), int(height * SHRUNK)), Image.Resampling.LANCZOS
                )
                small.quantize(COLORS).save(FOLDER / f"{name}.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
