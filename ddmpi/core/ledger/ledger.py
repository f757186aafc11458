"""How work flows out of rank 0, what comes back, and when nothing is left. Pure.

Decide, then do: each method takes one message and returns actions. The ledger knows no MPI, no file and no clock;
``now`` is monotonic seconds of rank 0. Its accounts have files of their own: ``batch_accounts`` (what flows when),
``batch_counts`` (what is final), ``leases`` (who holds which lane), ``known_paces``, ``stealing``.

Invariant, beside those of its accounts: a lane's lease ends only with a ``DRAINED`` report that has seen all of its
extensions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from ddmpi.core import protocol as msg
from ddmpi.core.ledger.actions import Action, BigBatchStarted, Scatter, ScheduleRow, Send
from ddmpi.core.ledger.batch_accounts import BatchAccounts
from ddmpi.core.ledger.batch_counts import BatchContent, BatchCounts
from ddmpi.core.ledger.known_paces import KnownPaces
from ddmpi.core.ledger.leases import Lease, Leases, LeaseState
from ddmpi.core.ledger.schedule import BATCHES_PER_WORKER, LeastLoaded, Plan, lanes_for
from ddmpi.core.ledger.stealing import Stealing
from ddmpi.core.records import PaceState
from ddmpi.errors import TransitionError

LATE_S = 5.0
"""A rank says within so long that a pause is over: it reports every half second, of 1,000 ranks each every 5 s."""

_NOTHING: Mapping[int, tuple[int, ...]] = MappingProxyType({})


class Ledger:
    """The accounts of one run. See the module's docstring."""

    def __init__(self, plan: Plan, counts: BatchCounts) -> None:
        """
        Args:
            counts: what is final of each batch, as in the output folder; changed in place.
        """
        self.plan = plan
        self._counts = counts
        self.batches = BatchAccounts(plan, counts)
        self.paces = KnownPaces(lambda server: self._group_of(server, server))
        self._leases = Leases(plan, self.batches, self.paces)
        self._parked_since = math.inf  # since when no lane has been able to start anything but probes
        self._stops = False
        self.stealing = Stealing(plan, self._leases, self.batches)
        self._next_number = 1
        self._withheld_handoffs: dict[int, list[tuple[int, msg.Handoff]]] = {}  # to withheld groups, with their sender

    # ---- work flows out

    def start(
        self,
        first_number: int,
        paces: Mapping[str, PaceState],
        now: float,
        withheld: Collection[int] = (),
        decided: Mapping[int, tuple[int, ...]] = _NOTHING,
    ) -> list[Action]:
        """The first big batch.

        Args:
            paces: what is known of servers from profiling and earlier runs.
            withheld: indexes of groups whose limits sampling lanes use, until ``admit``.
            decided: samples of the other groups, rows by batch, that are in no part before ``samples_durable``.
        """
        self.batches.note_sampled(decided)
        self._next_number = first_number
        self.paces.learn(paces, now)
        if withheld:
            self.batches.withhold(withheld)
        return self._flow(now)

    def admit(
        self,
        row_times: Mapping[int, float],
        paces: Mapping[str, PaceState],
        now: float,
        decided: Mapping[int, tuple[int, ...]] = _NOTHING,
    ) -> list[Action]:
        """Let groups join in, with what was found out of them: no sampling lane uses their limits any more.

        Args:
            row_times: seconds per row of each group that was withheld, by its index.
            paces: of their servers. One that was asked just now has to be in it, so that its next holder begins with
                nothing to spend.
            decided: as in ``start``.
        """
        self.batches.note_sampled(decided)
        for group, time_s in row_times.items():
            self.plan.row_times[group] = time_s
        self.paces.learn(paces, now)
        admitted = self.batches.admit(row_times)
        actions = self._flow(now, admitted) if self.batches.flowing < 2 * self._big_batch_size else []
        for group in row_times:
            for rank, handoff in self._withheld_handoffs.pop(group, ()):
                self.batches.pass_on((handoff.batch.batch_id,))
                actions += self.on_handed_off(rank, (handoff,), now)
        return actions

    def _group_of(self, server: str, pace_group: str) -> str:
        index = self.plan.group_of_server(server, pace_group)
        return pace_group if index is None else self.plan.group_names[index]

    def stop(self) -> None:
        """Let no more work flow: the run stops. What ranks still report is counted as before."""
        self._stops = True

    def _flow(self, now: float, most: int | None = None) -> list[Action]:
        """Let the next big batch flow in, if there is one; of ``most`` batches, if that is less than usual."""
        if self._stops:
            return []
        number = self._next_number
        size = self._big_batch_size if most is None else min(most, self._big_batch_size)
        members = self.batches.begin_big_batch(number, size)
        if not members:
            return []
        self._next_number += 1
        completed = self.batches.complete_whole(members)
        is_open = [batch_id for batch_id in members if not self._counts.is_complete(batch_id)]
        return self._distribute(number, is_open, now) + completed

    @property
    def _big_batch_size(self) -> int:
        return len(self.plan.workers) * BATCHES_PER_WORKER

    def _flow_if_low(self, now: float) -> list[Action]:
        if self.batches.waiting and self.batches.flowing < self._big_batch_size / 2:
            return self._flow(now)
        return []

    def _distribute(self, number: int, members: list[int], now: float) -> list[Action]:
        by_group: dict[int, list[int]] = {}
        for batch_id in members:
            by_group.setdefault(int(self.plan.batch_group[batch_id]), []).append(batch_id)
        pending = self._new_leases(by_group)
        actions, rows = self._extend_running(by_group)
        ranks = LeastLoaded({rank: account.load_s for rank, account in self._leases.ranks.items()})
        assigns: dict[int, list[msg.Lane]] = {}
        for lease in sorted(pending, key=lambda lease: (-lease.time_s, lease.lane_id)):
            rank = ranks.take(lease.cost_s, self._leases.ranks_with(lease.group))
            assigns.setdefault(rank, []).append(self._leases.grant(lease, rank, now))
            rows.append(self._schedule_row(lease, lease.batch_ids))
        actions.append(BigBatchStarted(number, tuple(rows)))
        if assigns:
            answered = {rank: msg.Assign(tuple(lanes), self.stealing.answer(rank)) for rank, lanes in assigns.items()}
            actions.append(Scatter(answered))
        return actions

    def _new_leases(self, by_group: dict[int, list[int]]) -> list[Lease]:
        leases = []
        for index, batch_ids in by_group.items():
            group = self.plan.group_names[index]
            if self._leases.of_group(group):
                continue
            lanes = lanes_for(self.plan, group, len(batch_ids), int(self.plan.group_batches[index]))
            shares = self._leases.limits(group).divided(lanes)
            leases += [self._leases.new(group, batch_ids[i::lanes], shares[i]) for i in range(lanes)]
        return leases

    def _extend_running(self, by_group: dict[int, list[int]]) -> tuple[list[Action], list[ScheduleRow]]:
        """Batches of a group that has lanes already go to the lane with the fewest."""
        actions: list[Action] = []
        rows: list[ScheduleRow] = []
        for index, batch_ids in by_group.items():
            running = [
                lease
                for lease in self._leases.of_group(self.plan.group_names[index])
                if lease.state is not LeaseState.NEW
            ]
            if not running:
                continue
            lease = min(running, key=lambda lease: (len(lease.batch_ids), lease.lane_id))
            actions.append(self._leases.extend(lease, batch_ids))
            rows.append(self._schedule_row(lease, batch_ids))
        return actions, rows

    def _schedule_row(self, lease: Lease, batch_ids: Iterable[int]) -> ScheduleRow:
        refs = [self.plan.ref(batch_id) for batch_id in batch_ids]
        partitions = [ref.partition_id for ref in refs]
        rate = lease.share.rate_per_s
        return ScheduleRow(lease.rank, refs[0].server_name, min(partitions), max(partitions), rate)

    # ---- reports come in

    def on_progress(self, rank: int, message: msg.Progress, now: float) -> list[Action]:
        """Count what is durable, note the rank's state, end drained leases."""
        account = self._leases.ranks[rank]
        account.ends_at = now + message.remaining_s
        account.unstarted = message.unstarted
        actions: list[Action] = []
        for part in message.parts:
            actions += self.batches.on_part(part)
        for report in message.lanes:
            actions += self._on_lane(rank, report, now)
        actions += self._flow_if_low(now)
        actions += self.stealing.on_news(rank, now)
        return actions

    def _on_lane(self, rank: int, report: msg.LaneReport, now: float) -> list[Action]:
        lease = self._leases.get(report.lane_id)
        if lease is None or lease.rank != rank:
            raise TransitionError(f"rank {rank} reports on lane {report.lane_id}, which it does not hold")
        actions = self._learn_from(lease, report.paces, now)
        self._leases.on_report(lease, report, now)
        if lease.state is LeaseState.ENDED:
            actions += self._leases.end(lease)
        return actions

    def _learn_from(self, lease: Lease, paces: Mapping[str, PaceState], now: float) -> list[Action]:
        """Keep what a lane has learned, as of the whole group; a pause is kept by the other lanes of the group too."""
        if not paces:
            return []
        pauses = self.paces.report(lease.group, self._leases.part(lease), paces, now, lease.lane_id)
        if not pauses:
            return []
        # News, not work: the version stays, or a drained lane would end again, and be news to the others again.
        return [
            Send(other.rank, msg.Extend(other.lane_id, other.version, pauses=pauses))
            for other in self._leases.of_group(lease.group)
            if other is not lease
        ]

    def reopen(self, found: BatchContent, now: float) -> list[Action]:
        """Schedule a batch again of which verification found rows missing, with what its files really hold."""
        self.batches.reopen(found)
        return self._flow_if_low(now)

    # ---- redirected rows

    def on_handed_off(self, rank: int, handoffs: Iterable[msg.Handoff], now: float) -> list[Action]:
        """Rows that need another group's limits: to the rank that holds its lane, else a lane of their own."""
        by_group: dict[str, list[msg.Handoff]] = {}
        for handoff in handoffs:
            by_group.setdefault(self._group_of(handoff.server, handoff.group), []).append(handoff)
        return [action for group, rows in by_group.items() for action in self._send_handoffs(rank, group, rows, now)]

    def _send_handoffs(self, rank: int, group: str, handoffs: list[msg.Handoff], now: float) -> list[Action]:
        running = self._leases.of_group(group)
        self.batches.hold(handoff.batch.batch_id for handoff in handoffs)
        index = self.plan.group_of_server(handoffs[0].server, group) if self.batches.withheld else None
        if index is not None and index in self.batches.withheld:
            self._withheld_handoffs.setdefault(index, []).extend((rank, handoff) for handoff in handoffs)
            return []
        if running:
            own_first = min(running, key=lambda lease: (lease.rank != rank, lease.lane_id))
            return [self._leases.extend(own_first, [], None, handoffs)]
        lease = self._leases.new(group, [], self._leases.limits(group))
        lease.handoffs += handoffs
        return [Send(rank, msg.Assign((self._leases.grant(lease, rank, now),)))]

    # ---- work is stolen

    def on_work_request(self, rank: int, message: msg.WorkRequest, now: float) -> list[Action]:
        """A rank runs low: the next big batch, else lanes of the rank with the most time left."""
        self.stealing.ask(rank, message.request_id)
        actions = self._flow(now)
        if self.stealing.is_asking(rank):
            actions.append(self.stealing.ask_victim(rank, now))
        return actions

    def tick(self, now: float) -> list[Action]:
        """What is due although no message came."""
        self._parked_since = min(self._parked_since, now) if self._leases.none_runs else math.inf
        return self.stealing.tick(now)

    # ---- what there is, and the end

    def holder(self, lane_id: int) -> int | None:
        """The rank to which the lane is leased, None if it is to none."""
        lease = self._leases.get(lane_id)
        return None if lease is None else lease.rank

    def lane_group(self, lane_id: int) -> str | None:
        lease = self._leases.get(lane_id)
        return None if lease is None else lease.group

    def lanes_of(self, group: str) -> list[int]:
        """The lanes of a group that are leased."""
        return [lease.lane_id for lease in self._leases.of_group(group)]

    @property
    def is_complete(self) -> bool:
        """Every row is final and no lane is out."""
        return not self._counts.incomplete and not self._leases

    @property
    def is_parked(self) -> bool:
        """Whether nothing but probes can start: all lanes that are out are parked."""
        return bool(self._leases) and self._leases.none_runs

    def is_stuck(self, now: float, parked_wait_s: float, final_wait_s: float = 0.0, deadline: float = math.inf) -> bool:
        """Whether only parked lanes are out, and nothing can become final in ``parked_wait_s`` and before the deadline,
        or has for that long.

        A pause that a server has asked for, or that ends with a probe, is waited for as long as it ends within
        ``final_wait_s`` and before the deadline, and so is the probe. If its rank then says nothing, it is waited for
        no longer than the others, but for ``LATE_S``.
        """
        is_sampling = self.batches.withheld or self.batches.has_samples
        if self.batches.waiting or is_sampling or not self.stealing.is_idle:
            return False
        late_s = max(parked_wait_s, LATE_S)
        if self._leases.next_end(now - late_s) < min(self._parked_since + final_wait_s, deadline):
            return False
        if self._leases.is_probing and now - self._parked_since < final_wait_s:
            return False
        waited_in_vain = self._leases.none_runs and now - self._parked_since >= parked_wait_s
        return waited_in_vain or self._leases.all_parked(min(now + parked_wait_s, deadline))

    def validate(self) -> None:
        """Check the invariants (tests call this after every step). Raises AssertionError: with what breaks."""
        self._leases.validate(
            handoff.batch.batch_id for handoffs in self._withheld_handoffs.values() for _, handoff in handoffs
        )
        for group in self.batches.withheld:
            if self._leases.of_group(self.plan.group_names[group]):
                raise AssertionError(f"{self.plan.group_names[group]} is withheld and leased")

    def __repr__(self) -> str:
        total, open_batches = len(self._counts), self._counts.incomplete
        return (
            f"<Ledger: {len(self._leases)} leased, {self.batches.waiting} to flow, "
            f"{total - open_batches} of {total} complete>"
        )
