"""Which rows wait for which servers, until when, and why: what a person is told of a run that waits or ends. Pure.

Decides from what is known of paces, and of the rows that are left of each server group. It must not know how that is
worded. All times are on the clock of ``now``, which may be any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter

import msgspec
import numpy as np

from ddmpi.core.arrays import IntArray
from ddmpi.core.pace.byte_limits import DAY_S, HOUR_S, ByteBudget
from ddmpi.core.records import Limits, PaceState, group_of_shared

MOST_LISTED = 20


class Wait(msgspec.Struct, frozen=True):
    """The rows of one server group that wait."""

    server: str
    """The one of its servers that may be asked first."""
    rows: int
    until: float
    """When that is; 0 = nobody knows."""
    why: str
    since: float = 0.0
    """Since when it has not answered; 0 = it does."""
    servers: int = 1
    """Servers of the group that are waited for."""
    given_up_at: float = 0.0
    """About when it is given up if it does not answer until then; 0 = it is not."""


class Waiting(msgspec.Struct, frozen=True):
    """All waits: those of the most rows, and the sums."""

    listed: tuple[Wait, ...] = ()
    servers: int = 0
    rows: int = 0
    until: float = 0.0
    """When the first server may be asked again; 0 = nobody knows."""


def waiting(
    names: Sequence[str],
    rows_left: IntArray,
    paces: Mapping[str, PaceState],
    *,
    group_of: Callable[[str], int | None],
    limits: Callable[[str], Limits],
    held: Iterable[int],
    probing_left_s: Callable[[int], float],
    now: float,
    undone: int,
    most: int = MOST_LISTED,
) -> Waiting:
    """Return who is waited for.

    Args:
        names: (G,) of the server groups.
        rows_left: (G,) rows that are not final.
        paces: of the servers or groups that were asked, by name.
        group_of: the index of a server's group, None if no row is on it.
        limits: of a server or group.
        held: indexes of the groups that the operator holds.
        undone: rows of the table that are not done with, durable or not: no more can wait. Of a group of small servers
            it is not known which of them has how many.
        most: how many waits are listed.
        probing_left_s: how long a server out of reach is probed after its pause now, by ``open_count``.
    """
    rows_left = np.minimum(rows_left, undone)
    may_wait = (index for index in held if rows_left[index])
    found = {index: Wait(names[index], int(rows_left[index]), 0.0, "held by control.yaml") for index in may_wait}
    for server, pace, wait_s, why in _waits(paces, limits):
        index = group_of(server)
        if index is None or not rows_left[index] or (index in found and not found[index].until):
            continue
        since, given_up_at = 0.0, 0.0
        if pace.open_count:
            since, given_up_at = now - pace.since_s, now + wait_s + probing_left_s(pace.open_count)
        wait = Wait(server, int(rows_left[index]), now + wait_s, why, since, given_up_at=given_up_at)
        other = found.get(index)
        first = wait if other is None or wait.until < other.until else other
        found[index] = msgspec.structs.replace(first, servers=1 if other is None else other.servers + 1)
    waits = sorted(found.values(), key=lambda wait: (-wait.rows, wait.server))
    return Waiting(
        tuple(waits[:most]),
        sum(wait.servers for wait in waits),
        min(undone, sum(wait.rows for wait in waits)),
        min((wait.until for wait in waits if wait.until), default=0.0),
    )


def servers_waited_for(
    paces: Mapping[str, PaceState], limits: Callable[[str], Limits], least_s: float = 0.0
) -> Iterator[str]:
    """Yield the servers, or groups, that are out of reach or waited for longer than ``least_s``. Arguments as above."""
    for server, pace, wait_s, _ in _waits(paces, limits):
        if pace.open_count or wait_s > least_s:
            yield server


def _waits(
    paces: Mapping[str, PaceState], limits: Callable[[str], Limits]
) -> Iterator[tuple[str, PaceState, float, str]]:
    """Yield who is waited for: the server or group, its pace, for how long (s), and why."""
    for name, pace in paces.items():
        server = group_of_shared(name) or name
        spent_s = _budget_wait_s(pace, limits(server)) if pace.spent_hour or pace.spent_day else 0.0
        wait_s = max(pace.wait_s, pace.debt_s, spent_s)
        if wait_s > 0 or pace.open_count:
            reasons = ((pace.wait_s, pace.why), (pace.debt_s, "bytes per second"), (spent_s, "its bytes are spent"))
            why = max(reasons, key=itemgetter(0))[1]
            yield server, pace, wait_s, why or "a pause"


def _budget_wait_s(pace: PaceState, limits: Limits) -> float:
    """How long the bytes of an hour or a day are spent."""
    hour = ByteBudget(limits.bytes_per_hour, HOUR_S, pace.spent_hour, 0.0)
    day = ByteBudget(limits.bytes_per_day, DAY_S, pace.spent_day, 0.0)
    return max(hour.blocked_until(0.0), day.blocked_until(0.0))
