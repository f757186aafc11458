"""addresses.parquet: the addresses that servers had when the table was partitioned, and the groups that they make.

It lies in the urls folder, and in each folder of rows that were added, beside the batches that were cut by it: one
rename makes both visible, so they never contradict each other, and what is known of addresses never changes. A rank
reads it if a rule is about addresses, and only then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from ddmpi.config.config import Config
from ddmpi.core.partition.address_groups import AddressGroups
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


def read_addresses(urls: Path) -> AddressGroups:
    """Return the groups of a urls folder. Raises OutputError: see ``read_rows``."""
    rows = read_rows(urls)
    grouped = rows.filter(pc.is_valid(rows.column("group")))
    return AddressGroups(grouped.column("server_name").combine_chunks(), grouped.column("group").combine_chunks())


def located(config: Config, layout: Layout) -> Config:
    """Return the config, with what the output folder says of addresses if a rule asks for it. Raises OutputError: see
    ``read_rows``."""
    return config.with_addresses(read_addresses(layout.urls)) if config.rules.per_address else config
