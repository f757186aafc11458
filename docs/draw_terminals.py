"""Draws the terminals of docs/images, as rich shows them: ``python -m docs.draw_terminals``."""

from __future__ import annotations

import io
import re
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console as RichConsole

from ddmpi.core.ledger.waiting import Wait, Waiting
from ddmpi.report.console import Console
from ddmpi.report.data import Snapshot
from ddmpi.report.pending import note_text

FOLDER: Final = Path(__file__).resolve().parent / "images"
NOW: Final = 1_893_495_600.0
"""Seconds since 1970, of the made-up moment."""
RUNNING: Final = Snapshot(
    "downloading", 1_234_567, 701_234, 12_345, 9_123_456_789, 40, durable=697_900,
    slowest=[("static.example.org", 7_260.0), ("img.example.net", 1_800.0), ("media.example.com", 460.0)],
)  # fmt: skip
WAITS: Final = Waiting(
    (
        Wait("static.example.org", 1_204, NOW + 640, "429, Retry-After 900 s"),
        Wait("dead.example.org", 300, NOW + 94, "timeout, out of reach", NOW - 300, given_up_at=NOW + 2_880),
    ),
    2,
    1_504,
    NOW + 94,
)  # fmt: skip
TERMINALS: Final = (
    ("terminal-80", 80, RUNNING, 12_340),
    ("terminal-160", 160, RUNNING, 12_340),
    (
        "terminal-waiting",
        100,
        replace(RUNNING, rows_done=1_233_063, errors=12_400, note=note_text(WAITS, NOW, is_all=True), slowest=()),
        0,
    ),
)
"""(name, columns, what is shown, files of the ten seconds before)."""


def terminal_svg(columns: int, snapshot: Snapshot, files: int) -> str:
    """Return the picture of a terminal. It loads no font."""
    console = Console(columns)
    before = replace(snapshot, rows_done=snapshot.rows_done - files, bytes=snapshot.bytes - files * 13_000)
    with redirect_stdout(io.StringIO()):
        console.show(before, 0.0)
        console.show(snapshot, 10.0)
    recorder = RichConsole(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="standard")
    recorder.print(console.screen(snapshot))
    svg = recorder.export_svg(title="mpiexec -n 4 python -m ddmpi config.yaml", unique_id="ddmpi")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def main() -> int:
    """Write all pictures; returns the exit code."""
    FOLDER.mkdir(exist_ok=True)
    for name, columns, snapshot, files in TERMINALS:
        (FOLDER / f"{name}.svg").write_text(terminal_svg(columns, snapshot, files), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
