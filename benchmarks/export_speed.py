"""``ddmpi export`` beside the targets' own tools on the same results: ``python -m benchmarks.export_speed``.

Makes two folders of results as a run writes them (parts of 10,000 rows, row groups of 8 MiB, all columns filled), a
smaller and a larger one, and has each program copy both, in turn, one process each: ddmpi with ``--to webdataset``,
``hf``, ``parquet`` and ``files``, and for each what ``exports_alone`` does. What differs between the two folders is
what one more image costs: start and end cancel out. Parts are in the page cache. With ``--folder /dev/shm`` no disk
and no journal of a file system take part, which otherwise are most of what files cost.

The last line is JSON. For each target, medians of the rounds: ``ours_per_core`` and ``theirs_per_core`` are images per
second of processor time, of all threads and of the kernel in their name; ``ours_per_s`` and ``theirs_per_s`` images per
second of the clock, on a disk also the time that it takes to sync, which theirs do not. ``ratio`` is ours over
theirs per core, ``ratio_range`` the least and the greatest of it, ``ratio_per_s`` that by the clock. ``ours_mb`` and
``theirs_mb`` are peaks of resident memory, which counts pages of mapped files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import pyarrow as pa

from benchmarks.processes import Ended, cache_bytecode, run
from ddmpi.io.folder.durable import make_folders
from ddmpi.io.folder.fence import open_epoch
from ddmpi.io.folder.layout import Layout, part_name
from ddmpi.io.results.part_file import PartFile
from ddmpi.io.results.parts import ROW_GROUP_BYTES
from ddmpi.io.results.schema import IMAGE, result_schema

PART_ROWS: Final = 10_000
SERVERS: Final = 20
OPTIONS: Final[Mapping[str, Sequence[str]]] = {
    "webdataset": ["--caption", "title"],
    "hf": [],
    "parquet": [],
    "files": ["--path", "{source}/{uuid}.{ext}"],
}
SIGMA: Final = 0.5
"""Of the logarithm of the sizes of bodies."""
JPEG: Final = b"\xff\xd8\xff"
BEGAN: Final = datetime(2030, 1, 1, tzinfo=timezone.utc)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns 0. Raises ValueError: a program has copied more or fewer images than there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="by which the larger folder is larger")
    parser.add_argument("--body-bytes", type=int, default=30_000, help="mean of a log-normal distribution")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(OPTIONS), default=list(OPTIONS), metavar="TARGET")
    parser.add_argument("--folder", type=Path, help="where some 2.5 GB may lie for a while")
    given = parser.parse_args(argv)
    cache_bytecode()
    rounds: dict[str, list[tuple[float, float, Ended, Ended]]] = {}
    with tempfile.TemporaryDirectory(prefix="ddmpi-export-", dir=given.folder) as name:
        folder = Path(name)
        sizes = (given.rows // 10, given.rows // 10 + given.rows)
        sources = {rows: write_results(Layout(folder / f"results-{rows}"), rows, given.body_bytes) for rows in sizes}
        for number in range(given.rounds):
            for target in given.only:
                for program in ("ours", "theirs"):
                    small, large = (copy(program, target, source, rows, folder) for rows, source in sources.items())
                    cpu_s = large.usage.cpu_s - small.usage.cpu_s
                    print(f"round {number + 1}, {target}, {program}: {cpu_s:.2f} s of processor time", flush=True)
                    wall_s = large.wall_s - small.wall_s
                    rounds.setdefault(f"{target} {program}", []).append((cpu_s, wall_s, small, large))
    found = {target: compare(given.rows, rounds[f"{target} ours"], rounds[f"{target} theirs"]) for target in given.only}
    print(json.dumps({"rows": given.rows, "rounds": given.rounds, **found, "load": round(os.getloadavg()[0], 1)}))
    return 0


def copy(program: str, target: str, source: Layout, rows: int, folder: Path) -> Ended:
    """Copy all images with one program, and remove the copy. Raises ValueError: they are more or fewer; RuntimeError:
    it fails."""
    copied_to = folder / "copy"
    if program == "ours":
        command = ["ddmpi.export", str(source.root), str(copied_to), "--to", target, *OPTIONS[target]]
    else:
        command = ["benchmarks.exports_alone", target, str(source.images), str(copied_to)]
    ended = run([sys.executable, "-m", *command], folder / "printed", Path(__file__).parents[1])
    copied = exported(copied_to) if program == "ours" else int(ended.printed.split()[-1])
    if copied != rows:
        raise ValueError(f"{program}, {target}: {copied} of {rows} images")
    shutil.rmtree(copied_to)
    return ended


def exported(target: Path) -> int:
    return int(json.loads((target / "export.json").read_bytes())["exported"])


def compare(
    rows: int, ours: Sequence[tuple[float, float, Ended, Ended]], theirs: Sequence[tuple[float, float, Ended, Ended]]
) -> dict[str, Any]:
    ratios = [other[0] / own[0] for own, other in zip(ours, theirs, strict=True)]
    own_wall_s, other_wall_s = (median(each[1] for each in of) for of in (ours, theirs))
    return {
        "ratio": round(median(ratios), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "ours_per_core": round(rows / median(each[0] for each in ours)),
        "theirs_per_core": round(rows / median(each[0] for each in theirs)),
        "ratio_per_s": round(other_wall_s / own_wall_s, 2),
        "ours_per_s": round(rows / own_wall_s),
        "theirs_per_s": round(rows / other_wall_s),
        "ours_mb": round(median(each[3].usage.peak_rss_mb for each in ours)),
        "theirs_mb": round(median(each[3].usage.peak_rss_mb for each in theirs)),
    }


def write_results(layout: Layout, rows: int, body_bytes: int) -> Layout:
    """Write parts of successes with this many rows, each with bytes of its own, and return where they are."""
    make_folders(layout.root)
    open_epoch(layout, 1)
    rng = random.Random(7)
    normal_mean = np.log(body_bytes) - SIGMA**2 / 2
    sizes = np.random.default_rng(7).lognormal(normal_mean, SIGMA, rows).astype(int).tolist()
    group_rows = max(1, ROW_GROUP_BYTES // body_bytes)
    for partition, first in enumerate(range(0, rows, PART_ROWS)):
        folder = layout.parts_folder("successes", f"server-{partition % SERVERS}.example", partition)
        make_folders(folder)
        name = part_name("successes", 1, 0, partition)
        file = PartFile(layout.epoch_temporary(1) / name, result_schema("successes"))
        end = min(rows, first + PART_ROWS)
        for start in range(first, end, group_rows):
            numbers = range(start, min(end, start + group_rows))
            bodies = [JPEG + rng.randbytes(sizes[number]) for number in numbers]
            file.write(table_of(numbers, bodies, rng), bodies)
        file.commit(folder / name)
    return layout


def table_of(numbers: Sequence[int], bodies: Sequence[bytes], rng: random.Random) -> pa.Table:
    schema = result_schema("successes")
    schema = schema.remove(schema.get_field_index(IMAGE))
    rows = [row_of(number, body, rng) for number, body in zip(numbers, bodies, strict=True)]
    return pa.Table.from_pylist(rows, schema=schema)


def row_of(number: int, body: bytes, rng: random.Random) -> dict[str, Any]:
    """Return the columns of a row as a photograph of a museum has them; what has no value there is left out."""
    url = f"https://server-{number // PART_ROWS % SERVERS}.example/images/{number:08d}/large.jpg"
    took_ms = rng.lognormvariate(5, 0.5)
    return {
        "uuid": str(uuid.UUID(bytes=rng.randbytes(16))),
        "source_id": f"urn:catalog:{number}",
        "identifier": url,
        "is_license_full": True,
        "license": rng.choice(["https://creativecommons.org/licenses/by/4.0/", "CC0-1.0", "CC-BY-NC"]),
        "source": f"museum {number % 7}",
        "title": f"Parus major Linnaeus, 1758, specimen {number}",
        "hashsum_original": hashlib.sha256(body).hexdigest(),
        "original_size": [rng.randrange(200, 1_000), rng.randrange(200, 1_000)],
        "status": 200,
        "final_url": url,
        "content_type": "image/jpeg",
        "bytes": len(body),
        "etag": f'"{rng.randbytes(8).hex()}"',
        "last_modified": "Tue, 01 Jan 2030 00:00:00 GMT",
        "attempts": 1,
        "fetched_at": BEGAN + timedelta(milliseconds=50 * number),
        "total_ms": took_ms,
        "ttfb_ms": took_ms / 2,
        "ip": f"192.0.2.{number % 250}",
        "placeholder": False,
        "row_number": number,
    }


if __name__ == "__main__":
    sys.exit(main())
