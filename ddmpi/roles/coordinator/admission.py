"""When servers that are being profiled join the download: soon after their own samples are in, not after everybody's.

The slowest sample takes seconds; the servers that are done with theirs do not wait for it. While a server is out with
its sampling lane, that lane has all of its limits: the ledger withholds its batches.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

from ddmpi.core.ledger.schedule import Plan
from ddmpi.core.records import PaceState
from ddmpi.io.folder.profiles import write_profiles
from ddmpi.io.urls.batch_table import limits_by_group, server_row_time_s
from ddmpi.roles.coordinator.profiling import Profiler, targets
from ddmpi.roles.coordinator.run_state import RunState

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
