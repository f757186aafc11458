"""The index of a urls folder: its batches and servers, those of rows that were added later included.

``batches.parquet`` says where each batch is; ``servers.parquet`` in which batches each server is.
What an input has grown by lies in folders ``added-0001``, ``added-0002`` ... of the urls folder, each of the same make
as the urls folder itself, and made visible by one rename. Nothing that was there before is ever touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.core.partition.partition import Cut, ServerTable
from ddmpi.core.partition.placement import Placement
from ddmpi.core.records import INVALID_SERVER
from ddmpi.errors import OutputError
from ddmpi.io.urls.files import file_name, write_table

BATCHES_NAME: Final = "batches.parquet"
SERVERS_NAME: Final = "servers.parquet"
INPUT_ROWS: Final = b"ddmpi.input_rows"
"""Metadata of batches.parquet: rows of the input behind it, those that the filter left out included."""
_ADDED: Final = "added-"

_INT64: Final[pa.DataType] = pa.int64()
_INT32: Final[pa.DataType] = pa.int32()
_TEXT: Final[pa.DataType] = pa.string()

BATCHES_SCHEMA: Final = pa.schema(
    [
        ("batch_id", _INT64),
        ("server_name", _TEXT),
        ("group", _TEXT),
        ("partition_id", _INT64),
        ("file", _TEXT),
        ("row_group", _INT32),
        ("offset", _INT32),
        ("rows", _INT64),
        ("first_row", _INT64),
    ]
)
"""One row per batch, by batch_id (from 0). ``offset`` counts rows from the row group's first, ``first_row`` from the
file's; ``file`` is relative to the urls folder."""

SERVERS_SCHEMA: Final = pa.schema(
    [
        ("server_name", _TEXT),
        ("group", _TEXT),
        ("rows", _INT64),
        ("first_batch_id", _INT64),
        ("batches", _INT64),
        ("urls", _INT64),
    ]
)
"""One row per server, by name; ``urls`` are the different ones among its rows, null if a release before wrote it. A
server's batches are consecutive; one that is packed shares its only one."""


@dataclass(frozen=True)
class UrlsIndex:
    """All of it, the oldest rows first; without more than its folder, that of a folder that is still to be made."""

    folder: Path
    batches: pa.Table = field(default_factory=BATCHES_SCHEMA.empty_table)
    """By batch_id, which is a batch's place."""
    servers: pa.Table = field(default_factory=SERVERS_SCHEMA.empty_table)
    """A server has one row per folder that has rows of it."""
    input_rows: int | None = 0
    """Rows of the input behind it, those that the filter left out included; None where it does not say so."""
    additions: int = -1
    """How often rows were added; -1 where there are none to add to."""

    @cached_property
    def _partitions(self) -> pa.Table:
        return self.batches.group_by("server_name").aggregate([("partition_id", "max")])

    def partitions_of(self, server_names: pa.Array[Any]) -> IntArray:
        """Return (n,) how many partitions there are under each ``server_name``."""
        known = self._partitions
        places = pc.index_in(server_names, value_set=known.column("server_name").combine_chunks())
        last = known.column("partition_id_max").combine_chunks().take(places)
        return np.asarray(last.fill_null(-1)).astype(np.int64) + 1

    def groups_of(
        self, servers: pa.Array[Any], groups_of_new: Callable[[pa.Array[Any]], pa.Array[Any]]
    ) -> pa.Array[Any]:
        """Return (n,) the server group of each server. Known ones keep theirs, also where it is a packed batch: one
        server in two groups would be asked by two ranks at once. ``groups_of_new`` is asked of the others."""
        places = pc.index_in(servers, value_set=self.servers.column("server_name").combine_chunks())
        # Not its group in the table of servers, which does not tell the packed batch.
        first_batches = self.servers.column("first_batch_id").combine_chunks().take(places)
        known = self.batches.column("group").combine_chunks().take(first_batches)
        is_new = pc.is_null(places)
        groups: pa.Array[Any] = pc.replace_with_mask(known, is_new, groups_of_new(servers.filter(is_new)))
        return groups

    @property
    def refused_rows(self) -> int:
        """Rows whose URLs are refused."""
        is_refused = pc.is_in(self.batches.column("server_name"), value_set=pa.array([INVALID_SERVER]))
        return int(pc.sum(self.batches.column("rows").filter(is_refused)).as_py() or 0)

    @property
    def next_addition(self) -> Path:
        return self.folder / f"{_ADDED}{self.additions + 1:04d}" if self.additions >= 0 else self.folder

    @property
    def files(self) -> list[Path]:
        """The files with rows, those of the first ones first."""
        return [path for folder in index_folders(self.folder) for path in sorted(folder.glob("urls-*.parquet"))]


def read_index(folder: Path) -> UrlsIndex:
    """Return the index of a urls folder. Raises OutputError: a table is missing or cannot be read."""
    folders = index_folders(folder)
    batches = [read_table(path / BATCHES_NAME) for path in folders]
    servers = [read_table(path / SERVERS_NAME) for path in folders]
    counts = [(table.schema.metadata or {}).get(INPUT_ROWS) for table in batches]
    rows = None if None in counts else sum(int(count) for count in counts if count is not None)
    return UrlsIndex(folder, _joined(batches, BATCHES_SCHEMA), _joined(servers, SERVERS_SCHEMA), rows, len(folders) - 1)


def write_index(
    folder: Path,
    cut: Cut,
    layout: Placement,
    servers: ServerTable,
    urls: IntArray,
    *,
    input_rows: int,
    earlier: UrlsIndex,
) -> None:
    """Write both index tables, for rows that come after ``earlier``: see ``index_of``."""
    made = index_of(cut, layout, servers, urls, input_rows=input_rows, earlier=earlier)
    write_table(folder / BATCHES_NAME, made.batches)
    write_table(folder / SERVERS_NAME, made.servers)


def index_of(
    cut: Cut, layout: Placement, servers: ServerTable, urls: IntArray, *, input_rows: int, earlier: UrlsIndex
) -> UrlsIndex:
    """Return the index of rows that come after ``earlier``; ``servers`` are what the batches were cut from, and
    ``urls`` how many different ones each of them has."""
    place = earlier.next_addition.relative_to(earlier.folder)
    file_names = pa.array([str(place / file_name(file)) for file in range(len(layout.files))], pa.string())
    first_batch = earlier.batches.num_rows
    batches: dict[str, Any] = {
        "batch_id": np.arange(len(cut)) + first_batch,
        "server_name": cut.server_names,
        "group": cut.groups,
        "partition_id": cut.partition_ids + earlier.partitions_of(cut.server_names),
        "file": file_names.take(layout.file),
        "row_group": layout.row_group.astype(np.int32),
        "offset": layout.offset.astype(np.int32),
        "rows": cut.rows,
        "first_row": layout.first_row,
    }
    schema = BATCHES_SCHEMA.with_metadata({INPUT_ROWS: str(input_rows).encode()})
    by_server: dict[str, Any] = {
        "server_name": servers.names,
        "group": pc.coalesce(servers.groups, servers.names),
        "rows": servers.rows,
        "first_batch_id": cut.first_batch + first_batch,
        "batches": cut.batch_counts,
        "urls": urls,
    }
    named = pa.table(by_server, schema=SERVERS_SCHEMA).sort_by("server_name")
    return UrlsIndex(earlier.folder, pa.table(batches, schema=schema), named, input_rows)


def index_folders(folder: Path) -> list[Path]:
    """Return the urls folder itself, and those of the rows that were added to it later, in order."""
    return [folder, *sorted(folder.glob(f"{_ADDED}*"))]


def read_table(path: Path) -> pa.Table:
    """Return one table of the index. Raises OutputError: it is missing or cannot be read."""
    try:
        return pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"{path}: cannot be read: {error}") from error


def _joined(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """Join tables, some of which may be without columns that were added later."""
    plain = [table.replace_schema_metadata(None) for table in tables]
    return pa.concat_tables([schema.empty_table(), *plain], promote_options="default")
