"""Who holds which lane, what is final, and who may steal: rank 0's state machine. Pure.

Decide, then do: each method takes one message and returns actions; ``roles.coordinator`` performs them. The ledger
knows no MPI, no file and no clock; ``now`` is monotonic seconds of rank 0.

Invariants, checked by ``validate``:
- a lane is leased to exactly one rank, and the shares of a group's lanes add up to at most its limits;
- a rank holds at most one lane of a group: what it gets later is joined to that lane;
- a batch is held by at most one lane; the rows of it that were redirected are held by the lanes that fetch them;
- a batch is complete when the parts that were reported hold as many outcomes as it has rows, never more;
- a lane's lease ends only with a ``DRAINED`` report that has seen all of its extensions.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from ddmpi.actions import (
    Action,
    BatchCompleted,
    BigBatchEnded,
    BigBatchStarted,
    Scatter,
    ScheduleRow,
    Send,
)
from ddmpi.errors import TransitionError
from ddmpi.leases import Lease, RankAccount, Transfer
from ddmpi.protocol import (
    Assign,
    Errand,
    Extend,
    Lane,
    LaneReport,
    LaneState,
    NoWork,
    PartReport,
    Progress,
    Release,
    StealRequest,
    Yield,
    Yielded,
)
from ddmpi.records import INVALID_SERVER, BatchRef, Limits, PaceState
from ddmpi.schedule import (
    BATCHES_PER_WORKER,
    SPLIT_ABOVE_PER_S,
    IntArray,
    LeastLoaded,
    Plan,
    divide,
    flow_order,
    is_packed,
    joined,
    lane_cost_s,
    lanes_for,
    without,
)

REFUSED_WAIT_S = 2.0
"""A rank whose steal was refused asks again after this, doubled per refusal in a row up to ``REFUSED_WAIT_MOST_S``."""
REFUSED_WAIT_MOST_S = 30.0
YIELD_TIMEOUT_S = 5.0
"""A victim that does not answer for so long is busy or stopped: the thief is told to ask again."""
PAUSE_NEWS_S = 0.01
"""A pause that lasts so much longer than was known is told to the other lanes of the group."""
MOST_FLOWS_PER_BATCH = 3
"""A batch that comes back incomplete so often without progress stays pending."""


_NOTHING_LEARNED = PaceState()


class Ledger:
    """The accounts of one run. See the module's docstring."""

    def __init__(self, plan: Plan, successes: IntArray, errors: IntArray, parts: Mapping[int, list[str]]) -> None:
        """
        Args:
            successes, errors: (B,) rows of each batch that are final already; changed in place.
            parts: published parts of the batches that are begun and not complete.
        """
        self.plan = plan
        self.successes = successes
        self.errors = errors
        self._parts = {batch_id: list(paths) for batch_id, paths in parts.items()}
        self._complete = successes + errors >= plan.batch_rows
        self._order = deque(flow_order(plan, np.flatnonzero(~self._complete).astype(np.int64)).tolist())
        self._group_batches = np.bincount(plan.batch_group, minlength=len(plan.group_names))
        self._holders: dict[int, int] = {}
        self._flows: dict[int, tuple[int, int]] = {}
        self._big_batches: dict[int, set[int]] = {}
        self._big_batch_members: dict[int, tuple[int, ...]] = {}
        self._big_batch_of: dict[int, int] = {}
        self._next_number = 1
        self._leases: dict[int, Lease] = {}
        self._by_group: dict[str, set[int]] = {}
        self._ranks = {rank: RankAccount() for rank in plan.workers}
        self._transfers: dict[int, Transfer] = {}
        self._ids = 0
        self._paces: dict[str, dict[str, tuple[PaceState, float]]] = {}
        self.steals = 0

    # ---- work flows in

    def start(self, first_number: int, paces: Mapping[str, PaceState], now: float) -> list[Action]:
        """The first big batch. ``paces`` is what is known of servers from profiling and earlier runs."""
        self._next_number = first_number
        self.learn(paces, now)
        return self.flow(now)

    def learn(self, paces: Mapping[str, PaceState], now: float) -> None:
        """Keep what is known of servers' paces, for their next lane and the checkpoint."""
        for name, state in paces.items():
            self._paces.setdefault(self._group_of(name, name), {})[name] = (state, now)

    def _group_of(self, server: str, pace_group: str) -> str:
        index = self.plan.group_of_server(server, pace_group)
        return pace_group if index is None else self.plan.group_names[index]

    def paces(self, now: float) -> dict[str, PaceState]:
        """What is known of every server's pace, with the waits that are left."""
        return {name: state for group in self._paces for name, state in self._paces_of(group, now).items()}

    def _paces_of(self, group: str, now: float) -> dict[str, PaceState]:
        return {
            name: msgspec.structs.replace(state, wait_s=max(0.0, state.wait_s - (now - learned_at)))
            for name, (state, learned_at) in self._paces.get(group, {}).items()
        }

    def flow(self, now: float) -> list[Action]:
        """Let the next big batch flow in, if there is one."""
        size = len(self.plan.workers) * BATCHES_PER_WORKER
        members = [self._order.popleft() for _ in range(min(size, len(self._order)))]
        if not members:
            return []
        number = self._next_number
        self._next_number += 1
        self._big_batches[number] = set(members)
        self._big_batch_members[number] = tuple(members)
        for batch_id in members:
            self._big_batch_of[batch_id] = number
        return self._distribute(number, members, now)

    def _distribute(self, number: int, members: list[int], now: float) -> list[Action]:
        by_group: dict[int, list[int]] = {}
        for batch_id in members:
            by_group.setdefault(int(self.plan.batch_group[batch_id]), []).append(batch_id)
        pending = self._new_leases(by_group)
        actions, rows = self._extend_running(by_group)
        ranks = LeastLoaded({rank: record.load_s for rank, record in self._ranks.items()})
        assigns: dict[int, list[Lane]] = {}
        for lease in sorted(pending, key=lambda lease: (-lease.time_s, lease.lane_id)):
            lease.rank = ranks.take(lease.cost_s, self._ranks_with(lease.group))
            assigns.setdefault(lease.rank, []).append(self._grant(lease, now))
            rows.append(self._schedule_row(lease))
        actions.append(BigBatchStarted(number, tuple(rows)))
        if assigns:
            answered = {rank: Assign(tuple(lanes), self._answer(rank)) for rank, lanes in assigns.items()}
            actions.append(Scatter(answered))
        return actions

    def _ranks_with(self, group: str) -> set[int]:
        return {self._leases[lane_id].rank for lane_id in self._by_group.get(group, ())}

    def _new_leases(self, by_group: dict[int, list[int]]) -> list[Lease]:
        leases = []
        for index, batch_ids in by_group.items():
            group = self.plan.group_names[index]
            if self._by_group.get(group):
                continue
            lanes = lanes_for(self.plan, group, len(batch_ids), int(self._group_batches[index]))
            shares = divide(self._limits(group), lanes)
            leases += [self._lease(group, batch_ids[i::lanes], shares[i]) for i in range(lanes)]
        return leases

    def _extend_running(self, by_group: dict[int, list[int]]) -> tuple[list[Action], list[ScheduleRow]]:
        """Batches of a group that has lanes already go to the lane with the fewest."""
        actions: list[Action] = []
        rows: list[ScheduleRow] = []
        for index, batch_ids in by_group.items():
            running = [self._leases[i] for i in self._by_group.get(self.plan.group_names[index], ())]
            running = [lease for lease in running if lease.rank >= 0]
            if not running:
                continue
            lease = min(running, key=lambda lease: (len(lease.batch_ids), lease.lane_id))
            actions.append(self._extend(lease, batch_ids))
            rows.append(self._schedule_row(lease, batch_ids))
        return actions, rows

    def _lease(self, group: str, batch_ids: list[int], share: Limits) -> Lease:
        """A lease that has no rank yet."""
        self._ids += 1
        time_s, cost_s = self._costs(group, batch_ids, share)
        lease = Lease(self._ids, -1, group, time_s, cost_s, share, set())
        self._leases[lease.lane_id] = lease
        self._by_group.setdefault(group, set()).add(lease.lane_id)
        self._hold(lease, batch_ids)
        return lease

    def _costs(self, group: str, batch_ids: list[int], share: Limits) -> tuple[float, float]:
        """Predicted time of these batches with the share, and what they cost a rank; both in seconds."""
        if not batch_ids:
            return 0.0, 0.0
        rows = int(self.plan.batch_rows[batch_ids].sum())
        row_time = float(self.plan.row_times[int(self.plan.batch_group[batch_ids[0]])])
        time_s = rows * row_time * (self._limits(group).connections / share.connections)
        return time_s, lane_cost_s(rows, time_s, share, row_time)

    def _extend(
        self, lease: Lease, batch_ids: list[int], added: Limits | None = None, errands: Iterable[Errand] = ()
    ) -> Send:
        """Enter more work, or a larger share, into a lease that a rank holds; the message that tells the rank."""
        if added is not None:
            lease.share = joined(lease.share, added)
        time_s, cost_s = self._costs(lease.group, batch_ids, lease.share)
        lease.time_s += time_s
        lease.cost_s += cost_s
        self._ranks[lease.rank].load_s += cost_s
        self._hold(lease, batch_ids)
        lease.errands += errands
        lease.version += 1
        refs = tuple(self._ref(batch_id) for batch_id in batch_ids if not self._complete[batch_id])
        return Send(lease.rank, Extend(lease.lane_id, lease.version, added, refs, tuple(errands)))

    def _limits(self, group: str) -> Limits:
        return Limits(0.0, 1) if is_packed(group) else self.plan.limits(group)

    def _grant(self, lease: Lease, now: float) -> Lane:
        """Enter the lease into its rank's account; the message that tells the rank."""
        record = self._ranks[lease.rank]
        record.lease_ids.add(lease.lane_id)
        record.load_s += lease.cost_s
        packed = is_packed(lease.group)
        lease.parked_until = None
        refs = tuple(self._ref(batch_id) for batch_id in sorted(lease.batch_ids) if not self._complete[batch_id])
        part = self._part(lease)
        paces = {name: self._scaled(state, part) for name, state in self._paces_of(lease.group, now).items()}
        return Lane(
            lease.lane_id, lease.group, packed, lease.share, refs, paces, lease.time_s, False, lease.version,
            tuple(lease.errands),
        )  # fmt: skip

    def _hold(self, lease: Lease, batch_ids: Iterable[int]) -> None:
        for batch_id in batch_ids:
            lease.batch_ids.add(batch_id)
            self._holders[batch_id] = self._holders.get(batch_id, 0) + 1

    def _ref(self, batch_id: int) -> BatchRef:
        ref = self.plan.ref(batch_id)
        parts = tuple(self._parts.get(batch_id, ()))
        return msgspec.structs.replace(ref, parts=parts) if parts else ref

    def _schedule_row(self, lease: Lease, batch_ids: Iterable[int] | None = None) -> ScheduleRow:
        refs = [self.plan.ref(batch_id) for batch_id in (lease.batch_ids if batch_ids is None else batch_ids)]
        partitions = [ref.partition_id for ref in refs]
        rate = lease.share.rate_per_s
        return ScheduleRow(lease.rank, refs[0].server_name, min(partitions), max(partitions), rate)

    # ---- reports come in

    def on_progress(self, rank: int, message: Progress, now: float) -> list[Action]:
        """Count what is durable, note the rank's state, end drained leases."""
        record = self._ranks[rank]
        record.remaining_s = message.remaining_s
        record.unstarted = message.unstarted
        actions: list[Action] = []
        for part in message.parts:
            actions += self.on_part(part)
        for report in message.lanes:
            actions += self._on_lane(rank, report, now)
        actions += self._flow_if_low(now)
        return actions

    def on_part(self, part: PartReport) -> list[Action]:
        """Count a published part.

        Raises:
            TransitionError: the batch would have more outcomes than rows.
        """
        batch_id = part.batch_id
        (self.errors if part.is_errors else self.successes)[batch_id] += part.rows
        self._parts.setdefault(batch_id, []).append(part.path)
        final = int(self.successes[batch_id] + self.errors[batch_id])
        rows = int(self.plan.batch_rows[batch_id])
        if final > rows:
            raise TransitionError(f"batch {batch_id} has {rows} rows and {final} outcomes: {self._parts[batch_id]}")
        if final < rows:
            return []
        return self._complete_batch(batch_id)

    def _complete_batch(self, batch_id: int) -> list[Action]:
        self._complete[batch_id] = True
        self._parts.pop(batch_id, None)
        done = BatchCompleted(batch_id, int(self.successes[batch_id]), int(self.errors[batch_id]))
        return [done, *self._leave_big_batch(batch_id)]

    def _leave_big_batch(self, batch_id: int) -> list[Action]:
        number = self._big_batch_of.pop(batch_id, None)
        if number is None:
            return []
        self._big_batches[number].discard(batch_id)
        if self._big_batches[number]:
            return []
        del self._big_batches[number]
        members = self._big_batch_members.pop(number)
        return [BigBatchEnded(number, members)] if members else []

    def _on_lane(self, rank: int, report: LaneReport, now: float) -> list[Action]:
        lease = self._leases.get(report.lane_id)
        if lease is None or lease.rank != rank:
            raise TransitionError(f"rank {rank} reports on lane {report.lane_id}, which it does not hold")
        actions = self._learn_from(lease, report.paces, now)
        lease.parked_until = None
        if report.version != lease.version:
            return actions
        self._note_received(lease)
        if report.state is LaneState.PARKED:
            lease.parked_until = now + report.wait_s
        if report.state is LaneState.DRAINED:
            actions += self._end(lease)
        return actions

    def _learn_from(self, lease: Lease, paces: Mapping[str, PaceState], now: float) -> list[Action]:
        """Keep what a lane has learned, as of the whole group; a pause stops the other lanes of the group too."""
        actions: list[Action] = []
        known = self._paces.setdefault(lease.group, {})
        for name, state in paces.items():
            before, learned_at = known.get(name, (_NOTHING_LEARNED, now))
            left_s = max(0.0, before.wait_s - (now - learned_at))
            learned = self._scaled(state, 1 / self._part(lease))
            known[name] = (msgspec.structs.replace(learned, wait_s=max(state.wait_s, left_s)), now)
            if state.wait_s > left_s + PAUSE_NEWS_S:
                siblings = (self._leases[lane_id] for lane_id in sorted(self._by_group[lease.group]))
                actions += [self._pause(other, state.wait_s) for other in siblings if other is not lease]
        return actions

    @staticmethod
    def _pause(lease: Lease, wait_s: float) -> Send:
        """News, not work: the version stays, or a drained lane would end again, and be news to the others again."""
        return Send(lease.rank, Extend(lease.lane_id, lease.version, wait_s=wait_s))

    def _part(self, lease: Lease) -> float:
        """The lease's part of its group's limits."""
        whole = self._limits(lease.group)
        if whole.rate_per_s > 0:
            return lease.share.rate_per_s / whole.rate_per_s
        return lease.share.connections / whole.connections

    @staticmethod
    def _scaled(state: PaceState, factor: float) -> PaceState:
        return msgspec.structs.replace(
            state, rate_per_s=state.rate_per_s * factor, bytes_today=state.bytes_today * factor
        )

    @staticmethod
    def _note_received(lease: Lease) -> None:
        """The holder has all errands: from now on only which batches they belong to matters."""
        for errand in lease.errands:
            batch_id = errand.batch.batch_id
            lease.errand_rows[batch_id] = lease.errand_rows.get(batch_id, 0) + 1
        lease.errands.clear()

    def _end(self, lease: Lease) -> list[Action]:
        """The lane is empty. Batches that it leaves incomplete, and that no errand holds, have to flow again; its
        share goes to another lane of the group."""
        self._forget(lease)
        actions: list[Action] = [Send(lease.rank, Release((lease.lane_id,)))]
        for batch_id in lease.held():
            actions += self._drop_holder(batch_id)
        siblings = self._by_group.get(lease.group)
        if siblings:
            heir = max((self._leases[i] for i in siblings), key=lambda other: (len(other.batch_ids), -other.lane_id))
            actions.append(self._extend(heir, [], lease.share))
        return actions

    def _forget(self, lease: Lease) -> None:
        self._drop_lease(lease)
        self._leave_rank(lease)

    def _drop_lease(self, lease: Lease) -> None:
        del self._leases[lease.lane_id]
        self._by_group[lease.group].discard(lease.lane_id)
        if not self._by_group[lease.group]:
            del self._by_group[lease.group]

    def _leave_rank(self, lease: Lease) -> None:
        record = self._ranks[lease.rank]
        record.lease_ids.discard(lease.lane_id)
        record.load_s = max(0.0, record.load_s - lease.cost_s) if record.lease_ids else 0.0

    def _drop_holder(self, batch_id: int) -> list[Action]:
        self._holders[batch_id] -= 1
        if self._holders[batch_id]:
            return []
        del self._holders[batch_id]
        if self._complete[batch_id]:
            return []
        final = int(self.successes[batch_id] + self.errors[batch_id])
        flows, before = self._flows.get(batch_id, (0, -1))
        flows = flows + 1 if final == before else 1
        self._flows[batch_id] = (flows, final)
        if flows >= MOST_FLOWS_PER_BATCH:
            return []
        self._order.append(batch_id)
        number = self._big_batch_of.get(batch_id)
        if number is not None:
            # It will be a member of another big batch, and is verified with that one.
            members = self._big_batch_members[number]
            self._big_batch_members[number] = tuple(other for other in members if other != batch_id)
        return self._leave_big_batch(batch_id)

    def reopen(self, batch_id: int, successes: int, errors: int, parts: list[str], now: float) -> list[Action]:
        """Verification found rows of a completed batch missing: schedule it again with what its files really hold."""
        self._complete[batch_id] = False
        self.successes[batch_id], self.errors[batch_id] = successes, errors
        self._parts[batch_id] = parts
        if batch_id not in self._holders and batch_id not in self._order:
            self._order.append(batch_id)
        return self._flow_if_low(now)

    def _flow_if_low(self, now: float) -> list[Action]:
        unfinished = sum(len(left) for left in self._big_batches.values())
        if self._order and unfinished < len(self.plan.workers) * BATCHES_PER_WORKER / 2:
            return self.flow(now)
        return []

    # ---- redirected rows

    def on_redirected(self, rank: int, errands: Iterable[Errand], now: float) -> list[Action]:
        """Rows that need another group's limits: to the rank that holds its lane, else a lane of their own."""
        by_group: dict[str, list[Errand]] = {}
        for errand in errands:
            by_group.setdefault(self._group_of(errand.server, errand.group), []).append(errand)
        return [self._send_errands(rank, group, rows, now) for group, rows in by_group.items()]

    def _send_errands(self, rank: int, group: str, errands: list[Errand], now: float) -> Send:
        running = [self._leases[i] for i in self._by_group.get(group, ())]
        for errand in errands:
            batch_id = errand.batch.batch_id
            self._holders[batch_id] = self._holders.get(batch_id, 0) + 1
        if running:
            return self._extend(min(running, key=lambda lease: (lease.rank != rank, lease.lane_id)), [], None, errands)
        lease = self._lease(group, [], self._limits(group))
        lease.rank = rank
        lease.errands += errands
        return Send(rank, Assign((self._grant(lease, now),)))

    # ---- work is stolen

    def on_steal_request(self, rank: int, message: StealRequest, now: float) -> list[Action]:
        """A rank runs low: the next big batch, else lanes of the rank with the most time left."""
        record = self._ranks[rank]
        record.asking = message.request_id
        actions = self.flow(now) if self._order else []
        if record.asking:
            actions += self._ask_victim(rank, now)
        return actions

    def _answer(self, rank: int) -> int:
        """The request that a message to this rank answers; it is then no longer waiting."""
        record = self._ranks[rank]
        request_id, record.asking = record.asking, 0
        if request_id:
            record.refusals = 0
        return request_id

    def _ask_victim(self, rank: int, now: float) -> list[Action]:
        victims = [r for r, record in self._ranks.items() if r != rank and not record.asked_to_yield]
        queued = [r for r in victims if self._ranks[r].unstarted]
        if queued:
            victim = max(queued, key=lambda r: (self._ranks[r].remaining_s, -r))
            split = 0
        else:
            found = max(
                ((lease.time_s, lease.rank, lease.lane_id) for r in victims for lease in self._splittable(r, rank)),
                default=None,
            )
            if found is None:
                return [self._refuse(rank)]
            _, victim, split = found
        self._ids += 1
        record = self._ranks[rank]
        self._transfers[self._ids] = Transfer(rank, victim, record.asking, now + YIELD_TIMEOUT_S)
        self._ranks[victim].asked_to_yield = True
        self._ranks[victim].unstarted = 0
        return [Send(victim, Yield(self._ids, max(1.0, self._ranks[victim].remaining_s / 2), split))]

    def _splittable(self, rank: int, thief: int) -> Iterable[Lease]:
        """Lanes of the rank whose group may have one lane more, and which have enough batches for two."""
        for lane_id in self._ranks[rank].lease_ids:
            lease = self._leases[lane_id]
            if self._is_indivisible(lease) or thief in self._ranks_with(lease.group):
                continue
            unfinished = (batch_id for batch_id in lease.batch_ids if not self._complete[batch_id])
            two = list(itertools.islice(unfinished, 2))
            if len(two) < 2:
                continue
            index = int(self.plan.batch_group[two[0]])
            if len(self._by_group[lease.group]) < self.plan.max_lanes(int(self._group_batches[index])):
                yield lease

    def _is_indivisible(self, lease: Lease) -> bool:
        """Whether a second rank could not help: the rate or the one connection is the limit, or nothing is fetched."""
        if lease.share.connections < 2 or is_packed(lease.group) or lease.group == INVALID_SERVER:
            return True
        return 0 < self._limits(lease.group).rate_per_s <= SPLIT_ABOVE_PER_S

    def _refuse(self, rank: int) -> Send:
        record = self._ranks[rank]
        wait_s = min(REFUSED_WAIT_MOST_S, REFUSED_WAIT_S * 2.0**record.refusals)
        refusals = record.refusals + 1 if wait_s < REFUSED_WAIT_MOST_S else record.refusals
        message = NoWork(self._answer(rank), wait_s)
        record.refusals = refusals
        return Send(rank, message)

    def on_yielded(self, rank: int, message: Yielded, now: float) -> list[Action]:
        """Lanes that a victim gave back go to the thief, also when its request was answered otherwise meanwhile."""
        transfer = self._transfers.pop(message.request_id, None)
        if transfer is None or transfer.victim != rank:
            raise TransitionError(f"rank {rank} answers Yield {message.request_id}, which was not asked of it")
        self._ranks[rank].asked_to_yield = False
        stolen = [self._take_from(rank, lane_id) for lane_id in message.lane_ids]
        if message.split_share is not None:
            stolen.append(self._split(rank, message, message.split_share))
        thief = self._ranks[transfer.thief]
        waiting = thief.asking == transfer.thief_request_id != 0
        if not stolen:
            return [self._refuse(transfer.thief)] if waiting else []
        self.steals += 1
        request_id = self._answer(transfer.thief) if waiting else 0
        return self._give(stolen, transfer.thief, request_id, now)

    def _take_from(self, victim: int, lane_id: int) -> Lease:
        """A lane that was not started: it leaves the victim as a whole."""
        lease = self._leases[lane_id]
        if lease.rank != victim:
            raise TransitionError(f"rank {victim} yields lane {lane_id}, which rank {lease.rank} holds")
        self._leave_rank(lease)
        lease.rank = -1
        return lease

    def _split(self, victim: int, message: Yielded, share: Limits) -> Lease:
        """The part that was cut off, as a lease of its own."""
        old = self._leases[message.split_lane_id]
        given = list(message.split_batch_ids)
        if old.rank != victim or not given or not old.batch_ids.issuperset(given):
            raise TransitionError(f"rank {victim} splits lane {old.lane_id} in a way that it cannot: {message}")
        old.share = without(old.share, share)
        old.batch_ids.difference_update(given)
        for batch_id in given:
            self._holders[batch_id] -= 1
        return self._lease(old.group, given, share)

    def _give(self, stolen: list[Lease], thief: int, request_id: int, now: float) -> list[Action]:
        """Lease these to the thief. What belongs to a group of which it has a lane by now is joined to that one."""
        actions: list[Action] = []
        lanes = []
        for lease in stolen:
            siblings = (self._leases[lane_id] for lane_id in self._by_group[lease.group])
            own = next((other for other in siblings if other.rank == thief), None)
            if own is None:
                lease.rank = thief
                lanes.append(self._grant(lease, now))
            else:
                actions.append(self._join(own, lease))
        if lanes or request_id:
            actions.append(Send(thief, Assign(tuple(lanes), request_id)))
        return actions

    def _join(self, own: Lease, lease: Lease) -> Send:
        self._drop_lease(lease)
        for batch_id in lease.batch_ids:
            self._holders[batch_id] -= 1
        return self._extend(own, sorted(lease.batch_ids), lease.share, lease.errands)

    def tick(self, now: float) -> list[Action]:
        """Answer thieves whose victim does not answer; its lanes, when they come, are theirs all the same."""
        actions: list[Action] = []
        for transfer in self._transfers.values():
            thief = self._ranks[transfer.thief]
            if transfer.deadline <= now and thief.asking == transfer.thief_request_id != 0:
                actions.append(self._refuse(transfer.thief))
        return actions

    # ---- the end

    def holder(self, lane_id: int) -> int | None:
        """The rank to which the lane is leased, None if it is to none."""
        lease = self._leases.get(lane_id)
        return None if lease is None else lease.rank

    def lane_group(self, lane_id: int) -> str:
        """The group that a leased lane serves."""
        return self._leases[lane_id].group

    def lanes_of(self, group: str) -> list[int]:
        """The lanes of a group that are leased."""
        return sorted(self._by_group.get(group, ()))

    def rows_final(self) -> int:
        """Rows that are in published parts."""
        return int(self.successes.sum() + self.errors.sum())

    def open_big_batches(self) -> list[tuple[int, tuple[int, ...]]]:
        """Big batches that have not ended: their number and batches."""
        return list(self._big_batch_members.items())

    @property
    def is_complete(self) -> bool:
        """Every row is final and no lane is out."""
        return not self._leases and bool(self._complete.all())

    def is_stuck(self, now: float, final_wait_s: float) -> bool:
        """Nothing can become final before ``final_wait_s`` has passed: only parked lanes are out."""
        if self._order or self._transfers:
            return False
        return all(
            lease.parked_until is not None and lease.parked_until - now > final_wait_s
            for lease in self._leases.values()
        )

    def validate(self) -> None:
        """Check the invariants (tests call this after every step).

        Raises:
            AssertionError: with what breaks.
        """
        holders: dict[int, int] = {}
        for lease in self._leases.values():
            if lease.lane_id not in self._ranks[lease.rank].lease_ids:
                raise AssertionError(f"lane {lease.lane_id} is not in the account of rank {lease.rank}")
            for batch_id in lease.held():
                holders[batch_id] = holders.get(batch_id, 0) + 1
        if holders != self._holders:
            raise AssertionError("a batch's holders do not add up")
        for group, ids in self._by_group.items():
            if len(self._ranks_with(group)) < len(ids):
                raise AssertionError(f"a rank holds two lanes of {group}")
            whole = self._limits(group)
            shares = [self._leases[i].share for i in ids]
            if sum(share.connections for share in shares) > whole.connections:
                raise AssertionError(f"the lanes of {group} share more than {whole.connections} connections")
            if sum(share.rate_per_s for share in shares) > whole.rate_per_s * (1 + 1e-9):
                raise AssertionError(f"the lanes of {group} share more than {whole.rate_per_s} requests/s")

    def __repr__(self) -> str:
        done = int(self._complete.sum())
        total = len(self._complete)
        return f"<Ledger: {len(self._leases)} leased, {len(self._order)} to flow, {done} of {total} complete>"
