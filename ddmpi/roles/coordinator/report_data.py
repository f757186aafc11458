"""What report.html shows, gathered from the run's state and from the output folder."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from ddmpi.core.arrays import IntArray
from ddmpi.core.records import INVALID_SERVER, MANY_SERVERS, PACKED_PREFIX, Picture
from ddmpi.core.stats.usage import UsageTable
from ddmpi.errors import StorageError
from ddmpi.io.folder.markers import parts_of
from ddmpi.io.folder.placeholders import Placeholder
from ddmpi.io.results.publishing import has_images
from ddmpi.io.urls.batch_table import limits_by_group
from ddmpi.report.data import MOST_SERVERS, Audit, PlaceholderLine, ServerLine
from ddmpi.roles.coordinator.pictures import data_uris, sample_pictures
from ddmpi.roles.coordinator.run_state import RunState

MOST_PICTURES = 24
PICTURES_BUDGET_S = 3.0
MOST_AUDIT_ROWS = 500
NOTABLE = MOST_SERVERS // 10
"""Lines of the table kept for those with the most errors, and as many for those with the most pending rows."""


def places(state: RunState) -> dict[str, str]:
    """What the output folder holds for people: those parts of it that exist after every run that came so far."""
    layout = state.layout
    found = {"the files": layout.images} if state.counts.successes.any() else {}
    found |= {"rows that failed for good": layout.errors} if state.counts.errors.any() else {}
    found |= {"which files are as the table says": layout.comparison} if layout.comparison.exists() else {}
    found |= {"what was measured of each server": layout.profiles} if state.profiles else {}
    found |= {"one per rank, and metrics": layout.logs}
    return {what: layout.relative(path) for what, path in found.items()}


def server_lines(state: RunState, usage: UsageTable, now: float) -> tuple[list[ServerLine], ServerLine | None]:
    """The server groups that are listed, largest first, and all others together. Packed batches are one line: their
    servers have limits of their own, and a batch says nothing about any of them."""
    table, names = state.table, state.table.group_names
    packed = np.asarray(pc.starts_with(names.values, pattern=PACKED_PREFIX))
    line_of_group = np.where(packed, len(names), np.arange(len(names)))
    line_of_batch = line_of_group[table.groups]
    servers = np.bincount(line_of_batch[table.server_first_batch[table.is_server]], minlength=len(names) + 1)
    rows, successes, errors = (
        np.bincount(line_of_batch, values, minlength=len(names) + 1).astype(np.int64)
        for values in (table.rows, state.counts.successes, state.counts.errors)
    )
    counts = np.stack([servers, rows, successes, errors])
    listed = _listed(rows, errors, rows - successes - errors)
    limits = limits_by_group(state.config, state.profiles)
    lines = []
    for index in listed.tolist():
        name = names[index] if index < len(names) else MANY_SERVERS
        line = replace(ServerLine(name, *counts[:, index].tolist()), usage=usage.get(name, now))
        if name not in {MANY_SERVERS, INVALID_SERVER}:
            line = replace(line, limit_per_s=limits(name).rate_per_s)
        if (profile := state.profiles.get(name)) is not None:
            line = replace(line, size_bytes=profile.bytes)
        lines.append(line)
    others = np.setdiff1d(np.flatnonzero(rows), listed)
    return lines, ServerLine("", *counts[:, others].sum(axis=1).tolist()) if len(others) else None


def _listed(rows: IntArray, errors: IntArray, pending: IntArray) -> IntArray:
    """The largest lines, and among the others those with the most errors and the most pending rows."""
    by_rows = np.argsort(-rows, kind="stable")
    by_rows = by_rows[rows[by_rows] > 0]
    if len(by_rows) <= MOST_SERVERS:
        return by_rows
    notable = [order[values[order] > 0][:NOTABLE] for values in (errors, pending) for order in [np.argsort(-values)]]
    chosen = np.zeros(len(rows), np.bool_)
    chosen[np.concatenate(notable)] = True
    chosen[by_rows[: MOST_SERVERS - 2 * NOTABLE]] = True
    missing = MOST_SERVERS - int(chosen.sum())
    chosen[by_rows[~chosen[by_rows]][:missing]] = True
    return by_rows[chosen[by_rows]]


def pictures(state: RunState) -> list[Picture]:
    """Images from all over the table."""
    batches = np.flatnonzero(state.counts.successes)
    if not len(batches):
        return []
    chosen = batches[np.unique(np.linspace(0, len(batches) - 1, min(len(batches), MOST_PICTURES)).astype(np.int64))]
    rows_each = max(1, MOST_PICTURES // len(chosen))
    first_parts = (part for batch_id in chosen.tolist() for part in islice(_success_parts(state, batch_id), 1))
    return sample_pictures(first_parts, rows_each, PICTURES_BUDGET_S)[:MOST_PICTURES]


def _success_parts(state: RunState, batch_id: int) -> list[Path]:
    try:
        parts = parts_of(state.layout, state.table.ref(batch_id))
    except StorageError:
        # Whether the folder can be read is the verification's question; the report shows what there is.
        return []
    paths = [state.layout.root / part for part in parts]
    # Of a published dataset there are none: the end of a run does not wait for a store.
    return [path for path in paths if path.name.startswith("successes") and has_images(path)]


def placeholder_lines(found: Sequence[Placeholder]) -> list[PlaceholderLine]:
    """Return the placeholders under the most URLs, each with its picture where that can be shown."""
    shown = found[:MOST_PICTURES]
    uris = data_uris([it.image for it in shown])
    return [
        PlaceholderLine(it.server_name, it.urls, it.size_bytes, it.url, uri)
        for it, uri in zip(shown, uris, strict=True)
    ]


def audit(path: Path) -> Audit | None:
    """The politeness audit, None where there is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            columns = next(reader, [])
            rows = list(islice(reader, MOST_AUDIT_ROWS))
            left_out = sum(1 for _ in reader)
    except (OSError, UnicodeError, csv.Error):
        return None
    return Audit(columns, rows, left_out) if columns else None
