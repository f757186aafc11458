"""What rows of a table will take, in time and bytes, from what was profiled: for ``--plan``, and for the whole of a
table of which a trial has fetched a few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ddmpi.config.config import Config
from ddmpi.core.arrays import IntArray
from ddmpi.core.forecast.prediction import Prediction, predict
from ddmpi.core.ledger.profile import TYPICAL_FILE_BYTES, Profile
from ddmpi.core.ledger.schedule import DEFAULT_LATENCY_S, row_time_s
from ddmpi.core.partition.partition import ServerTable, cut_batches
from ddmpi.core.partition.placement import lay_out
from ddmpi.core.partition.server_patterns import matching_servers
from ddmpi.core.records import INVALID_SERVER, Limits, is_packed
from ddmpi.core.stats.usage import COLUMNS, UsageTable
from ddmpi.errors import InputError, Interrupted
from ddmpi.io.folder.layout import Layout
from ddmpi.io.urls.batch_table import BatchTable, limits_by_group, make_plan
from ddmpi.io.urls.index import UrlsIndex, index_of
from ddmpi.io.urls.survey import Survey, survey
from ddmpi.io.urls.writer import groups_by_name
from ddmpi.report.formats import counted, duration, size
from ddmpi.roles.coordinator.initialization import whole_input
from ddmpi.roles.coordinator.run_state import RunState

BYTES_PER_ROW = 400
"""What a result takes on disk beside the file itself: its other columns, compressed, and its row in urls/."""


def predict_run(
    config: Config, table: BatchTable, rows_left: IntArray, profiles: Mapping[str, Profile], workers: int | None
) -> Prediction:
    """Return the prediction for rows of this table.

    Args:
        rows_left: (B,) rows of each batch that are to be fetched.
        workers: ranks that download; None = as many as are worth having.
    """
    limits = limits_by_group(config, profiles)
    plan = make_plan(table, config, rows=rows_left, profiles=profiles, limits=limits, ref=table.ref, workers=[0])
    samples = config.profiling.samples_per_server if config.profiling.mode == "measure" and not profiles else 0
    return predict(plan, rows_left, workers, samples)


@dataclass(frozen=True)
class HostTime:
    """How long the rows of one server group take at its limits, and which of these decides."""

    group: str
    rows: int
    seconds: float
    limits: Limits
    by_bytes: bool
    """Its limits of bytes decide, not that of requests or connections."""


def slowest_hosts(
    config: Config, table: BatchTable, rows: IntArray, profiles: Mapping[str, Profile], most: int
) -> list[HostTime]:
    """Return the server groups whose rows take longest, slowest first; ``rows`` as in ``predict_run``."""
    limits = limits_by_group(config, profiles)
    plan = make_plan(table, config, rows=rows, profiles=profiles, limits=limits, ref=table.ref, workers=[0])
    names = table.group_names
    group_rows = np.bincount(table.groups, weights=rows, minlength=len(names))
    times = group_rows * plan.row_times
    budgeted = {
        index: _budget_s(limits(names[index]), float(group_rows[index]) * _mean_size(profiles.get(names[index])))
        for index in np.flatnonzero(matching_servers(names.values, config.rules.patterns)).tolist()
        if group_rows[index] and limits(names[index]).has_byte_budget
    }
    for index, seconds in budgeted.items():
        times[index] = max(float(times[index]), seconds)
    found = []
    for index in np.argsort(-times, kind="stable")[:most].tolist():
        if times[index] > 0 and names[index] != INVALID_SERVER:
            allowed = limits(names[index])
            requests_s = group_rows[index] * row_time_s(allowed, DEFAULT_LATENCY_S)
            by_bytes = bool(allowed.bytes_per_s or allowed.has_byte_budget) and times[index] > 1.01 * requests_s
            found.append(HostTime(names[index], int(group_rows[index]), float(times[index]), allowed, by_bytes))
    return found


def _mean_size(profile: Profile | None) -> float:
    return TYPICAL_FILE_BYTES if profile is None or not profile.bytes else profile.bytes * _share_good(profile)


def _budget_s(limits: Limits, size_bytes: float) -> float:
    """How long so many bytes take at budgets of an hour and a day: each begins with one that is not spent."""
    budgets = ((limits.bytes_per_hour, 3_600.0), (limits.bytes_per_day, 86_400.0))
    return max((span_s * (max(0.0, size_bytes - 1) // budget) for budget, span_s in budgets if budget > 0), default=0.0)


def expected_bytes(
    table: BatchTable, rows: IntArray, profiles: Mapping[str, Profile], mean_bytes: float | None = None
) -> float:
    """Return bytes of all files: a profiled server's median times its share of good samples, for others the mean, or
    ``mean_bytes`` if that is known. Rows whose URLs are refused have none."""
    typical = [profile.bytes * _share_good(profile) for profile in profiles.values() if profile.bytes]
    mean = float(np.mean(typical)) if typical else TYPICAL_FILE_BYTES
    mean = mean if mean_bytes is None else mean_bytes
    fetched = np.where(table.is_refused, 0, rows)
    group_rows = np.bincount(table.groups, weights=fetched, minlength=len(table.group_names))
    expected = float(group_rows.sum()) * mean
    for name, profile in profiles.items():
        index = table.group_names.find(name)
        if index is not None and profile.success_count + profile.error_count:
            expected += float(group_rows[index]) * (profile.bytes * _share_good(profile) - mean)
    return max(0.0, expected)


def _share_good(profile: Profile) -> float:
    return profile.success_count / max(1, profile.success_count + profile.error_count)


def whole_table(config: Config, layout: Layout, found: Survey) -> BatchTable:
    """Return the batches that a surveyed input would be cut into. How often URLs repeat is taken to be the same on all
    servers."""
    names, rows = found.servers.names.slice(1), found.servers.rows[1:]
    servers = ServerTable(names, rows, groups_by_name(config.group_of, config.rules.grouped, names))
    size_rows = config.downloader_parameters.batch_size
    cut = cut_batches(
        servers,
        invalid_rows=found.refused,
        batch_size=size_rows,
        small_rows=min(config.profiling.min_rows, size_rows),
    )
    share = min(1.0, found.urls.count / max(1, int(rows.sum())))
    urls = np.maximum(1, np.round(rows * share)).astype(np.int64)
    index = index_of(cut, lay_out(cut.rows), servers, urls, input_rows=found.rows, earlier=UrlsIndex(layout.urls))
    return BatchTable(layout, index)


def forecast_of_trial(
    state: RunState, usage: UsageTable, workers: int, now: float, should_stop: Callable[[], bool]
) -> str:
    """Return what the whole table would take with so many ranks that download, by what a trial over a few rows of it
    has seen, as a line to be shown. Reads the URLs of the whole table.

    Args:
        usage: how the servers were asked.
    """
    config, layout = state.config, state.layout
    try:
        table = whole_input(config, config.path_to_input or str(layout.query))
        found = survey(table, config.initialization.memory_bytes, should_stop=should_stop)
    except (InputError, Interrupted) as error:
        return f"What the whole would take is not known: {error}"
    whole = whole_table(config, layout, found)
    rows = whole.rows - whole.ignored_rows
    profiles = _profiles_by_results(state, usage, now)
    prediction = predict_run(config, whole, rows, profiles, workers)
    download_bytes = expected_bytes(whole, rows, profiles, _mean_bytes(state, usage))
    slowest = whole.group_names[prediction.bound_group] if prediction.bound_group >= 0 else "-"
    return (
        f"The whole, {counted(int(rows.sum()), 'row')} on {counted(whole.server_count, 'server')}, would take about "
        f"{duration(prediction.makespan_s)} like this (at least {duration(prediction.bound_s)}, set by "
        f"{whole.shown_group(slowest)}), {size(download_bytes)} to download and "
        f"{size(download_bytes + float(rows.sum()) * BYTES_PER_ROW)} on disk"
    )


def _mean_bytes(state: RunState, usage: UsageTable) -> float | None:
    """Return bytes per row that was fetched; None if none was."""
    final = int(state.counts.rows_final - state.counts.rows[state.table.is_refused].sum())
    return float(usage.numbers[:, COLUMNS.index("bytes")].sum()) / final if final > 0 else None


def _profiles_by_results(state: RunState, usage: UsageTable, now: float) -> dict[str, Profile]:
    """Return the profiles, with what was seen of each group while its rows were fetched in place of the few samples.
    Packed servers have none."""
    names = state.table.group_names
    good, bad = (
        np.bincount(state.table.groups, counts, len(names)) for counts in (state.counts.successes, state.counts.errors)
    )
    found = dict(state.profiles)
    for index in np.flatnonzero(good + bad).tolist():
        name, seen = names[index], usage.get(names[index], now)
        if seen is not None and name != INVALID_SERVER and not is_packed(name):
            before = found.get(name) or Profile(name, 1, 0, 0, rate_limit=0.0, configured_rate=0.0)
            found[name] = replace(
                before,
                success_count=int(good[index]),
                error_count=int(bad[index]),
                bytes=int(seen.bytes / max(1, good[index])),
                total_s=seen.p50_s,
            )
    return found
