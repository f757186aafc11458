"""What one process can say about a job without MPI and without network: ``--status``, ``--verify``, ``--plan``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console as RichConsole
from rich.table import Table

from ddmpi import config as config_module
from ddmpi.arguments import Arguments
from ddmpi.config import Config
from ddmpi.errors import EXIT_DONE, EXIT_PENDING, OutputError
from ddmpi.formats import duration, size
from ddmpi.io.batch_files import scan
from ddmpi.io.batch_table import BatchTable, limits_by_group, make_plan
from ddmpi.io.checkpoint import Checkpoint, load
from ddmpi.io.layout import Layout
from ddmpi.io.lock import Holder
from ddmpi.io.profiles import Profile, read_profiles
from ddmpi.io.tables import BatchReader
from ddmpi.io.verification import BatchCheck, check_batch
from ddmpi.records import UNDECODABLE
from ddmpi.roles.initialization import Orders, Reporting, initialize, own_output
from ddmpi.roles.verifying import describe
from ddmpi.schedule import CPU_PER_ROW_S, IntArray, lower_bound_s

MOST_PROBLEMS = 20
TYPICAL_FILE_BYTES = 100_000
"""Used for predictions where nothing was profiled."""


def run(arguments: Arguments, environment: Mapping[str, str]) -> int:
    """Do what was asked for; returns the exit code.

    Raises:
        DdmpiError: config, input or output folder cannot be read.
    """
    config = config_module.load(arguments.config)
    layout = Layout(Path(config.path_to_output_folder), config.output_structure)
    out = RichConsole(file=sys.stdout, soft_wrap=True, highlight=False)
    if arguments.plan:
        return _plan(config, layout, environment, arguments.ranks, out)
    if not layout.batches_table.exists():
        raise OutputError(f"{layout.root} holds no run yet: start one with the same config")
    if arguments.status:
        return _status(layout, out)
    return _verify(config, layout, rehash=arguments.rehash, out=out)


# ---- status


def _status(layout: Layout, out: RichConsole) -> int:
    table = BatchTable(layout)
    checkpoint, warnings = load(layout)
    for warning in warnings:
        out.print(warning, markup=False)
    counts = _count(layout, table)
    out.print(_status_table(layout, table, checkpoint, counts))
    _print_servers(table, counts.done, counts.errors, out)
    return EXIT_DONE if counts.is_complete.all() else EXIT_PENDING


@dataclass(frozen=True)
class _Counts:
    """What markers say, per batch: (B,) each."""

    done: IntArray
    errors: IntArray
    ignored: IntArray
    is_complete: npt.NDArray[np.bool_]
    begun: int
    """Batches with parts and no marker."""


def _count(layout: Layout, table: BatchTable) -> _Counts:
    done, errors, ignored = np.zeros(len(table), np.int64), np.zeros(len(table), np.int64), table.ignored_rows.copy()
    begun = 0
    for found in scan(layout, map(table.ref, table.begun(layout).tolist())):
        if found.counts is not None:
            done[found.batch_id] = found.counts.rows
            errors[found.batch_id] = found.counts.errors
            # What an earlier run has ignored, and the next one would not, is to be fetched.
            ignored[found.batch_id] = min(found.counts.ignored, int(ignored[found.batch_id]))
        begun += bool(found.parts)
    return _Counts(done, errors, ignored, done + ignored == table.rows, begun)


def _status_table(layout: Layout, table: BatchTable, checkpoint: Checkpoint | None, counts: _Counts) -> Table:
    grid = Table(show_header=False, box=None, pad_edge=False)
    grid.add_column(style="bold")
    grid.add_column()
    rows, left_out = int(table.rows.sum()), int(counts.ignored.sum())
    complete, begun = int(np.count_nonzero(counts.is_complete)), counts.begun
    grid.add_row("output", str(layout.root))
    grid.add_row("run", _running(layout))
    grid.add_row("input", f"{rows:,} rows on {len(table.server_names):,} servers in {len(table):,} batches")
    if left_out:
        grid.add_row("ignored", f"{left_out:,} rows on {table.ignored_server_count:,} servers ({layout.ignored.name})")
    profiled = len(read_profiles(layout.profiles)) if layout.profiles.exists() else 0
    grid.add_row("profiled", f"{profiled:,} servers")
    grid.add_row("batches", f"{complete:,} complete, {begun:,} begun, {len(table) - complete - begun:,} untouched")
    counters = checkpoint.counters if checkpoint is not None else {}
    if counters:
        final = counters["successes"] + counters["errors"]
        grid.add_row(
            "rows", f"{final:,} final ({100 * final / max(1, rows):.1f} %), {max(0, rows - final - left_out):,} pending"
        )
        kinds = {name[7:]: count for name, count in counters.items() if name.startswith("errors.") and count}
        listed = ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1]))
        grid.add_row("errors", f"{counters['errors']:,}" + (f": {listed}" if listed else ""))
    return grid


def _running(layout: Layout) -> str:
    if not layout.lock.exists():
        return "none"
    try:
        holder = msgspec.json.decode(layout.lock.read_bytes(), type=Holder)
    except (OSError, *UNDECODABLE):
        return f"unknown: {layout.lock} cannot be read"
    job = f", job {holder.job_id}" if holder.job_id else ""
    return f"since {holder.since} on {holder.host}, pid {holder.pid}{job} (or it was killed)"


def _print_servers(table: BatchTable, done: IntArray, errors: IntArray, out: RichConsole) -> None:
    """The groups with the most rows left."""
    groups = len(table.group_names)
    rows = np.bincount(table.groups, weights=table.rows, minlength=groups)
    final = np.bincount(table.groups, weights=done, minlength=groups)
    failed = np.bincount(table.groups, weights=errors, minlength=groups)
    grid = Table("server", "rows", "in complete batches", "errors", box=None, pad_edge=False)
    for index in np.argsort(final - rows, kind="stable")[:10].tolist():
        name = table.group_names[index]
        grid.add_row(name, f"{rows[index]:,.0f}", f"{final[index]:,.0f}", f"{failed[index]:,.0f}")
    out.print(grid)


# ---- verify


def _verify(config: Config, layout: Layout, *, rehash: bool, out: RichConsole) -> int:
    table = BatchTable(layout)
    reader = BatchReader(layout.urls)
    algorithm = config.downloader_parameters.hash_algorithm if rehash else None
    checks: list[BatchCheck] = []
    for batch_id in range(len(table)):
        ref = table.ref(batch_id)
        check = check_batch(layout, reader, ref, int(table.ignored_rows[batch_id]), rehash=algorithm)
        checks.append(check)
        if not check.ok and sum(not c.ok for c in checks) <= MOST_PROBLEMS:
            out.print(f"{ref.server_name}, partition {ref.partition_id}: {describe(check)}", markup=False)
    bad = sum(not check.ok for check in checks)
    pending = sum(check.pending for check in checks)
    successes, errors = sum(c.successes for c in checks), sum(c.errors for c in checks)
    out.print(
        f"{int(table.rows.sum()):,} rows: {successes:,} successes, {errors:,} errors, {pending:,} pending, "
        f"{sum(check.ignored for check in checks):,} ignored; "
        f"{bad:,} of {len(table):,} batches damaged" + (f"; digests ({algorithm}) recomputed" if rehash else "")
    )
    return EXIT_DONE if not bad and not pending else EXIT_PENDING


# ---- plan


def _plan(config: Config, layout: Layout, environment: Mapping[str, str], ranks: int | None, out: RichConsole) -> int:
    """Partition the input if that has not been done, then predict."""
    if not layout.batches_table.exists():
        lock = own_output(layout, environment)
        try:
            initialize(config, layout, lock, Orders(), Reporting(lambda _: None, lambda _: None, lambda: False))
        finally:
            lock.release()
    table = BatchTable(layout)
    rows = table.rows - table.ignored_rows
    profiles = read_profiles(layout.profiles) if layout.profiles.exists() else {}
    plan = make_plan(
        table, config, rows=rows, profiles=profiles, limits=limits_by_group(config, profiles), ref=table.ref,
        workers=[0],
    )  # fmt: skip
    bound_s, worst = lower_bound_s(plan, rows)
    work_s = float(rows.sum()) * CPU_PER_ROW_S
    advised = max(1, int(np.ceil(work_s / bound_s))) if bound_s > 0 else 1
    workers = max(1, ranks - 1) if ranks is not None else advised
    grid = Table(show_header=False, box=None, pad_edge=False)
    grid.add_column(style="bold")
    grid.add_column()
    grid.add_row("rows", f"{int(rows.sum()):,} in {len(table):,} batches, {int(table.ignored_rows.sum()):,} ignored")
    grid.add_row("servers", f"{len(table.server_names):,} in {len(table.group_names):,} groups")
    grid.add_row("lower bound", f"{duration(bound_s)}, set by {plan.group_names[worst] if worst >= 0 else '-'}")
    # The servers' bound or the ranks' capacity, whichever is later.
    predicted_s = max(bound_s, work_s / workers)
    grid.add_row("predicted", f"{duration(predicted_s)} with {workers + 1} ranks")
    grid.add_row("advised", f"{advised + 1} ranks: more would only wait for the servers")
    grid.add_row("size", f"about {size(_expected_bytes(rows, profiles))}")
    out.print(grid)
    if not profiles:
        out.print("Nothing is profiled yet: rates are the config's, latencies and sizes are assumed.")
    return EXIT_DONE


def _expected_bytes(rows: IntArray, profiles: Mapping[str, Profile]) -> float:
    known = [profile.bytes for profile in profiles.values() if profile.bytes]
    return float(rows.sum()) * (float(np.mean(known)) if known else TYPICAL_FILE_BYTES)
