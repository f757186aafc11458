"""Which rows are left, for whom they wait, until when, and what to do: the words of the screen, the summary and
``--status``. Times are seconds since 1970."""

from __future__ import annotations

from datetime import datetime

from ddmpi.core.ledger.waiting import Wait, Waiting
from ddmpi.report.formats import counted

AGAIN = "run the same command again"


def waiting_text(waiting: Waiting, now: float) -> str:
    """Return for whom rows wait, until when and why; empty if for nobody."""
    parts = [_wait_text(wait, now) for wait in waiting.listed]
    if more := waiting.servers - sum(wait.servers for wait in waiting.listed):
        rows = waiting.rows - sum(wait.rows for wait in waiting.listed)
        parts.append(f"{rows:,} for {counted(more, 'more server')}")
    return ", ".join(parts)


def _wait_text(wait: Wait, now: float) -> str:
    others = f" and {wait.servers - 1:,} more" if wait.servers > 1 else ""
    until = f" until {clock(wait.until, now)}" if wait.until else ""
    since = f" since {clock(wait.since, now)}" if wait.since else ""
    return f"{wait.rows:,} for {wait.server}{others}{until} ({wait.why}{since})"


def pending_text(pending: int, waiting: Waiting, now: float) -> str:
    """Return how many rows are pending, for whom they wait, and what to do: two sentences, or none."""
    if not pending:
        return ""
    rows = f"{counted(pending, 'row')} {'is' if pending == 1 else 'are'} pending"
    if not waiting.rows:
        return f"{rows}; {AGAIN} to go on."
    if waiting.rows < pending:
        return f"{rows}: {waiting_text(waiting, now)}; {AGAIN} for the others."
    advice = f"{AGAIN} after {clock(waiting.until, now)}" if waiting.until else f"edit control.yaml, then {AGAIN}"
    return f"{rows}: {waiting_text(waiting, now)}; {advice}."


def clock(unix_s: float, now: float) -> str:
    """Return the local time, with the date where it is not today's."""
    then, today = (datetime.fromtimestamp(at).astimezone() for at in (unix_s, now))
    return then.strftime("%H:%M:%S" if then.date() == today.date() else "%Y-%m-%d %H:%M:%S")
