"""What one process can say about a job without MPI and without network: the status and the
verification; check, plan, audit, errors, forget, report and init have files of their own."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console as RichConsole
from rich.markup import escape
from rich.table import Table

from ddmpi.cli.arguments import Arguments
from ddmpi.cli.audit import show_audit
from ddmpi.cli.check import show_check
from ddmpi.cli.commands import completion
from ddmpi.cli.errors import show_errors
from ddmpi.cli.forget import forget
from ddmpi.cli.plan import plan_beside_run, show_plan
from ddmpi.cli.report import write_report
from ddmpi.cli.requeue import queue_text, read_attempts
from ddmpi.cli.table_config import write_draft
from ddmpi.config import config as config_module
from ddmpi.config.config import Config
from ddmpi.core.arrays import IntArray
from ddmpi.core.records import UNDECODABLE
from ddmpi.errors import EXIT_DONE, EXIT_PENDING, OutputError, SetupError
from ddmpi.io.folder.checkpoint import Checkpoint, load
from ddmpi.io.folder.layout import PART_KINDS, Layout, configured_layout
from ddmpi.io.folder.lock import Holder
from ddmpi.io.folder.markers import scan
from ddmpi.io.folder.profiles import read_profiles
from ddmpi.io.results.publishing import store_of
from ddmpi.io.results.verification import BatchCheck, check_batch
from ddmpi.io.urls.address_table import located
from ddmpi.io.urls.batch_reader import BatchReader
from ddmpi.io.urls.batch_table import BatchTable
from ddmpi.report.formats import counted, share
from ddmpi.report.pending import COLUMNS, MOST_TOLD, pending_text, waiting_rows
from ddmpi.roles.coordinator.verifier import describe

MOST_PROBLEMS = 20
WATCH_INTERVAL_S = 5.0


def run(arguments: Arguments, environment: Mapping[str, str]) -> int:
    """Do what was asked for; returns the exit code. Raises DdmpiError: config, input or output folder cannot be
    read."""
    if arguments.completion is not None or arguments.init:
        return write_draft(arguments) if arguments.init else _print_completion(str(arguments.completion))
    config = config_module.load(arguments.config, arguments.settings)
    layout = configured_layout(config)
    out = RichConsole(file=sys.stdout, soft_wrap=True, highlight=False)
    if arguments.check:
        return show_check(config, layout, out)
    if arguments.plan:
        return show_plan(config, layout, environment, arguments.ranks, out)
    if arguments.audit is not None:
        return show_audit(config, layout, arguments.audit, out)
    if not layout.batches_table.exists():
        raise OutputError(f"{layout.root} holds no run yet. Write: ddmpi run {shlex.quote(str(arguments.config))}")
    if arguments.forget is None:
        return _of_run(arguments, config, layout, out)
    return forget(config, layout, arguments.forget, environment, out)


def _of_run(arguments: Arguments, config: Config, layout: Layout, out: RichConsole) -> int:
    if arguments.errors_by is not None:
        return show_errors(layout, arguments.errors_by, as_csv=arguments.csv, out=out)
    if arguments.report:
        return write_report(located(config, layout), layout, out, arguments.orders.job)
    if arguments.json:
        return _print_json(layout)
    if arguments.watch:
        return _watch(located(config, layout), layout, out, arguments.orders.job)
    if arguments.status:
        return _status(located(config, layout), layout, out, arguments.orders.job)
    return _verify(config, layout, rehash=arguments.rehash, out=out)


def _print_completion(shell: str) -> int:
    try:
        sys.stdout.write(completion(shell) + "\n")
    except ImportError:
        raise SetupError(
            f"shtab, which writes completion scripts, is not installed. Write: {sys.executable} -m pip install shtab"
        ) from None
    return EXIT_DONE


# ---- status


def _watch(
    config: Config,
    layout: Layout,
    out: RichConsole,
    job: str | None = None,
    *,
    pause: Callable[[float], object] = time.sleep,
) -> int:
    """Print the status again and again, until no run is on; returns the exit code."""
    try:
        while True:
            out.clear()
            code = _status(config, layout, out, job)
            if code == EXIT_DONE or not layout.lock.exists():
                return code
            pause(WATCH_INTERVAL_S)
    except KeyboardInterrupt:
        return EXIT_PENDING


def _print_json(layout: Layout) -> int:
    """Print the status for programs; returns the exit code."""
    table = BatchTable(layout)
    checkpoint, _ = load(layout)
    counts = _count(layout, table)
    rows, ignored = int(table.rows.sum()), int(counts.ignored.sum())
    counters = checkpoint.counters if checkpoint is not None else {}
    successes, errors = counters.get("successes", 0), counters.get("errors", 0)
    found = {
        "output": str(layout.root.absolute()),
        "running": layout.lock.exists(),
        "rows": {
            "all": rows,
            "successes": successes,
            "errors": errors,
            "ignored": ignored,
            "pending": max(0, rows - successes - errors - ignored),
        },
        "batches": {
            "all": len(table),
            "complete": int(np.count_nonzero(counts.is_complete)),
            "begun": counts.begun,
        },
        "servers": table.server_count,
        "errors_by_kind": {name[7:]: count for name, count in counters.items() if name.startswith("errors.") and count},
        "waiting": [] if checkpoint is None else msgspec.to_builtins(checkpoint.waiting.listed),
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return EXIT_DONE if counts.is_complete.all() else EXIT_PENDING


def _status(config: Config, layout: Layout, out: RichConsole, job: str | None = None) -> int:
    table = BatchTable(layout)
    checkpoint, warnings = load(layout)
    for warning in warnings:
        out.print(warning, markup=False)
    counts = _count(layout, table)
    grid = _status_table(layout, table, checkpoint, counts)
    if checkpoint is not None and not counts.is_complete.all():
        left = np.where(counts.is_complete, 0, table.rows - counts.ignored - counts.done)
        if plan := plan_beside_run(config, layout, table, left, checkpoint):
            grid.add_row("plan", plan)
    if not counts.is_complete.all() and (attempts := read_attempts(layout)) is not None:
        grid.add_row("queue", queue_text(attempts, time.time()))
    out.print(grid)
    if checkpoint is not None and (counters := checkpoint.counters):
        pending = counters["rows"] - counters["successes"] - counters["errors"] - counters["ignored"]
        waiting, now = checkpoint.waiting, time.time()
        out.print(pending_text(max(0, pending), waiting, now, job, is_running=layout.lock.exists()), markup=False)
        if pending > 0 and len(waiting.listed) > MOST_TOLD:
            waits = Table(*COLUMNS, box=None, pad_edge=False)
            for cells in waiting_rows(waiting, now):
                waits.add_row(*map(escape, cells))
            out.print(waits)
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
        if found.marker is not None:
            done[found.batch_id] = found.marker.rows
            errors[found.batch_id] = found.marker.errors
            # What an earlier run has ignored, and the next one would not, is to be fetched.
            ignored[found.batch_id] = min(found.marker.ignored, int(ignored[found.batch_id]))
        begun += bool(found.parts)
    return _Counts(done, errors, ignored, done + ignored == table.rows, begun)


def _status_table(layout: Layout, table: BatchTable, checkpoint: Checkpoint | None, counts: _Counts) -> Table:
    grid = Table(show_header=False, box=None, pad_edge=False)
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")  # a path that is cut off is of no use
    rows, left_out = int(table.rows.sum()), int(counts.ignored.sum())
    complete, begun = int(np.count_nonzero(counts.is_complete)), counts.begun
    grid.add_row("output", str(layout.root))
    grid.add_row("run", _running(layout))
    servers, batches = counted(table.server_count, "server"), counted(len(table), "batch")
    grid.add_row("input", f"{counted(rows, 'row')} on {servers} in {batches}")
    if left_out:
        ignored = counted(table.ignored_server_count, "server")
        grid.add_row("ignored", f"{counted(left_out, 'row')} on {ignored} ({layout.ignored_names})")
    profiled = len(read_profiles(layout.profiles)) if layout.profiles.exists() else 0
    grid.add_row("profiled", counted(profiled, "server"))
    grid.add_row("batches", f"{complete:,} complete, {begun:,} begun, {len(table) - complete - begun:,} untouched")
    counters = checkpoint.counters if checkpoint is not None else {}
    if counters:
        final = counters["successes"] + counters["errors"]
        durable = f"{final:,} durable ({share(final, rows)}), {max(0, rows - final - left_out):,} pending"
        fetched = max(final, counters.get("fetched", 0))
        grid.add_row("rows", f"{fetched:,} fetched ({share(fetched, rows)}), {durable}")
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
    """Print the groups with the most rows left."""
    groups = len(table.group_names)
    rows = np.bincount(table.groups, weights=table.rows, minlength=groups)
    final = np.bincount(table.groups, weights=done, minlength=groups)
    failed = np.bincount(table.groups, weights=errors, minlength=groups)
    grid = Table("server", "rows", "in complete batches", "errors", box=None, pad_edge=False)
    for index in np.argsort(final - rows, kind="stable")[:10].tolist():
        name = table.shown_group(table.group_names[index])
        grid.add_row(name, f"{rows[index]:,.0f}", f"{final[index]:,.0f}", f"{failed[index]:,.0f}")
    out.print(grid)


# ---- verify


def _verify(config: Config, layout: Layout, *, rehash: bool, out: RichConsole) -> int:
    table = BatchTable(layout)
    reader = BatchReader(layout.urls)
    algorithm = config.downloader_parameters.hash_algorithm if rehash else None
    objects, strange = _objects(layout)
    checks: list[BatchCheck] = []
    bad = 0
    for batch_id in range(len(table)):
        ref = table.ref(batch_id)
        check = check_batch(layout, reader, ref, int(table.ignored_rows[batch_id]), rehash=algorithm, objects=objects)
        checks.append(check)
        bad += not check.ok
        if not check.ok and bad <= MOST_PROBLEMS:
            out.print(f"{ref.server_name}, partition {ref.partition_id}: {describe(check)}", markup=False)
    if bad:
        marker = layout.relative(layout.completed("S", 0)).replace("=0", "=P")
        out.print(f"To fetch their rows again: remove what is named and {marker}, then start the job.", markup=False)
    for name in strange[:MOST_PROBLEMS]:
        out.print(f"in the store, but no part of this job: {name}", markup=False)
    pending = sum(check.pending for check in checks)
    successes = counted(sum(check.successes for check in checks), "success")
    errors = counted(sum(check.errors for check in checks), "error")
    out.print(
        f"{counted(int(table.rows.sum()), 'row')}: {successes}, {errors}, {pending:,} pending, "
        f"{sum(check.ignored for check in checks):,} ignored; "
        f"{bad:,} of {len(table):,} batches damaged" + (f"; digests ({algorithm}) recomputed" if rehash else "")
    )
    return EXIT_DONE if not bad and not pending and not strange else EXIT_PENDING


def _objects(layout: Layout) -> tuple[dict[str, int] | None, list[str]]:
    """Return what the store of a published dataset has (None: no store), and what of it is no part of the folder."""
    store = store_of(layout)
    if store is None:
        return None, []
    found: dict[str, int] = {}
    for kind in PART_KINDS:
        found |= store.sizes(layout.relative(layout.parts_tree(kind)))
    return found, sorted(name for name in found if not (layout.root / name).exists())
