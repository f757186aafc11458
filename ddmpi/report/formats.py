"""Numbers as people read them: durations, sizes, shares. Pure."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """Return a text such as ``1 h 02 min``; ``?`` for None."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours / 24:.1f} d"


def size(size_bytes: float) -> str:
    """Return a text such as ``1.5 GB`` (powers of 1,000)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} PB"


def counted(count: int, noun: str) -> str:
    """Return a text such as ``1 batch`` and ``2,000 batches``."""
    plural = "" if count == 1 else "es" if noun.endswith(("ch", "s")) else "s"
    return f"{count:,} {noun}{plural}"


def share(part: float, whole: float) -> str:
    """Return a text such as ``12.50 %``; empty where there is no whole."""
    return f"{100 * part / whole:.2f} %" if whole else ""
