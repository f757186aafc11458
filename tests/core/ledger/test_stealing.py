"""How work is stolen: who is asked, what moves, and what a thief that gets nothing is told."""

from __future__ import annotations

import pytest

from ddmpi.core.ledger.actions import Scatter, Send
from ddmpi.core.ledger.ledger import Ledger
from ddmpi.core.ledger.stealing import STEAL_TIMEOUT_S
from ddmpi.core.protocol import (
    Assign,
    Extend,
    Lane,
    LaneReport,
    LaneState,
    NoWork,
    StealRequest,
    StealResponse,
    WorkRequest,
)
from ddmpi.core.records import Limits
from ddmpi.errors import TransitionError
from tests.core.ledger.ledgers import (
    FAST,
    Make,
    ended_lane,
    handoff_to,
    lanes_of,
    only_lane,
    progress,
    started,
    steal,
    world,
)


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
    cut_off = lane.share.divided(2)[1]
    answer = StealResponse(request.request_id, (), lane.lane_id, given, cut_off)
    ((new,),) = lanes_of(ledger.stealing.on_steal_response(0, answer, 0.0)).values()
    assert (new.group, new.share) == ("a", cut_off)
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
    cut_off = lanes[victim].share.divided(2)[1]
    answer = StealResponse(request.message.request_id, (), lanes[victim].lane_id, given, cut_off)
    ((new,),) = lanes_of(ledger.stealing.on_steal_response(victim, answer, 0.0)).values()
    extended = [action.message for action in grown if isinstance(action.message, Extend)]
    grown_by = lanes[sibling].share.plus(lanes[2].share) if version else lanes[sibling].share
    assert [(message.lane_id, message.added) for message in extended] == [(lanes[victim].lane_id, grown_by)]
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
    assert ledger.lanes_of("a") == [thief_lane.lane_id]


def test_a_thief_gets_the_next_big_batch_first(make: Make) -> None:
    ledger = make(world({f"s{number}": 10 for number in range(60)}), ranks=1)
    started(ledger)
    actions = ledger.on_work_request(0, WorkRequest(3), 0.0)
    (scatter,) = [action for action in actions if isinstance(action, Scatter)]
    assert scatter.assigns[0].request_id == 3
    assert len(scatter.assigns[0].lanes) == 10
