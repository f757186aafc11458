"""The export itself: plan on all ranks, then each its shards, then the sum.

What is done is on disk: a shard under its final name, and after it its counts in ``.export/``. An export that was
stopped in any way goes on with the shards that have no counts, with any number of ranks. The results are only read.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq

from ddmpi._version import __version__
from ddmpi.errors import OutputError, SetupError, StorageError
from ddmpi.export.options import Options, Order
from ddmpi.export.plan import (
    RowGroup,
    cut,
    fingerprint,
    hash_algorithm,
    reading,
    replaced_rows,
    row_groups,
    shard_name,
    success_parts,
)
from ddmpi.export.selection import find_duplicates, make_look
from ddmpi.export.shard_maker import ShardCounts, ShardMaker
from ddmpi.export.target import Target, load_target
from ddmpi.io.folder.disk_errors import named_disk_errors
from ddmpi.io.folder.durable import make_folders, write_atomically
from ddmpi.io.folder.layout import Layout, layout_of
from ddmpi.io.folder.lock import OutputLock, acquire_for_job
from ddmpi.io.mpi.launcher import Ranks
from ddmpi.io.results.schema import IMAGE, SAME_AS
from ddmpi.report.formats import counted

log = logging.getLogger(__name__)
Say = Callable[[str], None]


class Places:
    def __init__(self, target: Path) -> None:
        self.target = target
        self.state = target / ".export"
        self.order = self.state / "order.json"
        self.temporary = self.state / "tmp"
        self.summary = target / "export.json"

    def counts(self, shard: int) -> Path:
        return self.state / f"{shard_name(shard)}.json"


def export(order: Order, ranks: Ranks, say: Say, environment: Mapping[str, str]) -> None:
    """Do or finish the export. Collective; ``say`` is called on rank 0 only.

    Raises:
        SetupError: on all ranks alike: no results, or a target folder of something else.
        StorageError: on this rank: reading or writing failed.
    """
    layout, places = layout_of(order.results), Places(order.target)
    target = load_target(order.options.to)(order.options.own)
    parts = _on_all(ranks, lambda: _parts(layout, target))
    groups = _all_groups(layout, parts, ranks)
    look = make_look(order.options, hash_algorithm(layout))
    lock = _on_rank_0(ranks, lambda: _own(places, order.options, fingerprint(groups), environment))
    none = np.empty(0, np.int64)
    replaced = _on_all(ranks, lambda: replaced_rows(layout, parts))
    duplicates = find_duplicates(layout, parts, ranks, replaced) if order.options.unique else none
    target.prepare(layout, parts, ranks, replaced)
    maker = ShardMaker(layout, target, places.target, places.temporary, order.options, duplicates, look, replaced)
    shards = cut(groups, order.options.shard_bytes)
    # Rank 0 looks: on a network file system the others might not see yet what a run before has left.
    todo = ranks.bcast([number for number in range(len(shards)) if not places.counts(number).exists()])
    own = todo[ranks.Get_rank() :: ranks.Get_size()]  # about equally large: taking turns is fair
    if ranks.Get_rank() == 0:
        say(f"{counted(len(shards), 'shard')}, {len(shards) - len(todo):,} of them done before")
    for done, number in enumerate(own, start=1):
        counts = maker.make(shards[number], shard_name(number))
        write_atomically(places.counts(number), msgspec.json.encode(counts))
        if lock is not None:
            lock.touch()
            say(f"rank 0: {done:,} of {len(own):,} shards")
    ranks.allgather(None)
    if lock is not None:
        _sum_up(places, order.options, len(shards), say, target=target, layout=layout)
        lock.release()


def _parts(layout: Layout, target: Target) -> list[str]:
    """Return the parts to export. Raises OutputError: there are none, or they do not have what the target needs."""
    parts = success_parts(layout)
    with reading(layout, parts[0]) as path:
        names = [
            name for name in pq.read_schema(path).names if name not in {IMAGE, SAME_AS}
        ]  # no target is given these
    missing = [column for column in target.columns if column not in names]
    if missing:
        raise OutputError(f"{layout.images} has no column {', '.join(missing)}; it has {', '.join(names)}")
    return parts


def _on_all(ranks: Ranks, find: Callable[[], Any]) -> Any:
    """Return what rank 0 finds, or its SetupError, on all ranks."""
    found: Any = None
    if ranks.Get_rank() == 0:
        try:
            found = find()
        except SetupError as error:
            found = error
    found = ranks.bcast(found)
    if isinstance(found, SetupError):
        raise found
    return found


def _on_rank_0(ranks: Ranks, own: Callable[[], OutputLock]) -> OutputLock | None:
    """Return the lock on rank 0, None on the others; its SetupError on all."""
    locks: list[OutputLock] = []
    _on_all(ranks, lambda: locks.append(own()))
    return locks[0] if locks else None


def _all_groups(layout: Layout, parts: list[str], ranks: Ranks) -> list[RowGroup]:
    """Return the row groups in the order of the parts; each rank opens its share of these."""
    own = [row_groups(layout, part) for part in parts[ranks.Get_rank() :: ranks.Get_size()]]
    found = ranks.allgather(own)
    turns = (found[index % ranks.Get_size()][index // ranks.Get_size()] for index in range(len(parts)))
    return [group for groups in turns for group in groups]


def _own(places: Places, options: Options, source: str, environment: Mapping[str, str]) -> OutputLock:
    """Make the folder ours, or find that it is; then clear what a killed export has left. Raises OutputError: it holds
    another export or other files, or another process exports into it."""
    wanted = {"version": __version__, "options": asdict(options), "source": source}
    if not places.state.exists() and places.target.exists() and any(places.target.iterdir()):
        raise OutputError(f"{places.target} is not empty; export into a new folder")
    make_folders(places.state)
    lock = acquire_for_job(places.state / "lock", environment)
    try:
        _check_same(places, wanted)
    except OutputError:
        lock.release()
        raise
    if places.temporary.exists():
        shutil.rmtree(places.temporary)
    make_folders(places.temporary)
    return lock


def _check_same(places: Places, wanted: dict[str, Any]) -> None:
    if not places.order.exists():
        write_atomically(places.order, json.dumps(wanted).encode())
        return
    begun = json.loads(places.order.read_bytes())
    if begun["options"] != wanted["options"]:
        raise OutputError(f"{places.target} was begun with other options; export into a new folder")
    if begun != wanted:
        raise OutputError(
            f"{places.target} was begun when the results were others (a run or a retry came in between); "
            "export into a new folder"
        )


def _sum_up(places: Places, options: Options, shards: int, say: Say, *, target: Target, layout: Layout) -> None:
    """Let the target finish, write ``export.json``, and say what is in it."""
    counts = [msgspec.json.decode(places.counts(number).read_bytes(), type=ShardCounts) for number in range(shards)]
    rows, exported = sum(each.rows for each in counts), sum(each.exported for each in counts)
    filled = sum(each.exported > 0 for each in counts)
    left_out = dict(sum((Counter(each.left_out) for each in counts), Counter[str]()))
    if rows != exported + sum(left_out.values()):
        raise StorageError(f"{places.state}: the counts of the shards do not add up: {rows} rows, {exported} exported")
    summary = {
        "rows": rows,
        "exported": exported,
        "left_out": left_out,
        "shards": filled,
        "damaged_rows": [number for each in counts for number in each.damaged],
        "options": asdict(options),
    }
    told = [(shard_name(number), each.told) for number, each in enumerate(counts) if each.exported]
    with named_disk_errors("cannot write", places.target):
        target.finish(layout, places.target, summary, told)
    write_atomically(places.summary, json.dumps(summary, indent=1).encode())
    shutil.rmtree(places.temporary)
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in left_out.items())
    say(
        f"{exported:,} of {rows:,} images in {counted(filled, 'shard')}" + (f"; left out: {reasons}" if reasons else "")
    )
    if advice := target.reading(places.target, told):
        say(advice)
