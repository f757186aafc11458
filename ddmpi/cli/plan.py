"""``--plan``: what a run will take, in time, ranks, bytes and memory, without a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console as RichConsole
from rich.table import Table

from ddmpi.cli.check import callbacks_of, check_output, show_account
from ddmpi.config.config import Config
from ddmpi.core.arrays import IntArray
from ddmpi.core.forecast.prediction import Prediction
from ddmpi.core.ledger.profile import Profile
from ddmpi.core.records import Orders, is_packed
from ddmpi.errors import EXIT_DONE
from ddmpi.io.folder.checkpoint import Checkpoint, load
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.profiles import read_profiles
from ddmpi.io.urls.address_table import located
from ddmpi.io.urls.batch_table import BatchTable
from ddmpi.report.formats import counted, duration, size
from ddmpi.roles.coordinator.forecast import BYTES_PER_ROW, HostTime, expected_bytes, predict_run, slowest_hosts
from ddmpi.roles.coordinator.initialization import (
    answered,
    check_contact,
    initialize,
    input_stamp,
    own_output,
    query_of,
    whole_input,
)
from ddmpi.roles.downloader.build import MOST_KEPT

MOST_HOSTS = 5
LEAST_ADVISED_S = 60.0
"""A shorter job needs no advice on how it would be shorter."""
RANK_BASE_BYTES = 250_000_000
"""A rank that holds no file yet: Python, arrow, libcurl, as measured."""
CONNECTION_BYTES = 100_000
"""An open connection with its buffers."""
BATCH_BYTES = 700
"""What rank 0 keeps of a batch and its lane, as measured in a simulated run with a million of each."""


def show_plan(
    config: Config, layout: Layout, environment: Mapping[str, str], ranks: int | None, out: RichConsole
) -> int:
    """Partition the input if that has not been done, then predict; returns the exit code. No server is asked, and no
    object store. Raises DdmpiError: input or output folder cannot be read, or written, or a run would refuse them."""
    check_output(config, layout)
    is_new = not layout.batches_table.exists()
    if is_new:
        _partition(config, layout, environment, out)
    config = located(config, layout)
    table = BatchTable(layout)
    rows = table.rows - table.ignored_rows
    check_contact(config, table.open_servers(config.rules.contact_patterns, rows))
    profiles = read_profiles(layout.profiles) if layout.profiles.exists() else {}
    workers = None if ranks is None else max(1, ranks - 1)
    prediction = predict_run(config, table, rows, profiles, workers)
    out.print(_page(config, table, rows, profiles, prediction, ranks=ranks or prediction.workers + 1))
    if hosts := slowest_hosts(config, table, rows, profiles, MOST_HOSTS):
        _print_hosts(config, table, hosts, out)
    if not is_new and _input_has_changed(config, layout):
        out.print("The input is not as it was partitioned: rows that were added since then are not in this plan.")
    if not profiles:
        out.print("Nothing is profiled yet: rates are the config's, latencies and sizes are assumed.")
    if not prediction.is_whole:
        out.print("The slowest servers were simulated in pieces of several batches, the others counted as load.")
    return EXIT_DONE


def _print_hosts(config: Config, table: BatchTable, hosts: Sequence[HostTime], out: RichConsole) -> None:
    """Print how long the slowest servers take, which of them decides, and what would shorten it."""
    cells = [
        (duration(host.seconds), table.shown_group(host.group), counted(host.rows, "row"), _limit_text(host))
        for host in hosts
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    out.print("Slowest servers", style="bold")
    for host, line in zip(hosts, cells, strict=True):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        out.print(f"  {text}  {_origin(config, host.group)}", markup=False)  # in one line each, however long
    if hosts[0].seconds < LEAST_ADVISED_S:
        return
    first, second = hosts[0], hosts[1].seconds if len(hosts) > 1 else 0.0
    advice = "; or ".join(_advice(config, first))
    out.print(f"{table.shown_group(first.group)} decides how long the job takes. Shorter: {advice}.", markup=False)
    if second:
        out.print(f"Without it the job would take {duration(second)}.", markup=False)


def _limit_text(host: HostTime) -> str:
    it = host.limits
    if is_packed(host.group):
        return "each server's own"
    if host.by_bytes:
        budgets = ((it.bytes_per_s, "s"), (it.bytes_per_hour, "h"), (it.bytes_per_day, "d"))
        return ", ".join(f"{size(budget)}/{unit}" for budget, unit in budgets if budget > 0)
    return f"{it.rate_per_s:g}/s" if it.rate_per_s else f"{counted(it.connections, 'connection')}"


def _origin(config: Config, group: str) -> str:
    """Return where a group's limits are from."""
    rule = config.rules.find(group)
    if rule is None:
        return "the default"
    if rule.source:
        return rule.source.partition(" (")[0]
    return "of servers_from" if config.is_known_host(group) else "yours (servers)"


def _advice(config: Config, host: HostTime) -> list[str]:
    """Return what would shorten the time that a group takes, the surest first."""
    rule = config.rules.find(host.group)
    found = []
    if host.by_bytes:
        found.append("fewer bytes, as smaller pictures of a size that the server has (sizes: auto)")
    if rule is None and not is_packed(host.group):
        found.append("a rule in servers with the limit that its operator states or agrees to")
    elif rule is not None and rule.source is not None and config.is_known_host(host.group):
        found.append("a higher limit that its operator agrees to, in a rule of servers")
    elif rule is not None:
        found.append("a higher limit in your rule, if its operator agrees")
    found.append("a mirror that has the same files (mirrors: true)")
    return found


def _partition(config: Config, layout: Layout, environment: Mapping[str, str], out: RichConsole) -> None:
    callbacks = callbacks_of(out)
    lock = own_output(layout, environment)
    try:
        show_account(config, answered(config, layout.query, layout.temporary, callbacks), out)
        initialize(config, layout, lock, Orders(), callbacks, asks_store=False)
    finally:
        lock.release()


def _input_has_changed(config: Config, layout: Layout) -> bool:
    """Return whether the next run will find another input than the one that the urls folder was made of."""
    checkpoint = load(layout)[0]
    if checkpoint is None or not checkpoint.input_fingerprint:
        return False
    if config.path_to_input is None and not query_of(config).is_answered_by(layout.query):
        return True
    path = config.path_to_input or str(layout.query)
    if checkpoint.input_stamp == input_stamp(config, path):
        return False
    return whole_input(config, path).fingerprint() != checkpoint.input_fingerprint


def plan_beside_run(
    config: Config, layout: Layout, table: BatchTable, rows_left: IntArray, checkpoint: Checkpoint
) -> str:
    """Return the least time of the last run as planned, beside what it has taken and will take; "" if it has not begun.

    Args:
        rows_left: (B,) rows that are in no complete batch.
    """
    began = checkpoint.stages.get("downloading")
    if not isinstance(began, dict):
        return ""
    profiles = read_profiles(layout.profiles) if layout.profiles.exists() else {}
    left = predict_run(config, table, rows_left, profiles, int(began["workers"]))
    taken_s = max(0.0, checkpoint.saved_at - float(began["began_at"]))
    return (
        f"{duration(taken_s)} taken, about {duration(left.makespan_s)} to go\n"
        f"at least {duration(float(began['bound_s']))} in all, set by {table.shown_group(began['bound_by'] or '-')}"
    )


def _page(
    config: Config,
    table: BatchTable,
    rows: IntArray,
    profiles: Mapping[str, Profile],
    prediction: Prediction,
    *,
    ranks: int,
) -> Table:
    grid = Table(show_header=False, box=None, pad_edge=False)
    grid.add_column(style="bold")
    grid.add_column()
    total = int(rows.sum())
    refused = int(table.rows[table.is_refused].sum())
    left_out = f"{refused:,} refused, {int(table.ignored_rows.sum()):,} ignored"
    grid.add_row("rows", f"{total:,} in {counted(len(table), 'batch')}, {left_out}")
    grid.add_row("servers", f"{table.server_count:,} in {counted(len(table.group_names), 'group')}")
    slowest = table.group_names[prediction.bound_group] if prediction.bound_group >= 0 else "-"
    grid.add_row("lower bound", f"{duration(prediction.bound_s)}, set by {table.shown_group(slowest)}")
    grid.add_row("predicted", f"{duration(prediction.makespan_s)} with {counted(ranks, 'rank')}")
    grid.add_row("advised", f"{prediction.advised_workers + 1} ranks: more would only wait for the servers")
    expected = expected_bytes(table, rows, profiles)
    disk = expected + total * BYTES_PER_ROW
    download = f"about {size(expected)} to download" if expected else "nothing to download"
    grid.add_row("size", f"{download}, {size(disk)} on disk")
    parameters = config.downloader_parameters
    connections = max(parameters.connections_per_rank, min(MOST_KEPT, table.server_count))
    held_bytes = parameters.memory_budget_bytes + connections * CONNECTION_BYTES
    rank_0_bytes = RANK_BASE_BYTES + len(table) * BATCH_BYTES
    grid.add_row("memory", f"up to {size(RANK_BASE_BYTES + held_bytes)} per rank, {size(rank_0_bytes)} on rank 0")
    return grid
