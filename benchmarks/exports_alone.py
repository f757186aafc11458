"""What people write with the targets' own tools: ``python -m benchmarks.exports_alone TARGET PARTS FOLDER`` copies all
parts below a folder into a format with one of them, prints the images that it has copied, and leaves out all else that
an export of ddmpi does: nothing is synced, renamed, counted or resumed, and no row is left out.

- ``webdataset``: webdataset's ``ShardWriter``, a sample for each row that a loop over pyarrow's batches gives it;
- ``hf``: ``datasets``: ``from_parquet``, ``cast_column``, and ``to_parquet`` of each shard, as its documentation says;
- ``parquet``: ``pyarrow.dataset.write_dataset``;
- ``files``: ``write_bytes`` in a loop, no metadata.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow.dataset as ds
import pyarrow.parquet as pq

SHARD_BYTES: Final = 256 << 20
"""Shards are as large as those of ``ddmpi export``."""
HUB_BYTES: Final = 500_000_000
BATCH_ROWS: Final = 256
"""About a row group of results with images of 30 KB: all programs hold about as many at once."""


def main() -> int:
    name, folder, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    target.mkdir()
    print(COPIES[name](sorted(map(str, folder.rglob("*.parquet"))), target))
    return 0


def webdataset(parts: Sequence[str], target: Path) -> int:
    import webdataset as wds  # type: ignore[import-untyped]  # noqa: PLC0415  # its own costs only

    copied = 0
    with wds.ShardWriter(f"{target}/shard-%06d.tar", maxsize=SHARD_BYTES, maxcount=sys.maxsize, verbose=0) as writer:
        for row in rows_of(parts):
            body = row.pop("image")
            described = json.dumps(row, default=str)
            writer.write({"__key__": f"{row['row_number']:012d}", "jpg": body, "json": described, "txt": row["title"]})
            copied += 1
    return copied


def hf(parts: Sequence[str], target: Path) -> int:
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1", HF_HOME=str(target / "home"))
    from datasets import Dataset, Image  # type: ignore[import-untyped]  # noqa: PLC0415  # its own costs only

    dataset = Dataset.from_parquet(list(parts), cache_dir=str(target / "cache")).cast_column("image", Image())
    shards = -(-dataset.data.nbytes // HUB_BYTES)
    for number in range(shards):
        shard = dataset.shard(shards, number, contiguous=True)
        shard.to_parquet(target / f"train-{number:05d}-of-{shards:05d}.parquet")
    return len(dataset)


def parquet(parts: Sequence[str], target: Path) -> int:
    dataset = ds.dataset(list(parts), format="parquet")
    rows = dataset.count_rows()
    shards = -(-sum(Path(part).stat().st_size for part in parts) // SHARD_BYTES)
    shard_rows = -(-rows // shards)
    ds.write_dataset(
        dataset,
        target,
        format="parquet",
        max_rows_per_file=shard_rows,
        max_rows_per_group=min(shard_rows, BATCH_ROWS),
    )
    return rows


def files(parts: Sequence[str], target: Path) -> int:
    folders: dict[str, Path] = {}
    copied = 0
    for row in rows_of(parts, ["uuid", "source", "image"]):
        if (source := row["source"]) not in folders:
            folders[source] = target / source
            folders[source].mkdir()
        (folders[source] / f"{row['uuid']}.jpg").write_bytes(row["image"])
        copied += 1
    return copied


def rows_of(parts: Sequence[str], columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    for part in parts:
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()


COPIES: Final[Mapping[str, Callable[[Sequence[str], Path], int]]] = {
    copy.__name__: copy for copy in (webdataset, hf, parquet, files)
}

if __name__ == "__main__":
    sys.exit(main())
