"""Which lanes of a rank run, which are given back, and when the rank runs low."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ddmpi.core.frontier.held_lane import HeldLane, LaneStage
from ddmpi.core.frontier.interface import LaneEnded
from ddmpi.core.frontier.lane_table import LaneTable, lanes_to_give, wants_work
from ddmpi.core.records import Limits
from ddmpi.core.rules.verdict import SUCCESS
from ddmpi.errors import TransitionError
from tests.core.frontier.test_frontier import Driven, batch, config, lane, start, taken, tasks


def queued(*times: int, connections: int = 8) -> LaneTable:
    table = LaneTable(connections)
    table.queue([HeldLane.of(lane(time_s, [batch(time_s)], share=Limits(0.0, 4))) for time_s in times])
    return table


@dataclass
class Timed:
    time_s: float


@pytest.mark.parametrize(
    ("times", "asked_s", "given"),
    [
        pytest.param([], 10.0, [], id="nothing is queued"),
        pytest.param([5.0], 10.0, [5.0], id="the only one goes"),
        pytest.param([9.0, 4.0, 3.0, 2.0], 100.0, [4.0, 2.0], id="every second one, about half of the time"),
        pytest.param([9.0, 4.0, 3.0, 2.0], 3.0, [4.0], id="one goes even if it is longer than was asked for"),
    ],
)
def test_lanes_to_give(times: list[float], asked_s: float, given: list[float]) -> None:
    assert [it.time_s for it in lanes_to_give([Timed(time_s) for time_s in times], asked_s)] == given


@pytest.mark.parametrize(
    ("queue", "demand", "wanted"),
    [
        pytest.param(0, 3.9, True, id="less than half of the connections are spoken for"),
        pytest.param(0, 4.0, False, id="half of them are"),
        pytest.param(1, 0.0, False, id="a lane waits for its turn"),
    ],
)
def test_wants_work(queue: int, demand: float, wanted: bool) -> None:
    assert wants_work(queue, demand, 8) is wanted


def test_lanes_start_longest_first_until_the_connections_are_spoken_for() -> None:
    table = queued(2, 9, 5)
    started = [table.start_next(1.0), table.start_next(1.0), table.start_next(1.0)]
    assert [it and it.lane_id for it in started] == [9, 5, None]
    assert (len(table.running), len(table.queued)) == (2, 1)
    assert not table.wants_work


def test_a_lane_that_waits_for_its_servers_makes_room_for_another() -> None:
    table = queued(9, 5, connections=4)
    first = table.start_next(0.0)
    assert first is not None
    assert table.start_next(0.0) is None
    first.is_held = True
    table.recount(0.0)
    second = table.start_next(0.0)
    assert second is not None
    assert second.lane_id == 5


def test_what_is_given_back_is_not_held_any_more() -> None:
    table = queued(4, 3)
    gone = table.by_id[3]
    assert table.give_back(100.0) == (3,)
    assert gone.stage is LaneStage.GONE
    assert set(table.by_id) == {4}


def test_only_an_ended_lane_is_released_and_an_extended_one_runs_again() -> None:
    table = queued(4)
    it = table.start_next(0.0)
    assert it is not None
    with pytest.raises(TransitionError):
        table.release(4)
    table.end(it)
    table.extend(it, 5.0)
    assert (it.stage, it.started_at, list(table.running)) == (LaneStage.RUNNING, 5.0, [4])
    table.end(it)
    assert it.endings == 2
    assert table.release(4) is it
    assert table.drained(4, 2, 9.0) is None, "nobody holds it"


def test_a_report_of_an_earlier_end_says_nothing() -> None:
    table = queued(4)
    it = table.start_next(0.0)
    assert it is not None
    table.end(it)
    assert table.drained(4, 1, 0.0) is not None
    table.extend(it, 0.0)
    assert table.drained(4, 1, 0.0) is None, "it runs"
    table.end(it)
    assert table.drained(4, 1, 0.0) is None, "what came since may not be committed"
    assert table.drained(4, 2, 0.0) is not None


def test_a_drained_lane_tells_what_it_has_spent_of_a_byte_budget() -> None:
    frontier = Driven(config())
    start(frontier, lane(batches=[batch(0, 1)], share=Limits(0.0, 1, bytes_per_hour=1e6)))
    (task,) = tasks(frontier, 0.0)
    frontier.finished(task, SUCCESS, 0.0, 700)
    (ended,) = [change for change in taken(frontier) if isinstance(change, LaneEnded)]
    report = frontier.lanes.drained(ended.lane_id, ended.ending, 5.0)
    assert report is not None
    assert sum(size_bytes for _, size_bytes in report.paces["s"].spent_hour) == 700
