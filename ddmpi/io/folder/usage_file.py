"""logs/servers.parquet: how each server was asked so far, over all runs. A courtesy, as the metrics are."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.stats.usage import BUCKETS, COLUMNS, UsageTable
from ddmpi.errors import StorageError
from ddmpi.io.folder.durable import write_atomically

log = logging.getLogger(__name__)


def write_usage(path: Path, table: UsageTable, now: float) -> None:
    """Replace the file."""
    count = len(table)
    numbers = table.finished(now)
    columns: dict[str, Any] = {"group": pa.array(table.names, pa.string())}
    columns |= {name: pa.array(numbers[:, at]) for at, name in enumerate(COLUMNS)}
    columns["latencies"] = pa.FixedSizeListArray.from_arrays(pa.array(table.latencies[:count].ravel()), BUCKETS)
    data = io.BytesIO()
    pq.write_table(pa.table(columns), data)
    try:
        write_atomically(path, data.getvalue())
    except StorageError as error:
        log.warning("how servers were asked is not kept: %s", error)


def read_usage(path: Path) -> UsageTable:
    """What earlier runs have left; an empty table where there is no such file, or a damaged one."""
    table = UsageTable()
    try:
        found = pq.read_table(path)
        numbers = np.stack([found.column(name).to_numpy() for name in COLUMNS], axis=1)
        latencies: Any = found.column("latencies").combine_chunks()
        counts = latencies.flatten().to_numpy().reshape(-1, BUCKETS)
        table.load(map(str, found.column("group").to_pylist()), numbers, counts)
    except FileNotFoundError:
        return table
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        log.warning("%s cannot be read: %s", path, error)
        return UsageTable()
    return table
