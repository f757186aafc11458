"""The input table that goes with a fleet: which row points to which server.

Rows are spread over the servers by their weights, evenly interleaved, and numbered: row 17's path is "/17.png", so a
path names one row over all servers, also behind a redirect. The same arguments give the same table.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tests.fleet.spec import ServerSpec

ROW_GROUP_ROWS = 100_000
_SUFFIXES = ("jpg", "jpg", "png", "jpg", "gif", "jpg", "jpg", "webp", "jpg", "jpg")
"""Of row r: element r modulo 10. Mostly JPEG, as in the real data sets."""


def path_of(row: int) -> str:
    """The path in row ``row``'s URL."""
    return f"/{row}.{_SUFFIXES[row % len(_SUFFIXES)]}"


def row_of(path: str) -> int:
    """Inverse of ``path_of``. Raises ValueError for other paths."""
    return int(path[1:].partition(".")[0])


def uuid_of(url: str) -> str:
    """The ``uuid`` column: version 5, of the URL."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, url))


def write_table(path: Path, specs: Sequence[ServerSpec], rows: int, port: int, zipf: float | None = None) -> list[str]:
    """Write a table of ``rows`` rows as .parquet or .csv, by the suffix of ``path``; returns its URLs in row order.

    ``zipf`` s gives the i-th server (from 1) a share of rows like 1 / i**s instead of its ``row_weight``.
    Raises ValueError for any other suffix, and where no server may have rows; OSError where writing fails.
    """
    if path.suffix not in {".parquet", ".csv"}:
        raise ValueError(f"{path}: neither .parquet nor .csv")
    urls = [specs[server].url(port, path_of(row)) for row, server in enumerate(servers_of_rows(specs, rows, zipf))]
    table = pa.table(
        {
            "uuid": pa.array(map(uuid_of, urls), pa.string()),
            "source_id": pa.array(map(str, range(rows)), pa.string()),
            "identifier": pa.array(urls, pa.string()),
            "license": pa.array(["CC0-1.0"] * rows, pa.string()),
            "source": pa.array(["fleet"] * rows, pa.string()),
            "title": pa.array((f"Image {row}" for row in range(rows)), pa.string()),
        }
    )
    if path.suffix == ".csv":
        pa_csv.write_csv(table, path)
    else:
        pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS)
    return urls


def write_repeated(path: Path, urls: Sequence[str], rows_per_url: int, seed: int = 1) -> list[str]:
    """Write a Parquet table with each of these URLs in so many rows, in random order; returns its URLs in row order."""
    rows_of_urls = np.repeat(np.array(urls, object), rows_per_url)
    shuffled: list[str] = np.random.default_rng(seed).permutation(rows_of_urls).tolist()
    rows = pa.array(map(str, range(len(shuffled))), pa.string())
    pq.write_table(pa.table({"source_id": rows, "identifier": pa.array(shuffled, pa.string())}), path)
    return shuffled


def read_urls(path: Path) -> list[str]:
    """The ``identifier`` column of a Parquet table, in row order. Raises OSError."""
    column = pq.read_table(path, columns=["identifier"]).column("identifier")
    return [str(url) for url in column.to_pylist()]


def servers_of_rows(specs: Sequence[ServerSpec], rows: int, zipf: float | None = None) -> list[int]:
    """Index of the server of each row. Raises ValueError where all weights are 0."""
    weights = np.array(
        [spec.row_weight if zipf is None else (index + 1) ** -zipf for index, spec in enumerate(specs)], np.float64
    )
    if not weights.sum() > 0:
        raise ValueError("no server has a row_weight above 0")
    counts = _apportioned(weights, rows)
    servers = np.repeat(np.arange(len(specs)), counts)
    rank = np.arange(rows) - np.repeat(np.cumsum(counts) - counts, counts)
    # The k-th of n rows of a server belongs at (k + 1/2) / n of the table: every server is spread over all of it.
    order = np.argsort((rank + 0.5) / counts[servers], kind="stable")
    return [int(server) for server in servers[order]]


def _apportioned(weights: npt.NDArray[np.float64], rows: int) -> npt.NDArray[np.int64]:
    # Largest remainders: whole numbers that add up to rows, each less than 1 from its exact share.
    shares = weights / weights.sum() * rows
    counts: npt.NDArray[np.int64] = np.floor(shares).astype(np.int64)
    largest_first = np.argsort(counts - shares, kind="stable")
    counts[largest_first[: rows - int(counts.sum())]] += 1
    return counts
