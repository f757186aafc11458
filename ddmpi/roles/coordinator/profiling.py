"""Stage 2: a few requests to every larger server, all servers at once, under the same limits as everything else.

The sampled rows are ordinary rows of the server's first batch: what comes back is kept as results. A sampled row that
fails for a passing reason stays pending and is fetched later.

When servers that are being profiled join the download: soon after their own samples are in, not after everybody's.

The slowest sample takes seconds; the servers that are done with theirs do not wait for it. While a server is out with
its sampling lane, that lane has all of its limits: the ledger withholds its batches.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ddmpi.core.ledger.profile import Profile, profile_of, server_row_time_s
from ddmpi.core.ledger.schedule import Plan
from ddmpi.core.protocol import Assign, Lane, LaneReport, LaneState, Progress, Sample
from ddmpi.core.records import INVALID_SERVER, BatchRef, Limits, PaceState
from ddmpi.io.folder.profiles import write_profiles
from ddmpi.io.urls.batch_table import BatchTable, limits_by_group
from ddmpi.roles.coordinator.run_state import RunState

Target = tuple[str, BatchRef, int]
"""A server, its first batch, and how many batches it has."""


@dataclass(frozen=True)
class SortedOut:
    """A rank's message without the reports on sampling lanes, which are the profiler's."""

    rest: Progress
    """For the ledger."""
    released: tuple[int, ...]
    """Sampling lanes that are drained."""
    durable: Sequence[int]
    """Batches whose samples are in the message's parts, or those before."""


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
        self._servers: dict[str, list[tuple[str, int]]] = {}
        self._first_batches: dict[str, list[BatchRef]] = {}
        for server, ref, batches in targets:
            group = group_of(server)
            self._servers.setdefault(group, []).append((server, batches))
            self._first_batches.setdefault(group, []).append(ref)
        self._limits = limits
        self._known = paces
        self._samples_per_server = samples_per_server
        self._samples: dict[str, list[Sample]] = {}
        self._out: dict[int, str] = {}  # lanes that fetch, and their groups
        self._committing: dict[int, dict[int, tuple[int, ...]]] = {}  # others that are not drained: rows by batch
        self._back: list[str] = []
        self.paces: dict[str, PaceState] = {}
        """Paces that the samples have hurt (429, unreachable): the download starts with them."""

    def lanes(self, workers: Sequence[int]) -> dict[int, Assign]:
        """The sampling lanes of each rank: one per pace group, dealt out in turn. Their ids are negative."""
        dealt: dict[int, list[Lane]] = {}
        for number, (group, refs) in enumerate(self._first_batches.items(), start=1):
            known = {group: self._known[group]} if group in self._known else {}
            batches = tuple(msgspec.structs.replace(ref, sample_rows=self._samples_per_server) for ref in refs)
            lane = Lane(-number, group, False, self._limits(group), batches, known, sampling=True)
            dealt.setdefault(workers[number % len(workers)], []).append(lane)
            self._out[lane.lane_id] = group
        return {rank: Assign(tuple(lanes)) for rank, lanes in dealt.items()}

    def on_samples(self, samples: Iterable[Sample]) -> None:
        """Note what a rank measured."""
        for sample in samples:
            self._samples.setdefault(sample.server, []).append(sample)

    def on_lane(self, report: LaneReport) -> bool:
        """Note a lane's report; True if the lane is done and can be released."""
        if report.state is LaneState.DRAINED:
            del self._committing[report.lane_id]
            return True
        self.paces.update(report.paces)
        if report.state is LaneState.SAMPLED:
            self._back.append(self._out.pop(report.lane_id))
            self._committing[report.lane_id] = report.decided
        return False

    def sort_out(self, message: Progress) -> SortedOut:
        """Note the reports on sampling lanes; what is left of a rank's message, and what follows from them."""
        durable: list[int] = []
        released: list[int] = []
        for report in message.lanes:
            if is_sampling(report.lane_id):
                if report.state is LaneState.DRAINED:
                    durable += self.batches_of(report.lane_id)
                if self.on_lane(report):
                    released.append(report.lane_id)
        others = tuple(report for report in message.lanes if not is_sampling(report.lane_id))
        return SortedOut(msgspec.structs.replace(message, lanes=others), tuple(released), durable)

    def decided(self) -> dict[int, tuple[int, ...]]:
        """Samples that are not durable yet, rows by batch."""
        return {batch_id: rows for lane in self._committing.values() for batch_id, rows in lane.items()}

    def batches_of(self, lane_id: int) -> tuple[int, ...]:
        """The batches with samples of a lane that is not drained."""
        return tuple(self._committing[lane_id])

    def take_back(self) -> set[str]:
        """The pace groups that have been sampled since the last call."""
        groups = set(self._back)
        self._back.clear()
        return groups

    @property
    def groups_out(self) -> set[str]:
        """The pace groups that are still being sampled."""
        return set(self._out.values())

    @property
    def paces_out(self) -> dict[str, PaceState]:
        """Those of ``paces`` whose groups are still being sampled."""
        out = self.groups_out
        return {group: pace for group, pace in self.paces.items() if group in out}

    @property
    def is_done(self) -> bool:
        """Nothing is being sampled any more."""
        return not self._out

    @property
    def is_drained(self) -> bool:
        """And all samples are durable."""
        return not self._out and not self._committing

    @property
    def has_news(self) -> bool:
        """Whether ``take_back`` has something to give."""
        return bool(self._back)

    @property
    def progress(self) -> tuple[int, int]:
        """RateLimiter groups that are done, and all of them."""
        total = len(self._servers)
        return total - len(self._out), total

    def profiles(self, groups: Collection[str], rate_multiplier: float) -> dict[str, Profile]:
        """One profile per target in these pace groups."""
        return {
            server: profile_of(
                server, batches, self._limits(group).rate_per_s * rate_multiplier, self._samples.get(server, ())
            )
            for group in groups
            for server, batches in self._servers[group]
        }


def is_sampling(lane_id: int) -> bool:
    """Whether it is a lane of the profiler; those of the ledger have positive ids."""
    return lane_id < 0


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


log = logging.getLogger(__name__)

HEAD_START_S = 0.25
"""After so long the servers that have been profiled are scheduled by what was measured, with the largest first; those
that come later are given to whichever rank has the least to do."""
INTERVAL_S = 0.1
"""Then so often: each time is a big batch of its own."""


@dataclass(frozen=True)
class Admitted:
    """What was found out of the groups that join: by their index in the plan, and by name."""

    row_times: dict[int, float]
    """Seconds per row."""
    paces: dict[str, PaceState]
    decided: dict[int, tuple[int, ...]]
    """Samples, rows by batch, that are not durable yet."""


class Admission:
    """The servers of a run that are being profiled, and those of them that are done."""

    def __init__(self, profiler: Profiler, state: RunState, now: float) -> None:
        self.profiler = profiler
        self._state = state
        self._due_at = now + HEAD_START_S
        self._lanes_out: Counter[int] = Counter()  # by index of the plan's group, which may be several servers

    @classmethod
    def begin(cls, state: RunState, now: float) -> Admission | None:
        """Begin to profile the servers of which too little is known; None if there are none, or nobody wants that."""
        config = state.config
        if config.profiling.mode != "measure" or state.stages.get("profiled"):
            return None
        wanted = targets(state.table, config.profiling.min_rows, state.profiles, state.is_open, state.begun_ref)
        if not wanted:
            return None
        log.info("profiling %d servers", len(wanted))
        limits = limits_by_group(config, state.profiles)
        samples = config.profiling.samples_per_server
        return cls(Profiler(wanted, limits, config.group_of, state.known_paces(), samples), state, now)

    def is_due(self, now: float) -> bool:
        """Whether it is time for ``take``."""
        return now >= self._due_at or self.profiler.is_drained or (self.profiler.is_done and self.profiler.has_news)

    def take(self, now: float) -> set[str]:
        """The pace groups that are done since the last time; their profiles count from now on."""
        self._due_at = now + INTERVAL_S
        groups = self.profiler.take_back()
        multiplier = self._state.config.downloader_parameters.rate_multiplier
        self._state.profiles.update(self.profiler.profiles(groups, multiplier))
        return groups

    def withhold(self, plan: Plan) -> set[int]:
        """The groups of the plan that are still being profiled."""
        indexes = (plan.group_of_server(group, group) for group in self.profiler.groups_out)
        self._lanes_out.update(index for index in indexes if index is not None)
        return set(self._lanes_out)

    def admit(self, plan: Plan, groups: set[str]) -> Admitted:
        """What the plan's groups need to know that join now."""
        times: dict[int, float] = {}
        for group in groups:
            index = plan.group_of_server(group, group)
            if index is None:
                continue
            self._lanes_out[index] -= 1
            if not self._lanes_out[index]:
                times[index] = server_row_time_s(plan.limits(group), self._state.profiles.get(group))
        paces = {group: self.profiler.paces[group] for group in groups if group in self.profiler.paces}
        return Admitted(times, paces, self.profiler.decided())

    def finish(self) -> None:
        """All are profiled: write it down.

        Raises:
            StorageError: profiles.csv cannot be written.
        """
        write_profiles(self._state.layout.profiles, self._state.profiles, self._state.layout.temporary)
        self._state.stages["profiled"] = True
