"""The batches and servers of a run, as written by the initialization, in columns; and the plan made from them.

Nothing here is per server or per batch in Python objects but the groups' names: a table of a million batches is some
tens of megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddmpi.config import Config
from ddmpi.io.layout import Layout
from ddmpi.io.profiles import Profile
from ddmpi.records import INVALID_SERVER, BatchRef, Limits
from ddmpi.schedule import CPU_PER_ROW_S, DEFAULT_LATENCY_S, Plan, is_packed, row_time_s

IntArray = npt.NDArray[np.int64]


class BatchTable:
    """batches.parquet and servers.parquet of an output folder."""

    def __init__(self, layout: Layout) -> None:
        table = pq.read_table(layout.batches_table)
        self.rows: IntArray = table.column("rows").to_numpy().astype(np.int64)
        self._partitions: IntArray = table.column("partition_id").to_numpy().astype(np.int64)
        self._row_groups: IntArray = table.column("row_group").to_numpy().astype(np.int64)
        self._offsets: IntArray = table.column("offset").to_numpy().astype(np.int64)
        self._files, self._file_names = _encode(table.column("file"))
        self._servers, self._server_names = _encode(table.column("server_name"))
        self.groups, self.group_names = _encode(table.column("group"))
        servers = pq.read_table(layout.urls / "servers.parquet")
        self.server_names: pa.ChunkedArray[pa.StringScalar] = servers.column("server_name")
        self.server_rows: IntArray = servers.column("rows").to_numpy().astype(np.int64)
        self.server_first_batch: IntArray = servers.column("first_batch_id").to_numpy().astype(np.int64)
        self._server_batches: IntArray = servers.column("batches").to_numpy().astype(np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def ref(self, batch_id: int) -> BatchRef:
        """Where the batch's rows are."""
        return BatchRef(
            batch_id,
            self._server_names[int(self._servers[batch_id])],
            int(self._partitions[batch_id]),
            self._file_names[int(self._files[batch_id])],
            int(self._row_groups[batch_id]),
            int(self._offsets[batch_id]),
            int(self.rows[batch_id]),
        )

    def server_of(self, batch_id: int) -> str:
        """``server_name`` of the batch."""
        return self._server_names[int(self._servers[batch_id])]

    @cached_property
    def _group_index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.group_names)}

    def group_of_server(self, server: str, pace_group: str) -> int | None:
        """Index of the group whose lane serves this server, None if no input row is on it."""
        index = self._group_index.get(pace_group)
        if index is not None:
            return index
        place = pc.index(self.server_names, pa.scalar(server, self.server_names.type)).as_py()
        return None if place < 0 else int(self.groups[self.server_first_batch[place]])

    def servers_with(self, min_rows: int) -> list[tuple[str, int, int]]:
        """(server, its first batch, its number of batches) of the servers with at least so many rows."""
        places = np.flatnonzero(self.server_rows >= min_rows)
        names = self.server_names.take(places).to_pylist()
        first, counts = self.server_first_batch[places].tolist(), self._server_batches[places].tolist()
        return [(str(name), batch_id, count) for name, batch_id, count in zip(names, first, counts, strict=True)]

    def largest_server_rows(self) -> IntArray:
        """(B,) rows of the largest server in each batch that is a server's first one, 0 elsewhere."""
        largest = np.zeros(len(self.rows), np.int64)
        np.maximum.at(largest, self.server_first_batch, self.server_rows)
        return largest


def _encode(column: pa.ChunkedArray[pa.StringScalar]) -> tuple[IntArray, list[str]]:
    """Codes and the distinct values."""
    names = pc.unique(column)
    codes = pc.index_in(column, value_set=names)
    return codes.to_numpy().astype(np.int64), [str(name) for name in names.to_pylist()]


def limits_by_group(config: Config, profiles: dict[str, Profile]) -> Callable[[str], Limits]:
    """The limits of a pace group: the config's, lowered by what profiles.csv says (a user may have edited it)."""
    known: dict[str, Limits] = {}

    def limits(group: str) -> Limits:
        if group not in known:
            known[group] = _limits(config, group, profiles.get(group))
        return known[group]

    return limits


def _limits(config: Config, group: str, profile: Profile | None) -> Limits:
    limits = config.limits_for(group)
    if profile is None:
        return limits
    multiplied = limits.rate_per_s * config.downloader_parameters.rate_multiplier
    rates = [rate for rate in (multiplied, profile.rate_limit) if rate]
    return Limits(min(rates, default=0.0), limits.connections, limits.bytes_per_s, limits.bytes_per_day)


def make_plan(
    table: BatchTable,
    config: Config,
    *,
    profiles: dict[str, Profile],
    limits: Callable[[str], Limits],
    ref: Callable[[int], BatchRef],
    workers: Sequence[int],
) -> Plan:
    """The plan of a run, for the ledger. ``ref`` gives a batch's place and which of its errors are to be retried."""
    times = np.full(len(table.group_names), CPU_PER_ROW_S)
    rows = np.bincount(table.groups, weights=table.rows, minlength=len(table.group_names)).astype(np.int64)
    packed_largest = np.zeros(len(table.group_names), np.int64)
    np.maximum.at(packed_largest, table.groups, table.largest_server_rows())
    parameters = config.downloader_parameters
    default = Limits(parameters.default_rate_limit, parameters.max_connections_per_server)
    for index, name in enumerate(table.group_names):
        if is_packed(name):
            times[index] = row_time_s(default, DEFAULT_LATENCY_S, int(packed_largest[index]), int(rows[index]))
        elif name != INVALID_SERVER:
            profile = profiles.get(name)
            latency_s = profile.total_s if profile is not None and profile.total_s > 0 else DEFAULT_LATENCY_S
            times[index] = row_time_s(limits(name), latency_s)
    return Plan(
        table.rows, table.groups, table.group_names, limits, times, ref, table.group_of_server,
        config.max_lanes, workers,
    )  # fmt: skip
