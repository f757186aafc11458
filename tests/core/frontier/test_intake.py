"""How rows come into lanes, and at which limits."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.intake import Intake
from ddmpi.core.frontier.interface import LoadBatch
from ddmpi.core.frontier.settlement import OpenBatches
from ddmpi.core.pace.overrides import Overrides
from ddmpi.core.protocol import ControlOverride, Handoff, Lane
from ddmpi.core.records import Limits
from tests.core.frontier.test_frontier import Rows, batch, config, lane, rows


def intake(**options: int) -> Intake:
    return Intake(config(**options), OpenBatches(), random.Random(1))


def test_one_batch_is_asked_for_at_a_time_and_none_while_there_are_rows_enough() -> None:
    it, held = intake(low_water_rows=5), HeldLane.of(lane(batches=[batch(0), batch(1, 3), batch(2)]))
    assert it.next_batch(held) == LoadBatch(1, batch(0))
    assert it.next_batch(held) is None, "it has not come yet"
    it.loaded(held, batch(0), rows(10))
    assert it.next_batch(held) is None, "ten rows are enough"
    list(it.refill(held, 0.0))
    held.rows = 4
    assert it.next_batch(held) == LoadBatch(1, batch(1, 3))


def test_a_lane_that_the_operator_holds_loads_nothing() -> None:
    it, held = intake(), HeldLane.of(lane(batches=[batch(0)]))
    held.set_overrides(Overrides([ControlOverride("s", pause=True)]), 0.0)
    assert it.next_batch(held) is None


@pytest.mark.parametrize(
    ("packed", "tasks"),
    [pytest.param(False, 4, id="a chunk at a time"), pytest.param(True, 10, id="all rows of a packed batch")],
)
def test_how_many_rows_become_tasks(packed: bool, tasks: int) -> None:
    it, held = intake(chunk_rows=4), HeldLane.of(lane(batches=[batch(0)], group="__many__/0" if packed else "s"))
    it.next_batch(held)
    it.loaded(held, batch(0), rows(10))
    list(it.refill(held, 0.0))
    assert held.rows == tasks
    assert held.rows_left == 10


def test_each_server_of_a_packed_lane_has_its_own_limits_and_what_the_profiles_say_counts() -> None:
    packed = Lane(1, "__many__/0", True, Limits(0.0, 1), (batch(0, 2),), limits={"b": Limits(0.25, 1)})
    it, held = intake(), HeldLane.of(packed)
    it.next_batch(held)
    it.loaded(held, batch(0, 2), Rows([(0, "http://a/0", "a"), (1, "http://b/0", "b")]))
    limits = {slot.key: slot.limiter.limits for slot in it.refill(held, 0.0)}
    assert limits == {"a": Limits(1.0, 1), "b": Limits(0.25, 1)}


def test_a_handoff_is_due_at_once_with_its_tries_and_redirects() -> None:
    it, held = intake(), HeldLane.of(lane())
    slot = it.take_handoff(held, Handoff(batch(7), 3, "http://s/x", "s", "s", 2, 4), 5.0)
    assert slot.next_due(5.0) == 5.0
    task = slot.pop(5.0)
    assert task is not None
    assert (task.batch_id, task.row, task.attempt, task.redirects) == (7, 3, 2, 4)
    assert (held.rows, held.batch_ids, held.servers) == (1, {7}, {"s"})


def test_a_slot_is_found_by_group_or_server_until_its_lane_has_gone() -> None:
    it, held = intake(), HeldLane.of(lane(group="joint"))
    slot = it.slot(held, "joint", 0.0)
    assert it.find("joint", "joint-a") is slot
    assert it.find("other", "other") is None
    it.forget(held)
    assert it.find("joint", "joint-a") is None


def test_a_pause_of_the_group_counts_for_slots_that_are_made_later() -> None:
    it, held = intake(), HeldLane.of(lane())
    held.pause(30.0, 10.0)
    assert it.slot(held, "s", 15.0).limiter.wait_s(15.0) == pytest.approx(25.0)


@pytest.mark.parametrize(("is_restart", "ready_at_s"), [(False, 0.0), (True, 10.0)])
def test_a_run_that_goes_on_owes_each_server_a_whole_interval(is_restart: bool, ready_at_s: float) -> None:
    """The run before may have asked it just now, and a kill may have come before that was told."""
    options = replace(config(), is_restart=is_restart)
    it, held = Intake(options, OpenBatches(), random.Random(1)), HeldLane.of(lane(share=Limits(0.1, 1)))
    assert it.slot(held, "s", 0.0).limiter.ready_at(0.0) == pytest.approx(ready_at_s)
