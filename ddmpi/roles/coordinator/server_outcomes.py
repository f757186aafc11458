"""How the rows of each server ended, small servers too, and which errors it has: read back at the end of a run.

Of a server with batches of its own the counts are those of its batches. Small servers share batches: where all rows of
one ended alike nothing is read, of the others the row numbers in their parts. Of errors the batches with the most are
read first. After ``budget_s`` no further batch is read, and what is missing is said (``is_known``, ``unread``).

Changes nothing and raises nothing: a part that cannot be read is the verification's matter.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ddmpi.core.arrays import IntArray
from ddmpi.core.records import MANY_SERVERS
from ddmpi.errors import OutputError, StorageError
from ddmpi.io.folder.layout import part_of
from ddmpi.io.folder.markers import parts_of
from ddmpi.report.data import MOST_EXAMPLES, FailureKey, Failures
from ddmpi.roles.coordinator.run_state import RunState

log = logging.getLogger(__name__)

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ServerOutcomes:
    """Counts by server, in columns of n servers."""

    names: list[str]
    """Each once."""
    groups: list[str]
    """The server group that each is asked with."""
    counts: IntArray
    """(4, n) rows, successes, errors, ignored rows."""
    is_known: BoolArray
    """(n,) whose outcomes are known; of the others all but the rows are 0."""
    failures: dict[FailureKey, Failures]
    unread: int
    """Errors that were not looked at."""


def server_outcomes(state: RunState, budget_s: float) -> ServerOutcomes:
    """Return what is known of all servers, after at most about ``budget_s`` seconds of reading."""
    reading = _Reading(state)
    end_at = time.monotonic() + budget_s
    for batch_id in reading.wanted().tolist():
        try:
            is_read = time.monotonic() < end_at
            if is_read:
                reading.read(batch_id)
        except (StorageError, OutputError) as error:
            log.debug("not in the report: %s", error)
            is_read = False
        if not is_read:
            reading.pass_over(batch_id)
    own, small = reading.own(), reading.small
    return ServerOutcomes(
        own.names + small.names,
        own.groups + small.groups,
        np.concatenate([own.counts, small.counts], axis=1),
        np.concatenate([np.ones(len(own.names), np.bool_), small.is_known]),
        reading.failures,
        reading.unread,
    )


@dataclass
class _Servers:
    names: list[str]
    groups: list[str]
    counts: IntArray
    is_known: BoolArray


class _Reading:
    def __init__(self, state: RunState) -> None:
        self._state = state
        table, counts = state.table, state.counts
        self.failures: dict[FailureKey, Failures] = {}
        self.unread = 0
        self._codes, self._names = table.batch_servers
        many = self._names.find(MANY_SERVERS)
        self._many = -1 if many is None else many
        packed = np.flatnonzero(self._codes[table.server_first_batch] == self._many)
        self._batches = table.server_first_batch[packed]
        """(p,) the batch that each entry of a small server is in; a server has one for each time it was added to."""
        place_of: dict[str, int] = {}
        names = table.server_names.values.take(pa.array(packed, pa.int64())).to_pylist()
        self._places = np.array([place_of.setdefault(str(name), len(place_of)) for name in names], np.int64)
        self._place_of = place_of
        ended = (counts.successes, counts.errors, counts.rows_left())
        ways = np.count_nonzero(np.stack(ended), axis=0)
        self._is_mixed: BoolArray = (ways > 1) | ((table.ignored_rows > 0) & (counts.successes + counts.errors > 0))
        rows, is_ignored = table.server_rows[packed], table.is_ignored[packed]
        is_alike = ~self._is_mixed[self._batches] & ~is_ignored
        sums = [
            rows,
            rows * (is_alike & (counts.successes[self._batches] > 0)),
            rows * (is_alike & (counts.errors[self._batches] > 0)),
            rows * (is_ignored & ~self._is_mixed[self._batches]),
        ]
        self.small = _Servers(
            list(place_of),
            [state.config.group_of(name) for name in place_of],
            np.stack([np.bincount(self._places, each, len(place_of)) for each in sums]).astype(np.int64),
            np.ones(len(place_of), np.bool_),
        )

    def own(self) -> _Servers:
        """Return the servers that have batches of their own."""
        table, counts, codes = self._state.table, self._state.counts, self._codes
        chosen = np.flatnonzero(np.arange(len(self._names)) != self._many)
        columns = (table.rows, counts.successes, counts.errors, table.rows - counts.rows)
        sums = np.stack([np.bincount(codes, each, len(self._names)) for each in columns])[:, chosen].astype(np.int64)
        groups = np.zeros(len(self._names), np.int64)
        groups[codes] = table.groups
        return _Servers(
            [self._names[at] for at in chosen.tolist()],
            [table.group_names[at] for at in groups[chosen].tolist()],
            sums,
            np.ones(len(chosen), np.bool_),
        )

    def wanted(self) -> IntArray:
        """Return the batches to read: those that tell small servers apart, then those with the most errors."""
        telling = (self._codes == self._many) & self._is_mixed
        errors = self._state.counts.errors
        order = np.lexsort((-errors, ~telling))
        chosen: IntArray = order[(telling | (errors > 0))[order]].astype(np.int64)
        return chosen

    def pass_over(self, batch_id: int) -> None:
        """Note that a batch is not read."""
        self.unread += int(self._state.counts.errors[batch_id])
        if self._is_mixed[batch_id]:
            places = self._places[self._batches == batch_id]
            self.small.is_known[places] = False
            self.small.counts[1:, places] = 0

    def read(self, batch_id: int) -> None:
        """Add what a batch's parts say. Raises StorageError, OutputError: they or its rows cannot be read."""
        state, ref = self._state, self._state.table.ref(batch_id)
        parts = parts_of(state.layout, ref)
        is_settled = (
            not state.counts.is_open(batch_id) and not ref.ignored and len({part_of(part).epoch for part in parts}) == 1
        )
        if is_settled:  # what is no error is a success: bodies' parts are left alone
            parts = tuple(part for part in parts if part_of(part).kind == "errors")
        outcomes = state.outcomes(batch_id, parts)
        is_final = ~state.are_again(batch_id, outcomes)
        rows = state.reader.read(ref, ["row_number", "server_name", "identifier"])
        numbers = rows.column("row_number").to_numpy()
        if not np.isin(outcomes.rows, numbers).all():
            raise OutputError(f"batch {batch_id} has outcomes of rows that are not in it")
        order = np.argsort(numbers, kind="stable")
        at = order[np.searchsorted(numbers, outcomes.rows, sorter=order)]
        kinds = np.array(outcomes.kinds, dtype=np.str_)
        is_error = is_final & (kinds != "")
        failed = rows.take(pa.array(at[is_error]))
        for key, found in _failures(failed, kinds[is_error], outcomes.codes[is_error]):
            known = self.failures.get(key)
            self.failures[key] = found if known is None else known.joined(found)
        if self._codes[batch_id] == self._many and self._is_mixed[batch_id]:
            ended = np.full(len(rows), 1 if is_settled else 0)
            ended[at[is_final]] = np.where(kinds[is_final] == "", 1, 2)
            self._tell_apart([str(name) for name in rows.column("server_name").to_pylist()], ended, ref.ignored)

    def _tell_apart(self, servers: list[str], ended: IntArray, ignored: Collection[str]) -> None:
        """Count a batch's rows by server; ``ended``: (n,) 0 = not yet, 1 = success, 2 = error."""
        places = np.array([self._place_of[name] for name in servers])
        is_left_out = np.array([name in ignored for name in servers]) & (ended == 0)
        for column, chosen in enumerate((ended == 1, ended == 2, is_left_out), start=1):
            np.add.at(self.small.counts[column], places[chosen], 1)


def _failures(failed: pa.Table, kinds: npt.NDArray[np.str_], codes: IntArray) -> Iterator[tuple[FailureKey, Failures]]:
    """Yield the errors of each server, kind and code, with the URLs of the first ones."""
    places: defaultdict[FailureKey, list[int]] = defaultdict(list)
    servers = failed.column("server_name").to_pylist()
    for place, (server, kind, code) in enumerate(zip(servers, kinds.tolist(), codes.tolist(), strict=True)):
        places[str(server), kind, code].append(place)
    urls = failed.column("identifier")
    for key, of_key in places.items():
        yield key, Failures(len(of_key), tuple(str(urls[place]) for place in of_key[:MOST_EXAMPLES]))
