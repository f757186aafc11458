"""What a person sees on rank 0: a progress bar on a terminal, else a line every ten seconds; at the end a summary.

Output is a courtesy: when the output takes no more (closed pipe, full disk) the run goes on without it.
"""

from __future__ import annotations

import sys
from collections import deque
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

from ddmpi.report.data import Snapshot, Summary, by_count, by_rows, waste_text
from ddmpi.report.formats import counted, duration, share, size

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress
    from rich.table import Table

LINE_INTERVAL_S = 10.0
BAR_INTERVAL_S = 0.25
RATE_WINDOW_S = 10.0
LEAST_WINDOW_S = 1.0
"""Less time has no rate worth telling, and a line without one no use."""
MOST_SIGNALS = 5
"""Of what servers say of their files' use: what was said of the most rows."""
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
            columns: width of the terminal, None where there is none.
        """
        self._columns = columns
        self._is_terminal = columns is not None
        self._bar: Progress | None = None
        self._next_at = 0.0
        self._line_at = 0.0
        self._history: deque[tuple[float, Snapshot]] = deque()
        self._broken = False

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
        import_module("rich.table")

    def is_due(self, now: float) -> bool:
        """Return whether ``show`` would show anything: the numbers for it cost something to add up."""
        return now >= self._next_at and not self._broken

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
        if self._is_terminal:
            self._update_bar(snapshot)
        elif now >= self._line_at and now - self._history[0][0] >= LEAST_WINDOW_S:
            self._line_at = now + LINE_INTERVAL_S
            self.say(self._line(snapshot))

    def _line(self, snapshot: Snapshot) -> str:
        if not snapshot.rows:
            return f"{snapshot.stage}: {snapshot.rows_done:,} {snapshot.unit} so far, {self._text(snapshot)}"
        done = 100 * snapshot.rows_done / snapshot.rows
        text = self._text(snapshot)
        return f"{snapshot.stage}: {snapshot.rows_done:,} of {snapshot.rows:,} {snapshot.unit} ({done:.1f} %), {text}"

    def _update_bar(self, snapshot: Snapshot) -> None:
        text = self._text(snapshot)
        if self._bar is None:
            self._bar = self._start_bar()
        self._bar.update(
            self._bar.task_ids[0],
            total=snapshot.rows or None,
            completed=snapshot.rows_done,
            description=snapshot.stage,
            of=f" of {snapshot.rows:,}" if snapshot.rows else "",
            unit=snapshot.unit,
            text=text,
        )

    def _start_bar(self) -> Progress:
        from rich.progress import (  # noqa: PLC0415  # without a terminal there is no bar
            BarColumn,
            Progress,
            SpinnerColumn,
            TaskProgressColumn,
            TextColumn,
        )

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            # The last column is what a narrow terminal cuts off: what matters least comes last.
            TextColumn("{task.completed:,.0f}{task.fields[of]} {task.fields[unit]}  {task.fields[text]}"),
        )
        bar = Progress(*columns, console=self._rich, transient=True)
        bar.add_task("", total=None, of="", unit="", text="")
        bar.start()
        return bar

    def _text(self, snapshot: Snapshot) -> str:
        """Return what is known, as text; rates and the end only where enough was seen for them."""
        known = []
        (first, before), (last, _) = self._history[0], self._history[-1]
        if (seconds := last - first) >= LEAST_WINDOW_S:
            rows_per_s = (snapshot.rows_done - before.rows_done) / seconds
            if snapshot.stage in FETCHING_NOTHING:
                known = [f"{_rate(rows_per_s)} {snapshot.unit}/s"]
            else:
                known = [f"{_rate(rows_per_s)} files/s", f"{(snapshot.bytes - before.bytes) / seconds / 1e6:,.1f} MB/s"]
            if rows_per_s > 0 and snapshot.rows and snapshot.stage in FORESEEN and not snapshot.note:
                known.append(f"ETA {duration((snapshot.rows - snapshot.rows_done) / rows_per_s)}")
        if snapshot.stage not in FETCHING_NOTHING:
            known += [counted(snapshot.errors, "error"), f"{counted(snapshot.servers_active, 'server')} active"]
        if snapshot.note:
            known.append(snapshot.note)
        return ", ".join(known)

    def finish(self, summary: Summary) -> None:
        """Replace the bar by the summary."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._print(_summary_table(summary))
        if summary.slowest:
            names = ", ".join(f"{name} ({duration(seconds)})" for name, seconds in summary.slowest)
            self.say(f"Servers with the most time left: {names}")
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


def _rate(per_s: float) -> str:
    """Return the rate as text, with a decimal below 10: a polite run over few servers is slow."""
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.1f}"


def _summary_table(summary: Summary) -> Table:
    from rich.table import Table  # noqa: PLC0415  # see Console.prepare

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
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
