"""The batches and servers of a run, as written by the initialization, in columns; and the plan made from them.

Nothing here is per server or per batch in Python objects: a table of a million batches is some tens of megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.config.config import Config
from ddmpi.core.arrays import FloatArray, IntArray, NameColumn
from ddmpi.core.ledger.profile import Profile, server_row_time_s
from ddmpi.core.ledger.schedule import CPU_PER_ROW_S, DEFAULT_LATENCY_S, Plan, row_time_s
from ddmpi.core.partition.server_patterns import matching_servers, patterns_in
from ddmpi.core.records import INVALID_SERVER, MANY_SERVERS, BatchRef, Limits, is_packed
from ddmpi.errors import InputError, OutputError, SetupError
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.markers import servers_present
from ddmpi.io.urls.index import UrlsIndex, read_index

_LONG_NAME_CHARS: Final = 80
"""Percent-encoded, a name grows to three times its length at most: a shorter one's folder is never shortened."""


class BatchTable:
    """batches.parquet and servers.parquet of an output folder, and which servers its ignored table leaves out.

    Args:
        index: both tables, where they are not those of the folder.

    Raises:
        OutputError: one of them cannot be read.
    """

    def __init__(self, layout: Layout, index: UrlsIndex | None = None) -> None:
        index = read_index(layout.urls) if index is None else index
        table, servers = index.batches, index.servers
        self.rows: IntArray = table.column("rows").to_numpy().astype(np.int64)
        self.partitions: IntArray = table.column("partition_id").to_numpy().astype(np.int64)
        """(B,) place of each batch among those of its server."""
        self._row_groups: IntArray = table.column("row_group").to_numpy().astype(np.int64)
        self._offsets: IntArray = table.column("offset").to_numpy().astype(np.int64)
        self._files, self._file_names = _encode(table.column("file").combine_chunks())
        self._servers, self._server_names = _encode(table.column("server_name").combine_chunks())
        self.groups, self.group_names = _encode(table.column("group").combine_chunks())
        self.server_names = NameColumn(servers.column("server_name").combine_chunks())
        """One name per server, and a further one for each time that rows of it were added."""
        self.server_rows: IntArray = servers.column("rows").to_numpy().astype(np.int64)
        urls = pc.coalesce(servers.column("urls"), servers.column("rows"))
        self._server_urls: IntArray = urls.to_numpy().astype(np.int64)
        self.server_first_batch: IntArray = servers.column("first_batch_id").to_numpy().astype(np.int64)
        self._server_batches: IntArray = servers.column("batches").to_numpy().astype(np.int64)
        self._is_ignored = matching_servers(self.server_names.values, ignored_patterns(layout))

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def is_server(self) -> npt.NDArray[np.bool_]:
        """Which of ``server_names`` is the first of its server."""
        _, first = np.unique(_encode(self.server_names.values)[0], return_index=True)
        found = np.zeros(len(self.server_names), np.bool_)
        found[first] = True
        return found

    @cached_property
    def urls_per_row(self) -> FloatArray:
        """(G,) different URLs per row of each group: 1 where each row has one of its own."""
        groups = self.groups[self.server_first_batch]
        urls, rows = (
            np.bincount(groups, weights=each, minlength=len(self.group_names))
            for each in (self._server_urls, self.server_rows)
        )
        return np.divide(urls, rows, out=np.ones(len(rows)), where=rows > 0)

    @property
    def batch_servers(self) -> tuple[IntArray, NameColumn]:
        """(B,) the ``server_name`` of each batch, as an index into the names that follow."""
        return self._servers, self._server_names

    @property
    def is_ignored(self) -> npt.NDArray[np.bool_]:
        """Which of ``server_names`` the ignored table leaves out."""
        return self._is_ignored

    @property
    def is_refused(self) -> npt.NDArray[np.bool_]:
        """(B,) which batches have the rows whose URLs are refused."""
        place = self._server_names.find(INVALID_SERVER)
        return np.full(len(self), False) if place is None else self._servers == place

    @property
    def server_count(self) -> int:
        return int(np.count_nonzero(self.is_server))

    def ref(self, batch_id: int) -> BatchRef:
        """Return where the batch's rows are."""
        return BatchRef(
            batch_id,
            self.server_of(batch_id),
            int(self.partitions[batch_id]),
            self._file_names[int(self._files[batch_id])],
            int(self._row_groups[batch_id]),
            int(self._offsets[batch_id]),
            int(self.rows[batch_id]),
            ignored=tuple(self._ignored[1].get(batch_id, ())),
        )

    def server_of(self, batch_id: int) -> str:
        return self._server_names[int(self._servers[batch_id])]

    def shown_group(self, group: str) -> str:
        """Return what people call a group: that of small servers, whose name is ours alone, by the first of them."""
        if group == INVALID_SERVER:
            return "refused URLs"
        if not is_packed(group):
            return group
        place = self.group_names.find(group)
        # Rows that were added later are further batches of their server's group.
        batches = np.flatnonzero(self.groups == place) if place is not None else np.empty(0, np.int64)
        places = np.flatnonzero(np.isin(self.server_first_batch, batches))
        servers = list(dict.fromkeys(map(str, self.server_names.values.take(places).to_pylist())))
        if not servers:
            return "small servers"  # of another table
        others = len(servers) - 1
        return f"{servers[0]} and {others:,} more small server{'s' * (others > 1)}" if others else servers[0]

    def group_of_server(self, server: str, pace_group: str) -> int | None:
        """Return the index of the group that this server is asked with, None if no input row is on it."""
        index = self.group_names.find(pace_group)
        if index is not None:
            return index
        place = self.server_names.find(server)
        return None if place is None else int(self.groups[self.server_first_batch[place]])

    def servers_with(self, min_rows: int) -> list[tuple[str, int, int]]:
        """Return (server, its first batch, its number of batches) of the servers with at least ``min_rows`` rows."""
        places = np.flatnonzero(self.server_rows >= min_rows)
        names = self.server_names.values.take(places).to_pylist()
        first, counts = self.server_first_batch[places].tolist(), self._server_batches[places].tolist()
        return [(str(name), batch_id, count) for name, batch_id, count in zip(names, first, counts, strict=True)]

    def begun(self, layout: Layout) -> IntArray:
        """Return the batches of servers that have a folder among markers or parts: only those can have any. Raises
        StorageError: a folder cannot be listed."""
        names = self._server_names
        present = pa.array(sorted(servers_present(layout)), pa.string())
        # A folder may have a shortened name: those of long server names are not judged by their folder's.
        lengths = np.asarray(pc.binary_length(names.values))  # type: ignore[call-overload]  # the stubs know no Any
        may_be = np.asarray(pc.is_in(names.values, value_set=present)) | (lengths > _LONG_NAME_CHARS)
        return np.flatnonzero(may_be[self._servers]).astype(np.int64)

    def may_have(self, patterns: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return (B,) which batches may have rows on servers with these names or globs; all where there are none."""
        if not patterns:
            return np.ones(len(self), np.bool_)
        values = self._server_names.values
        packed, refused = (np.asarray(pc.is_in(values, pa.array([name]))) for name in (MANY_SERVERS, INVALID_SERVER))
        meant: npt.NDArray[np.bool_] = (matching_servers(values, patterns) | packed) & ~refused
        return meant[self._servers]

    def open_servers(self, patterns: Sequence[str], rows_left: IntArray) -> list[str]:
        """Return the servers with these names or globs, those that are ignored left out, of whose batches some have
        rows left.

        Args:
            rows_left: (B,) of each batch.
        """
        places = np.flatnonzero(matching_servers(self.server_names.values, patterns) & ~self._is_ignored)
        firsts, counts = self.server_first_batch[places], self._server_batches[places]
        return [
            self.server_names[int(place)]
            for place, first, count in zip(places, firsts, counts, strict=True)
            if rows_left[first : first + count].any()
        ]

    # ---- ignored servers

    @property
    def ignored_server_count(self) -> int:
        """Servers that the ignored table leaves out."""
        return int(np.count_nonzero(self._is_ignored & self.is_server))

    @property
    def ignored_rows(self) -> IntArray:
        """(B,) rows of each batch that are on ignored servers."""
        return self._ignored[0]

    @cached_property
    def _ignored(self) -> tuple[IntArray, dict[int, list[str]]]:
        """(B,) ``ignored_rows``; and the names of the ignored servers in each packed batch that has some."""
        rows = np.zeros(len(self), np.int64)
        in_packs: dict[int, list[str]] = {}
        for place in np.flatnonzero(self._is_ignored).tolist():
            first, count = int(self.server_first_batch[place]), int(self._server_batches[place])
            if self.server_of(first) == MANY_SERVERS:
                rows[first] += self.server_rows[place]
                in_packs.setdefault(first, []).append(self.server_names[place])
            else:
                rows[first : first + count] = self.rows[first : first + count]
        return rows, in_packs


def ignored_patterns(layout: Layout) -> list[str]:
    """Return the names and globs of the ignored table, and of the config's own. Raises OutputError, InputError: one
    cannot be read."""
    ignored = _patterns_of(layout.ignored, OutputError) if layout.ignored.exists() else []
    return ignored + excluded_patterns(layout)


def excluded_patterns(layout: Layout) -> list[str]:
    """Return the servers that the config's own table leaves out. Raises InputError: it cannot be read."""
    return [] if layout.excluded is None else _patterns_of(layout.excluded, InputError)


def _patterns_of(path: Path, error_type: type[SetupError]) -> list[str]:
    try:
        return patterns_in(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeError) as error:
        raise error_type(f"{path}: cannot be read: {error}") from error


def _encode(values: pa.Array[Any]) -> tuple[IntArray, NameColumn]:
    """Return codes and the distinct values."""
    encoded: Any = values.dictionary_encode()
    return np.asarray(encoded.indices).astype(np.int64), NameColumn(encoded.dictionary)


def limits_by_group(config: Config, profiles: Mapping[str, Profile]) -> Callable[[str], Limits]:
    """Return the limits of server groups: the config's, lowered by what a user has written into profiles.csv."""
    known: dict[str, tuple[Profile | None, Limits]] = {}

    def limits(group: str) -> Limits:
        profile = profiles.get(group)
        judged_by, found = known.get(group, (None, None))
        if found is None or judged_by is not profile:
            found = _limits(config, group, profile)
            known[group] = (profile, found)
        return found

    return limits


def _limits(config: Config, group: str, profile: Profile | None) -> Limits:
    limits = config.limits_for(group)
    if profile is None:
        return limits
    rates = [rate for rate in (config.profiled_rate(group), profile.rate_by_hand) if rate]
    return msgspec.structs.replace(limits, rate_per_s=min(rates, default=0.0))


def make_plan(
    table: BatchTable,
    config: Config,
    *,
    rows: IntArray,
    profiles: Mapping[str, Profile],
    limits: Callable[[str], Limits],
    ref: Callable[[int], BatchRef],
    workers: Sequence[int],
) -> Plan:
    """Return the plan of a run, for the ledger.

    Args:
        rows: (B,) rows of each batch that are to become final.
        ref: a batch's place, and which of its errors are to be retried.
    """
    groups = len(table.group_names)
    group_rows = np.bincount(table.groups, weights=rows, minlength=groups).astype(np.int64)
    largest = np.zeros(groups, np.int64)  # rows of a group's largest server
    np.maximum.at(largest, table.groups[table.server_first_batch], table.server_rows)
    parameters = config.downloader_parameters
    default = Limits(parameters.default_rate_limit, parameters.max_connections_per_server)
    times = np.full(groups, row_time_s(default, DEFAULT_LATENCY_S))
    for index, name in _groups_to_judge(table.group_names, config, profiles):
        if is_packed(name):
            times[index] = row_time_s(default, DEFAULT_LATENCY_S, int(largest[index]), int(group_rows[index]))
        elif name == INVALID_SERVER:
            times[index] = CPU_PER_ROW_S
        else:
            times[index] = server_row_time_s(limits(name), profiles.get(name))
    times = times * table.urls_per_row
    return Plan(
        rows, table.groups, table.group_names, limits, times, ref, table.group_of_server, config.max_lanes, workers,
        parameters.connections_per_rank, _limits_of_packed(table, config, profiles, limits),
        table.partitions, table.urls_per_row,
    )  # fmt: skip


def _limits_of_packed(
    table: BatchTable, config: Config, profiles: Mapping[str, Profile], limits: Callable[[str], Limits]
) -> dict[str, dict[str, Limits]]:
    """By packed group, its servers that have a profile by which their limits are not the config's."""
    found: dict[str, dict[str, Limits]] = {}
    for server in profiles:
        index = table.group_of_server(server, config.group_of(server))
        group = "" if index is None else table.group_names[index]
        if is_packed(group) and limits(server) != config.limits_for(server):
            found.setdefault(group, {})[server] = limits(server)
    return found


def _groups_to_judge(names: NameColumn, config: Config, profiles: Mapping[str, Profile]) -> Iterator[tuple[int, str]]:
    """Yield the groups that may differ from a server without rule and profile: of a million servers most do not."""
    special = pc.starts_with(names.values, "__")
    known = pc.is_in(names.values, value_set=pa.array(list(profiles), pa.string()))
    ruled = matching_servers(names.values, config.rules.patterns)
    by_address = pc.is_in(names.values, value_set=config.address_groups.names.values)
    for index in np.flatnonzero(np.asarray(pc.or_(special, pc.or_(known, by_address))) | ruled).tolist():
        yield index, names[index]
