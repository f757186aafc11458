"""One life of a job without network, disk and clock: the core of rank 0 and those of N ranks over a simulated world.

A discrete event simulation: a heap of (time, sequence, what to do). Messages are encoded and decoded as in a real run,
take a random time, and arrive in order between two ranks and in any order otherwise, as MPI promises.

Invariants: the same arguments give the same run; time never runs backwards; no progress is a ``SimulationError``.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from ddmpi.core import protocol as msg
from ddmpi.core.ledger import actions as act
from ddmpi.core.ledger.known_paces import aged
from ddmpi.core.ledger.rank0_core import Rank0Config, Rank0Core
from ddmpi.core.records import PaceState
from tests.laws.witness import COORDINATOR, Witness
from tests.simulation.disk import Disk
from tests.simulation.rank import SimulatedRank, Surroundings
from tests.worlds.model import Cluster, RunReport, World
from tests.worlds.network import Network

TICK_S = 0.25
"""How often rank 0 has its turn when no message comes."""
CHECKPOINT_S, SOON_S = 10.0, 1.0
"""How often a checkpoint is written, and how soon after another."""
EVENTS_PER_ROW = 400
EVENTS_PER_RANK = 200_000
"""Bounds on the events of a run; waiting costs two reports a second, so these are hours of it."""


class SimulationError(Exception):
    """The simulated run does not come to an end."""


class Simulation:
    """One run over ``world`` and ``disk``, from the first message to the last or the kill."""

    def __init__(
        self,
        world: World,
        cluster: Cluster,
        disk: Disk,
        witness: Witness,
        *,
        seed: int,
        before: RunReport | None = None,
        start_at_s: float = 0.0,
    ) -> None:
        self.now = self._began_at = start_at_s
        self.world = world
        self.cluster = cluster
        self._rng = random.Random(seed)
        self._disk = disk
        self._witness = witness
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._sequence = itertools.count()
        self._arrived_at: dict[tuple[int, int], float] = {}
        self._network = Network(world, self._rng)
        workers = range(cluster.ranks)
        counts = disk.count(world)
        paces = {} if before is None else _all_aged(before.paces, start_at_s - before.ended_at_s)
        self.core = Rank0Core(
            Rank0Config(
                workers, world.limits_for, world.rate_of, world.group_of, cluster.parked_wait_s, cluster.final_wait_s,
                cluster.walltime_at_s, samples_per_server=cluster.samples, grace_s=cluster.grace_s,
            ),
            counts,
            make_plan=lambda _: world.plan(workers, cluster.schedule_rules),
            targets=world.targets(counts) if cluster.samples else (),
            profiles={},
            paces=paces,
            next_number=1,
            now=start_at_s,
        )  # fmt: skip
        self.ranks = [self._make_rank(rank, is_restart=before is not None) for rank in workers]
        self._turns = [math.inf] * cluster.ranks
        self._soon_s = SOON_S * cluster.rarely
        self._sampled: dict[int, tuple[int, ...]] = {}  # batches of each sampling lane
        self._checkpoint = (start_at_s, paces)
        self._save_at = start_at_s + CHECKPOINT_S * cluster.rarely
        self._stop: act.StopBegan | None = None
        self._ended: act.RunEnded | None = None
        self._completed: list[int] = []
        self._verified: list[int] = []

    def _make_rank(self, rank: int, *, is_restart: bool) -> SimulatedRank:
        cluster = self.cluster
        model = cluster.models.get(rank, cluster.model)

        def call_at(at: float, call: Callable[[float], None]) -> None:
            def arrive(now: float) -> None:
                call(now)
                self._plan_turn(rank, now)

            self._at(at, arrive)

        config = cluster.frontier_config(self.world, model, is_restart=is_restart)
        surroundings = Surroundings(
            self.world, self._network, self._disk, self._rng, self._witness,
            send=lambda message: self._send_up(rank, message), at=call_at,
        )  # fmt: skip
        return SimulatedRank(rank, model, config, surroundings, self.now, every_s=cluster.report_interval_s)

    # ---- time

    def _at(self, at: float, call: Callable[[float], None]) -> None:
        heapq.heappush(self._heap, (at, next(self._sequence), call))

    def run(self) -> RunReport:
        """From the first lanes to the end.

        Raises:
            SimulationError: more events than a run of this size can need.
        """
        most = EVENTS_PER_RANK * (self.cluster.ranks + 1) + EVENTS_PER_ROW * self.world.rows
        self._perform(self.core.start(self.now))
        self._tick(self.now)
        for rank in range(self.cluster.ranks):
            self._plan_turn(rank)
        for at_s, rules in self.cluster.controls:
            self._at(at_s, lambda _, rules=rules: self._perform(self.core.set_overrides(rules)))  # type: ignore[misc]
        self._at(self.cluster.stop_at_s, lambda now: self._perform(self.core.stop(msg.StopReason.SIGNAL, now)))
        for _ in range(most):
            at, _, call = heapq.heappop(self._heap)
            if at >= self.cluster.kill_at_s:
                break
            self.now = at
            call(at)
            if self._ended is not None:
                break
        else:
            raise SimulationError(f"no end after {most} events, at {self.now} s: {self.core.ledger!r} {self.ranks!r}")
        return self._report()

    def _report(self) -> RunReport:
        ended_at_s = self.cluster.kill_at_s if self._ended is None else self.now
        saved_at, paces = self._checkpoint
        return RunReport(
            began_at_s=self._began_at,
            ended_at_s=ended_at_s,
            was_killed=self._ended is None,
            was_stuck=self._stop is not None and self._stop.is_stuck,
            unfinished=self._ended.unfinished if self._ended is not None else (),
            requests=sum(rank.core.reports.requests for rank in self.ranks),
            steals=self.core.steals,
            idle_wakes=sum(rank.idle_wakes for rank in self.ranks),
            completed=self._completed,
            verified=self._verified,
            paces=_all_aged(paces, ended_at_s - saved_at),
        )

    def _plan_turn(self, rank: int, at: float = math.inf) -> None:
        """The rank gets its next turn at ``at``, or when it wants one if that is earlier."""
        it, model = self.ranks[rank], self.ranks[rank].model
        at = max(self.now, it.free_at, min(at, it.next_turn_at()))
        if model.stall_at_s <= at - self._began_at < model.stall_at_s + model.stall_s:
            at = self._began_at + model.stall_at_s + model.stall_s
        if at >= self._turns[rank] or at == math.inf:
            return
        self._turns[rank] = at

        def take_turn(now: float) -> None:
            if self._turns[rank] != now:
                return
            self._turns[rank] = math.inf
            it.turn(now)
            self._witness.stepped(rank)
            self._plan_turn(rank)

        self._at(at, take_turn)

    def _tick(self, now: float) -> None:
        self._take_turn(now)
        self._at(now + TICK_S * self.cluster.rarely, self._tick)

    def _take_turn(self, now: float) -> None:
        """Rank 0 has its turn, as after each message and while it ends."""
        actions = self.core.turn(now, verifying=False)
        if actions:
            self._perform(actions)
            self._witness.stepped(COORDINATOR)
        if now >= self._save_at:
            self._save()
        if self.core.is_ending:
            self._at(now, self._take_turn)

    # ---- messages

    def _delivery_at(self, source: int, target: int) -> float:
        latency_s = self._rng.uniform(self.cluster.least_latency_s, self.cluster.most_latency_s)
        at = max(self._arrived_at.get((source, target), 0.0), self.now + latency_s)
        self._arrived_at[source, target] = at
        return at

    def _send_down(self, rank: int, message: msg.ToDownloader) -> None:
        data = msg.encode(message)

        def arrive(now: float) -> None:
            self.ranks[rank].receive(cast("msg.ToDownloader", msg.decode(data)))
            self._plan_turn(rank, now)

        self._at(self._delivery_at(COORDINATOR, rank), arrive)

    def _send_up(self, rank: int, message: msg.ToCoordinator) -> None:
        data = msg.encode(message)

        def arrive(now: float) -> None:
            self._perform(self.core.handle(rank, arrived := cast("msg.ToCoordinator", msg.decode(data)), now))
            for report in arrived.lanes if isinstance(arrived, msg.Progress) else ():
                if report.state is msg.LaneState.SAMPLED:
                    for batch_id in self._sampled[report.lane_id]:
                        self._witness.withdrawn(batch_id)
            self._witness.stepped(COORDINATOR)
            self._take_turn(now)

        self._at(self._delivery_at(rank, COORDINATOR), arrive)

    # ---- what rank 0 decides

    def _perform(self, actions: Iterable[act.Action]) -> None:
        for action in actions:
            match action:
                case act.Send(rank, message):
                    self._send_down(rank, message)
                case act.Scatter(assigns):
                    for rank in range(self.cluster.ranks):
                        self._scatter(rank, assigns.get(rank, msg.Assign(())))
                case act.BatchCompleted(batch_id):
                    self._completed.append(batch_id)
                case act.BigBatchEnded(_, batch_ids):
                    self._verified += batch_ids
                case act.SaveCheckpoint(soon):
                    self._save_at = min(self._save_at, max(self.now, self._checkpoint[0] + soon * self._soon_s))
                    if not soon:
                        self._save()
                case act.StopBegan():
                    self._stop = action
                case act.RunEnded():
                    self._ended = action
                case _:
                    pass  # what only people or files hear of

    def _scatter(self, rank: int, message: msg.Assign) -> None:
        for lane in message.lanes:
            if lane.sampling:
                self._sampled[lane.lane_id] = tuple(batch.batch_id for batch in lane.batches)
        self._send_down(rank, message)

    def _save(self) -> None:
        self._checkpoint = (self.now, self.core.paces(self.now))
        self._save_at = self.now + CHECKPOINT_S * self.cluster.rarely


def _all_aged(paces: Mapping[str, PaceState], age_s: float) -> dict[str, PaceState]:
    return {name: aged(state, age_s) for name, state in paces.items()}
