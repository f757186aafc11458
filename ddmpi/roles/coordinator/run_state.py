"""What rank 0 knows of the output folder: which rows are final, by which parts, and what earlier runs learned.

Changed only from what is durable: a published part, a written marker.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ddmpi.config.config import Config, digests
from ddmpi.core.ledger.batch_counts import BatchContent, BatchCounts
from ddmpi.core.ledger.profile import Profile
from ddmpi.core.ledger.sampling import Target
from ddmpi.core.ledger.waiting import MOST_LISTED, Waiting, servers_waited_for, waiting
from ddmpi.core.pace.byte_limits import Spent
from ddmpi.core.pace.overrides import NO_OVERRIDES, Overrides
from ddmpi.core.partition.server_patterns import matching_servers
from ddmpi.core.records import INVALID_SERVER, MANY_SERVERS, BatchRef, Limits, PaceState
from ddmpi.core.rules.retry_filter import choice_of, without_servers
from ddmpi.errors import InputError
from ddmpi.io.folder.checkpoint import Checkpoint, ServerState, save
from ddmpi.io.folder.layout import Layout, part_of
from ddmpi.io.folder.lock import OutputLock
from ddmpi.io.folder.markers import Marker, parts_of, remove_completed, scan, write_completed
from ddmpi.io.results.damage import DamagedPartError, set_aside
from ddmpi.io.results.outcomes import Outcomes, RowReader, is_on, oldest_us, outcomes_of
from ddmpi.io.results.publishing import Publisher
from ddmpi.io.urls.batch_table import BatchTable, limits_by_group

log = logging.getLogger(__name__)

TOUCH_BATCHES: Final = 1_000
"""Between heartbeats of the lock: some seconds, of the minutes that they may take."""


@dataclass
class RunState:
    """One run over one output folder, after initialization."""

    config: Config
    layout: Layout
    table: BatchTable
    reader: RowReader
    lock: OutputLock | None
    """None: the folder is only looked at, and nothing of it changes."""
    epoch: int
    input_fingerprint: str
    input_stamp: str
    stages: dict[str, Any]
    servers: dict[str, ServerState]
    saved_at: float
    profiles: dict[str, Profile]
    ran_s: float = 0.0
    """How long the job's earlier runs lasted."""
    changed_keys: list[str] = field(default_factory=list)
    """Keys of the config that have changed since the last run, and that may."""
    publisher: Publisher | None = None
    counts: BatchCounts = field(init=False)
    """What is final of each batch."""
    _retry: dict[int, tuple[str, ...]] = field(init=False, default_factory=dict)
    stale_before: float = field(init=False, default=0.0)
    """Of a refresh: files that were last asked for before this moment (seconds since 1970) are asked for again; 0 = no
    file is."""
    asked_again: int = field(init=False, default=0)
    """Files that this run asks for again."""
    _stale: set[int] = field(init=False, default_factory=set)
    """Batches that have such files."""
    overrides: Overrides = NO_OVERRIDES
    """What the operator says at the moment."""
    _began_at: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.counts = BatchCounts(self.table.rows - self.table.ignored_rows)
        self._count_files()

    def _count_files(self) -> None:
        """Markers say what completed batches hold; of the others the parts are read.

        A marker that does not count all rows of its batch, or not all errors by kind, goes, and comes back if the batch
        is complete: what was ignored then may not be so now, or the marker is damaged.
        """
        for found in scan(self.layout, map(self.table.ref, self.table.begun(self.layout).tolist())):
            marker, parts = found.marker, found.parts
            if marker is not None and self._counts_all(found.batch_id, marker):
                content = BatchContent(found.batch_id, marker.successes, marker.errors, marker.kinds)
                self.counts.set(content, marker.rows)
                continue
            if marker is not None:
                ref = self.table.ref(found.batch_id)
                parts = parts_of(self.layout, ref)
                self.remove_marker(found.batch_id)
            if parts:
                self._count_parts(found.batch_id, parts)
        if self.publisher is not None:
            # Parts of marked batches were counted, hence published.
            self.publisher.settle(part for parts in self.counts.parts.values() for part in parts)
        for batch_id in self.counts.due():
            self.counts.complete(batch_id)
            if self.lock is not None:
                self.write_marker(batch_id)

    def _counts_all(self, batch_id: int, marker: Marker) -> bool:
        return marker.rows == self.table.rows[batch_id] and marker.errors == sum(marker.kinds.values())

    def _count_parts(self, batch_id: int, parts: tuple[str, ...]) -> None:
        parts, outcomes = self._read_outcomes(batch_id, parts)
        ignored_without_outcome = self.table.ignored_rows[batch_id] - self._are_ignored(batch_id, outcomes).sum()
        rows = int(self.table.rows[batch_id] - ignored_without_outcome)
        content = BatchContent(batch_id, outcomes.successes, outcomes.errors, outcomes.count_kinds(), parts)
        self.counts.set(content, rows)

    def retry_failed(self, retry: tuple[str, ...]) -> int:
        """Open the errors that these words mean (see ``retry_filter``) again; the number of rows.

        The markers of their batches are taken back first; a kill in between leaves batches that are complete as they
        were and get their marker back. Raises StorageError: a part cannot be read or a marker cannot be removed.
        """
        opened = 0
        servers = choice_of(retry).servers
        for batch_id in np.flatnonzero((self.counts.errors > 0) & self.table.may_have(servers)).tolist():
            is_mixed = bool(servers) and self.table.ref(batch_id).server_name == MANY_SERVERS
            self._retry[batch_id] = retry if is_mixed else without_servers(retry)
            before = self.counts.final(batch_id)
            found = self.content(batch_id)
            rows = before - found.successes - found.errors
            if not rows:
                del self._retry[batch_id]
                continue
            self.remove_marker(batch_id)
            self.counts.set(found)
            opened += rows
        return opened

    def refresh(self, before: float) -> int:
        """Open the rows again whose files were last asked for before that moment (seconds since 1970); return how many.
        Markers as in ``retry_failed``. Raises StorageError: a part cannot be read or a marker cannot be removed."""
        self.stale_before = before
        for place, batch_id in enumerate(np.flatnonzero(self.counts.successes > 0).tolist()):
            if self.lock is not None and place % TOUCH_BATCHES == 0:
                self.lock.touch()
            if not self._may_be_stale(parts_of(self.layout, self.table.ref(batch_id))):
                continue
            self._stale.add(batch_id)
            before_it = self.counts.final(batch_id)
            found = self.content(batch_id)
            rows = before_it - found.successes - found.errors
            if not rows:
                self._stale.discard(batch_id)
                continue
            self.remove_marker(batch_id)
            self.counts.set(found)
            self.asked_again += rows
        return self.asked_again

    def _may_be_stale(self, parts: Sequence[str]) -> bool:
        """Return whether any file of a batch is that old, as far as the footers of its parts say."""
        oldest = (oldest_us(self.layout, part) for part in parts if part_of(part).kind == "successes")
        return any(time_us is None or time_us < self.stale_before * 1e6 for time_us in oldest)

    def content(self, batch_id: int) -> BatchContent:
        """Read back what the parts of a batch hold, but for rows that are fetched again. Parts that cannot be read
        are set aside. Raises StorageError: a part is missing, or the disk fails."""
        ref = self.table.ref(batch_id)
        parts, outcomes = self._read_outcomes(batch_id, parts_of(self.layout, ref))
        again = self.are_again(batch_id, outcomes)
        kinds = Counter(kind for kind, chosen in zip(outcomes.kinds, again, strict=True) if not chosen)
        successes = kinds.pop("", 0)
        return BatchContent(batch_id, successes, kinds.total(), kinds, parts)

    def outcomes(self, batch_id: int, parts: Sequence[str]) -> Outcomes:
        """Return the outcomes in these parts of a batch, as ``are_again`` wants them; raises as ``outcomes_of``."""
        return outcomes_of(self.layout, parts, times=batch_id in self._stale)

    def are_again(self, batch_id: int, outcomes: Outcomes) -> npt.NDArray[np.bool_]:
        """(n,) which of the outcomes of a batch are of rows that are fetched again."""
        again = self._are_retried(batch_id, outcomes)
        if batch_id in self._stale:
            stale = outcomes.are_stale(self.stale_before, self.epoch)
            again |= stale & ~self._are_ignored(batch_id, outcomes)
        return again

    def _are_retried(self, batch_id: int, outcomes: Outcomes) -> npt.NDArray[np.bool_]:
        words = self._retry.get(batch_id)
        if words is None:
            return np.zeros(len(outcomes.rows), np.bool_)
        ref = self.table.ref(batch_id)
        is_mixed = bool(choice_of(words).servers) and ref.server_name == MANY_SERVERS
        rows = self.reader.read(ref, ["row_number", "server_name"]) if is_mixed else None
        return outcomes.to_retry(words, self.epoch, rows) & ~self._are_ignored(batch_id, outcomes)

    def _read_outcomes(self, batch_id: int, parts: tuple[str, ...]) -> tuple[tuple[str, ...], Outcomes]:
        """Return those of a batch's parts that can be read, and their outcomes; the others are set aside."""
        try:
            return parts, self.outcomes(batch_id, parts)
        except DamagedPartError as damage:
            log.warning("batch %d is damaged: %s", batch_id, damage)
            self.remove_marker(batch_id)
            if self.lock is not None:
                set_aside(self.layout, damage.part, self.publisher)
            return self._read_outcomes(batch_id, tuple(part for part in parts if part != damage.part))

    def _are_ignored(self, batch_id: int, outcomes: Outcomes) -> npt.NDArray[np.bool_]:
        """(n,) which of the outcomes are of rows on ignored servers: those stay as they are."""
        ref = self.table.ref(batch_id)
        if not ref.ignored:
            return np.full(len(outcomes.rows), bool(self.table.ignored_rows[batch_id]))
        rows = self.reader.read(ref, ["row_number", "server_name"])
        ignored = rows.column("row_number").to_numpy()[is_on(rows.column("server_name"), ref.ignored)]
        return np.isin(outcomes.rows, ignored)

    def ref(self, batch_id: int) -> BatchRef:
        """Where the batch's rows are, and which of those with an outcome are fetched again."""
        ref = self.table.ref(batch_id)
        if batch_id in self._stale:
            ref = msgspec.structs.replace(ref, stale_before=self.stale_before)
        retry = self._retry.get(batch_id)
        return ref if retry is None else msgspec.structs.replace(ref, retry=retry)

    def targets(self) -> list[Target]:
        """Return the servers to profile: enough rows, no profile yet, a first batch that is not complete; each once.

        None where profiling is done or not wanted. The batches have the parts that hold some of their outcomes: an
        earlier run may have been killed while it profiled.
        """
        if self.config.profiling.mode != "measure" or self.stages.get("profiled"):
            return []
        found: dict[str, Target] = {}
        for server, first_batch, batches in self.table.servers_with(self.config.profiling.min_rows):
            is_known = server in self.profiles or server in found or server == INVALID_SERVER
            if not is_known and self.counts.is_open(first_batch):
                parts = tuple(self.counts.parts.get(first_batch, ()))
                found[server] = (server, msgspec.structs.replace(self.ref(first_batch), parts=parts), batches)
        return list(found.values())

    def write_marker(self, batch_id: int) -> None:
        """Write the marker of a batch whose rows are all final. Raises StorageError: the marker cannot be written."""
        counts = self.counts
        marker = Marker(
            int(counts.rows[batch_id]),
            int(counts.successes[batch_id]),
            int(counts.errors[batch_id]),
            counts.kinds_of(batch_id),
            int(self.table.rows[batch_id] - counts.rows[batch_id]),
        )
        write_completed(self.layout, self.table.ref(batch_id), marker)

    def remove_marker(self, batch_id: int) -> None:
        """Take the marker of a batch back, before its missing rows are fetched again. Raises StorageError: the marker
        cannot be removed."""
        if self.lock is not None:
            remove_completed(self.layout, self.table.ref(batch_id))

    @property
    def ignored_rows(self) -> int:
        """Rows that are left out: without an outcome, on a server that the ignored table names."""
        return int(self.table.rows.sum() - self.counts.rows.sum())

    def give_up(self, words: Sequence[str]) -> list[str]:
        """Return the servers whose rows are not waited for: those that these names and globs mean, or, without any, all
        that the last run has waited for when it ended, but for pauses that every run waits out. Raises InputError: no
        server of the table is meant by one of the words."""
        names = [word.lower() for word in words]
        known = (self.table.server_names.values, self.table.group_names.values)
        strange = [name for name in names if not any(matching_servers(values, [name]).any() for values in known)]
        if strange:
            raise InputError(f"give up: no server of the table is called {', '.join(strange)}; the status lists some")
        limits, least_s = limits_by_group(self.config, self.profiles), self.config.parked_wait_s
        return names or sorted(servers_waited_for(self.known_paces(self.saved_at), limits, least_s))

    def known_paces(self, now: float | None = None) -> dict[str, PaceState]:
        """What earlier runs learned; waits are what is left of them, and so are the bytes that still count. ``now``: at
        which time (s since 1970); None: at this one."""
        now = time.time() if now is None else now
        return {
            name: PaceState(
                server.rate_per_s,
                max(0.0, server.not_before - now),
                server.incidents,
                server.open_count,
                server.throttles,
                _moved(server.bytes_of_hour, -now),
                _moved(server.bytes_of_day, -now),
                server.why,
                now - (server.silent_since or now),
                max(0.0, server.paid_at - now),
                server.body_bytes,
            )
            for name, server in self.servers.items()
        }

    def waiting(
        self, paces: Mapping[str, PaceState], unix_s: float, fetched: int = 0, most: int = MOST_LISTED
    ) -> Waiting:
        """Which rows wait for whom; times are seconds since 1970. ``paces``: of all servers, as of ``unix_s``;
        ``fetched``: rows that are done with, durable or not, if that is known."""
        table, config = self.table, self.config
        left = np.bincount(table.groups, self.counts.rows_left(), len(table.group_names)).astype(np.int64)
        pauses = [rule.match for rule in self.overrides.rules if rule.pause]
        may_be_held = np.flatnonzero(matching_servers(table.group_names.values, pauses) & (left > 0)).tolist()
        names = table.group_names
        return waiting(
            names,
            left,
            paces,
            group_of=lambda server: table.group_of_server(server, config.group_of(server)),
            limits=limits_by_group(config, self.profiles),
            held=[index for index in may_be_held if self.overrides.limits(names[index], Limits()) is None],
            probing_left_s=lambda count: config.pace_policy(0.0).probing_left_s(count, self._age_s),
            now=unix_s,
            undone=max(0, int(self.counts.rows.sum()) - max(fetched, self.counts.rows_final)),
            most=most,
        )

    @property
    def _age_s(self) -> float:
        """For how long the job has run, all of its runs together."""
        return self.ran_s + time.monotonic() - self._began_at

    def save(self, paces: dict[str, PaceState], fetched: int = 0, unix_s: float | None = None) -> None:
        """Write the checkpoint. ``fetched`` are the rows that are done with, durable or not, if that is known; the
        paces are as of ``unix_s`` (s since 1970), or of now. Raises StorageError: it cannot be written; the one before
        it is still there."""
        now = time.time() if unix_s is None else unix_s
        for name, pace in paces.items():
            not_before = now + pace.wait_s if pace.wait_s > 0 else 0.0
            self.servers[name] = ServerState(
                pace.rate_per_s,
                not_before,
                pace.incidents,
                pace.open_count,
                pace.throttles,
                _moved(pace.spent_hour, now),
                _moved(pace.spent_day, now),
                pace.why,
                now - pace.since_s,
                now + pace.debt_s if pace.debt_s > 0 else 0.0,
                pace.body_bytes,
            )
        self.saved_at = now
        counters = {
            "rows": int(self.table.rows.sum()),
            "successes": int(self.counts.successes.sum()),
            "errors": int(self.counts.errors.sum()),
            "ignored": self.ignored_rows,
            "fetched": max(fetched, self.counts.rows_final),
            **{f"errors.{kind}": count for kind, count in self.counts.error_kinds.items()},
        }
        checkpoint = Checkpoint(
            epoch=self.epoch,
            saved_at=now,
            stages=self.stages,
            input_fingerprint=self.input_fingerprint,
            input_stamp=self.input_stamp,
            config_hash=self.config.identity_hash(),
            config_semantic=self.config.semantic(),
            config_digests=digests(self.config),
            servers=self.servers,
            counters=counters,
            ran_s=self._age_s,
            waiting=self.waiting(self.known_paces(now), now, fetched),
        )
        save(self.layout, checkpoint)
        if self.lock is not None:
            self.lock.touch()


def unix_time(now: float) -> float:
    """Return the time since 1970 of a moment of the monotonic clock, both in seconds: what is told of one pause at two
    times is the same moment then."""
    return now + (time.time() - time.monotonic())


def _moved(spent: Spent, by_s: float) -> Spent:
    """Durations as times, or times as durations; what no longer counts is left out."""
    return tuple((at + by_s, size_bytes) for at, size_bytes in spent if at + by_s > 0)
