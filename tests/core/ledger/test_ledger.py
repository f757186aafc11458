"""Rank 0's state machine on its own: who gets which lane, what counts as done, and how work is stolen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest

from ddmpi.core.ledger.actions import Action, BatchCompleted, BigBatchEnded, BigBatchStarted, Scatter, Send
from ddmpi.core.ledger.batch_accounts import MOST_FLOWS_PER_BATCH
from ddmpi.core.ledger.batch_counts import BatchContent, BatchCounts
from ddmpi.core.ledger.ledger import Ledger
from ddmpi.core.ledger.stealing import STEAL_TIMEOUT_S
from ddmpi.core.protocol import (
    Assign,
    Counters,
    Extend,
    Handoff,
    Lane,
    LaneReport,
    LaneState,
    NoWork,
    PartReport,
    Progress,
    Release,
    StealRequest,
    StealResponse,
    WorkRequest,
)
from ddmpi.core.records import Limits, PaceState
from ddmpi.errors import TransitionError
from tests.laws.worlds import table
from tests.simulation.world import BatchModel, ServerModel, World

FAST = Limits(0.0, 8)


def world(sizes: Mapping[str, int], limits: Mapping[str, Limits] | None = None, small_rows: int = 0) -> World:
    """Batches of 10 rows; 10 requests per second and 4 connections per server, or ``limits``."""
    batches = table(dict(sizes), {}, batch_size=10, small_rows=small_rows)
    return World(batches, {name: ServerModel() for name in sizes}, limits or {}, Limits(10.0, 4))


Make = Callable[..., Ledger]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes ledgers that have not started, and validates them after the test."""
    made: list[Ledger] = []

    def make(world: World, ranks: int = 2, most_lanes: int = 1) -> Ledger:
        plan = world.plan(range(ranks), {1: most_lanes})
        made.append(Ledger(plan, BatchCounts(plan.batch_rows)))
        return made[-1]

    yield make
    for ledger in made:
        ledger.validate()


def lanes_of(actions: list[Action]) -> dict[int, list[Lane]]:
    """Lanes that these actions lease, by rank."""
    found: dict[int, list[Lane]] = {}
    for action in actions:
        if isinstance(action, Scatter):
            for rank, assign in action.assigns.items():
                found.setdefault(rank, []).extend(assign.lanes)
        elif isinstance(action, Send) and isinstance(action.message, Assign):
            found.setdefault(action.rank, []).extend(action.message.lanes)
    return found


def started(ledger: Ledger) -> dict[int, list[Lane]]:
    return lanes_of(ledger.start(1, {}, 0.0))


def only_lane_of(actions: list[Action]) -> tuple[int, Lane]:
    """The one lane that these actions lease: (rank, lane)."""
    ((rank, (lane,)),) = lanes_of(actions).items()
    return rank, lane


def only_lane(ledger: Ledger) -> tuple[int, Lane]:
    """Start a ledger that leases one lane: (rank, lane)."""
    ((rank, (lane,)),) = started(ledger).items()
    return rank, lane


def progress(
    *lanes: LaneReport, parts: tuple[PartReport, ...] = (), remaining_s: float = 0.0, unstarted: int = 0
) -> Progress:
    return Progress(parts, lanes, remaining_s, unstarted, Counters())


def drained(lane: Lane, version: int = 0, paces: Mapping[str, PaceState] | None = None) -> LaneReport:
    return LaneReport(lane.lane_id, version, LaneState.DRAINED, 0.0, dict(paces or {}))


def part(batch_id: int, rows: int = 10, path: str = "p", *, is_errors: bool = False) -> PartReport:
    return PartReport(batch_id, path, rows, is_errors)


def ended_lane(ledger: Ledger, rank: int, lane: Lane, version: int = 0) -> list[Action]:
    """All batches of the lane become final and it is drained."""
    parts = tuple(part(batch.batch_id, batch.rows) for batch in lane.batches)
    return ledger.on_progress(rank, progress(drained(lane, version), parts=parts), 1.0)


# ---- work flows out


def test_each_group_goes_to_one_rank_and_the_longest_first(make: Make) -> None:
    lanes = started(make(world({"a": 100, "b": 50, "c": 50})))
    assert {rank: [lane.group for lane in held] for rank, held in lanes.items()} == {0: ["a"], 1: ["b", "c"]}
    assert lanes[0][0].time_s == pytest.approx(10.0)


def test_a_fast_server_is_divided_among_ranks_that_all_differ(make: Make) -> None:
    ledger = make(world({"a": 200, "b": 5}, {"a": FAST}), ranks=3, most_lanes=3)
    lanes = started(ledger)
    shares = [lane.share.connections for held in lanes.values() for lane in held if lane.group == "a"]
    assert sorted(shares) == [2, 3, 3]
    assert all(sum(lane.group == "a" for lane in held) == 1 for held in lanes.values())


def test_the_schedule_names_ranks_and_ranges_of_partitions(make: Make) -> None:
    actions = make(world({"a": 30})).start(7, {}, 0.0)
    (begun,) = [action for action in actions if isinstance(action, BigBatchStarted)]
    assert begun.number == 7
    ((rank, server, first, last, rate),) = [
        (row.rank, row.server_name, row.partition_from, row.partition_to, row.rate_per_s) for row in begun.rows
    ]
    assert (rank, server, first, last, rate) == (0, "a", 0, 2, 10.0)


def test_nothing_to_do_is_complete(make: Make) -> None:
    ledger = make(world({}))
    assert ledger.start(1, {}, 0.0) == []
    assert ledger.is_complete


def test_the_next_big_batch_flows_in_before_the_last_one_has_drained(make: Make) -> None:
    ledger = make(world({"a": 600}), ranks=1)
    rank, lane = only_lane(ledger)
    assert len(lane.batches) == 50
    half = tuple(part(batch.batch_id) for batch in lane.batches[:25])
    assert all(isinstance(action, BatchCompleted) for action in ledger.on_progress(rank, progress(parts=half), 0.0))
    actions = ledger.on_progress(rank, progress(parts=(part(lane.batches[25].batch_id),)), 0.0)
    (extend,) = [action.message for action in actions if isinstance(action, Send)]
    assert isinstance(extend, Extend)
    assert (extend.version, len(extend.batches)) == (1, 10)


# ---- results are counted


def test_a_batch_is_complete_when_its_parts_hold_all_rows(make: Make) -> None:
    ledger = make(world({"a": 10, "b": 10}))
    started(ledger)
    assert ledger.batches.on_part(part(0, 4)) == []
    assert ledger.batches.on_part(part(0, 6, "q", is_errors=True)) == [BatchCompleted(0, 1)]
    assert ledger.batches.counts.rows_final == 10
    assert ledger.batches.open_big_batches() == [(1, (0, 1))]
    assert ledger.batches.on_part(part(1)) == [BatchCompleted(1, 1), BigBatchEnded(1, (0, 1))]
    assert ledger.batches.open_big_batches() == []


def test_more_outcomes_than_rows_are_a_bug(make: Make) -> None:
    ledger = make(world({"a": 10}))
    started(ledger)
    ledger.batches.on_part(part(0))
    with pytest.raises(TransitionError, match="10 rows and 11 outcomes"):
        ledger.batches.on_part(part(0, 1))


def test_a_restart_leases_only_what_is_open_with_the_parts_that_hold_the_rest() -> None:
    plan = world({"a": 30}).plan([0], {})
    counts = BatchCounts(plan.batch_rows, np.array([10, 3, 0]), np.array([0, 2, 0]), {1: ["x", "y"]})
    ledger = Ledger(plan, counts)
    _, lane = only_lane(ledger)
    assert [(batch.batch_id, batch.parts) for batch in lane.batches] == [(1, ("x", "y")), (2, ())]


def test_a_drained_lane_is_released(make: Make) -> None:
    ledger = make(world({"a": 10}))
    rank, lane = only_lane(ledger)
    actions = ended_lane(ledger, rank, lane)
    assert Send(rank, Release((lane.lane_id,))) in actions
    assert ledger.is_complete
    assert ledger.holder(lane.lane_id) is None


def test_a_drained_report_that_an_extension_has_crossed_does_not_count(make: Make) -> None:
    ledger = make(world({"a": 10, "b": 10}), ranks=1)
    lanes = {lane.group: lane for lane in started(ledger)[0]}
    handoff = Handoff(lanes["b"].batches[0], 3, "http://a/x", "a", "a", 1, 1)
    (extend,) = ledger.on_handed_off(0, [handoff], 0.0)
    assert extend == Send(0, Extend(lanes["a"].lane_id, 1, handoffs=(handoff,)))
    assert not any(isinstance(action, Send) for action in ended_lane(ledger, 0, lanes["a"], version=0))
    assert ledger.holder(lanes["a"].lane_id) == 0
    actions = ledger.on_progress(0, progress(drained(lanes["a"], 1)), 2.0)
    assert actions == [Send(0, Release((lanes["a"].lane_id,)))]


def test_the_share_of_a_drained_lane_goes_to_the_sibling_with_the_most_batches(make: Make) -> None:
    ledger = make(world({"a": 50}, {"a": FAST}), most_lanes=2)
    lanes = started(ledger)
    actions = ended_lane(ledger, 1, lanes[1][0])
    assert Send(0, Extend(lanes[0][0].lane_id, 1, added=Limits(0.0, 4))) in actions


def test_reports_on_lanes_of_others_are_a_bug(make: Make) -> None:
    ledger = make(world({"a": 10}))
    rank, lane = only_lane(ledger)
    with pytest.raises(TransitionError, match="which it does not hold"):
        ledger.on_progress(1 - rank, progress(drained(lane)), 0.0)


def test_a_batch_that_comes_back_incomplete_flows_again_until_it_makes_no_progress(make: Make) -> None:
    ledger = make(world({"a": 20}), ranks=1)
    rank, lane = only_lane(ledger)
    done = ledger.on_progress(rank, progress(drained(lane), parts=(part(0), part(1, 4))), 0.0)
    assert BigBatchEnded(1, (0,)) in done, "the other one is verified with its next big batch"
    flows = 1
    while lanes := lanes_of(done):
        ((again,),) = lanes.values()
        assert [(batch.batch_id, batch.parts) for batch in again.batches] == [(1, ("p",))]
        done = ledger.on_progress(rank, progress(drained(again)), 0.0)
        flows += 1
    assert flows == MOST_FLOWS_PER_BATCH
    assert not ledger.is_complete
    assert ledger.is_stuck(0.0, 100.0)


def test_verification_reopens_a_batch_with_what_its_files_hold(make: Make) -> None:
    ledger = make(world({"a": 10}))
    rank, lane = only_lane(ledger)
    ended_lane(ledger, rank, lane)
    ((again,),) = lanes_of(ledger.reopen(BatchContent(0, 5, 1, parts=("x",)), 0.0)).values()
    assert again.batches[0].parts == ("x",)
    assert ledger.batches.counts.rows_final == 6
    assert ledger.batches.on_part(part(0, 4))[0] == BatchCompleted(0, 2)


# ---- servers that are still being profiled


def test_a_group_that_is_withheld_gets_no_lane_before_it_joins_with_what_was_measured(make: Make) -> None:
    ledger = make(world({"a": 20, "b": 20}))
    assert [lane.group for lane in lanes_of(ledger.start(1, {}, 0.0, withheld={0}))[0]] == ["b"]
    assert not ledger.is_stuck(1e6, 0.0)
    actions = ledger.admit({0: 0.5}, {"a": PaceState(incidents=1)}, 1.0)
    ((lane,),) = lanes_of(actions).values()
    assert (lane.group, lane.time_s, lane.paces["a"].incidents) == ("a", 10.0, 1)
    assert [action.number for action in actions if isinstance(action, BigBatchStarted)] == [2]


def test_a_group_of_which_samples_are_left_is_not_complete_before_it_joins(make: Make) -> None:
    ledger = make(world({"a": 10, "b": 10}))
    rank, lane = only_lane_of(ledger.start(1, {}, 0.0, withheld={0}))
    assert ledger.batches.on_part(part(0)) == []
    ended_lane(ledger, rank, lane)
    assert not ledger.is_complete
    begun, completed, ended = ledger.admit({0: 0.1}, {}, 1.0)
    assert (begun, completed, ended) == (
        BigBatchStarted(2, ()), BatchCompleted(0, 2), BigBatchEnded(2, (0,)),
    )  # fmt: skip
    assert ledger.is_complete


def test_a_batch_waits_for_its_samples_to_be_durable_before_it_flows_again(make: Make) -> None:
    ledger = make(world({"a": 10}))
    ledger.start(1, {}, 0.0, withheld={0})
    rank, lane = only_lane_of(ledger.admit({0: 0.1}, {}, 1.0, {0: (0, 9)}))
    assert lane.batches[0].decided == (0, 9)
    ledger.on_progress(rank, progress(drained(lane), parts=(part(0, 8, "p"),)), 2.0)
    assert not ledger.is_complete
    assert not ledger.is_stuck(1e6, 0.0)
    assert ledger.batches.on_part(part(0, 2, "q")) == [BatchCompleted(0, 1), BigBatchEnded(1, (0,))]
    assert ledger.batches.samples_durable((0,)) == []
    assert ledger.is_complete


def test_a_row_that_is_redirected_to_a_withheld_group_waits_for_it(make: Make) -> None:
    ledger = make(world({"a": 20, "b": 20}))
    rank, lane = only_lane_of(ledger.start(1, {}, 0.0, withheld={0}))
    handoff = handoff_to("a", 2, ledger)
    assert ledger.on_handed_off(rank, [handoff], 0.0) == []
    ledger.validate()
    assert ended_lane(ledger, rank, lane)[-1] != BatchCompleted(2, 1), "its row is elsewhere"
    sent = [action.message for action in ledger.admit({0: 0.1}, {}, 1.0) if isinstance(action, Send)]
    assert [message.handoffs for message in sent if isinstance(message, Extend)] == [(handoff,)]


# ---- redirected rows


def handoff_to(group: str, batch: int, ledger: Ledger, server: str = "") -> Handoff:
    return Handoff(ledger.plan.ref(batch), 1, f"http://{server or group}/x", server or group, group, 1, 1)


def test_a_row_goes_to_the_rank_that_holds_the_lane_of_its_new_server(make: Make) -> None:
    ledger = make(world({"a": 100, "b": 50}))
    lanes = started(ledger)
    handoff = handoff_to("b", 0, ledger)
    assert ledger.on_handed_off(0, [handoff], 0.0) == [Send(1, Extend(lanes[1][0].lane_id, 1, handoffs=(handoff,)))]


def test_a_row_for_a_server_of_a_pack_goes_to_the_packs_lane(make: Make) -> None:
    ledger = make(world({"a": 100, "b": 5, "c": 4}, small_rows=8))
    lanes = started(ledger)
    pack = next(lane for held in lanes.values() for lane in held if lane.packed)
    (action,) = ledger.on_handed_off(0, [handoff_to("c", 0, ledger)], 0.0)
    assert isinstance(action, Send)
    assert isinstance(action.message, Extend)
    assert action.message.lane_id == pack.lane_id


def test_rows_for_a_server_that_no_lane_serves_get_one_with_all_of_its_limits(make: Make) -> None:
    ledger = make(world({"a": 10}, {"outside": Limits(1.0, 2)}))
    rank, _ = only_lane(ledger)
    handoff = handoff_to("outside", 0, ledger)
    ((guest,),) = lanes_of(ledger.on_handed_off(rank, [handoff], 0.0)).values()
    assert (guest.group, guest.share, guest.batches, guest.handoffs) == ("outside", Limits(1.0, 2), (), (handoff,))
    (second,) = ledger.on_handed_off(rank, [handoff], 0.0)
    assert second == Send(rank, Extend(guest.lane_id, 1, handoffs=(handoff,))), "one lane for the group"


def test_a_batch_whose_row_is_elsewhere_is_not_handed_out_again(make: Make) -> None:
    ledger = make(world({"a": 10}))
    rank, lane = only_lane(ledger)
    ((guest,),) = lanes_of(ledger.on_handed_off(rank, [handoff_to("outside", 0, ledger)], 0.0)).values()
    done = ledger.on_progress(rank, progress(drained(lane), parts=(part(0, 9),)), 0.0)
    assert done == [Send(rank, Release((lane.lane_id,)))]
    assert not ledger.is_complete
    ledger.on_progress(rank, progress(drained(guest), parts=(part(0, 1, "q"),)), 0.0)
    assert ledger.is_complete


# ---- work is stolen


def steal(ledger: Ledger, rank: int, request_id: int = 1, now: float = 0.0) -> Send:
    (action,) = ledger.on_work_request(rank, WorkRequest(request_id), now)
    assert isinstance(action, Send)
    return action


def asked(ledger: Ledger, thief: int, victim: int, now: float = 0.0) -> StealRequest:
    """The thief asks; the StealRequest that goes to the victim."""
    action = steal(ledger, thief, now=now)
    assert action.rank == victim
    assert isinstance(action.message, StealRequest)
    return action.message


@pytest.fixture
def two(make: Make) -> tuple[Ledger, list[Lane]]:
    """Rank 0 has three lanes that it has not started, rank 1 has none left."""
    ledger = make(world({"a": 10, "b": 10, "c": 10, "d": 10}))
    lanes = started(ledger)
    for lane in lanes[1]:
        ended_lane(ledger, 1, lane)
    ledger.on_progress(0, progress(remaining_s=8.0, unstarted=2), 0.0)
    return ledger, lanes[0]


def test_lanes_that_were_not_started_move_to_the_thief(two: tuple[Ledger, list[Lane]]) -> None:
    ledger, (first, *_) = two
    request = asked(ledger, thief=1, victim=0)
    assert (request.time_s, request.split_lane_id) == (4.0, 0)
    (action,) = ledger.stealing.on_steal_response(0, StealResponse(request.request_id, (first.lane_id,)), 0.0)
    assert action == Send(1, Assign((first,), 1))
    assert ledger.holder(first.lane_id) == 1
    assert ledger.stealing.steals == 1


def test_a_victim_with_nothing_to_give_lets_the_thief_wait(two: tuple[Ledger, list[Lane]]) -> None:
    ledger, _ = two
    request = asked(ledger, thief=1, victim=0)
    assert ledger.stealing.on_steal_response(0, StealResponse(request.request_id), 0.0) == [Send(1, NoWork(1, 2.0))]


def test_a_thief_that_is_refused_waits_longer_each_time(make: Make) -> None:
    ledger = make(world({"a": 10}))
    rank, _ = only_lane(ledger)
    answers = [steal(ledger, 1 - rank, request_id).message for request_id in range(1, 7)]
    assert [answer.wait_s for answer in answers if isinstance(answer, NoWork)] == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_thief_that_was_refused_gets_work_as_soon_as_there_is_some(two: tuple[Ledger, list[Lane]]) -> None:
    ledger, (first, *_) = two
    request = asked(ledger, thief=1, victim=0)
    ledger.stealing.on_steal_response(0, StealResponse(request.request_id), 0.0)
    (news,) = ledger.on_progress(0, progress(remaining_s=8.0, unstarted=2), 1.0)
    assert isinstance(news, Send)
    assert isinstance(news.message, StealRequest)
    assert news.rank == 0
    actions = ledger.stealing.on_steal_response(0, StealResponse(news.message.request_id, (first.lane_id,)), 1.0)
    assert actions == [Send(1, Assign((first,), 0))], "it answers no request"
    assert ledger.on_progress(0, progress(remaining_s=8.0, unstarted=1), 2.0) == [], "the thief has work now"


def test_the_victim_is_the_rank_that_ends_last_as_far_as_is_known(make: Make) -> None:
    ledger = make(world({f"s{number}": 10 for number in range(9)}), ranks=4)
    started(ledger)
    for rank, remaining_s in ((0, 8.0), (1, 9.0), (2, 4.0), (1, 5.0)):
        ledger.on_progress(rank, progress(remaining_s=remaining_s, unstarted=1), 0.0)
    ledger.on_progress(2, progress(remaining_s=7.0, unstarted=1), 2.0)
    assert [steal(ledger, 3, request_id).rank for request_id in (1, 2, 3)] == [2, 0, 1]
    assert isinstance(steal(ledger, 3, 4).message, NoWork), "all of them are asked already"


def test_refusals_without_number_do_not_overflow(make: Make) -> None:
    ledger = make(world({"a": 10}))
    rank, _ = only_lane(ledger)
    for request_id in range(1, 1200):
        action = steal(ledger, 1 - rank, request_id)
    assert action == Send(1 - rank, NoWork(1199, 30.0))


def test_a_late_answer_of_a_stalled_victim_still_reaches_the_thief(two: tuple[Ledger, list[Lane]]) -> None:
    ledger, (first, *_) = two
    request = asked(ledger, thief=1, victim=0)
    assert ledger.tick(STEAL_TIMEOUT_S - 0.1) == []
    assert ledger.tick(STEAL_TIMEOUT_S) == [Send(1, NoWork(1, 2.0))]
    assert ledger.tick(STEAL_TIMEOUT_S + 1) == [], "the thief is told once"
    (action,) = ledger.stealing.on_steal_response(0, StealResponse(request.request_id, (first.lane_id,)), 9.0)
    assert action == Send(1, Assign((first,), 0)), "it answers no request any more"


def test_an_answer_that_was_not_asked_for_is_a_bug(two: tuple[Ledger, list[Lane]]) -> None:
    ledger, _ = two
    with pytest.raises(TransitionError, match="was not asked of it"):
        ledger.stealing.on_steal_response(0, StealResponse(99), 0.0)


def test_a_victim_is_asked_by_one_thief_at_a_time(make: Make) -> None:
    ledger = make(world({"a": 10, "b": 10}), ranks=3)
    started(ledger)
    ledger.on_progress(0, progress(remaining_s=8.0, unstarted=1), 0.0)
    asked(ledger, thief=2, victim=0)
    assert isinstance(steal(ledger, 1).message, NoWork)


def test_a_lane_that_moves_takes_along_the_extension_that_its_holder_did_not_see(
    two: tuple[Ledger, list[Lane]],
) -> None:
    ledger, (first, second, *_) = two
    request = asked(ledger, thief=1, victim=0)
    handoff = handoff_to(first.group, second.batches[0].batch_id, ledger)
    ledger.on_handed_off(0, [handoff], 0.0)
    ((moved,),) = lanes_of(
        ledger.stealing.on_steal_response(0, StealResponse(request.request_id, (first.lane_id,)), 0.0)
    ).values()
    assert (moved.version, moved.handoffs) == (1, (handoff,))


def fast_halves(make: Make) -> tuple[Ledger, Lane]:
    """Rank 0 has a lane of ten batches that may be split, rank 1 has nothing."""
    ledger = make(world({"a": 100}, {"a": FAST}), most_lanes=2)
    lanes = started(ledger)
    ended_lane(ledger, 1, lanes[1][0])
    ledger.on_progress(0, progress(LaneReport(lanes[0][0].lane_id, 1, LaneState.RUNNING), remaining_s=5.0), 0.0)
    return ledger, lanes[0][0]


def test_a_lane_is_split_with_its_share(make: Make) -> None:
    ledger, lane = fast_halves(make)
    request = asked(ledger, thief=1, victim=0)
    assert request.split_lane_id == lane.lane_id
    given = tuple(batch.batch_id for batch in lane.batches[3:])
    answer = StealResponse(request.request_id, (), lane.lane_id, given, Limits(0.0, 4))
    ((new,),) = lanes_of(ledger.stealing.on_steal_response(0, answer, 0.0)).values()
    assert (new.group, new.share) == ("a", Limits(0.0, 4))
    assert tuple(batch.batch_id for batch in new.batches) == given
    assert isinstance(steal(ledger, 1, 2).message, NoWork), "the group has as many lanes as it may have"


def test_a_share_given_while_a_split_is_under_way_is_added_not_set(make: Make) -> None:
    ledger = make(world({"a": 150}, {"a": FAST}), ranks=3, most_lanes=3)
    lanes = {rank: held[0] for rank, held in started(ledger).items()}
    heir = [action.rank for action in ended_lane(ledger, 2, lanes[2]) if isinstance(action, Send) and action.rank != 2]
    request = steal(ledger, 2)
    assert isinstance(request.message, StealRequest)
    victim, sibling = request.rank, 1 - request.rank
    version = heir.count(sibling)
    grown = [action for action in ended_lane(ledger, sibling, lanes[sibling], version) if isinstance(action, Send)]
    given = (lanes[victim].batches[-1].batch_id,)
    cut_off = Limits(0.0, lanes[victim].share.connections // 2)
    answer = StealResponse(request.message.request_id, (), lanes[victim].lane_id, given, cut_off)
    ((new,),) = lanes_of(ledger.stealing.on_steal_response(victim, answer, 0.0)).values()
    extended = [action.message for action in grown if isinstance(action.message, Extend)]
    grown_by = lanes[sibling].share.connections + version * lanes[2].share.connections
    assert [(message.lane_id, message.added) for message in extended] == [
        (lanes[victim].lane_id, Limits(0.0, grown_by))
    ]
    assert new.share == cut_off


def test_a_split_without_batches_is_a_bug(make: Make) -> None:
    ledger, lane = fast_halves(make)
    request = asked(ledger, thief=1, victim=0)
    with pytest.raises(TransitionError, match="in a way that it cannot"):
        ledger.stealing.on_steal_response(
            0, StealResponse(request.request_id, (), lane.lane_id, (), Limits(0.0, 4)), 0.0
        )


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(Limits(100.0, 8), id="its rate is the limit, not a rank"),
        pytest.param(Limits(0.0, 1), id="it has one connection"),
    ],
)
def test_lanes_that_no_second_rank_could_help_are_not_split(make: Make, limits: Limits) -> None:
    ledger = make(world({"a": 100}, {"a": limits}), most_lanes=8)
    rank, _ = only_lane(ledger)
    assert steal(ledger, 1 - rank) == Send(1 - rank, NoWork(1, 2.0))


def test_what_a_thief_gets_of_a_group_that_it_serves_already_is_joined_to_its_lane(make: Make) -> None:
    ledger = make(world({"a": 60, "b": 10}, {"a": FAST}), most_lanes=2)
    lanes = started(ledger)
    victim_lane = next(lane for lane in lanes[0] if lane.group == "a")
    thief_lane = next(lane for lane in lanes[1] if lane.group == "a")
    ledger.on_progress(0, progress(remaining_s=8.0, unstarted=1), 0.0)
    request = asked(ledger, thief=1, victim=0)
    extend, answer = ledger.stealing.on_steal_response(
        0, StealResponse(request.request_id, (victim_lane.lane_id,)), 0.0
    )
    assert extend == Send(1, Extend(thief_lane.lane_id, 1, victim_lane.share, victim_lane.batches))
    assert answer == Send(1, Assign((), 1))
    assert ledger.holder(thief_lane.lane_id) == 1 and ledger.holder(victim_lane.lane_id) is None


def test_a_thief_gets_the_next_big_batch_first(make: Make) -> None:
    ledger = make(world({f"s{number}": 10 for number in range(60)}), ranks=1)
    started(ledger)
    actions = ledger.on_work_request(0, WorkRequest(3), 0.0)
    (scatter,) = [action for action in actions if isinstance(action, Scatter)]
    assert scatter.assigns[0].request_id == 3
    assert len(scatter.assigns[0].lanes) == 10


# ---- paces


def test_what_is_known_of_a_server_goes_with_its_next_lane_and_waits_run_down(make: Make) -> None:
    ledger = make(world({"a": 10}))
    (lane,) = next(iter(lanes_of(ledger.start(1, {"a": PaceState(4.0, 30.0, 2)}, 100.0)).values()))
    assert lane.paces == {"a": PaceState(4.0, 30.0, 2)}
    assert ledger.paces.all(120.0) == {"a": PaceState(4.0, 10.0, 2)}
    assert ledger.paces.all(500.0) == {"a": PaceState(4.0, 0.0, 2)}


def test_a_learned_rate_is_kept_as_of_the_whole_group(make: Make) -> None:
    ledger = make(world({"a": 100}, {"a": Limits(1000.0, 8)}), most_lanes=2)
    lanes = started(ledger)
    report = LaneReport(lanes[0][0].lane_id, 0, LaneState.RUNNING, 0.0, {"a": PaceState(200.0)})
    ledger.on_progress(0, progress(report), 0.0)
    assert ledger.paces.all(0.0) == {"a": PaceState(400.0)}


def test_a_pause_that_one_lane_was_asked_for_stops_its_siblings_once(make: Make) -> None:
    ledger = make(world({"a": 100}, {"a": FAST}), most_lanes=2)
    lanes = started(ledger)
    report = LaneReport(lanes[0][0].lane_id, 0, LaneState.RUNNING, 0.0, {"a": PaceState(0.0, 60.0)})
    news = ledger.on_progress(0, progress(report), 0.0)
    assert news == [Send(1, Extend(lanes[1][0].lane_id, 0, wait_s=60.0))]
    assert ledger.on_progress(0, progress(report), 0.0) == []


def test_a_lane_that_has_not_heard_of_a_pause_does_not_end_it(make: Make) -> None:
    ledger = make(world({"a": 100}, {"a": FAST}), most_lanes=2)
    lanes = started(ledger)
    paused = LaneReport(lanes[0][0].lane_id, 0, LaneState.RUNNING, 0.0, {"a": PaceState(0.0, 60.0)})
    ignorant = LaneReport(lanes[1][0].lane_id, 0, LaneState.RUNNING, 0.0, {"a": PaceState()})
    ledger.on_progress(0, progress(paused), 0.0)
    ledger.on_progress(1, progress(ignorant), 1.0)
    assert ledger.paces.all(2.0)["a"].wait_s == pytest.approx(58.0)


# ---- the end


def test_a_run_is_stuck_when_everything_left_is_parked_for_longer_than_it_may_wait(make: Make) -> None:
    ledger = make(world({"a": 10, "b": 10}), ranks=1)
    first, second = started(ledger)[0]
    parked = [LaneReport(lane.lane_id, 0, LaneState.PARKED, 100.0) for lane in (first, second)]
    ledger.on_progress(0, progress(parked[0]), 0.0)
    assert (ledger.is_stuck(0.0, 50.0), ledger.is_parked) == (False, False), "the other one runs"
    ledger.on_progress(0, progress(parked[1]), 0.0)
    assert (ledger.is_stuck(0.0, 50.0), ledger.is_parked) == (True, True)
    assert not ledger.is_stuck(0.0, 200.0), "it may wait for longer than that"
    assert not ledger.is_stuck(60.0, 50.0), "the pause is over soon"
    ledger.on_progress(0, progress(LaneReport(first.lane_id, 0, LaneState.RUNNING)), 0.0)
    assert not ledger.is_stuck(0.0, 50.0)


def test_probes_that_nobody_answers_do_not_prolong_a_run(make: Make) -> None:
    ledger = make(world({"a": 10, "b": 10}), ranks=1)
    first, second = started(ledger)[0]
    ledger.on_progress(0, progress(LaneReport(first.lane_id, 0, LaneState.PARKED, 100.0)), 0.0)
    ledger.on_progress(0, progress(LaneReport(second.lane_id, 0, LaneState.PROBING)), 0.0)
    ledger.tick(0.0)
    assert not ledger.is_stuck(0.0, 50.0), "the probe may be answered"
    assert ledger.is_stuck(50.0, 50.0), "so long, and nothing came of it"
    ledger.on_progress(0, progress(LaneReport(second.lane_id, 0, LaneState.RUNNING)), 40.0)
    ledger.tick(40.0)
    ledger.on_progress(0, progress(LaneReport(second.lane_id, 0, LaneState.PROBING)), 45.0)
    ledger.tick(45.0)
    assert not ledger.is_stuck(50.0, 50.0), "it has run in between"
    assert ledger.is_stuck(95.0, 50.0)


def test_counts_for_people(make: Make) -> None:
    ledger = make(world({"a": 20}))
    started(ledger)
    ledger.batches.on_part(part(0))
    assert repr(ledger) == "<Ledger: 1 leased, 0 to flow, 1 of 2 complete>"


def test_batches_without_a_valid_url_form_lanes_that_are_never_divided(make: Make) -> None:
    refused = [BatchModel("__invalid__", "__invalid__", number, [("bad", "")] * 10) for number in range(8)]
    ledger = make(World(refused, {}, default_limits=FAST), ranks=4, most_lanes=4)
    rank, lane = only_lane(ledger)
    assert len(lane.batches) == 8
    assert isinstance(steal(ledger, (rank + 1) % 4).message, NoWork)
