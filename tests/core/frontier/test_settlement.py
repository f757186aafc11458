"""The counts that say when a batch and a lane have ended, while rows leave."""

from __future__ import annotations

from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.interface import BatchEnded
from ddmpi.core.frontier.settlement import Changes, OpenBatches, Settlement
from ddmpi.core.records import Task
from tests.core.frontier.test_frontier import batch, lane


def test_a_batch_ends_once_with_its_last_row() -> None:
    batches = OpenBatches()
    batches.add(batch(4), 2)
    batches.add_handoff(batch(4))
    for _ in range(2):
        batches.remove(4)
    assert not batches.ended
    batches.remove(4)
    assert batches.take_ended() == [BatchEnded(4)]
    assert not batches.ended
    assert batches[4] == batch(4), "its results may still come"


def test_a_batch_that_gets_another_row_in_the_same_call_has_not_ended() -> None:
    batches = OpenBatches()
    batches.add(batch(4), 1)
    batches.remove(4)
    batches.add_handoff(batch(4))
    assert batches.take_ended() == []
    batches.remove(4)
    assert batches.take_ended() == [BatchEnded(4)]


def test_a_batch_without_a_row_to_fetch_ends_at_once() -> None:
    batches = OpenBatches()
    batches.add(batch(4), 0)
    assert batches.take_ended() == [BatchEnded(4)]


def test_touched_lanes_come_out_with_all_their_slots() -> None:
    changes = Changes()
    first, second = HeldLane.of(lane(1)), HeldLane.of(lane(2))
    changes.touch(first)
    changes.touch(second)
    changes.touch(first)
    assert changes.next_touched() == (first, {})
    assert changes.next_touched() == (second, {})
    assert not changes.touched


def make() -> tuple[dict[int, HeldLane], Settlement, Task]:
    lanes = {lane_id: HeldLane.of(lane(lane_id)) for lane_id in (1, 2, 3)}
    batches = OpenBatches()
    batches.add(batch(0), 1)
    lanes[1].rows = 1
    return lanes, Settlement(lanes, batches, None, Changes()), Task(0, 0, "http://s/0", "s")


def test_a_row_that_is_handed_on_twice_keeps_only_its_own_lane_open() -> None:
    lanes, settlement, task = make()
    settlement.hand_off(task, lanes[1], lanes[2])
    lanes[2].rows += 1
    settlement.hand_off(task, lanes[2], lanes[3])
    lanes[3].rows += 1
    assert (lanes[1].handed_off, lanes[2].handed_off, task.home_lane) == ({3: 1}, {}, 1)
    assert [it.is_used_up for it in lanes.values()] == [False, True, False]
    settlement.settle(lanes[3], task)
    assert [it.is_used_up for it in lanes.values()] == [True, True, True]


def test_a_row_that_comes_home_is_not_handed_off_any_more() -> None:
    lanes, settlement, task = make()
    settlement.hand_off(task, lanes[1], lanes[2])
    lanes[2].rows += 1
    settlement.hand_off(task, lanes[2], lanes[1])
    lanes[1].rows += 1
    assert (lanes[1].handed_off, task.home_lane) == ({}, 0)
