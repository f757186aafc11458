"""Rank 0's state machine on its own: who gets which lane, what counts as done, and how work is stolen."""

from __future__ import annotations

import numpy as np
import pytest

from ddmpi.core.ledger.actions import BatchCompleted, BigBatchEnded, BigBatchStarted, Send
from ddmpi.core.ledger.batch_accounts import MOST_FLOWS_PER_BATCH
from ddmpi.core.ledger.batch_counts import BatchContent, BatchCounts
from ddmpi.core.ledger.ledger import Ledger
from ddmpi.core.protocol import (
    Extend,
    Handoff,
    LaneReport,
    LaneState,
    NoWork,
    Release,
)
from ddmpi.core.records import Limits, PaceState
from ddmpi.errors import TransitionError
from tests.core.ledger.ledgers import (
    FAST,
    Make,
    drained,
    ended_lane,
    handoff_to,
    lanes_of,
    only_lane,
    only_lane_of,
    part,
    progress,
    started,
    steal,
    world,
)
from tests.worlds.model import BatchModel, World

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
    assert Send(0, Extend(lanes[0][0].lane_id, 1, added=lanes[1][0].share)) in actions


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
    assert news == [Send(1, Extend(lanes[1][0].lane_id, 0, pauses={"a": 60.0}))]
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


def test_a_pause_that_a_server_has_asked_for_is_waited_for_as_long_as_it_ends_in_time(make: Make) -> None:
    ledger = make(world({"a": 10, "b": 10}), ranks=1)
    first, second = started(ledger)[0]
    ledger.on_progress(0, progress(LaneReport(first.lane_id, 0, LaneState.PARKED, 1e6)), 0.0)
    ledger.on_progress(0, progress(LaneReport(second.lane_id, 0, LaneState.PARKED, 100.0, will_end=True)), 0.0)
    ledger.tick(0.0)
    assert not ledger.is_stuck(0.0, 20.0, final_wait_s=101.0)
    assert not ledger.is_stuck(90.0, 20.0, final_wait_s=101.0), "the one that is parked does not end it meanwhile"
    assert ledger.is_stuck(0.0, 20.0, final_wait_s=99.0)
    assert ledger.is_stuck(0.0, 20.0, final_wait_s=101.0, deadline=99.0), "the job ends before the pause"
    assert not ledger.is_stuck(10.0, 95.0, final_wait_s=99.0), "the pause is over soon"
    assert ledger.is_stuck(10.0, 95.0, final_wait_s=99.0, deadline=99.0), "soon, but not before the job ends"
    assert not ledger.is_stuck(119.0, 20.0, final_wait_s=1e4), "its rank may be late"
    assert ledger.is_stuck(120.0, 20.0, final_wait_s=1e4), "it says nothing"
    assert not ledger.is_stuck(100.0, 0.0, final_wait_s=1e4), "it has not had the time to say that it is over"
    ledger.on_progress(0, progress(LaneReport(second.lane_id, 0, LaneState.PROBING)), 100.0)
    assert not ledger.is_stuck(1e3, 20.0, final_wait_s=1e4), "the probe may be answered"
    assert ledger.is_stuck(1e4, 20.0, final_wait_s=1e4)


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
