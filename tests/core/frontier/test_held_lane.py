"""The life of a lane on a rank, and how busy it keeps the rank."""

from __future__ import annotations

import itertools

import pytest

from ddmpi.core.frontier.held_lane import (
    MOST_PACKED_DEMAND,
    TRANSITIONS,
    HeldLane,
    LaneEvent,
    LaneStage,
    busy_connections,
)
from ddmpi.core.records import Limits
from ddmpi.errors import TransitionError
from tests.core.frontier.test_frontier import batch, lane


def held(stage: LaneStage = LaneStage.QUEUED) -> HeldLane:
    it = HeldLane.of(lane(3, [batch(0), batch(1)]))
    it.stage = stage
    return it


@pytest.mark.parametrize(("stage", "event"), list(itertools.product(LaneStage, LaneEvent)))
def test_only_what_the_table_says_can_happen_to_a_lane(stage: LaneStage, event: LaneEvent) -> None:
    it = held(stage)
    if (stage, event) in TRANSITIONS:
        it.move(event)
        assert it.stage is TRANSITIONS[stage, event]
    else:
        with pytest.raises(
            TransitionError, match=f"lane 3 is {stage.value} with 20 rows left, and cannot {event.value}"
        ):
            it.move(event)
        assert it.stage is stage


def test_every_stage_is_reached_and_all_but_the_last_are_left() -> None:
    assert set(TRANSITIONS.values()) == set(LaneStage)
    assert {stage for stage, _ in TRANSITIONS} == set(LaneStage) - {LaneStage.GONE}


@pytest.mark.parametrize(
    ("limits", "busy"),
    [
        pytest.param(Limits(0.0, 8), 8.0, id="without a rate all connections are busy"),
        pytest.param(Limits(10.0, 8), 2.5, id="a rate keeps as many busy as answers take"),
        pytest.param(Limits(1000.0, 8), 8.0, id="never more than there are"),
        pytest.param(Limits(0.01, 8), 0.1, id="a slow server keeps next to none busy"),
    ],
)
def test_busy_connections(limits: Limits, busy: float) -> None:
    assert busy_connections(limits) == pytest.approx(busy)


def test_a_packed_lane_is_not_expected_to_fill_a_rank() -> None:
    packed = HeldLane.of(lane(1, [batch(0, 10_000)], group="__many__/0"))
    assert packed.demand == MOST_PACKED_DEMAND
    assert HeldLane.of(lane(1, [batch(0, 3)], group="__many__/0")).demand == 3.0


def test_the_speed_of_a_lane_is_measured_once_it_has_run_for_a_while() -> None:
    it = held()
    it.row_time_s, it.started_at = 0.5, 100.0
    it.settled = 19
    assert it.pace_s(140.0) == 0.5, "too few rows say nothing"
    it.settled = 20
    assert it.pace_s(140.0) == 2.0, "slower than predicted"
    assert it.pace_s(105.0) == 0.5, "never faster: the start of a lane is its fastest part"
