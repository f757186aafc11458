"""What is exported, and how it is cut into shards.

Decides which row groups of which parts go into which shard. It must not know what is done with a shard, or by whom.

Invariants: each row group is in exactly one shard, in order; the same groups and size give the same shards, on any
number of ranks: that is what makes an export that was stopped go on exactly.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from ddmpi.core.arrays import IntArray
from ddmpi.errors import OutputError, StorageError
from ddmpi.io.folder import checkpoint
from ddmpi.io.folder.layout import Layout, part_of
from ddmpi.io.folder.markers import published_parts
from ddmpi.io.results.outcomes import superseded_rows
from ddmpi.io.results.publishing import with_images

_FALLBACK_ALGORITHM: Final = "sha256"


class RowGroup(NamedTuple):
    """A row group of a part. ``part`` is the path relative to the output folder."""

    part: str
    group: int
    rows: int
    size_bytes: int


Shard: TypeAlias = "list[RowGroup]"


def success_parts(layout: Layout) -> list[str]:
    """Return all parts with images, relative to the output folder, in the order of their paths.

    Raises:
        OutputError: there are none.
        StorageError: a folder cannot be listed.
    """
    parts = [layout.relative(part.path) for part in published_parts(layout, "successes")]
    if not parts:
        raise OutputError(f"{layout.images}: no images of a ddmpi job are here")
    return parts


def replaced_rows(layout: Layout, parts: Iterable[str]) -> dict[str, IntArray]:
    """Return by part the row numbers whose file of that part does not count, as a refresh has found another one since;
    of the parts of a run, no others have any. Raises StorageError: a part cannot be read."""
    batches: defaultdict[str, list[str]] = defaultdict(list)
    for part in parts:
        batches[part.rpartition("/")[0]].append(part)
    found: dict[str, IntArray] = {}
    for of_batch in batches.values():
        by_epoch = superseded_rows(layout, of_batch)
        found |= {part: rows for part in of_batch if (rows := by_epoch.get(part_of(part).epoch)) is not None}
    return found


def row_groups(layout: Layout, part: str) -> list[RowGroup]:
    """Return the row groups of one part, as its footer tells. Raises StorageError: it cannot be read."""
    with reading(layout, part) as path, pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        return [
            RowGroup(
                part,
                index,
                group.num_rows,
                sum(group.column(at).total_compressed_size for at in range(group.num_columns)),
            )
            for index, group in enumerate(groups)
            if group.num_rows
        ]


def cut(groups: Iterable[RowGroup], shard_bytes: int) -> list[Shard]:
    """Cut into consecutive groups of at most ``shard_bytes`` together; a larger group is a shard of its own."""
    shards: list[Shard] = []
    filled = 0
    for group in groups:
        if not shards or filled + group.size_bytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(group)
        filled += group.size_bytes
    return shards


def shard_name(number: int) -> str:
    """Return the name of a shard's file or folder, without a suffix; in order as text up to a million shards."""
    return f"shard-{number:06d}"


def fingerprint(groups: Iterable[RowGroup]) -> str:
    """Return a digest of all that is exported: another run over the results, or a retry, changes it."""
    digest = hashlib.sha256()
    for group in groups:
        digest.update(json.dumps(group).encode())
    return digest.hexdigest()


def hash_algorithm(layout: Layout) -> str:
    """Return the results' hash, as their checkpoint tells."""
    saved, _ = checkpoint.load(layout)
    known = saved.config_semantic if saved is not None else {}
    return str(known.get("downloader_parameters.hash_algorithm", _FALLBACK_ALGORITHM))


@contextmanager
def reading(layout: Layout, part: str) -> Iterator[Path | pa.NativeFile]:
    """Open a part with all of its columns, on disk or in an object store; errors in the block name it. Raises
    StorageError: it cannot be read."""
    path = layout.root / part
    try:
        yield with_images(layout, part)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise StorageError(f"cannot read part {path}: {error}") from error
