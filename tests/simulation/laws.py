"""The four laws, checked at every step of a simulated run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from protego import Protego

from ddmpi.core.ledger.known_paces import PAUSE_NEWS_S
from ddmpi.core.ledger.schedule import SPLIT_ABOVE_PER_S
from ddmpi.core.pace.overrides import Overrides
from ddmpi.core.pace.rate_limiter import BURST_S
from ddmpi.core.protocol import Handoff
from ddmpi.core.records import Answer, Limits, Task, is_packed
from tests.simulation.rank import COORDINATOR, Witness
from tests.simulation.simulation import RunReport, Simulation
from tests.simulation.world import Disk, World

UNDERWAY = -2
"""In place of a rank: the row is in a message about a redirect."""
ROUNDING = 1e-6
NEWS_S = 12.0
"""After so long every rank knows that the server has asked for a pause, even if one was stalled for 8 s."""

Row = tuple[int, int]


class Laws(Witness):
    """Fails at the step that breaks a law. One object watches one run; ``disk`` is what earlier runs have left."""

    def __init__(self, world: World, disk: Disk) -> None:
        self.world = world
        self.disk = disk
        self.simulation: Simulation | None = None
        self.decided_rows: set[Row] = {(part.batch_id, row) for part in disk.parts.values() for row in part.rows}
        self.owners: dict[Row, int] = {}
        self.in_flight_rows: set[Row] = set()
        self.in_flight: Counter[str] = Counter()
        self.starts: Counter[str] = Counter()
        self.levels: dict[str, tuple[float, float]] = {}
        self.holders: dict[str, set[int]] = {}
        self.pauses: dict[str, float] = {}
        self.own_pauses: dict[tuple[str, int], float] = {}
        self.paused_at: dict[str, float] = {}
        self.robots = {server: Protego.parse(text) for server, text in (world.robots or {}).items()}

    @property
    def _simulation(self) -> Simulation:
        assert self.simulation is not None
        return self.simulation

    # ---- law 1: every row has one owner or one outcome

    def loaded(self, rank: int, batch_id: int, rows: Sequence[int]) -> None:
        for row in rows:
            key = (batch_id, row)
            assert key not in self.decided_rows, f"row {key} is fetched again by rank {rank}"
            assert key not in self.owners, f"row {key} of rank {self.owners[key]} comes to rank {rank} as well"
            self.owners[key] = rank

    def withdrawn(self, batch_id: int) -> None:
        for key in [key for key in self.owners if key[0] == batch_id]:
            assert key not in self.in_flight_rows, f"row {key} is in flight while nobody works on its batch"
            del self.owners[key]

    def decided(self, rank: int, batch_id: int, row: int) -> None:
        key = (batch_id, row)
        assert key not in self.decided_rows, f"row {key} has two outcomes"
        assert self.owners.pop(key) in {rank, UNDERWAY}
        self.decided_rows.add(key)

    def handed_off(self, rank: int, handoff: Handoff) -> None:
        key = (handoff.batch.batch_id, handoff.row)
        assert self.owners[key] == rank
        self.owners[key] = UNDERWAY

    # ---- law 2: limits hold over all ranks

    def started(self, now: float, rank: int, task: Task, lane_id: int) -> None:
        if not task.robots_of:
            self._check_row(rank, task)
        group = self.world.group_of(task.server)
        self._check_lease(rank, lane_id, task.server, group)
        self._check_pauses(now, rank, group)
        limits = self._limits_at(now, group)
        self.in_flight[group] += 1
        self.starts[group] += 1
        assert self.in_flight[group] <= limits.connections, f"{group}: {self.in_flight[group]} requests at once"
        burst = max(1.0, limits.rate_per_s * BURST_S)
        if may_have_several_lanes(limits):
            burst += len(self.holders[group])
        self._check_rate(now, group, limits.rate_per_s, burst)
        if not task.robots_of and group == task.server and group in self.robots:
            # Each lane asks for the file before it knows of the delay.
            delay_s = self.robots[group].crawl_delay("ddmpi") or 0.0
            self._check_rate(now, f"rows of {group}", delay_s and 1 / delay_s, 1.0 + len(self.holders[group]))

    def _check_row(self, rank: int, task: Task) -> None:
        key = (task.batch_id, task.row)
        assert key not in self.decided_rows, f"row {key} has an outcome and is fetched again"
        assert key not in self.in_flight_rows, f"row {key} is fetched twice at once"
        assert self.owners[key] in {rank, UNDERWAY}, f"row {key} of rank {self.owners[key]} is fetched by rank {rank}"
        self.owners[key] = rank
        self.in_flight_rows.add(key)
        robots = self.robots.get(task.server)
        assert robots is None or robots.can_fetch(task.url, "ddmpi"), f"{task.url} is disallowed"

    def _limits_at(self, now: float, group: str) -> Limits:
        """The loosest of the limits by which a rank may still go: news of others take their time."""
        planned = self.world.limits_for(group)
        controls = [(-math.inf, ()), *self._simulation.cluster.controls]
        ends = [*(at for at, _ in controls[1:]), math.inf]
        valid = [rules for (at, rules), end in zip(controls, ends, strict=True) if at <= now < end + NEWS_S]
        found = [limits for rules in valid if (limits := Overrides(rules).limits(group, planned)) is not None]
        assert found, f"{group} is paused, and asked at {now}"
        rates = [limits.rate_per_s for limits in found]
        return Limits(max(rates) if min(rates) > 0 else 0.0, max(limits.connections for limits in found))

    def _check_lease(self, rank: int, lane_id: int, server: str, group: str) -> None:
        simulation = self._simulation
        lanes = simulation.sampling if lane_id < 0 and simulation.sampling is not None else simulation.ledger
        assert lanes.holder(lane_id) == rank, f"rank {rank} fetches from {server} under lane {lane_id}: not its own"
        served = lanes.lane_group(lane_id)
        assert served is not None
        assert served == group or is_packed(served), f"rank {rank} fetches from {server} under a lane of {served}"
        self.holders.setdefault(group, set()).add(lane_id)

    def _check_rate(self, now: float, group: str, rate_per_s: float, burst: float) -> None:
        """At most ``rate * w + burst`` starts in every window of ``w`` seconds, as a bucket that leaks."""
        if rate_per_s <= 0:
            return
        level, at = self.levels.get(group, (0.0, now))
        level = max(0.0, level - (now - at) * rate_per_s) + 1
        self.levels[group] = (level, now)
        assert level <= burst + ROUNDING, f"{group}: {level} requests at once at {now}, {burst} allowed"

    def _check_pauses(self, now: float, rank: int, group: str) -> None:
        own_until = self.own_pauses.get((group, rank), -math.inf)
        assert now >= own_until - ROUNDING, f"{group} asked rank {rank} to wait until {own_until}, asked at {now}"
        until = self.pauses.get(group, -math.inf)
        if may_have_several_lanes(self.world.limits_for(group)):
            if now < self.paused_at.get(group, -math.inf) + NEWS_S:
                return
            # Two pauses that differ by less than a message takes cannot be told apart: clocks of ranks are their own.
            until -= PAUSE_NEWS_S + self._simulation.cluster.most_latency_s
        assert now >= until - ROUNDING, f"{group} asked to wait until {until}, rank {rank} asks at {now}"

    def answered(self, now: float, rank: int, answer: Answer) -> None:
        task = answer.task
        if not task.robots_of:
            self.in_flight_rows.discard((task.batch_id, task.row))
        group = self.world.group_of(task.server)
        self.in_flight[group] -= 1
        if answer.status == 429 and answer.retry_after:
            until = now + float(answer.retry_after)
            self.pauses[group] = max(until, self.pauses.get(group, until))
            self.own_pauses[group, rank] = max(until, self.own_pauses.get((group, rank), until))
            self.paused_at[group] = now

    # ---- all states are sound

    def stepped(self, rank: int) -> None:
        if rank == COORDINATOR:
            self._simulation.ledger.validate()
        else:
            self._simulation.ranks[rank].core.frontier.validate()

    # ---- at the end

    def check_end(self, report: RunReport) -> None:
        """Laws 1, 3 and 4 after a run that was not killed."""
        committed: Counter[Row] = Counter()
        for part in self.disk.parts.values():
            committed.update((part.batch_id, row) for row in part.rows)
        assert max(committed.values(), default=1) == 1
        assert set(committed) == self.decided_rows
        ledger = self._simulation.ledger
        assert ledger.rows_final() == len(committed)
        starts = sum(self.starts.values())
        assert report.idle_wakes <= 2 * starts + 100, f"{report.idle_wakes} wakes for nothing, {starts} requests"
        full = [batch_id for batch_id, batch in enumerate(self.world.batches) if self._is_full(batch_id, committed)]
        assert len(set(report.completed)) == len(report.completed)
        assert set(report.completed) <= set(full)
        if not report.was_stuck and self._simulation.cluster.stop_at_s == math.inf:
            assert len(committed) == self.world.rows, f"{self.world.rows - len(committed)} rows are missing"
            assert sorted(report.verified) == sorted(report.completed)

    def _is_full(self, batch_id: int, committed: Counter[Row]) -> bool:
        return all((batch_id, row) in committed for row in range(len(self.world.batches[batch_id].rows)))


def may_have_several_lanes(limits: Limits) -> bool:
    """Whether a second rank may help with the group at all (see ``schedule.lanes_for``)."""
    return not 0 < limits.rate_per_s <= SPLIT_ABOVE_PER_S


def run(simulation: Simulation, laws: Laws) -> RunReport:
    """Run the simulation under the eyes of the laws."""
    laws.simulation = simulation
    report = simulation.run()
    if not report.was_killed:
        laws.check_end(report)
    return report
