"""Single rows by their uuid: ``python -m benchmarks.load_by_uuid``.

Writes a set of small bodies as a run writes it (batches of 10,000 rows, a part each), makes the index by uuid, and
loads rows at random: by ``ddmpi.load``, and by a filter of ``ddmpi.open_results``, which is pyarrow.dataset's. Files
are warm, as they have just been written. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import ddmpi
from ddmpi.io.folder.durable import make_folders
from ddmpi.io.folder.fence import open_epoch
from ddmpi.io.folder.layout import Layout, part_name
from ddmpi.io.results.part_file import PartFile
from ddmpi.io.results.schema import IMAGE, result_schema

BATCH_ROWS: Final = 10_000
SERVERS: Final = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns 0 if every row that was loaded is the right one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--body-bytes", type=int, default=300)
    parser.add_argument("--loads", type=int, default=200)
    parser.add_argument("--filters", type=int, default=5, help="loads by pyarrow.dataset's filter")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="ddmpi-load-") as folder:
        layout = Layout(Path(folder))
        rows = write_set(layout, given.rows, given.body_bytes)
        chosen = random.Random(0).sample(rows, given.loads)
        started = time.perf_counter()
        ddmpi.load(layout.root, chosen[0][0])
        index_s = time.perf_counter() - started
        loads = timed(lambda name: ddmpi.load(layout.root, name), chosen)
        filters = timed(lambda name: by_filter(layout.root, name), chosen[: given.filters])
        found = {
            "rows": len(rows),
            "index_s": round(index_s, 2),
            "index_bytes": layout.uuid_index.stat().st_size,
            "load_ms_p50": percentile(loads, 50),
            "load_ms_p99": percentile(loads, 99),
            "filter_ms_p50": percentile(filters, 50),
            "load": round(os.getloadavg()[0], 1),
        }
    print(json.dumps(found))
    return 0


def write_set(layout: Layout, rows: int, body_bytes: int) -> list[tuple[str, int]]:
    """Return uuid and row number of each row."""
    open_epoch(layout, 1)
    made = []
    for partition, first in enumerate(range(0, rows, BATCH_ROWS)):
        pairs = [
            (str(uuid.UUID(bytes=random.randbytes(16))), row) for row in range(first, min(rows, first + BATCH_ROWS))
        ]
        made += pairs
        folder = layout.parts_folder("successes", f"server-{partition % SERVERS}.example", partition)
        make_folders(folder)
        name = part_name("successes", 1, 0, partition)
        file = PartFile(layout.epoch_temporary(1) / name, result_schema("successes"))
        file.write(table_of(pairs), [random.randbytes(body_bytes) for _ in pairs])
        file.commit(folder / name)
    return made


def table_of(pairs: Sequence[tuple[str, int]]) -> pa.Table:
    schema = result_schema("successes")
    schema = schema.remove(schema.get_field_index(IMAGE))
    known: dict[str, list[Any]] = {
        "uuid": [name for name, _ in pairs],
        "identifier": [f"https://server.example/{row}.jpg" for _, row in pairs],
        "hashsum_original": [f"{row:064x}" for _, row in pairs],
        "row_number": [row for _, row in pairs],
    }
    columns = [pa.array(known.get(field.name, [None] * len(pairs)), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def by_filter(folder: Path, name: str) -> dict[str, Any]:
    return ddmpi.open_results(folder).to_table(filter=pc.field("uuid") == name).to_pylist()[0]


def timed(load: Callable[[str], dict[str, Any]], chosen: Sequence[tuple[str, int]]) -> list[float]:
    """Return milliseconds of each load. Raises ValueError: a row is another one."""
    found = []
    for name, row in chosen:
        started = time.perf_counter()
        loaded = load(name)
        found.append((time.perf_counter() - started) * 1e3)
        if loaded["row_number"] != row or not loaded["image"]:
            raise ValueError(f"{name} is row {row}, not {loaded['row_number']}")
    return found


def percentile(values: Sequence[float], share: int) -> float:
    return round(float(np.percentile(values, share)), 1)


if __name__ == "__main__":
    sys.exit(main())
