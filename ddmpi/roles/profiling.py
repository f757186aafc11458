"""Stage 2: a few requests to every larger server, all servers at once, under the same limits as everything else.

The sampled rows are ordinary rows of the server's first batch: what comes back is kept as results. A sampled row that
fails for a passing reason stays pending and is fetched later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from ddmpi.io.batch_table import BatchTable
from ddmpi.io.profiles import Profile, profile_of
from ddmpi.protocol import Assign, Lane, LaneReport, LaneState, Sample
from ddmpi.records import INVALID_SERVER, BatchRef, Limits, PaceState

Target = tuple[str, BatchRef, int]
"""A server, its first batch, and how many batches it has."""


class Profiler:
    """The profiling of one run: which lanes go out, and what came back.

    Args:
        targets: the servers to profile.
        limits: the limits of a pace group.
        group_of: the pace group of a server.
        paces: what is known of paces from earlier runs.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        limits: Callable[[str], Limits],
        group_of: Callable[[str], str],
        paces: Mapping[str, PaceState],
        samples_per_server: int,
    ) -> None:
        self._targets = list(targets)
        self._limits = limits
        self._group_of = group_of
        self._known = paces
        self._samples_per_server = samples_per_server
        self._samples: dict[str, list[Sample]] = {}
        self._out: set[int] = set()
        self.paces: dict[str, PaceState] = {}
        """Paces that the samples have hurt (429, unreachable): the download starts with them."""

    def lanes(self, workers: Sequence[int]) -> dict[int, Assign]:
        """The sampling lanes of each rank: one per pace group, dealt out in turn. Their ids are negative."""
        by_group: dict[str, list[BatchRef]] = {}
        for server, ref, _ in self._targets:
            sampled = msgspec.structs.replace(ref, sample_rows=self._samples_per_server)
            by_group.setdefault(self._group_of(server), []).append(sampled)
        dealt: dict[int, list[Lane]] = {}
        for number, (group, batches) in enumerate(by_group.items(), start=1):
            known = {group: self._known[group]} if group in self._known else {}
            lane = Lane(-number, group, False, self._limits(group), tuple(batches), known, sampling=True)
            dealt.setdefault(workers[number % len(workers)], []).append(lane)
            self._out.add(lane.lane_id)
        return {rank: Assign(tuple(lanes)) for rank, lanes in dealt.items()}

    def on_samples(self, samples: Iterable[Sample]) -> None:
        """Note what a rank measured."""
        for sample in samples:
            self._samples.setdefault(sample.server, []).append(sample)

    def on_lane(self, report: LaneReport) -> bool:
        """Note a lane's report; True if the lane is done and can be released."""
        self.paces.update(report.paces)
        if report.state is LaneState.DRAINED:
            self._out.discard(report.lane_id)
            return True
        return False

    @property
    def is_done(self) -> bool:
        """All lanes are back."""
        return not self._out

    @property
    def progress(self) -> tuple[int, int]:
        """Pace groups that are done, and all of them."""
        total = len({self._group_of(server) for server, _, _ in self._targets})
        return total - len(self._out), total

    def profiles(self, rate_multiplier: float) -> dict[str, Profile]:
        """One profile per target."""
        return {
            server: profile_of(
                server,
                batches,
                self._limits(self._group_of(server)).rate_per_s * rate_multiplier,
                self._samples.get(server, ()),
            )
            for server, _, batches in self._targets
        }


def targets(
    table: BatchTable,
    min_rows: int,
    known: Mapping[str, Profile],
    is_open: Callable[[int], bool],
    begun_ref: Callable[[int], BatchRef],
) -> list[Target]:
    """The servers worth profiling: enough rows, no profile yet, and a first batch that is not complete. Each once.

    ``begun_ref`` gives a batch with the parts that it has: an earlier run may have been killed while it profiled.
    """
    found: dict[str, Target] = {}
    for server, first_batch, batches in table.servers_with(min_rows):
        if server not in known and server not in found and server != INVALID_SERVER and is_open(first_batch):
            found[server] = (server, begun_ref(first_batch), batches)
    return list(found.values())
