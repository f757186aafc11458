"""A whole run in one process, without network, disk and clock: the ledger and N frontiers over a simulated world. Pure.

A discrete event simulation: a heap of (time, sequence, what to do). Messages are encoded and decoded as in a real run,
take a random time, and arrive in order between two ranks and in any order otherwise, as MPI promises.

Invariants: the same arguments give the same run; time never runs backwards; a run that makes no progress ends with
``SimulationError`` instead of going on for ever.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from ddmpi.core.frontier.interface import CHUNK_ROWS, LOW_WATER_ROWS, FrontierConfig
from ddmpi.core.ledger.actions import Action, BatchCompleted, BigBatchEnded, BigBatchStarted, Scatter, Send
from ddmpi.core.ledger.batch_counts import BatchCounts
from ddmpi.core.ledger.ledger import Ledger
from ddmpi.core.pace.policy import PacePolicy
from ddmpi.core.protocol import (
    Assign,
    ControlOverride,
    Finished,
    HandedOff,
    LaneReport,
    LaneState,
    Message,
    Progress,
    Release,
    Samples,
    SetControl,
    StealResponse,
    Stop,
    StopReason,
    ToCoordinator,
    ToDownloader,
    WorkRequest,
    decode,
    encode,
    report_interval_s,
)
from ddmpi.core.records import PaceState
from ddmpi.core.rules.retry import RetryPolicy
from tests.simulation.rank import COORDINATOR, RankModel, SimulatedRank, Surroundings, Witness
from tests.simulation.sampling import Sampling
from tests.simulation.world import Disk, Network, World

GRACE_S = 8.0
TICK_S = 0.25
"""How often the coordinator looks at time-outs and at whether the run is over."""
EVENTS_PER_ROW = 400
EVENTS_PER_RANK = 200_000
"""Bounds on the events of a run; waiting costs two reports a second, so these are hours of it."""


class SimulationError(Exception):
    """The simulated run does not come to an end, or a message came where it cannot."""


@dataclass(frozen=True)
class Cluster:
    """The ranks of a run and what lies between them."""

    ranks: int
    """Ranks that download."""
    models: Mapping[int, RankModel] = field(default_factory=dict)
    """By rank (from 0); ``model`` for all others."""
    model: RankModel = field(default_factory=RankModel)
    least_latency_s: float = 0.0001
    most_latency_s: float = 0.02
    """Bounds on how long a message takes."""
    schedule_rules: Mapping[int, int] = field(default_factory=lambda: {1: 1})
    connections_per_rank: int = 256
    chunk_rows: int = CHUNK_ROWS
    low_water_rows: int = LOW_WATER_ROWS
    """These two as in ``frontier``; smaller ones make small tables as eventful as large ones."""
    pace: PacePolicy = field(default_factory=PacePolicy)
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(5))
    final_wait_s: float = 1800.0
    stop_at_s: float = math.inf
    """A soft stop at this time."""
    grace_s: float = GRACE_S
    """What requests in flight get then."""
    controls: Sequence[tuple[float, Sequence[ControlOverride]]] = ()
    """(time in s, the rules that hold from then on)."""
    samples: int = 0
    """Rows of each server that are fetched to profile it, before its batches flow."""
    kill_at_s: float = math.inf
    """SIGKILL for all ranks at this time."""


@dataclass
class RunReport:
    """How a run ended."""

    ended_at_s: float
    was_killed: bool
    was_stuck: bool
    """Only parked rows were left."""
    requests: int
    steals: int
    events: int
    idle_wakes: int
    completed: list[int]
    """Batches that got their marker, in order."""
    verified: list[int]
    """Batches of ended big batches, in order."""
    paces: dict[str, PaceState]
    """What a checkpoint would hold."""


class Simulation:
    """One run over ``world`` and ``disk``, from the first message to the last ``Finished`` or the kill."""

    def __init__(
        self,
        world: World,
        cluster: Cluster,
        disk: Disk,
        witness: Witness,
        *,
        seed: int,
        paces: Mapping[str, PaceState] | None = None,
        start_at_s: float = 0.0,
    ) -> None:
        self.now = start_at_s
        self.world = world
        self.disk = disk
        self.cluster = cluster
        self._rng = random.Random(seed)
        self._paces = paces or {}
        self._witness = witness
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._sequence = itertools.count()
        self._arrived_at: dict[tuple[int, int], float] = {}
        self._network = Network(world, self._rng)
        plan = world.plan(range(cluster.ranks), cluster.schedule_rules)
        successes, errors, parts = disk.count(len(world.batches))
        rows_left = plan.batch_rows - successes - errors
        self.sampling = Sampling(plan, rows_left, parts, cluster.samples) if cluster.samples else None
        self.ledger = Ledger(plan, BatchCounts(plan.batch_rows, successes, errors, parts))
        self.ranks = [self._make_rank(rank) for rank in range(cluster.ranks)]
        self._turns = [math.inf] * cluster.ranks
        self._finished: set[int] = set()
        self._stopping = False
        self._was_stuck = False
        self._ended = False
        self._events = 0
        self._completed: list[int] = []
        self._verified: list[int] = []
        for rank in range(cluster.ranks):
            self._plan_turn(rank)

    def _make_rank(self, rank: int) -> SimulatedRank:
        cluster = self.cluster
        model = cluster.models.get(rank, cluster.model)

        def locate(location: str) -> tuple[str, str] | str:
            server = location.removeprefix("http://").partition("/")[0]
            return (location, server) if server in self.world.servers else "no such server"

        def call_at(at: float, call: Callable[[float], None]) -> None:
            def arrive(now: float) -> None:
                call(now)
                self._plan_turn(rank, now)

            self._at(at, arrive)

        rules = FrontierConfig(
            self.world.limits_for,
            self.world.group_of,
            locate,
            cluster.pace,
            cluster.retry,
            cluster.connections_per_rank,
            cluster.chunk_rows,
            cluster.low_water_rows,
            None if self.world.robots is None else lambda _: True,
            accept="any",
            checkpoint_interval_s=model.checkpoint_interval_s,
        )
        surroundings = Surroundings(
            world=self.world,
            network=self._network,
            disk=self.disk,
            rng=self._rng,
            witness=self._witness,
            send=lambda message: self._send_up(rank, message),
            at=call_at,
        )
        return SimulatedRank(rank, model, rules, surroundings, self.now, every_s=report_interval_s(cluster.ranks))

    # ---- time

    def _at(self, at: float, call: Callable[[float], None]) -> None:
        heapq.heappush(self._heap, (at, next(self._sequence), call))

    def run(self) -> RunReport:
        """From the first big batch to the end.

        Raises:
            SimulationError: more events than a run of this size can need.
        """
        most = EVENTS_PER_RANK * (self.cluster.ranks + 1) + EVENTS_PER_ROW * self.world.rows
        withheld = self.sampling.groups_out if self.sampling is not None else ()
        if self.sampling is not None:
            self._perform([Scatter(self.sampling.assigns(dict(self._paces)))])
        actions = self.ledger.start(1, self._paces, self.now, withheld)
        if not any(isinstance(action, Scatter) for action in actions):
            actions.append(Scatter({}))
        self._perform(actions)
        self._tick(self.now)
        for at_s, rules in self.cluster.controls:
            self._control_at(at_s, SetControl(tuple(rules)))
        while self._heap and not self._ended:
            at, _, call = heapq.heappop(self._heap)
            if at >= self.cluster.kill_at_s:
                return self._report(was_killed=True)
            self.now = at
            call(at)
            self._events += 1
            if self._events > most:
                raise SimulationError(f"no end after {most} events, at {at} s: {self.ledger!r} {self.ranks!r}")
        return self._report(was_killed=False)

    def _control_at(self, at_s: float, message: SetControl) -> None:
        def tell(_: float) -> None:
            for rank in range(self.cluster.ranks):
                self._send_down(rank, message)

        self._at(at_s, tell)

    def _report(self, *, was_killed: bool) -> RunReport:
        return RunReport(
            ended_at_s=self.now,
            was_killed=was_killed,
            was_stuck=self._was_stuck,
            requests=sum(rank.requests for rank in self.ranks),
            steals=self.ledger.steals,
            events=self._events,
            idle_wakes=sum(rank.idle_wakes for rank in self.ranks),
            completed=self._completed,
            verified=self._verified,
            paces=self.ledger.paces(self.now),
        )

    def _plan_turn(self, rank: int, at: float = math.inf) -> None:
        """The rank gets its next turn at ``at``, or when it wants one if that is earlier."""
        it = self.ranks[rank]
        at = max(self.now, it.free_at, min(at, it.next_turn_at()))
        model = it.model
        if model.stall_at_s <= at < model.stall_at_s + model.stall_s:
            at = model.stall_at_s + model.stall_s
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

    # ---- messages

    def _delivery_at(self, source: int, target: int) -> float:
        latency_s = self._rng.uniform(self.cluster.least_latency_s, self.cluster.most_latency_s)
        at = max(self._arrived_at.get((source, target), 0.0), self.now + latency_s)
        self._arrived_at[source, target] = at
        return at

    def _send_down(self, rank: int, message: ToDownloader) -> None:
        data = encode(message)

        def arrive(now: float) -> None:
            self.ranks[rank].receive(cast(ToDownloader, decode(data)))
            self._plan_turn(rank, now)

        self._at(self._delivery_at(COORDINATOR, rank), arrive)

    def _send_up(self, rank: int, message: ToCoordinator) -> None:
        data = encode(message)
        self._at(self._delivery_at(rank, COORDINATOR), lambda now: self._handle(rank, decode(data), now))

    # ---- the coordinator, as roles.coordinator does it

    def _handle(self, rank: int, message: Message, now: float) -> None:
        match message:
            case Progress():
                self._on_progress(rank, message, now)
            case WorkRequest():
                self._perform(self.ledger.on_work_request(rank, message, now))
            case StealResponse():
                self._perform(self.ledger.on_steal_response(rank, message, now))
            case HandedOff(handoffs):
                self._perform(self.ledger.on_handed_off(rank, handoffs, now))
            case Finished():
                self._finished.add(rank)
                self._ended = len(self._finished) == self.cluster.ranks
            case Samples():
                return  # this rank 0 profiles by row times alone
            case _:
                raise SimulationError(f"rank {rank} sent {message!r}")
        self._witness.stepped(COORDINATOR)

    def _on_progress(self, rank: int, message: Progress, now: float) -> None:
        ended: Sequence[LaneReport] = ()
        if self.sampling is not None:
            message, ended = self.sampling.split(message)
        self._perform(self.ledger.on_progress(rank, message, now))
        for report in ended:
            self._end_sampling(rank, report, now)

    def _end_sampling(self, rank: int, report: LaneReport, now: float) -> None:
        assert self.sampling is not None  # who else has lanes that are not the ledger's?
        if report.state is LaneState.DRAINED:
            self._deliver(rank, Release((report.lane_id,)))
            self._perform(self.ledger.samples_durable((self.sampling.commit(report),)))
            return
        group, batch_id = self.sampling.end(report)
        self._witness.withdrawn(batch_id)
        if not self._stopping:
            times = {group: float(self.ledger.plan.row_times[group])}
            self._perform(self.ledger.admit(times, report.paces, now, report.decided))

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(rank, message):
                    self._deliver(rank, message)
                case Scatter(assigns):
                    for rank in range(self.cluster.ranks):
                        self._deliver(rank, assigns.get(rank, Assign(())))
                case BatchCompleted(batch_id):
                    self._completed.append(batch_id)
                case BigBatchEnded(_, batch_ids):
                    self._verified += batch_ids
                case BigBatchStarted():
                    pass
                case _:
                    raise TypeError(f"unknown action {action!r}")

    def _deliver(self, rank: int, message: ToDownloader) -> None:
        """While the run stops, no rank gets new work."""
        if not (self._stopping and isinstance(message, Assign)):
            self._send_down(rank, message)

    def _tick(self, now: float) -> None:
        if self._stopping:
            return
        self._perform(self.ledger.tick(now))
        self._witness.stepped(COORDINATOR)
        if self.ledger.is_complete:
            self._stop(StopReason.DONE, 0.0)
        elif now >= self.cluster.stop_at_s:
            self._stop(StopReason.SIGNAL, self.cluster.grace_s)
        elif self.ledger.is_stuck(now, self.cluster.final_wait_s):
            self._was_stuck = True
            self._stop(StopReason.DONE, 0.0)
        else:
            self._at(now + TICK_S, self._tick)

    def _stop(self, reason: StopReason, grace_s: float) -> None:
        self._stopping = True
        for rank in range(self.cluster.ranks):
            self._send_down(rank, Stop(reason, grace_s))
