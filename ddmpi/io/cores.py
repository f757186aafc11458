"""How many threads a rank may keep busy: its share of the cores that it and its neighbors may use."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet


def share_of_cores(own: AbstractSet[int], all_of_node: Iterable[AbstractSet[int]]) -> int:
    """Whole cores, at least one.

    Launchers differ: some pin each rank to cores of its own, some to a socket, some not at all. A core that several
    ranks may use counts for each of them as a part.

    Args:
        own: numbers of the cores that this rank may use.
        all_of_node: the same of every rank on this node that has work for them, this one included.
    """
    sets = list(all_of_node)
    return max(1, int(sum(1 / max(1, sum(core in cores for cores in sets)) for core in own) + 1e-9))
