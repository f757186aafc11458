"""What report.html shows, gathered from the run's state and from the output folder."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.core.arrays import IntArray
from ddmpi.core.ledger.waiting import Wait, Waiting
from ddmpi.core.partition.server_patterns import matching_servers
from ddmpi.core.records import INVALID_SERVER, PaceState, Picture, group_of_shared
from ddmpi.core.stats.metrics import Tally
from ddmpi.core.stats.timeline import Timeline
from ddmpi.core.stats.usage import reached_per_s
from ddmpi.errors import StorageError
from ddmpi.io.folder.markers import parts_of
from ddmpi.io.folder.placeholders import Placeholder
from ddmpi.io.results.publishing import has_images
from ddmpi.io.urls.batch_table import limits_by_group
from ddmpi.report.data import (
    MOST_SERVERS,
    MOST_SLOW,
    FailureKey,
    Failures,
    FileTable,
    PlaceholderLine,
    Rest,
    ServerLine,
    failure_text,
)
from ddmpi.report.formats import counted
from ddmpi.report.pending import clock
from ddmpi.roles.coordinator.pictures import data_uris, sample_pictures
from ddmpi.roles.coordinator.run_state import RunState, unix_time
from ddmpi.roles.coordinator.server_outcomes import server_outcomes

MOST_PICTURES = 24
PICTURES_BUDGET_S = 3.0
MOST_FILE_ROWS = 500
OUTCOMES_BUDGET_S = 4.0
"""A job that has been told to stop may be killed soon."""
NOTABLE = MOST_SERVERS // 10
"""Lines of the table kept for those with the most errors, and as many for those with the most pending rows."""


def places(state: RunState) -> dict[str, str]:
    """What the output folder holds for people: those parts of it that exist after every run that came so far."""
    layout = state.layout
    found = {"the files": layout.images} if state.counts.successes.any() else {}
    found |= {"rows that failed for good": layout.errors} if state.counts.errors.any() else {}
    found |= {"which files are as the table says": layout.comparison} if layout.comparison.exists() else {}
    found |= {"what the last refresh has found": layout.refreshed} if layout.refreshed.exists() else {}
    found |= {"what was measured of each server": layout.profiles} if state.profiles else {}
    found |= {"one per rank, and metrics": layout.logs}
    found |= {"parts that could not be read": layout.damaged} if layout.damaged.exists() else {}
    return {what: layout.relative(path) for what, path in found.items()}


@dataclass(frozen=True)
class ServerTable:
    """The servers of the job, and what is told of them."""

    lines: list[ServerLine]
    """Those that are listed, largest first."""
    rest: Rest | None
    """All others together."""
    count: int
    failures: dict[FailureKey, Failures]
    unread_errors: int


def server_table(
    state: RunState, tally: Tally, paces: Mapping[str, PaceState], waiting: Waiting, now: float, *, budget_s: float
) -> ServerTable:
    """Return all servers with their outcomes.

    Args:
        paces: of all servers, as of now.
        waiting: all that is waited for.
        now: seconds, monotonic.
        budget_s: how long parts may be read for what the counts of batches do not say.
    """
    found = server_outcomes(state, budget_s)
    listed = _listed(found.counts)
    names = [found.names[at] for at in listed.tolist()]
    groups = [found.groups[at] for at in listed.tolist()]
    sizes = Counter(found.groups)
    main_failures = _main_failures(found.failures)
    at_unix_s = unix_time(now)
    waits = _waits_by_server(paces, waiting, at_unix_s)
    audited = {row.group: row for row in tally.audit.rows()}
    spans_s = tally.audit.spans_s()
    limit_of = _limits(state, groups)
    lines = []
    for name, group, (rows, successes, errors, ignored), is_known in zip(
        names, groups, found.counts[:, listed].T.tolist(), found.is_known[listed].tolist(), strict=True
    ):
        line = ServerLine(name, rows, successes, errors, ignored, is_known, main_failures.get(name, ""))
        usage = tally.usage.get(group, now)
        wait = (waits.get(name) or waits.get(group)) if line.pending else None
        profile = state.profiles.get(group)
        lines.append(
            replace(
                line,
                waits="" if wait is None else _wait_text(wait, at_unix_s),
                shared_with=f"{group} ({counted(sizes[group], 'server')})" if sizes[group] > 1 else "",
                limit_per_s=limit_of(group) if name != INVALID_SERVER else 0.0,
                size_bytes=0 if profile is None else profile.bytes,
                reached_per_s=usage.rate_per_s if usage else reached_per_s(*spans_s.get(group, (0, 0.0))),
                usage=usage,
                audited=audited.get(group),
            )
        )
    others = np.delete(found.counts, listed, axis=1)
    rest = Rest(others.shape[1], *others.sum(axis=1).tolist()) if others.size else None
    return ServerTable(lines, rest, len(found.names), found.failures, found.unread)


def _main_failures(failures: Mapping[FailureKey, Failures]) -> dict[str, str]:
    """Return by server kind and code of most of its errors."""
    ordered = sorted(failures.items(), key=lambda item: item[1].rows)
    return {server: failure_text(kind, code) for (server, kind, code), _ in ordered}


def _wait_text(wait: Wait, now: float) -> str:
    return f"{clock(wait.until, now)} ({wait.why})" if wait.until else wait.why


def _waits_by_server(paces: Mapping[str, PaceState], waiting: Waiting, now: float) -> dict[str, Wait]:
    """Return what each server or group waits for; ``waiting`` has one server of each group, and knows more of it.
    ``now``: seconds since 1970, as of which the paces are."""
    found = {
        group_of_shared(name) or name: Wait(
            name, 0, now + pace.wait_s, pace.why or "a pause", now - pace.since_s if pace.open_count else 0.0
        )
        for name, pace in paces.items()
        if pace.wait_s > 0 or pace.open_count
    }
    return found | {wait.server: wait for wait in waiting.listed}


def _limits(state: RunState, groups: Sequence[str]) -> Callable[[str], float]:
    """Return a function that says how many requests per second a group allows; of most groups it is the default."""
    config = state.config
    values = pa.array(groups, pa.string())
    known = pa.array([*state.profiles, *config.address_groups.names.values.to_pylist()], pa.string())
    special = matching_servers(values, config.rules.patterns) | np.asarray(pc.is_in(values, value_set=known))
    named = frozenset(values.filter(pa.array(special)).to_pylist())
    default_per_s = config.downloader_parameters.default_rate_limit
    limits = limits_by_group(config, state.profiles)
    return lambda group: limits(group).rate_per_s if group in named else default_per_s


def _listed(counts: IntArray) -> IntArray:
    """Return the largest servers, and among the others those with the most errors and the most pending rows."""
    rows, successes, errors, ignored = counts
    by_rows = np.argsort(-rows, kind="stable")
    if len(by_rows) <= MOST_SERVERS:
        return by_rows
    pending = rows - successes - errors - ignored
    notable = [order[values[order] > 0][:NOTABLE] for values in (errors, pending) for order in [np.argsort(-values)]]
    chosen = np.zeros(len(rows), np.bool_)
    chosen[np.concatenate(notable)] = True
    chosen[by_rows[: MOST_SERVERS - 2 * NOTABLE]] = True
    missing = MOST_SERVERS - int(chosen.sum())
    chosen[by_rows[~chosen[by_rows]][:missing]] = True
    return by_rows[chosen[by_rows]]


def timelines(
    state: RunState, tally: Tally, lines: Sequence[ServerLine], ended_at: float
) -> tuple[list[Timeline], tuple[float, float]]:
    """Return what the slowest servers have done in this run, and begin and length (s) of a span of it."""
    groups = {line.name: state.config.group_of(line.name) for line in lines if line.pending}
    found = tally.timelines.slowest(MOST_SLOW, ended_at, frozenset(groups.values()))
    return found, (tally.timelines.began_at, tally.timelines.bin_s)


def pictures(state: RunState) -> list[Picture]:
    """Images from all over the table."""
    batches = np.flatnonzero(state.counts.successes)
    if not len(batches):
        return []
    chosen = batches[np.unique(np.linspace(0, len(batches) - 1, min(len(batches), MOST_PICTURES)).astype(np.int64))]
    rows_each = max(1, MOST_PICTURES // len(chosen))
    found = (_success_part(state, batch_id) for batch_id in chosen.tolist())
    first_parts = (part for part in found if part is not None)
    return sample_pictures(first_parts, rows_each, PICTURES_BUDGET_S)[:MOST_PICTURES]


def _success_part(state: RunState, batch_id: int) -> Path | None:
    """Return the first part of the batch that has files, None where there is none."""
    try:
        parts = parts_of(state.layout, state.table.ref(batch_id))
    except StorageError:
        # Whether the folder can be read is the verification's question; the report shows what there is.
        return None
    paths = (state.layout.root / part for part in parts)
    # Of a published dataset there are none: the end of a run does not wait for a store.
    return next((path for path in paths if path.name.startswith("successes") and has_images(path)), None)


def placeholder_lines(found: Sequence[Placeholder]) -> list[PlaceholderLine]:
    """Return the placeholders under the most URLs, each with its picture where that can be shown."""
    shown = found[:MOST_PICTURES]
    uris = data_uris([it.image for it in shown])
    return [
        PlaceholderLine(it.server_name, it.urls, it.size_bytes, it.url, uri)
        for it, uri in zip(shown, uris, strict=True)
    ]


def file_table(path: Path) -> FileTable | None:
    """Return the first lines of a table of text, None where there is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            columns = next(reader, [])
            rows = list(islice(reader, MOST_FILE_ROWS))
            left_out = sum(1 for _ in reader)
    except (OSError, UnicodeError, csv.Error):
        return None
    return FileTable(columns, rows, left_out) if columns else None
