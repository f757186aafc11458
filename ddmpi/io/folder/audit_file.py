"""logs/politeness.csv: per pace group its limits, and what was really sent, over all runs. A courtesy to people."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from pathlib import Path

from ddmpi.core.records import Limits
from ddmpi.core.stats.audit import Audited
from ddmpi.errors import StorageError
from ddmpi.io.folder.durable import write_atomically

log = logging.getLogger(__name__)

_LIMITS = ("rate_limit", "max_connections", "bytes_per_second", "bytes_per_hour", "bytes_per_day")
_FIGURES = tuple(field.name for field in fields(Audited))[1:]


def write_audit(path: Path, rows: Iterable[Audited], limits: Callable[[str], Limits]) -> None:
    """Replace the file; ``limits`` are those of a pace group, 0 = none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["server_name", *_LIMITS, *_FIGURES])
    for row in rows:
        it = limits(row.group)
        allowed = (it.rate_per_s, it.connections, it.bytes_per_s, it.bytes_per_hour, it.bytes_per_day)
        writer.writerow([row.group, *allowed, *(_shown(getattr(row, name)) for name in _FIGURES)])
    try:
        write_atomically(path, text.getvalue().encode())
    except StorageError as error:
        log.warning("what servers were sent is not kept: %s", error)


def _shown(figure: float) -> float:
    return round(figure, 3)


def read_audit(path: Path) -> dict[str, Audited]:
    """What earlier runs have left; nothing where there is no such file, or a damaged one."""
    try:
        with path.open(newline="") as file:
            return {row["server_name"]: _parsed(row) for row in csv.DictReader(file)}
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, ValueError, TypeError) as error:
        log.warning("%s cannot be read: %s", path, error)
        return {}


def _parsed(row: dict[str, str]) -> Audited:
    *counts, paused_s = (row[name] for name in _FIGURES)
    parsed = Audited(row["server_name"], *map(int, counts))
    return replace(parsed, paused_s=float(paused_s))
