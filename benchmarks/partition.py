"""Initialization against Spark, DuckDB and Polars on the same work: cluster a table of URLs by server.

``python -m benchmarks.partition --rows 5000000`` makes the input, runs each competitor that can be imported in a
process of its own, in turn, and prints one JSON line last. The work is: read the table, find the server of each URL,
write all rows sorted by server as zstd Parquet (level 1) with row groups of 10,000 rows. ddmpi does more than the
others: it runs its whole initialization, up to the point from which rows can be fetched, with the default config. That
validates URLs as libcurl reads them, keeps the input's order within a server, numbers the rows, cuts batches, and syncs
every file to the disk. Time runs from after the imports (and the start of Spark's session) to the end.

``--made template explode split`` measures ddmpi alone instead, where the URLs have to be made: as many rows from a
template over two columns, from lists of four URLs, from texts of four URLs; and the plain table beside them, which has
the same rows. The JSON has the seconds and the peak memory of each, and how many times the plain one's time it took.
``--sql-join`` measures a query in the input's place: tab-separated files of images and of records, joined. ``ddmpi`` is
what comes before the table is clustered, the query with its files looked up and its answer on the disk; ``duckdb`` is
the same join by DuckDB alone, with its own settings, into one Parquet file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.partition_runners import KEYS_NAME
from ddmpi.io.input.uuids import format_uuids

Figures: TypeAlias = "dict[str, float]"
Shape: TypeAlias = Callable[[np.random.Generator, int, int], npt.NDArray[np.int64]]
"""(random numbers, first row, rows) -> the server's number of each row."""

ZIPF_SERVERS: Final = 545
ZIPF_EXPONENT: Final = 1.3
MANY_FILES: Final = 200
CHUNK_ROWS: Final = 500_000
COLUMNS: Final = ("uuid", "source_id", "identifier", "license", "source", "title")
RUNNER: Final = Path(__file__).with_name("partition_runners.py")
JOINERS: Final = ("ddmpi_join", "duckdb_join")
COMPETITORS: Final = {
    "ddmpi": "ddmpi",
    "polars": "polars",
    "duckdb": "duckdb",
    "spark": "pyspark",
    "spark_batches": "pyspark",
}
"""Names, and the module without which each cannot run."""


# ---- the input


def zipf_servers(rng: np.random.Generator, _first: int, rows: int) -> npt.NDArray[np.int64]:
    """545 servers, the k-th largest with a share of k^-1.3."""
    shares = 1 / np.arange(1, ZIPF_SERVERS + 1) ** ZIPF_EXPONENT
    return rng.choice(ZIPF_SERVERS, rows, p=shares / shares.sum()).astype(np.int64)


def one_server(_rng: np.random.Generator, _first: int, rows: int) -> npt.NDArray[np.int64]:
    """All rows on one server."""
    return np.zeros(rows, np.int64)


def a_server_each(_rng: np.random.Generator, first: int, rows: int) -> npt.NDArray[np.int64]:
    """Every row on a server of its own; neighbors in the table are not neighbors by name."""
    return (np.arange(first, first + rows, dtype=np.int64) * 7_919) % 1_000_003


SHAPES: Final[dict[str, tuple[Shape, int]]] = {
    "zipf": (zipf_servers, 1),
    "one-server": (one_server, 1),
    "million-servers": (a_server_each, 1),
    "many-files": (zipf_servers, MANY_FILES),
}
"""A shape's servers, and its number of files."""


def make_input(folder: Path, shape: str, rows: int) -> None:
    """Write a table of six string columns, about 24 bytes per row on disk."""
    servers, files = SHAPES[shape]
    rng = np.random.default_rng(20_240_501)
    bounds = np.linspace(0, rows, files + 1).astype(int).tolist()
    for number, (start, end) in enumerate(pairwise(bounds)):
        schema = pa.schema([(name, pa.string()) for name in COLUMNS])
        with pq.ParquetWriter(folder / f"part-{number:04d}.parquet", schema, compression="zstd") as writer:
            for first in range(start, end, CHUNK_ROWS):
                count = min(CHUNK_ROWS, end - first)
                writer.write_table(_rows(rng, first, servers(rng, first, count)))


def _rows(rng: np.random.Generator, first: int, servers: npt.NDArray[np.int64]) -> pa.Table:
    count = len(servers)
    names = pa.array(servers).cast(pa.string())
    numbers = pa.array(np.arange(first, first + count)).cast(pa.string())
    licenses = pa.array([f"http://creativecommons.org/licenses/{name}/4.0/" for name in ("by", "by-nc", "by-sa")])

    columns = (
        format_uuids(
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), count, [None, pa.py_buffer(rng.bytes(16 * count))])
        ),
        numbers,
        _joined("https://img", names, ".example.org/photos/", numbers, "/original.jpeg"),
        licenses.take(servers % 3),
        _joined("collection ", names),
        _joined("Specimen ", pa.array(rng.integers(0, 1000, count)).cast(pa.string())),
    )
    return pa.table(dict(zip(COLUMNS, columns, strict=True)))


# ---- inputs whose URLs have to be made


def _as_template(rows: pa.Table) -> pa.Table:
    """Cut each URL into what comes before its number, and the number."""
    urls: Any = rows.column("identifier").combine_chunks()
    texts: Any = pc.list_flatten(pc.split_pattern(urls, "/photos/"))
    hosts, rests = (texts.take(np.arange(first, len(texts), 2)) for first in (0, 1))
    numbers = pc.replace_substring(rests, "/original.jpeg", "")
    return rows.drop_columns(["identifier"]).append_column("host", hosts).append_column("number", numbers)


def _as_lists(rows: pa.Table) -> pa.Table:
    """Put each four URLs into the list of one row, which has the other columns of the first."""
    urls: Any = rows.column("identifier").combine_chunks()
    starts = np.append(np.arange(0, len(urls), ITEMS), len(urls))
    lists = pa.ListArray.from_arrays(pa.array(starts, pa.int32()), urls)
    return rows.take(starts[:-1]).drop_columns(["identifier"]).append_column("urls", lists)


def _as_joined(rows: pa.Table) -> pa.Table:
    """Join each four URLs to one text."""
    lists = _as_lists(rows)
    joined: Any = pc.binary_join(lists.column("urls").combine_chunks(), " | ")
    return lists.drop_columns(["urls"]).append_column("urls", joined)


def _plain(rows: pa.Table) -> pa.Table:
    return rows


ITEMS: Final = 4
MADE: Final[dict[str, tuple[Callable[[pa.Table], pa.Table], dict[str, Any]]]] = {
    "plain": (_plain, {}),
    "template": (_as_template, {"identifier": "{host}/photos/{number}/original.jpeg"}),
    "explode": (_as_lists, {"identifier": "urls[]"}),
    "split": (_as_joined, {"identifier": {"column": "urls", "split": " | "}}),
}
"""What the table looks like, and ``columns`` in the config."""


def compare_made(names: list[str], plain: Path, scratch: Path, rows: int, repeat: int) -> dict[str, Figures]:
    """The fastest of ``repeat`` runs of ddmpi over each kind of table, taken in turn."""
    best: dict[str, Figures] = {}
    chosen = ["plain", *(name for name in names if name != "plain")]
    for name in chosen:
        _make_made(name, plain, scratch / name)
    for _ in range(repeat):
        for name in chosen:
            figures = measure("ddmpi", scratch / name / "input", scratch, rows)
            if name not in best or figures["seconds"] < best[name]["seconds"]:
                best[name] = figures
    for figures in best.values():
        figures["times_plain"] = round(figures["seconds"] / best["plain"]["seconds"], 2)
    return best


def _make_made(name: str, plain: Path, folder: Path) -> None:
    make, columns = MADE[name]
    (folder / "input").mkdir(parents=True)
    (folder / KEYS_NAME).write_text(json.dumps({"columns": columns}), encoding="utf-8")
    for path in sorted(plain.iterdir()):
        with pq.ParquetFile(path) as file:
            tables = (make(pa.Table.from_batches([batch])) for batch in file.iter_batches(CHUNK_ROWS))
            first = next(tables)
            with pq.ParquetWriter(folder / "input" / path.name, first.schema, compression="zstd") as writer:
                writer.write_table(first)
                for table in tables:
                    writer.write_table(table)


def _joined(*pieces: Any) -> Any:
    return pc.binary_join_element_wise(*pieces, "")


def make_archive(folder: Path, rows: int) -> None:
    """Write images and the records that they belong to, one each and in another order: tab-separated, not quoted."""
    # Arrow quotes names of columns whatever it is told.
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    for name, make in (("multimedia.txt", _images), ("occurrence.txt", _records)):
        with (folder / name).open("wb") as file:
            schema = make(0, 1, rows).schema
            file.write("\t".join(schema.names).encode() + b"\n")
            with pyarrow.csv.CSVWriter(file, schema, write_options=options) as writer:
                for start in range(0, rows, CHUNK_ROWS):
                    writer.write_table(make(start, min(CHUNK_ROWS, rows - start), rows))


def _images(first: int, count: int, _rows_in_all: int) -> pa.Table:
    numbers = np.arange(first, first + count)
    names, texts = pa.array(numbers % ZIPF_SERVERS).cast(pa.string()), pa.array(numbers).cast(pa.string())
    urls = _joined("https://img", names, ".example.org/photos/", texts, "/original.jpeg")
    title = _joined("Specimen ", pa.array(numbers % 1000).cast(pa.string()))
    return pa.table({"gbifID": pa.array(numbers), "identifier": urls, "title": title})


def _records(first: int, count: int, rows: int) -> pa.Table:
    numbers = np.arange(first, first + count)
    species, source = (pa.array(numbers % many).cast(pa.string()) for many in (20_000, 300))
    keys = numbers * 7_919 % rows
    return pa.table(
        {"gbifID": pa.array(keys), "species": _joined("Species ", species), "source": _joined("Museum ", source)}
    )


# ---- measuring


def measure(name: str, source: Path, scratch: Path, rows: int) -> Figures:
    """Run one competitor once, in a new process. Raises subprocess.CalledProcessError if it fails."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix=f"{name}-") as target:
        command = [sys.executable, str(RUNNER), name, str(source), target]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        files = sum(path.is_file() for path in (Path(target) / "urls").glob("*"))
    figures = json.loads(answer.stdout.splitlines()[-1])
    figures = {
        "seconds": round(figures["seconds"], 2),
        "peak_rss_mb": round(figures["peak_rss_mb"]),
        "rows_per_s": round(rows / figures["seconds"]),
        "cpu_s": round(figures["cpu_s"], 2),
        **({"files": files} if files else {}),
    }
    print(f"{name}: {figures}, load {os.getloadavg()[0]:.1f}", flush=True)
    return figures


def compare(names: Sequence[str], source: Path, scratch: Path, rows: int, repeat: int) -> dict[str, Figures | None]:
    """The fastest of ``repeat`` runs of each, taken in turn; None for what is not installed."""
    best: dict[str, Figures | None] = dict.fromkeys(names)
    installed = [name for name in names if importlib.util.find_spec(COMPETITORS.get(name, "duckdb")) is not None]
    for turn in range(repeat):
        for name in installed:
            if not name.startswith("spark") or turn == 0:  # minutes each; it does not come close
                figures, before = measure(name, source, scratch, rows), best[name]
                best[name] = figures if before is None or figures["seconds"] < before["seconds"] else before
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--shape", choices=SHAPES, default="zipf")
    parser.add_argument("--only", nargs="+", choices=COMPETITORS, default=list(COMPETITORS))
    parser.add_argument("--sql-join", action="store_true", help="measure a join by a query instead")
    parser.add_argument("--repeat", type=int, default=1, help="take the fastest of so many runs (Spark: one)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for input and output")
    parser.add_argument("--made", nargs="+", choices=MADE, help="measure tables whose URLs have to be made instead")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir=arguments.folder, prefix="ddmpi-partition-"))
    try:
        source = scratch / "input"
        source.mkdir()
        shape = "sql-join" if arguments.sql_join else arguments.shape
        if arguments.sql_join:
            make_archive(source, arguments.rows)
        else:
            make_input(source, arguments.shape, arguments.rows)
        size_mb = sum(file.stat().st_size for file in source.iterdir()) / 1e6
        print(f"{arguments.rows:,} rows ({shape}), {size_mb:,.0f} MB, {os.cpu_count()} cores", flush=True)
        figures: Mapping[str, Figures | None]
        if arguments.made:
            figures = compare_made(arguments.made, source, scratch, arguments.rows, arguments.repeat)
        else:
            names = JOINERS if arguments.sql_join else arguments.only
            figures = compare(names, source, scratch, arguments.rows, arguments.repeat)
    finally:
        shutil.rmtree(scratch)
    print(json.dumps({"rows": arguments.rows, "shape": shape, **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
