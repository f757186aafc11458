"""How rows come into lanes, and at which limits."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.intake import MIXED_AT_ONCE, Intake
from ddmpi.core.frontier.interface import LoadBatch
from ddmpi.core.frontier.settlement import OpenBatches
from ddmpi.core.pace.overrides import Overrides
from ddmpi.core.protocol import ControlOverride, Handoff, Lane
from ddmpi.core.records import BatchRef, Limits
from tests.core.frontier.test_frontier import Rows, batch, config, lane, rows


def intake(**options: int) -> Intake:
    return Intake(config(**options), OpenBatches(), random.Random(1))


def test_one_batch_is_asked_for_at_a_time_and_none_while_there_are_rows_enough() -> None:
    it, held = intake(low_water_rows=5), HeldLane.of(lane(batches=[batch(0), batch(1, 3), batch(2)]))
    assert it.next_batch(held, 0.0) == [LoadBatch(1, batch(0))]
    assert it.next_batch(held, 0.0) == [], "it has not come yet"
    it.loaded(held, batch(0), rows(10))
    assert it.next_batch(held, 0.0) == [], "ten rows are enough"
    list(it.refill(held, 0.0))
    held.rows = 4
    assert it.next_batch(held, 0.0) == [LoadBatch(1, batch(1, 3))]


def test_a_lane_that_the_operator_holds_loads_nothing() -> None:
    it, held = intake(), HeldLane.of(lane(batches=[batch(0)]))
    held.set_overrides(Overrides([ControlOverride("s", pause=True)]), 0.0)
    assert it.next_batch(held, 0.0) == []


@pytest.mark.parametrize(
    ("packed", "tasks"),
    [pytest.param(False, 4, id="a chunk at a time"), pytest.param(True, 10, id="all rows of a packed batch")],
)
def test_how_many_rows_become_tasks(packed: bool, tasks: int) -> None:
    it, held = intake(chunk_rows=4), HeldLane.of(lane(batches=[batch(0)], group="__many__/0" if packed else "s"))
    it.next_batch(held, 0.0)
    it.loaded(held, batch(0), rows(10))
    list(it.refill(held, 0.0))
    assert held.rows == tasks
    assert held.rows_left == 10


def test_each_server_of_a_packed_lane_has_its_own_limits_and_what_the_profiles_say_counts() -> None:
    packed = Lane(1, "__many__/0", True, Limits(0.0, 1), (batch(0, 2),), limits={"b": Limits(0.25, 1)})
    it, held = intake(), HeldLane.of(packed)
    it.next_batch(held, 0.0)
    it.loaded(held, batch(0, 2), Rows([(0, "http://a/0", "a"), (1, "http://b/0", "b")]))
    limits = {slot.server: slot.limiter.limits for slot in it.refill(held, 0.0)}
    assert limits == {"a": Limits(1.0, 1), "b": Limits(0.25, 1)}


def test_a_handoff_is_due_at_once_with_its_tries_and_redirects() -> None:
    it, held = intake(), HeldLane.of(lane())
    slot = it.take_handoff(held, Handoff(batch(7), 3, "http://s/x", "s", "s", 2, 4), 5.0)
    assert slot.next_due(5.0) == 5.0
    task = slot.pop(5.0)
    assert task is not None
    assert (task.batch_id, task.row, task.attempt, task.redirects) == (7, 3, 2, 4)
    assert (held.rows, held.batch_ids, held.servers) == (1, {7}, {"s"})


def test_a_lane_is_found_by_group_or_server_until_it_has_gone() -> None:
    it, held = intake(), HeldLane.of(lane(group="joint"))
    it.open(held, 0.0)
    assert it.find("joint", "joint-a") is held
    assert it.find("other", "other") is None
    it.forget(held)
    assert it.find("joint", "joint-a") is None


def test_a_pause_counts_for_a_slot_that_is_made_later_and_for_its_server_alone() -> None:
    it, held = intake(), HeldLane.of(lane(group="joint"))
    held.pause({"joint-a": 30.0}, 10.0)
    waits = [it.slot(held, server, 15.0).limiter.wait_s(15.0) for server in ("joint-a", "joint-b")]
    assert waits == pytest.approx([25.0, 0.0])


def several(*names: str, **options: int) -> tuple[Intake, HeldLane]:
    """A lane of a group: a batch of ten rows for each of these names."""
    batches = [BatchRef(number, name, 0, "f", 0, 0, 10) for number, name in enumerate(names)]
    it, held = intake(**options), HeldLane.of(lane(group="joint", batches=batches))
    it.open(held, 0.0)
    return it, held


def load_next(it: Intake, held: HeldLane, now: float = 0.0) -> str:
    """Load a batch, and make tasks; the server whose batch it is, "" if none is wanted."""
    for load in it.next_batch(held, now):
        name = load.batch.server_name
        it.loaded(held, load.batch, Rows([(row, f"http://{name}/{row}", name) for row in range(10)]))
        list(it.refill(held, now))
        return name
    return ""


def test_servers_of_a_group_are_loaded_side_by_side() -> None:
    it, held = several("a", "a", "a", "b", "c", low_water_rows=5, chunk_rows=4)
    assert [load_next(it, held) for _ in range(4)] == ["a", "b", "c", ""]
    assert {name: slot.waiting for name, slot in held.slots.items()} == {"a": 4, "b": 4, "c": 4}
    assert held.shared is not None
    assert all(slot.shared is held.shared for slot in held.slots.values())


def test_a_server_leaves_connections_to_those_whose_rows_are_not_loaded_yet() -> None:
    it, held = several("a", "b", "c", "d")
    assert held.shared is not None
    expected = []
    for _ in range(4):
        load_next(it, held)
        expected.append(held.shared.to_come)
    assert expected == [3, 2, 1, 0]


def test_more_rows_of_a_server_that_is_left_alone_are_not_loaded_while_it_has_some() -> None:
    it, held = several("a", "a", "b", "b", low_water_rows=100, chunk_rows=4)
    assert [load_next(it, held) for _ in range(2)] == ["a", "b"]
    held.slots["a"].limiter.pause(0.0, 60.0)
    assert [load_next(it, held) for _ in range(2)] == ["b", ""]
    assert load_next(it, held, 61.0) == "a"


def test_a_server_of_a_group_that_refuses_some_rows_gets_others_of_all_its_batches() -> None:
    it, held = several(*"aaaaab", low_water_rows=6, chunk_rows=4)
    assert [load_next(it, held) for _ in range(2)] == ["a", "b"]
    held.slots["a"].limiter.pause(0.0, 60.0)
    held.slots["a"].is_mixed = True
    assert [load_next(it, held) for _ in range(3)] == ["a", "a", ""], "10 rows each: 30 are here and make do"


def test_a_paused_server_without_rows_gets_some_for_nothing_else_would_wake_it() -> None:
    it, held = several("a", "a", low_water_rows=100)
    load_next(it, held)
    held.slots["a"].limiter.pause(0.0, 60.0)
    held.slots["a"].clear()
    assert load_next(it, held) == "a"


@pytest.mark.parametrize(("is_restart", "ready_at_s"), [(False, 0.0), (True, 10.0)])
def test_a_run_that_goes_on_owes_each_server_a_whole_interval(is_restart: bool, ready_at_s: float) -> None:
    """The run before may have asked it just now, and a kill may have come before that was told."""
    options = replace(config(), is_restart=is_restart)
    it, held = Intake(options, OpenBatches(), random.Random(1)), HeldLane.of(lane(share=Limits(0.1, 1)))
    assert it.slot(held, "s", 0.0).limiter.ready_at(0.0) == pytest.approx(ready_at_s)


def test_rows_are_mixed_from_within_a_batch_not_from_where_an_earlier_run_left_it() -> None:
    it, held = intake(low_water_rows=1), HeldLane.of(lane(batches=[batch(0, 300)]))
    it.next_batch(held, 0.0)
    slot = it.slot(held, "s", 0.0)
    it.loaded(held, batch(0, 300), rows(300))
    first = []
    for _ in range(5):
        it.mix(held, slot, 0.0)
        first.append(slot.queue.popleft().row)
    assert first != sorted(first), "one after the other"
    assert max(first) > MIXED_AT_ONCE
