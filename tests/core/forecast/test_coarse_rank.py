"""A rank that works by the batch: when its parts come, what it gives back, when it asks for more."""

from __future__ import annotations

import math

import pytest

from ddmpi.core.forecast.coarse_rank import CoarseModel, CoarseRank
from ddmpi.core.protocol import (
    Assign,
    Begin,
    Extend,
    Lane,
    LaneReport,
    LaneState,
    NoWork,
    Progress,
    Release,
    StealRequest,
    StealResponse,
    ToCoordinator,
    WorkRequest,
)
from ddmpi.core.records import BatchRef, Limits
from ddmpi.errors import TransitionError

SILENT = CoarseModel(commit_s=0.0, report_interval_s=math.inf, steals=False)
"""A rank that says nothing but what its batches make it say."""


SILENT_THIEF = CoarseModel(commit_s=0.0, report_interval_s=math.inf)
REPORTING = CoarseModel(report_interval_s=0.5, commit_s=10.0, steals=False)


def lane(lane_id: int, batches: int = 1, connections: int = 8, packed: bool = False, time_s: float = 0.0) -> Lane:
    """A lane of batches of 10 rows; each takes a second unless ``time_s`` says how long all take."""
    refs = tuple(BatchRef(100 * lane_id + number, "s", number, "", 0, 0, 10) for number in range(batches))
    return Lane(lane_id, "s", packed, Limits(0.0, connections), refs, time_s=time_s or float(batches))


def rank_with(model: CoarseModel, *lanes: Lane) -> CoarseRank:
    rank = CoarseRank(1, model)
    assert rank.handle(Assign(lanes), 0.0) == []
    return rank


WHOLE = Limits(0.0, 8)


def sent_until(rank: CoarseRank, until: float) -> list[tuple[float, ToCoordinator]]:
    """What the rank sends, and when."""
    sent = []
    while (at := rank.next_at()) <= until:
        sent += [(round(at, 2), message) for message in rank.step(at)]
    return sent


def coarse_rank(batches: int, share: Limits = WHOLE) -> CoarseRank:
    """A rank that runs one lane of batches of 10 rows, each of which takes a second."""
    refs = tuple(BatchRef(number, "s", number, "", 0, 0, 10) for number in range(batches))
    rank = CoarseRank(1, CoarseModel())
    assert rank.handle(Assign((Lane(1, "s", False, share, refs, time_s=float(batches)),)), 0.0) == []
    return rank


def parts_of(rank: CoarseRank, until: float) -> dict[int, float]:
    """When each batch's part is reported."""
    found = {}
    while (at := rank.next_at()) <= until:
        for message in rank.step(at):
            if isinstance(message, Progress):
                found.update(dict.fromkeys((part.batch_id for part in message.parts), round(at, 2)))
    return found


def test_a_lane_is_cut_with_its_share_and_goes_on_at_half_its_speed() -> None:
    rank = coarse_rank(5)
    rank.step(0.5)
    (answer,) = rank.handle(StealRequest(7, 10.0, 1), 0.5)
    assert answer == StealResponse(7, (), 1, (4, 3), Limits(0.0, 8).divided(2)[1])
    assert parts_of(rank, 20.0) == {0: 1.55, 1: 3.55, 2: 5.55}


def test_a_larger_share_makes_a_lane_faster_and_more_batches_keep_it_running() -> None:
    share, added = Limits(0.0, 16).divided(2)
    rank = coarse_rank(1, share)
    rank.step(0.5)
    more = (BatchRef(9, "s", 9, "", 0, 0, 10),)
    assert rank.handle(Extend(1, 1, added, more), 0.5) == []
    assert parts_of(rank, 20.0) == {0: 0.8, 9: 1.3}


def test_parts_are_closed_at_intervals() -> None:
    refs = (BatchRef(0, "s", 0, "", 0, 0, 100),)
    rank = CoarseRank(1, CoarseModel(close_interval_s=3.0, commit_s=0.0))
    rank.handle(Assign((Lane(1, "s", False, Limits(0.0, 8), refs, time_s=10.0),)), 0.0)
    rows = []
    while (at := rank.next_at()) <= 12.0:
        rows += [part.rows for message in rank.step(at) if isinstance(message, Progress) for part in message.parts]
    assert rows == [30, 30, 30, 10]


def test_lanes_beyond_the_connections_wait_and_the_longest_one_is_next() -> None:
    model = CoarseModel(commit_s=0.0, connections=8, steals=False)
    rank = rank_with(model, lane(1, time_s=2.0), lane(2), lane(3, time_s=3.0))
    assert parts_of(rank, 20.0) == {300: 3.0, 100: 5.0, 200: 6.0}
    assert rank.rows == 30


def test_a_rank_that_is_asked_for_more_than_it_can_do_slows_all_lanes_down_alike() -> None:
    model = CoarseModel(commit_s=0.0, cpu_per_row_s=0.1, steals=False)
    assert parts_of(rank_with(model, lane(1), lane(2)), 20.0) == {100: 2.0, 200: 2.0}
    assert parts_of(rank_with(model, lane(1), lane(2, time_s=2.0)), 20.0) == {100: 1.5, 200: 2.5}


def test_a_lane_that_has_ended_is_told_with_its_last_rows_and_a_part_of_them() -> None:
    ((at, message),) = sent_until(rank_with(SILENT, lane(7)), 20.0)
    assert at == 1.0
    assert isinstance(message, Progress)
    assert message.lanes == (LaneReport(7, 0, LaneState.DRAINED),)
    assert [(part.batch_id, part.rows, part.is_errors) for part in message.parts] == [(700, 10, False)]


def test_a_lane_that_has_ended_goes_on_with_more_batches_until_it_is_released() -> None:
    rank = rank_with(SILENT, lane(7))
    sent_until(rank, 1.0)
    more = BatchRef(9, "s", 9, "", 0, 0, 10)
    assert rank.handle(Extend(7, 1, None, (more,)), 5.0) == []
    assert parts_of(rank, 20.0) == {9: 6.0}
    assert rank.handle(Release((7,)), 7.0) == []
    assert rank.handle(Extend(7, 2, None, (more,)), 8.0) == []
    assert parts_of(rank, 20.0) == {}


def test_reports_say_how_much_is_left() -> None:
    model = CoarseModel(report_interval_s=0.5, connections=8, steals=False)
    rank = rank_with(model, lane(1, batches=4), lane(2))
    assert remaining_s(rank, 1.0) == [4.0, 3.0]
    assert [sent.unstarted for _, sent in sent_until(rank, 1.5) if isinstance(sent, Progress)] == [1]


def remaining_s(rank: CoarseRank, until: float) -> list[float]:
    return [round(sent.remaining_s, 2) for _, sent in sent_until(rank, until) if isinstance(sent, Progress)]


def test_what_is_left_changes_with_what_is_cut_off_and_what_is_added() -> None:
    rank = rank_with(REPORTING, lane(1, batches=4))
    assert remaining_s(rank, 0.5) == [4.0]
    rank.handle(StealRequest(7, 10.0, 1), 0.5)
    assert remaining_s(rank, 1.0) == [4.0], "half of the batches at half of the speed"
    rank.handle(Extend(1, 1, None, (BatchRef(9, "s", 9, "", 0, 0, 20),)), 1.0)
    assert remaining_s(rank, 1.5) == [6.0], "the first batch has ended"


def test_what_is_left_takes_longer_on_a_rank_that_is_asked_for_too_much() -> None:
    model = CoarseModel(report_interval_s=0.5, cpu_per_row_s=0.2, steals=False)
    assert remaining_s(rank_with(model, lane(1, batches=4)), 0.5) == [8.0]


def test_a_lane_that_goes_on_before_its_end_was_told_has_not_ended() -> None:
    rank = rank_with(CoarseModel(commit_s=0.5, report_interval_s=math.inf, steals=False), lane(7))
    assert sent_until(rank, 1.4) == []
    rank.handle(Extend(7, 1, None, (BatchRef(9, "s", 9, "", 0, 0, 10),)), 1.4)
    reports = [(at, sent.lanes) for at, sent in sent_until(rank, 20.0) if isinstance(sent, Progress)]
    assert reports == [(1.5, ()), (2.9, (LaneReport(7, 1, LaneState.DRAINED),))]


def test_more_batches_do_not_make_a_waiting_lane_start() -> None:
    rank = rank_with(CoarseModel(commit_s=0.0, connections=8, steals=False), lane(1, time_s=2.0), lane(2))
    rank.handle(Extend(2, 1, None, (BatchRef(9, "s", 9, "", 0, 0, 10),)), 0.5)
    assert parts_of(rank, 20.0) == {100: 2.0, 200: 3.0, 9: 4.0}


# ---- work that moves


def test_lanes_that_wait_are_given_back_first() -> None:
    rank = rank_with(
        CoarseModel(connections=8), *(lane(number, batches=2, time_s=10.0 - number) for number in range(1, 6))
    )
    assert rank.handle(StealRequest(3, 100.0, 1), 0.0) == [StealResponse(3, (3, 5))]
    assert rank.handle(StealRequest(4, 100.0, 1), 0.0) == [StealResponse(4, (4,))]


def test_a_thief_with_little_time_gets_little() -> None:
    rank = rank_with(CoarseModel(connections=8), *(lane(number, time_s=4.0) for number in range(1, 10)))
    assert rank.handle(StealRequest(3, 8.0), 0.0) == [StealResponse(3, (3, 5))]
    assert rank.handle(StealRequest(4, 0.5), 0.0) == [StealResponse(4, (4,))]


@pytest.mark.parametrize(
    ("held", "split_lane_id"),
    [
        pytest.param(lane(1, batches=5, packed=True), 1, id="a pack"),
        pytest.param(lane(1, batches=5, connections=1), 1, id="a lane with one connection"),
        pytest.param(lane(1, batches=1), 1, id="a lane with the current batch alone"),
        pytest.param(lane(1, batches=5), 2, id="a lane that is not here"),
        pytest.param(lane(1, batches=5), 0, id="no lane is named"),
    ],
)
def test_nothing_is_cut_of(held: Lane, split_lane_id: int) -> None:
    rank = rank_with(CoarseModel(), held)
    assert rank.handle(StealRequest(7, 10.0, split_lane_id), 0.5) == [StealResponse(7)]


def test_of_an_odd_number_of_batches_the_thief_gets_the_larger_half() -> None:
    rank = rank_with(CoarseModel(), lane(1, batches=4))
    assert rank.handle(StealRequest(7, 10.0, 1), 0.5) == [
        StealResponse(7, (), 1, (103, 102), Limits(0.0, 8).divided(2)[1])
    ]


def test_a_rank_that_got_work_asks_for_more_while_it_has_free_connections() -> None:
    rank = rank_with(SILENT_THIEF, lane(1, batches=20))
    assert sent_until(rank, 0.5) == [(0.0, WorkRequest(1))]
    rank.handle(Assign((lane(2, batches=20),), 1), 0.5)
    assert sent_until(rank, 0.6) == [(0.5, WorkRequest(2))]


@pytest.mark.parametrize(
    ("wait_s", "least_wait_s", "asks_again_at"),
    [
        pytest.param(3.0, 0.0, 5.0, id="the rank waits as long as it is told"),
        pytest.param(3.0, 8.0, 10.0, id="and at least as long as its model says"),
    ],
)
def test_a_rank_with_free_connections_asks_for_work(wait_s: float, least_wait_s: float, asks_again_at: float) -> None:
    model = CoarseModel(commit_s=0.0, report_interval_s=math.inf, connections=17, least_refused_wait_s=least_wait_s)
    rank = rank_with(model, lane(1, batches=20))
    assert sent_until(rank, 0.5) == [(0.0, WorkRequest(1))]
    rank.handle(NoWork(1, wait_s), 2.0)
    asked = [found for found in sent_until(rank, 19.0) if isinstance(found[1], WorkRequest)]
    assert asked == [(asks_again_at, WorkRequest(2))]


@pytest.mark.parametrize(
    ("model", "lanes"),
    [
        pytest.param(CoarseModel(connections=16), [lane(1, 20)], id="half of the connections are busy"),
        pytest.param(CoarseModel(connections=8), [lane(1, 20), lane(2, 20)], id="a lane waits"),
        pytest.param(CoarseModel(steals=False), [lane(1, 20)], id="the model says so"),
    ],
)
def test_a_rank_does_not_ask_for_work_while(model: CoarseModel, lanes: list[Lane]) -> None:
    assert not [sent for _, sent in sent_until(rank_with(model, *lanes), 10.0) if isinstance(sent, WorkRequest)]


def test_a_message_that_no_coarse_rank_gets_is_a_bug() -> None:
    with pytest.raises(TypeError, match="unknown message Begin"):
        CoarseRank(1, CoarseModel()).handle(Begin(0, b"", 0.0), 0.0)


def test_a_lane_that_is_left_over_is_noticed() -> None:
    rank = rank_with(SILENT, lane(1))
    with pytest.raises(TransitionError, match="rank 1 has lanes left"):
        rank.validate()
    sent_until(rank, 1.0)
    rank.validate()


def test_a_lane_that_is_extended_and_ends_again_before_its_commit_has_ended_once() -> None:
    rank = rank_with(CoarseModel(commit_s=5.0, report_interval_s=math.inf, steals=False), lane(1))
    rank.step(1.0)
    more = BatchRef(900, "s", 9, "", 0, 0, 10)
    rank.handle(Extend(1, 1, None, (more,)), 2.0)
    drained = [
        (at, report.version)
        for at, message in sent_until(rank, 20.0)
        if isinstance(message, Progress)
        for report in message.lanes
        if report.state is LaneState.DRAINED
    ]
    assert drained == [(8.0, 1)]
