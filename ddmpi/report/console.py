"""What a person sees on rank 0: a progress bar on a terminal, else a line every ten seconds; at the end a summary.

The same lines and the summary go to a log, on a terminal too. Output is a courtesy: when it takes no more (closed
terminal, full disk) the run goes on without it.
"""

from __future__ import annotations

import io
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

from ddmpi.report.data import Snapshot, Summary, by_count, by_rows, waste_text
from ddmpi.report.formats import counted, duration, share, size

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table

LINE_INTERVAL_S = 10.0
REPEAT_INTERVAL_S = 60.0
"""A line that says what the one before it said comes that often: a run may wait for hours."""
BAR_INTERVAL_S = 0.25
RATE_WINDOW_S = 10.0
LEAST_WINDOW_S = 1.0
"""Less time has no rate worth telling, and a line without one no use."""
WIDE_COLUMNS = 120
"""A terminal from this width on has room for more than what matters most."""
BAR_COLUMNS = (10, 30)
"""Least and most characters of the bar."""
MOST_SIGNALS = 5
"""Of what servers say of their files' use: what was said of the most rows."""
MOST_SLOWEST = 3
"""Of the servers with the most time left, below the bar."""
PARTITIONING = "clustering the table"
LOOKING_UP = "looking up addresses"
FETCHING_NOTHING = (LOOKING_UP, PARTITIONING)
"""Stages that have rows, or names, and no bytes."""
FORESEEN = (LOOKING_UP, PARTITIONING, "downloading")
"""Stages whose speed says when they end, unless there is a note; profiling asks each server for a few rows only."""


class Console:
    """Progress and summary on stdout."""

    def __init__(self, columns: int | None) -> None:
        """
        Args:
            columns: width of the terminal; None, or 0, where there is none.
        """
        self._columns = columns or None
        self._is_terminal = self._columns is not None
        self._bar: Live | None = None
        self._next_at = 0.0
        self._line_at = 0.0
        self._last_line, self._repeat_at = "", 0.0
        self._history: deque[tuple[float, Snapshot]] = deque()
        self._broken = False
        self._log: Callable[[str], None] | None = None
        self._unlogged: list[str] = []  # what was said before there was a log

    @cached_property
    def _rich(self) -> RichConsole:
        from rich.console import Console as RichConsole  # noqa: PLC0415  # see prepare

        return RichConsole(
            file=sys.stdout,
            soft_wrap=True,
            highlight=False,
            width=self._columns,
            force_terminal=self._is_terminal,
        )

    def prepare(self) -> None:
        """Load what draws the summary, before it is needed."""
        import_module("rich.console")
        import_module("rich.table")

    def log_to(self, log: Callable[[str], None]) -> None:
        """Have each line that is said logged, those until now too; the first log counts."""
        if self._log is None:
            self._log = log
            for line in self._unlogged:
                log(line)
            self._unlogged.clear()

    def keep(self, text: str) -> None:
        """Log what is told elsewhere, or would be in the way of the bar."""
        for line in text.splitlines():
            if self._log is None:
                self._unlogged.append(line)
            else:
                self._log(line)

    def is_due(self, now: float) -> bool:
        """Return whether ``show`` would show anything: the numbers for it cost something to add up."""
        return now >= self._next_at and not (self._broken and self._log is None)

    def show(self, snapshot: Snapshot, now: float) -> None:
        """Show the state; called often, prints now and then."""
        if not self.is_due(now):
            return
        self._next_at = now + BAR_INTERVAL_S
        last = self._history[-1][1] if self._history else snapshot
        if (last.stage, last.rows) != (snapshot.stage, snapshot.rows):
            # Another stage counts other things, or at another speed.
            self._history.clear()
        # However rarely this is called, there is an entry before the new one.
        while len(self._history) > 1 and self._history[1][0] <= now - RATE_WINDOW_S:
            self._history.popleft()
        self._history.append((now, snapshot))
        if self._is_terminal and not self._broken:
            self._update_bar(snapshot)
        if now >= self._line_at and now - self._history[0][0] >= LEAST_WINDOW_S:
            self._line_at = now + LINE_INTERVAL_S
            line = self._line(snapshot)
            if line != self._last_line or now >= self._repeat_at:
                self._last_line, self._repeat_at = line, now + REPEAT_INTERVAL_S
                (self.keep if self._is_terminal else self.say)(line)

    def _line(self, snapshot: Snapshot) -> str:
        if not snapshot.rows:
            known = [f"{snapshot.rows_done:,} {snapshot.unit} so far"]
        else:
            known = [f"{_done_of(snapshot)} ({_percentage(snapshot)})"]
        known += [*_durable(snapshot), *self._speeds(snapshot, is_wide=True), *self._counts(snapshot)]
        if snapshot.note:
            known.append(snapshot.note)
        elif snapshot.rows_waiting:
            known.append(f"{snapshot.rows_waiting:,} waiting for their servers")
        return f"{snapshot.stage}: {', '.join(known)}"

    # ---- the bar

    def _update_bar(self, snapshot: Snapshot) -> None:
        try:
            if self._bar is None:
                self._bar = self._start_bar()
            self._bar.update(self.screen(snapshot), refresh=True)
        except OSError:
            self._broken = True

    def _start_bar(self) -> Live:
        from rich.live import Live  # noqa: PLC0415  # without a terminal there is no bar

        bar = Live("", console=self._rich, transient=True, auto_refresh=False)
        bar.start()
        return bar

    def screen(self, snapshot: Snapshot) -> RenderableType:
        """Return what a terminal shows: the bar, and below it what else there is to say, a line each."""
        from rich.console import Group  # noqa: PLC0415  # without a terminal there is no bar
        from rich.progress_bar import ProgressBar  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        columns = self._columns or WIDE_COLUMNS
        is_wide = columns >= WIDE_COLUMNS
        known = [*self._speeds(snapshot, is_wide=is_wide), *self._counts(snapshot, is_wide=is_wide)]
        if is_wide and snapshot.rows:
            known = [_done_of(snapshot), *_durable(snapshot), *known]
        elif not snapshot.rows:
            known = [f"{snapshot.rows_done:,} {snapshot.unit}", *known]
        percentage = _percentage(snapshot) if snapshot.rows else ""
        text = ", ".join(known)
        least, most = BAR_COLUMNS
        room = columns - len(snapshot.stage) - len(percentage) - len(text) - 4
        bar = ProgressBar(
            total=snapshot.rows or None, completed=snapshot.rows_done, width=min(most, max(least, room)),
            pulse=not snapshot.rows,
        )  # fmt: skip
        grid = Table.grid(padding=(0, 1))
        for _ in range(4):
            grid.add_column(no_wrap=True)
        grid.add_row(snapshot.stage, bar, percentage, Text(text))
        below = [snapshot.note, "" if snapshot.note else snapshot.waiting]
        if is_wide and snapshot.slowest:
            below.append(f"slowest: {_slowest_text(snapshot.slowest[:MOST_SLOWEST])}")
        return Group(grid, *(Text(line, no_wrap=False, overflow="fold") for line in below if line))

    # ---- what is known

    def _speeds(self, snapshot: Snapshot, *, is_wide: bool) -> list[str]:
        """Return rates and the end, only where enough was seen for them."""
        (first, before), (last, _) = self._history[0], self._history[-1]
        seconds = last - first
        if seconds < LEAST_WINDOW_S:
            return []
        rows_per_s = (snapshot.rows_done - before.rows_done) / seconds
        if snapshot.stage in FETCHING_NOTHING:
            known = [f"{_rate(rows_per_s)} {snapshot.unit}/s"]
        else:
            known = [f"{_rate(rows_per_s)} files/s"]
            known += [f"{(snapshot.bytes - before.bytes) / seconds / 1e6:,.1f} MB/s"] if is_wide else []
        if rows_per_s > 0 and snapshot.rows and snapshot.stage in FORESEEN and not snapshot.note:
            known.append(f"ETA {duration((snapshot.rows - snapshot.rows_done) / rows_per_s)}")
        return known

    def _counts(self, snapshot: Snapshot, *, is_wide: bool = True) -> list[str]:
        if snapshot.stage in FETCHING_NOTHING:
            return []
        known = [counted(snapshot.errors, "error")]
        # Ranks say who was asked since they last said so, which may be a moment ago.
        active = max(before.servers_active for _, before in self._history)
        return [*known, f"{counted(active, 'server')} active"] if active and is_wide else known

    # ---- the end

    def finish(self, summary: Summary) -> None:
        """Replace the bar by the summary."""
        if self._bar is not None:
            try:
                self._bar.stop()
            except OSError:
                self._broken = True
            self._bar = None
        self._print(_summary_table(summary))
        if summary.slowest:
            self.say(f"Servers with the most time left: {_slowest_text(summary.slowest)}")
        if waste := waste_text(summary.waste):
            self.say(f"Waste: {waste}")
        for text, rows, obeyed in by_rows(summary.signals)[:MOST_SIGNALS]:
            what = f"{obeyed:,} not stored, as respect says" if obeyed else "stored all the same"
            self.say(f"Heard: {text}: {counted(rows, 'row')}, {what}")
        self.say(summary.ending)

    def say(self, text: str) -> None:
        """Print a line as long as the output takes it."""
        self._print(text)

    def _print(self, text: str | Table) -> None:
        self.keep(text if isinstance(text, str) else _plain(text))
        if self._broken:
            return
        try:
            if isinstance(text, str) and self._bar is None:
                sys.stdout.write(f"{text}\n")
            else:
                self._rich.print(text, markup=False)
            sys.stdout.flush()
        except OSError:
            self._broken = True


def _plain(table: Table) -> str:
    from rich.console import Console as RichConsole  # noqa: PLC0415  # see Console.prepare

    file = io.StringIO()
    RichConsole(file=file, soft_wrap=True, highlight=False, color_system=None, width=1_000).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _done_of(snapshot: Snapshot) -> str:
    return f"{snapshot.rows_done:,} of {snapshot.rows:,} {snapshot.unit}"


def _durable(snapshot: Snapshot) -> list[str]:
    return [] if snapshot.durable is None else [f"{snapshot.durable:,} durable"]


def _percentage(snapshot: Snapshot) -> str:
    return f"{100 * snapshot.rows_done / snapshot.rows:.1f} %"


def _slowest_text(slowest: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} ({duration(seconds)})" for name, seconds in slowest)


def _rate(per_s: float) -> str:
    """Return the rate as text, with a decimal below 10: a polite run over few servers is slow."""
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.1f}"


def _summary_table(summary: Summary) -> Table:
    from rich.table import Table  # noqa: PLC0415  # see Console.prepare

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(overflow="fold")  # a path that is cut off is of no use
    table.add_row("rows", f"{summary.rows:,}")
    table.add_row("successes", f"{summary.successes:,}", share(summary.successes, summary.rows))
    table.add_row("errors", f"{summary.errors:,}", share(summary.errors, summary.rows))
    for kind, count in by_count(summary.kinds):
        table.add_row(f"  {kind}", f"{count:,}")
    table.add_row("pending", f"{summary.pending:,}", share(summary.pending, summary.rows))
    if summary.ignored:
        table.add_row("ignored", f"{summary.ignored:,}", share(summary.ignored, summary.rows))
    if summary.placeholders[0]:
        pictures, urls = summary.placeholders
        table.add_row("placeholders", f"{urls:,}", f"URLs of {counted(pictures, 'picture')}")
    speed = summary.fetched_rows / max(1e-9, summary.seconds)
    table.add_row("this run", f"{summary.fetched_rows:,}", f"rows in {duration(summary.seconds)}, {speed:,.1f} rows/s")
    table.add_row("requests", f"{summary.requests:,}", f"{size(summary.fetched_bytes)} received")
    table.add_row("results", "", summary.output)
    if summary.report:
        table.add_row("report", "", summary.report)
    return table
