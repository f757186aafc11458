"""Which rank holds which lane, and what each lane holds: the leases of a run. Pure.

Part of the ledger: it enters and removes leases, and words the messages that tell ranks of them. It must not decide
who gets a lane: ``ledger`` and ``stealing`` do.

A lease lives as ``TRANSITIONS`` says, and no other way.

Invariants, checked by ``validate``:
- a lane is leased to exactly one rank, and the shares of a group's lanes add up to at most its limits;
- a rank holds at most one lane of a group: what it gets later is joined to that lane;
- a batch is held by at most one lane; the rows of it that were redirected are held by the lanes that fetch them.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from ddmpi.core.ledger.actions import Action, Send
from ddmpi.core.ledger.batch_accounts import BatchAccounts
from ddmpi.core.ledger.known_paces import KnownPaces
from ddmpi.core.ledger.schedule import Plan, lane_cost_s
from ddmpi.core.protocol import Extend, Handoff, Lane, LaneReport, LaneState, Release
from ddmpi.core.records import Limits, is_packed
from ddmpi.errors import TransitionError


class LeaseState(Enum):
    """What is known of a lease's lane."""

    NEW = "new"
    """No rank has it: it was just made, cut off, or taken back from a victim."""
    LEASED = "leased"
    """A rank has it, and requests may start."""
    PARKED = "parked"
    """Nothing of it can start for a while: its servers asked for a pause, are out of reach or held by the operator."""
    PROBING = "probing"
    """Parked, but for requests that ask whether a server answers again."""
    ENDED = "ended"


class LeaseEvent(Enum):
    GRANT = "grant"
    """A rank gets it."""
    RUN = "run"
    """Its rank reports that requests may start, or has not seen the last extension yet."""
    PARK = "park"
    PROBE = "probe"
    TAKE_BACK = "take back"
    """Its rank gives it back, to another one."""
    JOIN = "join"
    """What it holds goes to the lane of the group that the rank has already."""
    DRAIN = "drain"
    """Its rank reports that nothing of it is left."""


TRANSITIONS: Final = {
    (LeaseState.NEW, LeaseEvent.GRANT): LeaseState.LEASED,
    (LeaseState.NEW, LeaseEvent.JOIN): LeaseState.ENDED,
    (LeaseState.LEASED, LeaseEvent.RUN): LeaseState.LEASED,
    (LeaseState.LEASED, LeaseEvent.PARK): LeaseState.PARKED,
    (LeaseState.LEASED, LeaseEvent.PROBE): LeaseState.PROBING,
    (LeaseState.LEASED, LeaseEvent.TAKE_BACK): LeaseState.NEW,
    (LeaseState.LEASED, LeaseEvent.DRAIN): LeaseState.ENDED,
    (LeaseState.PARKED, LeaseEvent.RUN): LeaseState.LEASED,
    (LeaseState.PARKED, LeaseEvent.PARK): LeaseState.PARKED,
    (LeaseState.PARKED, LeaseEvent.PROBE): LeaseState.PROBING,
    (LeaseState.PARKED, LeaseEvent.TAKE_BACK): LeaseState.NEW,
    (LeaseState.PARKED, LeaseEvent.DRAIN): LeaseState.ENDED,
    (LeaseState.PROBING, LeaseEvent.RUN): LeaseState.LEASED,
    (LeaseState.PROBING, LeaseEvent.PARK): LeaseState.PARKED,
    (LeaseState.PROBING, LeaseEvent.PROBE): LeaseState.PROBING,
    (LeaseState.PROBING, LeaseEvent.TAKE_BACK): LeaseState.NEW,
    (LeaseState.PROBING, LeaseEvent.DRAIN): LeaseState.ENDED,
}
"""A look-up that misses is a bug: TransitionError."""

_EVENTS: Final = {
    LaneState.RUNNING: LeaseEvent.RUN,
    LaneState.PARKED: LeaseEvent.PARK,
    LaneState.PROBING: LeaseEvent.PROBE,
    LaneState.DRAINED: LeaseEvent.DRAIN,
}
"""What a rank's report on a lane is for its lease."""


@dataclass(slots=True, eq=False)
class Lease:
    """A lane as the ledger sees it: who holds it, and what it holds. ``rank`` is -1 while it is new."""

    lane_id: int
    rank: int
    group: str
    time_s: float
    cost_s: float
    share: Limits
    batch_ids: set[int]
    handoffs: list[Handoff] = field(default_factory=list)
    version: int = 0
    handoff_rows: dict[int, int] = field(default_factory=dict)
    ends_at: float = 0.0
    """When it is predicted to be empty (s, monotonic)."""
    state: LeaseState = LeaseState.NEW

    def happens(self, event: LeaseEvent) -> None:
        """Go to the state that follows. Raises TransitionError: the event cannot happen to a lease in this state."""
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            raise TransitionError(f"{event.value} of lane {self.lane_id} of {self.group}, which is {self.state.value}")
        self.state = after

    def held(self) -> Iterator[int]:
        """The batch of each hold that this lease has: one per own batch, one per handoff."""
        yield from self.batch_ids
        for batch_id, rows in self.handoff_rows.items():
            yield from itertools.repeat(batch_id, rows)
        yield from (handoff.batch.batch_id for handoff in self.handoffs)

    def note_received(self) -> None:
        """The holder has all handoffs: from now on only which batches they belong to matters."""
        for handoff in self.handoffs:
            batch_id = handoff.batch.batch_id
            self.handoff_rows[batch_id] = self.handoff_rows.get(batch_id, 0) + 1
        self.handoffs.clear()


@dataclass(slots=True)
class RankAccount:
    """What one rank holds, and what it last said of itself."""

    lease_ids: set[int] = field(default_factory=set)
    load_s: float = 0.0
    ends_at: float = 0.0
    """When its lanes are empty, as it has last said (s, monotonic)."""
    unstarted: int = 0
    """Lanes that it could give back."""


class Leases:
    """All leases, by lane, by group and by rank."""

    def __init__(self, plan: Plan, batches: BatchAccounts, paces: KnownPaces) -> None:
        self.ranks = {rank: RankAccount() for rank in plan.workers}
        self.on_more: Callable[[Lease], None] = lambda _: None
        """Told of each lease that a rank gets, and that gets more."""
        self._plan = plan
        self._batches = batches
        self._paces = paces
        self._by_lane: dict[int, Lease] = {}
        self._by_group: dict[str, set[int]] = {}
        self._idle_until: dict[int, float] = {}  # of the lanes that are parked or being probed
        self._bounded: set[int] = set()  # of those, the lanes whose wait will end by itself
        self._last_id = 0

    # ---- what there is

    def get(self, lane_id: int) -> Lease | None:
        """The lease of a lane, None if there is none."""
        return self._by_lane.get(lane_id)

    def __len__(self) -> int:
        return len(self._by_lane)

    def of_group(self, group: str) -> list[Lease]:
        """The leases of a group's lanes, in order of their ids."""
        return [self._by_lane[lane_id] for lane_id in sorted(self._by_group.get(group, ()))]

    def ranks_with(self, group: str) -> set[int]:
        """The ranks that hold a lane of the group."""
        return {self._by_lane[lane_id].rank for lane_id in self._by_group.get(group, ())}

    def limits(self, group: str) -> Limits:
        """The limits of a group; those of a packed one do not count, as its servers have their own."""
        return Limits(0.0, 1) if is_packed(group) else self._plan.limits(group)

    def part(self, lease: Lease) -> float:
        """The lease's part of its group's limits."""
        return lease.share.part_of(self.limits(lease.group))

    def on_report(self, lease: Lease, report: LaneReport, now: float) -> None:
        """Note what the rank says of its lane. One that has not seen the last extension knows too little to count.
        Raises TransitionError: the lane is none that can be in this state."""
        is_current = report.version == lease.version
        event = _EVENTS.get(report.state) if is_current else LeaseEvent.RUN
        if event is None:
            raise TransitionError(
                f"lane {lease.lane_id} of {lease.group} is no sampling lane, and {report.state.value}"
            )
        lease.happens(event)
        if lease.lane_id in self._idle_until:
            self._runs(lease)
        if lease.state is LeaseState.PARKED:
            self._idle_until[lease.lane_id] = now + report.wait_s
            if report.will_end:
                self._bounded.add(lease.lane_id)
        elif lease.state is LeaseState.PROBING:
            self._idle_until[lease.lane_id] = -math.inf
        if is_current:
            lease.note_received()

    def _runs(self, lease: Lease) -> None:
        """Note that nothing is known of a wait of the lane, or that it is over."""
        self._idle_until.pop(lease.lane_id, None)
        self._bounded.discard(lease.lane_id)

    def next_end(self, after: float) -> float:
        """When the first wait ends that ends by itself, of those that end ``after`` that time; inf = there is none."""
        ends = (self._idle_until[lane_id] for lane_id in self._bounded)
        return min((end for end in ends if end > after), default=math.inf)

    @property
    def is_probing(self) -> bool:
        """Whether some lane asks if a server answers again."""
        return any(end == -math.inf for end in self._idle_until.values())

    @property
    def none_runs(self) -> bool:
        """Whether every lane is parked or only probed."""
        return len(self._idle_until) == len(self._by_lane)

    def all_parked(self, until: float) -> bool:
        """Whether every lane is parked beyond that time."""
        return self.none_runs and all(end > until for end in self._idle_until.values())

    # ---- leases begin

    def new(self, group: str, batch_ids: Iterable[int], share: Limits) -> Lease:
        """A lease that has no rank yet."""
        held = list(batch_ids)
        self._last_id += 1
        time_s, cost_s = self._costs(group, held, share)
        lease = Lease(self._last_id, -1, group, time_s, cost_s, share, set(held))
        self._by_lane[lease.lane_id] = lease
        self._by_group.setdefault(group, set()).add(lease.lane_id)
        self._batches.hold(held)
        return lease

    def _costs(self, group: str, batch_ids: list[int], share: Limits) -> tuple[float, float]:
        """Predicted time of these batches with the share, and what they cost a rank; both in seconds."""
        if not batch_ids:
            return 0.0, 0.0
        rows = int(self._plan.batch_rows[batch_ids].sum())
        row_time = float(self._plan.row_times[int(self._plan.batch_group[batch_ids[0]])])
        time_s = rows * row_time * (self.limits(group).connections / share.connections)
        return time_s, lane_cost_s(rows, time_s, share, row_time, self._plan.connections_per_rank)

    def grant(self, lease: Lease, rank: int, now: float) -> Lane:
        """Lease it to the rank; what the rank has to be told."""
        lease.happens(LeaseEvent.GRANT)
        lease.rank = rank
        account = self.ranks[rank]
        account.lease_ids.add(lease.lane_id)
        account.load_s += lease.cost_s
        lease.ends_at = now + lease.time_s
        self.on_more(lease)
        return Lane(
            lease.lane_id,
            lease.group,
            is_packed(lease.group),
            lease.share,
            self._batches.open_refs(sorted(lease.batch_ids)),
            self._paces.share(lease.group, self.part(lease), now, lease.lane_id),
            lease.time_s,
            False,
            lease.version,
            tuple(lease.handoffs),
            self.limits(lease.group),
            dict(self._plan.server_limits.get(lease.group, {})),
        )

    def extend(
        self, lease: Lease, batch_ids: list[int], added: Limits | None = None, handoffs: Iterable[Handoff] = ()
    ) -> Send:
        """Enter more work, or a larger share, into a lease that a rank holds; the message that tells the rank."""
        if added is not None:
            lease.share = lease.share.plus(added)
        if lease.state in {LeaseState.PARKED, LeaseState.PROBING}:
            # A lane that waits for its servers says so again; one that was only left without a connection may run now.
            lease.happens(LeaseEvent.RUN)
            self._runs(lease)
        time_s, cost_s = self._costs(lease.group, batch_ids, lease.share)
        lease.time_s += time_s
        lease.ends_at += time_s
        lease.cost_s += cost_s
        self.ranks[lease.rank].load_s += cost_s
        lease.batch_ids.update(batch_ids)
        self._batches.hold(batch_ids)
        lease.handoffs += handoffs
        lease.version += 1
        self.on_more(lease)
        refs = self._batches.open_refs(batch_ids)
        return Send(lease.rank, Extend(lease.lane_id, lease.version, added, refs, tuple(handoffs)))

    # ---- leases move and end

    def take_back(self, lease: Lease) -> None:
        """The lane leaves its rank as a whole."""
        lease.happens(LeaseEvent.TAKE_BACK)
        self._runs(lease)
        self._leave_rank(lease)

    def _leave_rank(self, lease: Lease) -> bool:
        """Return whether the lane has spent bytes there that still count."""
        account = self.ranks[lease.rank]
        account.lease_ids.discard(lease.lane_id)
        account.load_s = max(0.0, account.load_s - lease.cost_s) if account.lease_ids else 0.0
        lease.rank = -1
        return self._paces.ended(lease.group, lease.lane_id)

    def cut(self, lease: Lease, batch_ids: list[int], share: Limits) -> Lease:
        """Move these batches and this share out of the lease, into one of their own."""
        lease.share = lease.share.minus(share)
        lease.batch_ids.difference_update(batch_ids)
        self._batches.pass_on(batch_ids)
        self.on_more(lease)
        return self.new(lease.group, batch_ids, share)

    def join(self, own: Lease, other: Lease) -> Send:
        """What ``other``, which has no rank, holds goes to ``own``."""
        other.happens(LeaseEvent.JOIN)
        self._drop(other)
        self._batches.pass_on(other.batch_ids)
        return self.extend(own, sorted(other.batch_ids), other.share, other.handoffs)

    def end(self, lease: Lease) -> list[Action]:
        """Release a lane that has ended. Batches that it leaves incomplete, and that no handoff holds, have to flow
        again; its share goes to another lane of the group, but not where it has spent of it what a budget allows: the
        other one would spend it again."""
        rank = lease.rank
        self._drop(lease)
        has_spent = self._leave_rank(lease)
        actions: list[Action] = [Send(rank, Release((lease.lane_id,)))]
        for batch_id in lease.held():
            actions += self._batches.let_go(batch_id)
        siblings = self.of_group(lease.group)
        if siblings and not has_spent:
            heir = max(siblings, key=lambda other: (len(other.batch_ids), -other.lane_id))
            actions.append(self.extend(heir, [], lease.share))
        return actions

    def _drop(self, lease: Lease) -> None:
        del self._by_lane[lease.lane_id]
        self._by_group[lease.group].discard(lease.lane_id)
        if not self._by_group[lease.group]:
            del self._by_group[lease.group]

    # ---- for checks

    def validate(self, held_apart: Iterable[int]) -> None:
        """Check the invariants (tests call this after every step).

        Args:
            held_apart: the batch of each hold that no lease has.

        Raises:
            AssertionError: with what breaks.
        """
        holds = dict(Counter(held_apart))
        for lease in self._by_lane.values():
            if (lease.lane_id in self._idle_until) != (lease.state in {LeaseState.PARKED, LeaseState.PROBING}):
                raise AssertionError(f"lane {lease.lane_id} is {lease.state.value}, and counted otherwise")
            if lease.lane_id not in self.ranks[lease.rank].lease_ids:
                raise AssertionError(f"lane {lease.lane_id} is not in the account of rank {lease.rank}")
            for batch_id in lease.held():
                holds[batch_id] = holds.get(batch_id, 0) + 1
        self._batches.validate(holds)
        for group, ids in self._by_group.items():
            if len(self.ranks_with(group)) < len(ids):
                raise AssertionError(f"a rank holds two lanes of {group}")
            whole = self.limits(group)
            shares = [self._by_lane[i].share for i in ids]
            numbers = [number for share in shares for number in share.numbers]
            if len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(whole.connections)):
                raise AssertionError(f"the lanes of {group} share connections that they do not have: {sorted(numbers)}")
            if sum(share.connections for share in shares) > whole.connections:
                raise AssertionError(f"the lanes of {group} share more than {whole.connections} connections")
            if sum(share.rate_per_s for share in shares) > whole.rate_per_s * (1 + 1e-9):
                raise AssertionError(f"the lanes of {group} share more than {whole.rate_per_s} requests/s")
