"""addresses.parquet: the addresses that servers had when the table was partitioned, and the groups that they make.

It lies in the urls folder, and in each folder of rows that were added, beside the batches that were cut by it: one
rename makes both visible, so they never contradict each other, and what is known of addresses never changes. A rank
reads it if a rule is about addresses, and only then.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.config.config import Config
from ddmpi.core.arrays import NameColumn
from ddmpi.errors import OutputError
from ddmpi.io.folder.layout import Layout
from ddmpi.io.urls.files import write_table
from ddmpi.io.urls.index import index_folders, read_table

ADDRESSES_NAME: Final = "addresses.parquet"
_SCHEMA: Final = pa.schema(
    [
        pa.field("server_name", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("addresses", pa.list_(pa.string()), nullable=False),
    ]
)
"""One row per server that a rule with ``per_address`` means. ``group`` is null where it shares no address."""


class AddressTable:
    """The table of an output folder, as the groups that it makes. The addresses themselves are not kept."""

    def __init__(self, rows: pa.Table) -> None:
        grouped = rows.filter(pc.is_valid(rows.column("group")))
        self._servers = NameColumn(grouped.column("server_name").combine_chunks())
        self._groups = grouped.column("group").combine_chunks()

    @cached_property
    def names(self) -> NameColumn:
        """Of the groups, each once."""
        return NameColumn(self._groups.unique())

    def has(self, name: str) -> bool:
        """Return whether there is a group of that name."""
        return self.names.find(name) is not None

    def group_of(self, server: str) -> str | None:
        """Return the group of a server; None where it is on its own, or was not in the table."""
        place = self._servers.find(server)
        return None if place is None else str(self._groups[place])

    def __repr__(self) -> str:
        return f"<AddressTable: {len(self._servers)} servers in {len(self.names)} groups>"


def write_addresses(folder: Path, names: pa.Array[Any], groups: pa.Array[Any], addresses: pa.Array[Any]) -> None:
    """Write the table of one folder. Raises OSError: the disk does not take it."""
    write_table(folder / ADDRESSES_NAME, pa.Table.from_arrays([names, groups, addresses], schema=_SCHEMA))


def read_rows(urls: Path) -> pa.Table:
    """Return the table of a urls folder, with those of rows that were added. Raises OutputError: it is damaged or
    missing: who shares an address cannot be told."""
    tables = []
    for folder in index_folders(urls):
        table = read_table(folder / ADDRESSES_NAME)
        if table.schema.names != _SCHEMA.names:
            raise OutputError(f"{folder / ADDRESSES_NAME}: has other columns than {', '.join(_SCHEMA.names)}")
        tables.append(table)
    return pa.concat_tables(tables)


def read_addresses(urls: Path) -> AddressTable:
    """Return the groups of a urls folder. Raises OutputError: see ``read_rows``."""
    return AddressTable(read_rows(urls))


def located(config: Config, layout: Layout) -> Config:
    """Return the config, with what the output folder says of addresses if a rule asks for it. Raises OutputError: see
    ``read_rows``."""
    return config.with_addresses(read_addresses(layout.urls)) if config.rules.per_address else config
