"""One competitor of ``benchmarks.partition``, once: ``python partition_runners.py NAME INPUT OUTPUT``.

Prints one JSON line: seconds from after the imports, and of this process and those below it the peak of the memory
(RSS) and the processor time. Only what the competitor needs is imported, so that nobody pays for the others' libraries.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROW_GROUP_ROWS: Final = 10_000
SERVER_OF_URL: Final = "^https?://([^/]*)"
"""A simpler rule than ddmpi's, to the others' favor."""


KEYS_NAME: Final = "keys.json"
"""Beside the input: what stands in ddmpi's config beside the paths."""


def run_ddmpi(source: Path, target: Path) -> float:
    from ddmpi.config.config import parse  # noqa: PLC0415  # see the module's docstring
    from ddmpi.core.records import Orders  # noqa: PLC0415
    from ddmpi.io.folder.layout import Layout  # noqa: PLC0415
    from ddmpi.roles.coordinator.initialization import InitCallbacks, initialize, own_output  # noqa: PLC0415

    beside = source.with_name(KEYS_NAME)
    keys = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
    config = parse({"path_to_input": str(source), "path_to_output_folder": str(target), **keys}, "benchmark")
    layout = Layout(target, config.output_structure)
    started = time.perf_counter()
    lock = own_output(layout, {})
    initialize(config, layout, lock, Orders(), InitCallbacks(lambda _: None, lambda _: None, lambda: False))
    lock.release()
    return time.perf_counter() - started


def run_polars(source: Path, target: Path) -> float:
    pl = import_module("polars")

    started = time.perf_counter()
    table = pl.read_parquet(source / "*.parquet")
    table = table.with_columns(server=pl.col("identifier").str.extract(SERVER_OF_URL))
    table.sort("server").write_parquet(
        target / "sorted.parquet", compression="zstd", compression_level=1, row_group_size=ROW_GROUP_ROWS
    )
    return time.perf_counter() - started


def run_duckdb(source: Path, target: Path) -> float:
    duckdb = import_module("duckdb")

    started = time.perf_counter()
    connection = duckdb.connect(str(target / "scratch.duckdb"))
    connection.execute(
        f"COPY (SELECT *, regexp_extract(identifier, '{SERVER_OF_URL}', 1) AS server "  # noqa: S608  # paths of our own
        f"FROM read_parquet('{source}/*.parquet') ORDER BY server) TO '{target}/sorted.parquet' "
        f"(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"
    )
    return time.perf_counter() - started


def _join(source: Path) -> str:
    return (
        f"SELECT m.identifier, m.title, o.species, o.source "  # noqa: S608  # paths of our own
        f"FROM read_csv('{source}/multimedia.txt', delim='\t', quote='') m "
        f"JOIN read_csv('{source}/occurrence.txt', delim='\t', quote='') o USING (gbifID)"
    )


def run_ddmpi_join(source: Path, target: Path) -> float:
    from ddmpi.config.config import Keys  # noqa: PLC0415  # see the module's docstring
    from ddmpi.io.input.query import Query  # noqa: PLC0415

    import_module("duckdb")
    memory_bytes = Keys.model_fields["initialization"].default.memory_bytes
    started = time.perf_counter()
    query = Query(_join(source), memory_bytes)
    if not query.is_answered_by(target / "query.parquet"):
        query.answer(target / "query.parquet", target / "temporary")
    return time.perf_counter() - started


def run_duckdb_join(source: Path, target: Path) -> float:
    duckdb = import_module("duckdb")

    started = time.perf_counter()
    connection = duckdb.connect(":memory:")
    connection.execute(f"COPY ({_join(source)}) TO '{target}/joined.parquet' (FORMAT parquet)")
    return time.perf_counter() - started


def run_spark(source: Path, target: Path) -> float:
    _session, table, started = _spark_table(source, target)
    writer = table.orderBy("server").write.option("compression", "zstd")
    # Spark closes row groups by size: about 10,000 rows.
    writer.option("parquet.block.size", 2 << 20).parquet(str(target / "sorted"))
    return time.perf_counter() - started


def run_spark_batches(source: Path, target: Path) -> float:
    """As distributed-downloader does it: rows numbered within their server, a folder per server and batch."""
    _session, table, started = _spark_table(source, target)
    sql = import_module("pyspark.sql")
    by_server = sql.Window.partitionBy("server").orderBy(sql.functions.monotonically_increasing_id())
    batch = sql.functions.floor((sql.functions.row_number().over(by_server) - 1) / ROW_GROUP_ROWS)
    batches = table.withColumn("partition_id", batch).repartition("server", "partition_id")
    batches.write.option("compression", "zstd").partitionBy("server", "partition_id").parquet(str(target / "batches"))
    return time.perf_counter() - started


def _spark_table(source: Path, target: Path) -> tuple[Any, Any, float]:
    """A session (it ends with this process), the table with its servers, and when the session was ready."""
    sql = import_module("pyspark.sql")
    session = (
        sql.SparkSession.builder.master("local[*]")
        .config("spark.driver.memory", "10g")
        .config("spark.ui.enabled", "false")
        .config("spark.local.dir", str(target))
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.hadoop.parquet.compression.codec.zstd.level", "1")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    started = time.perf_counter()
    table = session.read.parquet(str(source))
    return session, table.withColumn("server", sql.functions.regexp_extract("identifier", SERVER_OF_URL, 1)), started


RUNNERS: Final[dict[str, Callable[[Path, Path], float]]] = {
    "ddmpi": run_ddmpi,
    "polars": run_polars,
    "duckdb": run_duckdb,
    "ddmpi_join": run_ddmpi_join,
    "duckdb_join": run_duckdb_join,
    "spark": run_spark,
    "spark_batches": run_spark_batches,
}


def _processes(pid: int) -> Iterator[Path]:
    """/proc folders of a process and of all below it."""
    yield Path(f"/proc/{pid}")
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _processes(int(child))


def _peak_rss_mb(processes: list[Path]) -> float:
    """The most memory (RSS, in units of 10^6 bytes) that each of the processes has had, added up."""
    lines = (line for process in processes for line in (process / "status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def _cpu_s(processes: list[Path]) -> float:
    """Processor time of the processes so far, imports included."""
    fields = ((process / "stat").read_text().rpartition(")")[2].split() for process in processes)
    return sum(int(stat[11]) + int(stat[12]) for stat in fields) / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str]) -> int:
    name, source, target = arguments
    seconds = RUNNERS[name](Path(source), Path(target))
    processes = list(_processes(os.getpid()))
    figures = {"seconds": seconds, "peak_rss_mb": _peak_rss_mb(processes), "cpu_s": _cpu_s(processes)}
    print(json.dumps(figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
