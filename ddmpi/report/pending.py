"""Which rows are left, for whom they wait, until when, and what to do: the words of the screen, the summary and
``--status``. Times are seconds since 1970."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ddmpi.core.ledger.waiting import Wait, Waiting
from ddmpi.report.formats import counted, duration

AGAIN = "run the same command again"
MOST_TOLD = 3
"""Servers in a sentence."""
LEAST_TOLD_S = 1.0
"""A shorter wait is no news."""
COLUMNS = ("server", "rows", "asked again", "why", "given up")
"""Of ``waiting_rows``."""


def order_text(order: str, job: str | None) -> str:
    """Return how an order such as ``retry-failed`` is given: by a command that names the job, or as an option where
    there is no name for it."""
    return f"--{order}" if job is None else f"ddmpi {order} {job}"


def waiting_text(waiting: Waiting, now: float) -> str:
    """Return for whom rows wait, until when and why; empty if for nobody."""
    told = waiting.listed[:MOST_TOLD]
    parts = [_wait_text(wait, now) for wait in told]
    if more := waiting.servers - sum(wait.servers for wait in told):
        rows = waiting.rows - sum(wait.rows for wait in told)
        parts.append(f"{rows:,} for {counted(more, 'more server')}")
    return ", ".join(parts)


def _wait_text(wait: Wait, now: float) -> str:
    until = f" until {clock(wait.until, now)}" if wait.until else ""
    given_up = f", given up about {clock(wait.given_up_at, now)}" if wait.given_up_at else ""
    return f"{wait.rows:,} for {_servers(wait)}{until} ({_why(wait, now)}{given_up})"


def _servers(wait: Wait) -> str:
    return f"{wait.server} and {wait.servers - 1:,} more" if wait.servers > 1 else wait.server


def _why(wait: Wait, now: float) -> str:
    return f"{wait.why} since {clock(wait.since, now)}" if wait.since else wait.why


def waiting_rows(waiting: Waiting, now: float) -> list[tuple[str, ...]]:
    """Return the waits that are listed, with cells for ``COLUMNS``."""
    return [
        (
            _servers(wait),
            f"{wait.rows:,}",
            clock(wait.until, now) if wait.until else "?",
            _why(wait, now),
            f"about {clock(wait.given_up_at, now)}" if wait.given_up_at else "no",
        )
        for wait in waiting.listed
    ]


def note_text(waiting: Waiting, now: float, *, is_all: bool) -> str:
    """Return for whom rows wait; ``is_all``: the run does nothing else. Empty where nobody is waited for."""
    if not waiting.rows:
        return ""
    until = f" until {clock(waiting.until, now)}" if waiting.until > now else ""
    who = "waiting" if is_all else f"{counted(waiting.rows, 'row')} wait{'s' if waiting.rows == 1 else ''}"
    return f"{who} for {counted(waiting.servers, 'server')}{until}: {waiting_text(waiting, now)}"


def next_text(due: Sequence[tuple[float, str, int]], now: float) -> str:
    """Return what comes next where no request is under way, if that is not at once: ``due`` says when (s, on the clock
    of ``now``), of which server, for how many rows."""
    told = sorted(due)[:MOST_TOLD]
    if not told or told[0][0] - now < LEAST_TOLD_S:
        return ""
    rows = ", ".join(f"{counted(rows, 'row')} of {server}" for _, server, rows in told)
    return f"no request under way, the next one in {duration(told[0][0] - now)}: {rows}"


def pending_text(
    pending: int, waiting: Waiting, now: float, job: str | None = None, *, is_running: bool = False
) -> str:
    """Return how many rows are pending, for whom they wait, and what to do, unless a run is on: two sentences, or
    none. ``job``: how a command names it, None where options do."""
    if not pending:
        return ""
    rows = f"{counted(pending, 'row')} {'is' if pending == 1 else 'are'} pending"
    if waiting.rows:
        rows = f"{rows}: {waiting_text(waiting, now)}"
    if is_running:
        return f"{rows}."
    if not waiting.rows:
        return f"{rows}; {AGAIN} to go on."
    give_up = f"{'with ' * (job is None)}{order_text('give-up', job)} to make them errors now"
    if waiting.rows < pending:
        return f"{rows}; {AGAIN} for the others, or {give_up}."
    if not waiting.until:
        return f"{rows}; edit control.yaml, then {AGAIN}."
    return f"{rows}; {AGAIN} after {clock(waiting.until, now)}, or {give_up}."


def clock(unix_s: float, now: float) -> str:
    """Return the local time, with the date where it is not today's."""
    then, today = (datetime.fromtimestamp(at).astimezone() for at in (unix_s, now))
    return then.strftime("%H:%M:%S" if then.date() == today.date() else "%Y-%m-%d %H:%M:%S")
