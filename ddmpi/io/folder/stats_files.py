"""The files below logs/ that say what the runs did, over all runs of an output folder.

``metrics.jsonl`` is the history, thinned so that it stays small, and the Prometheus file its newest line;
``politeness.csv`` has for each group of servers its limits and what was really sent, ``last-run.json`` what was sent in
the last run alone; ``servers.parquet`` how each server was asked. All of them are a courtesy: a disk that does not take
them, or a damaged file, is told to the log and changes nothing.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.records import UNDECODABLE, Limits
from ddmpi.core.stats.audit import Audited, RunAudit
from ddmpi.core.stats.metrics import Measurement, decode_lines, encode_line, prometheus_text, thinned
from ddmpi.core.stats.usage import BUCKETS, COLUMNS, UsageTable
from ddmpi.errors import StorageError
from ddmpi.io.folder.durable import csv_bytes, write_whole

log = logging.getLogger(__name__)

MOST_BYTES: Final = 8 << 20
"""Where the history is thinned: two days at full resolution, then ever fewer lines of what is long ago."""
_TAIL_BYTES: Final = 1 << 16
_LIMITS = ("rate_limit", "max_connections", "bytes_per_second", "bytes_per_hour", "bytes_per_day")
_FIGURES = tuple(field.name for field in fields(Audited))[1:]
_RATIOS = ("requests_per_url", "bytes_per_kept_byte")


class MetricsFile:
    """The history, one JSON line per measurement."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_broken = False

    def append(self, line: Measurement) -> None:
        """Add a line; a torn one that a kill has left is closed first, and then skipped by readers."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                size_bytes = file.seek(0, os.SEEK_END)
                if size_bytes:
                    file.seek(size_bytes - 1)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                file.write(encode_line(line))
            if size_bytes > MOST_BYTES:
                lines = list(decode_lines(self.path.read_bytes().splitlines()))
                write_whole(self.path, b"".join(map(encode_line, thinned(lines))))
        except (OSError, StorageError) as error:
            if not self._is_broken:  # told once: a full disk would be told every interval
                self._is_broken = True
                log.warning("metrics are not kept: %s", error)

    def last(self) -> Measurement | None:
        """Return the newest whole line, None without one."""
        try:
            with self.path.open("rb") as file:
                size_bytes = file.seek(0, os.SEEK_END)
                file.seek(max(0, size_bytes - _TAIL_BYTES))
                tail = list(decode_lines(file.read().splitlines()))
        except OSError:
            return None
        return tail[-1] if tail else None

    def read(self) -> list[Measurement]:
        """Return all whole lines, oldest first; none where there is no file."""
        try:
            return list(decode_lines(self.path.read_bytes().splitlines()))
        except OSError as error:
            log.debug("no metrics: %s", error)
            return []


class PrometheusFile:
    """The newest measurement, for a collector of text files."""

    def __init__(self, path: Path, output: str) -> None:
        self._path = path
        self._output = output
        self._is_broken = False

    def write(self, line: Measurement) -> None:
        """Replace the file: a collector sees the old numbers or the new ones."""
        try:
            write_whole(self._path, prometheus_text(line, self._output).encode(errors="replace"))
        except StorageError as error:
            if not self._is_broken:
                self._is_broken = True
                log.warning("the Prometheus file is not kept: %s", error)


def write_audit(path: Path, rows: Iterable[Audited], limits: Callable[[str], Limits]) -> None:
    """Replace the file; ``limits`` are those of a server group, 0 = none."""

    def line(row: Audited) -> list[object]:
        it = limits(row.group)
        allowed = (it.rate_per_s, it.connections, it.bytes_per_s, it.bytes_per_hour, it.bytes_per_day)
        return [row.group, *allowed, *(round(getattr(row, name), 3) for name in (*_FIGURES, *_RATIOS))]

    try:
        write_whole(path, csv_bytes(["server_name", *_LIMITS, *_FIGURES, *_RATIOS], map(line, rows)))
    except StorageError as error:
        log.warning("what servers were sent is not kept: %s", error)


def read_audit(path: Path) -> dict[str, Audited]:
    """Return what earlier runs have left; nothing where there is no such file, or a damaged one."""
    try:
        with path.open(newline="") as file:
            return {row["server_name"]: _parsed(row) for row in csv.DictReader(file)}
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, ValueError, TypeError) as error:
        log.warning("%s cannot be read: %s", path, error)
        return {}


def _parsed(row: dict[str, str]) -> Audited:
    """Return a line; figures that earlier versions did not have are 0."""
    figures = {name: float(row[name]) if name == "paused_s" else int(row[name]) for name in _FIGURES if name in row}
    if "requests" not in figures:
        raise KeyError("requests")
    return Audited(row["server_name"], **figures)  # type: ignore[arg-type]  # one float among whole numbers


def write_run_audit(path: Path, found: RunAudit, temporary: Path) -> None:
    """Replace the file; it is written in ``temporary`` first, where the next run cleans up: it may not write one."""
    try:
        write_whole(path, msgspec.json.encode(found), temporary)
    except StorageError as error:
        log.warning("what servers were asked in this run is not kept: %s", error)


def read_run_audit(path: Path) -> RunAudit | None:
    """Return what the last run has asked of servers; None where no run has left it, or it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunAudit)
    except FileNotFoundError:
        return None
    except (OSError, *UNDECODABLE) as error:
        log.warning("%s cannot be read: %s", path, error)
        return None


def write_usage(path: Path, table: UsageTable, now: float) -> None:
    count = len(table)
    numbers = table.finished(now)
    columns: dict[str, Any] = {"group": pa.array(table.names, pa.string())}
    columns |= {name: pa.array(numbers[:, at]) for at, name in enumerate(COLUMNS)}
    columns["latencies"] = pa.FixedSizeListArray.from_arrays(pa.array(table.latencies[:count].ravel()), BUCKETS)
    data = io.BytesIO()
    pq.write_table(pa.table(columns), data)
    try:
        write_whole(path, data.getvalue())
    except StorageError as error:
        log.warning("how servers were asked is not kept: %s", error)


def read_usage(path: Path) -> UsageTable:
    """Return what earlier runs have left; an empty table where there is no such file, or a damaged one."""
    table = UsageTable()
    try:
        found = pq.read_table(path)
        numbers = np.stack([found.column(name).to_numpy() for name in COLUMNS], axis=1)
        latencies: Any = found.column("latencies").combine_chunks()
        counts = latencies.flatten().to_numpy().reshape(-1, BUCKETS)
        table.load(map(str, found.column("group").to_pylist()), numbers, counts)
    except FileNotFoundError:
        return table
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        log.warning("%s cannot be read: %s", path, error)
        return UsageTable()
    return table
