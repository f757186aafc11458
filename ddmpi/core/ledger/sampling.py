"""Profiling: a few requests to every larger server, all servers at once, under the limits of everything else. Pure.

Decides which lanes go out to sample, and when the servers that are done join the download: soon after their own samples
are in, as the slowest of all takes seconds. While a server is out with its sampling lane, that lane has all of its
limits: the ledger withholds its batches.

The sampled rows are ordinary rows of the server's first batch: what comes back is kept as results. A sampled row that
fails for a passing reason stays pending and is fetched later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ddmpi.core.ledger.known_paces import KnownPaces
from ddmpi.core.ledger.profile import Profile, profile_of, server_row_time_s
from ddmpi.core.ledger.schedule import Plan
from ddmpi.core.protocol import Assign, Lane, LaneReport, LaneState, Progress, Sample
from ddmpi.core.records import BatchRef, Limits

Target = tuple[str, BatchRef, int]
"""A server, its first batch with the parts that it has, and how many batches it has."""

HEAD_START_S = 0.25
"""After this the servers that have been profiled are scheduled by what was measured, with the largest first; those that
come later are given to whichever rank has the least to do."""
INTERVAL_S = 0.1
"""How often servers join after that: each time is a big batch of its own."""


@dataclass(frozen=True)
class SortedOut:
    """A rank's message without the reports on sampling lanes."""

    rest: Progress
    """For the ledger."""
    released: tuple[int, ...]
    """Sampling lanes that are drained."""
    durable: Sequence[int]
    """Batches whose samples are in the message's parts, or those before."""


class Sampling:
    """The servers of a run that are being profiled, and those of them that are done.

    Args:
        targets: the servers to profile.
        limits: the limits of a server group.
        group_of: the server group of a server.
        paces: what is known of servers; what the samples hurt (429, unreachable) is added.
        now: when it begins (s, monotonic).
    """

    def __init__(
        self,
        targets: Iterable[Target],
        limits: Callable[[str], Limits],
        group_of: Callable[[str], str],
        samples_per_server: int,
        *,
        paces: KnownPaces,
        now: float,
    ) -> None:
        self._servers: dict[str, list[tuple[str, int]]] = {}
        self._first_batches: dict[str, list[BatchRef]] = {}
        for server, ref, batches in targets:
            group = group_of(server)
            self._servers.setdefault(group, []).append((server, batches))
            self._first_batches.setdefault(group, []).append(ref)
        self._limits = limits
        self._samples_per_server = samples_per_server
        self._due_at = now + HEAD_START_S
        self._samples: dict[str, list[Sample]] = {}
        self._out: dict[int, tuple[str, int]] = {}  # lanes that fetch: their groups and ranks
        self._committing: dict[int, dict[int, tuple[int, ...]]] = {}  # others that are not drained: rows by batch
        self._back: set[str] = set()
        self._lanes_out: Counter[int] = Counter()  # by index of the plan's group, which may be several servers
        self._paces = paces

    def lanes(self, workers: Sequence[int], now: float) -> dict[int, Assign]:
        """Deal out the sampling lanes in turn, one per server group. Their ids are negative."""
        dealt: dict[int, list[Lane]] = {}
        for number, (group, refs) in enumerate(self._first_batches.items(), start=1):
            paces = self._paces.share(group, 1.0, now)
            batches = tuple(msgspec.structs.replace(ref, sample_rows=self._samples_per_server) for ref in refs)
            lane = Lane(-number, group, False, self._limits(group), batches, paces, sampling=True)
            rank = workers[number % len(workers)]
            dealt.setdefault(rank, []).append(lane)
            self._out[lane.lane_id] = group, rank
        return {rank: Assign(tuple(lanes)) for rank, lanes in dealt.items()}

    # ---- what comes back

    def on_samples(self, samples: Iterable[Sample]) -> None:
        for sample in samples:
            self._samples.setdefault(sample.server, []).append(sample)

    def sort_out(self, message: Progress, now: float) -> SortedOut:
        """Note the reports on sampling lanes; return what is left of a rank's message, and what follows from them."""
        durable: list[int] = []
        released: list[int] = []
        for report in message.lanes:
            if not is_sampling(report.lane_id):
                continue
            if report.state is LaneState.DRAINED:
                durable += self._committing.pop(report.lane_id)
                released.append(report.lane_id)
            else:
                self._on_lane(report, now)
        others = tuple(report for report in message.lanes if not is_sampling(report.lane_id))
        return SortedOut(msgspec.structs.replace(message, lanes=others), tuple(released), durable)

    def _on_lane(self, report: LaneReport, now: float) -> None:
        if report.paces:
            self._paces.report(self._out[report.lane_id][0], 1.0, report.paces, now)
        if report.state is LaneState.SAMPLED:
            group, _ = self._out.pop(report.lane_id)
            self._back.add(group)
            self._committing[report.lane_id] = report.decided

    # ---- who joins the download

    def is_due(self, now: float) -> bool:
        return now >= self._due_at or self.is_drained or (not self._out and bool(self._back))

    def take(self, now: float) -> set[str]:
        """Return the server groups that have been sampled since the last call."""
        self._due_at = now + INTERVAL_S
        groups, self._back = self._back, set()
        return groups

    def profiles(self, groups: Collection[str], profiled_rate: Callable[[str], float]) -> dict[str, Profile]:
        """Return one profile per target in these server groups, whose rates from now on are ``profiled_rate``."""
        return {
            server: profile_of(server, batches, profiled_rate(group), self._samples.get(server, ()))
            for group in groups
            for server, batches in self._servers[group]
        }

    def withhold(self, plan: Plan) -> set[int]:
        """Return the groups of the plan, by index, that are still being sampled."""
        indexes = (plan.group_of_server(group, group) for group in self.groups_out)
        self._lanes_out.update(index for index in indexes if index is not None)
        return set(self._lanes_out)

    def admit(self, plan: Plan, groups: Collection[str], profiles: Mapping[str, Profile]) -> dict[int, float]:
        """Return the seconds per row of the plan's groups that join now, by their index."""
        times: dict[int, float] = {}
        for group in groups:
            index = plan.group_of_server(group, group)
            if index is None:
                continue
            self._lanes_out[index] -= 1
            if not self._lanes_out[index]:
                urls_per_row = 1.0 if plan.urls_per_row is None else float(plan.urls_per_row[index])
                times[index] = server_row_time_s(plan.limits(group), profiles.get(group)) * urls_per_row
        return times

    # ---- what there is

    def decided(self) -> dict[int, tuple[int, ...]]:
        """Return the samples that are not durable yet, rows by batch."""
        return {batch_id: rows for lane in self._committing.values() for batch_id, rows in lane.items()}

    @property
    def groups_out(self) -> set[str]:
        """The server groups that are still being sampled."""
        return {group for group, _ in self._out.values()}

    @property
    def groups_apart(self) -> set[str]:
        """The server groups that have not joined the download."""
        return self.groups_out | self._back

    @property
    def is_drained(self) -> bool:
        """Whether nothing is being sampled any more, and all samples are durable."""
        return not self._out and not self._committing

    @property
    def progress(self) -> tuple[int, int]:
        """Server groups that are done, and all of them."""
        total = len(self._servers)
        return total - len(self._out), total

    def holder(self, lane_id: int) -> int | None:
        """Return the rank that fetches with this lane, None if none does (any more)."""
        return self._out[lane_id][1] if lane_id in self._out else None

    def lane_group(self, lane_id: int) -> str | None:
        """Return the group that this lane samples, None if it fetches no more."""
        return self._out[lane_id][0] if lane_id in self._out else None


def is_sampling(lane_id: int) -> bool:
    """Whether it is a sampling lane; those of the ledger have positive ids."""
    return lane_id < 0
