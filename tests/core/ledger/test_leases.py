"""The life of a lease, and what a rank is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ddmpi.core.ledger.batch_accounts import BatchAccounts
from ddmpi.core.ledger.batch_counts import BatchCounts
from ddmpi.core.ledger.known_paces import KnownPaces
from ddmpi.core.ledger.leases import TRANSITIONS, Lease, LeaseEvent, Leases, LeaseState
from ddmpi.core.ledger.schedule import Plan
from ddmpi.core.protocol import LaneReport, LaneState, Release
from ddmpi.core.records import Limits, PaceState
from ddmpi.errors import TransitionError
from tests.core.ledger.ledgers import sent_by, world


def plan(small_rows: int = 0, connections_per_rank: int = 256) -> Plan:
    made = world({"a": 20, "b": 10}, small_rows=small_rows).plan([1, 2], {})
    return replace(made, connections_per_rank=connections_per_rank)


def make(made: Plan) -> Leases:
    return Leases(made, BatchAccounts(made, BatchCounts(made.batch_rows)), KnownPaces(lambda server: server))


def lease(state: LeaseState = LeaseState.NEW) -> Lease:
    return Lease(1, -1, "a", 0.0, 0.0, Limits(), set(), state=state)


# ---- the table


@pytest.mark.parametrize("state", LeaseState)
@pytest.mark.parametrize("event", LeaseEvent)
def test_what_is_not_in_the_table_cannot_happen(state: LeaseState, event: LeaseEvent) -> None:
    it = lease(state)
    if (state, event) in TRANSITIONS:
        it.happens(event)
        assert it.state is TRANSITIONS[state, event]
    else:
        with pytest.raises(TransitionError, match=f"{event.value} of lane 1 of a, which is {state.value}"):
            it.happens(event)
        assert it.state is state


def reachable(state: LeaseState) -> Iterator[LeaseState]:
    seen, open_states = {state}, [state]
    while open_states:
        it = open_states.pop()
        yield it
        found = {after for (before, _), after in TRANSITIONS.items() if before is it} - seen
        seen |= found
        open_states += found


def test_every_state_is_reached_and_only_the_end_is_final() -> None:
    assert set(reachable(LeaseState.NEW)) == set(LeaseState)
    assert {before for before, _ in TRANSITIONS} == set(LeaseState) - {LeaseState.ENDED}
    assert all(LeaseState.ENDED in set(reachable(state)) for state in LeaseState)


# ---- reports


@pytest.mark.parametrize(
    ("report", "state", "none_runs", "parked_for_50_s"),
    [
        pytest.param(LaneState.RUNNING, LeaseState.LEASED, False, False, id="it runs"),
        pytest.param(LaneState.PARKED, LeaseState.PARKED, True, True, id="it is parked for 60 s"),
        pytest.param(LaneState.PROBING, LeaseState.PROBING, True, False, id="a probe may be answered at any time"),
    ],
)
def test_a_rank_says_how_its_lane_is(
    report: LaneState, state: LeaseState, *, none_runs: bool, parked_for_50_s: bool
) -> None:
    leases = make(plan())
    held = leases.new("a", [0], Limits(10.0, 4))
    leases.grant(held, 1, 0.0)
    leases.on_report(held, LaneReport(held.lane_id, 0, report, 60.0), 0.0)
    assert (held.state, leases.none_runs, leases.all_parked(50.0)) == (state, none_runs, parked_for_50_s)
    leases.validate([])
    leases.extend(held, [1])
    leases.on_report(held, LaneReport(held.lane_id, 0, report, 60.0), 1.0)
    assert held.state is LeaseState.LEASED, "it has not seen the extension"


def test_a_lane_of_the_ledger_is_no_sampling_lane() -> None:
    leases = make(plan())
    held = leases.new("a", [0], Limits(10.0, 4))
    leases.grant(held, 1, 0.0)
    with pytest.raises(TransitionError, match="lane 1 of a is no sampling lane, and sampled"):
        leases.on_report(held, LaneReport(held.lane_id, 0, LaneState.SAMPLED), 0.0)


def test_a_lane_that_moves_begins_anew() -> None:
    leases = make(plan())
    held = leases.new("a", [0], Limits(10.0, 4))
    leases.grant(held, 1, 0.0)
    leases.on_report(held, LaneReport(held.lane_id, 0, LaneState.PARKED, 60.0), 0.0)
    leases.take_back(held)
    assert (held.rank, held.state, leases.none_runs) == (-1, LeaseState.NEW, False)
    leases.grant(held, 2, 0.0)
    leases.validate([])
    assert leases.ranks_with("a") == {2}


def test_the_heir_of_an_ended_lane_gets_its_share() -> None:
    leases = make(plan())
    first, second = (leases.new("a", [batch], share) for batch, share in enumerate(Limits(10.0, 4).divided(2)))
    leases.grant(first, 1, 0.0)
    leases.grant(second, 2, 0.0)
    leases.on_report(first, LaneReport(first.lane_id, 0, LaneState.DRAINED), 0.0)
    (_, release), (heir, extend) = sent_by(leases.end(first))
    assert release == Release((first.lane_id,))
    assert (heir, second.share, second.version) == (2, Limits(10.0, 4, numbers=frozenset(range(4))), 1)
    assert extend is not None


def test_a_share_of_which_bytes_were_spent_is_not_given_to_another_lane() -> None:
    """It would spend the budget of the group again."""
    made = plan()
    paces = KnownPaces(lambda server: server)
    leases = Leases(made, BatchAccounts(made, BatchCounts(made.batch_rows)), paces)
    first, second = (leases.new("a", [batch], Limits(5.0, 2)) for batch in (0, 1))
    leases.grant(first, 1, 0.0)
    leases.grant(second, 2, 0.0)
    paces.report("a", 0.5, {"a": PaceState(spent_day=((1000.0, 80.0),))}, 0.0, first.lane_id)
    leases.on_report(first, LaneReport(first.lane_id, 0, LaneState.DRAINED), 0.0)
    assert sent_by(leases.end(first)) == [(1, Release((first.lane_id,)))]
    assert second.share == Limits(5.0, 2)


# ---- what is told and what is charged


def test_servers_of_a_pack_take_their_own_limits_along() -> None:
    made = plan(small_rows=11)
    lowered = {"b": Limits(2.0, 4)}
    leases = make(replace(made, server_limits={"__many__/0": lowered}))
    pack = leases.grant(leases.new("__many__/0", [made.group_names.index("__many__/0")], Limits(0.0, 1)), 1, 0.0)
    assert (pack.packed, pack.limits) == (True, lowered)
    assert leases.grant(leases.new("a", [0], Limits(10.0, 4)), 1, 0.0).limits == {}


def test_a_lane_costs_the_more_of_a_rank_the_fewer_connections_that_has() -> None:
    costs = [make(plan(connections_per_rank=each)).new("a", [0], Limits(0.0, 4)).cost_s for each in (256, 16)]
    assert costs[1] - 0.003 == pytest.approx(16 * (costs[0] - 0.003))
