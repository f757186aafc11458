"""How results are cut into shards: pure.

Decides which row groups go into which shard. It must not know what is done with a shard, or by whom.

Invariants: each row group is in exactly one shard, in order; the same groups and size give the same shards, on any
number of ranks: that is what makes an export that was stopped go on exactly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias


class RowGroup(NamedTuple):
    """A row group of a part. ``part`` is the path relative to the output folder."""

    part: str
    group: int
    rows: int
    size_bytes: int


Shard: TypeAlias = "list[RowGroup]"


def cut(groups: Iterable[RowGroup], shard_bytes: int) -> list[Shard]:
    """Consecutive groups of at most ``shard_bytes`` together; a larger group is a shard of its own."""
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
    """Name of a shard's file or folder, without a suffix; in order as text up to a million shards."""
    return f"shard-{number:06d}"


def share(todo: Sequence[int], rank: int, size: int) -> Sequence[int]:
    """The shards of one rank: they are about equally large, so that taking turns is fair."""
    return todo[rank::size]


def fingerprint(groups: Iterable[RowGroup]) -> str:
    """Of all that is exported: another run over the results, or a retry, changes it."""
    digest = hashlib.sha256()
    for group in groups:
        digest.update(json.dumps(group).encode())
    return digest.hexdigest()


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sums by key, in the order in which keys come."""
    sums: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            sums[name] = sums.get(name, 0) + count
    return sums
