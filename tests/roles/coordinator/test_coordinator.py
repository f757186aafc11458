"""When the checkpoint is written, and what is noted of servers for the report."""

from __future__ import annotations

import time
from pathlib import Path

from ddmpi.core.protocol import Asked, LaneReport, LaneState, ServersUsed
from ddmpi.core.records import PaceState
from ddmpi.roles.coordinator.coordinator import Coordinator, SaveTimer
from tests.roles.coordinator.states import make_state


def test_the_checkpoint_is_written_now_and_then() -> None:
    timer = SaveTimer()
    timer.begin(100.0)
    assert (timer.is_due(109.9), timer.is_due(110.0)) == (False, True)


def test_a_long_pause_is_saved_soon_but_not_all_the_time() -> None:
    timer = SaveTimer()
    timer.begin(100.0)
    timer.saved(100.0, took_s=0.01)
    timer.hurry()
    assert (timer.is_due(100.9), timer.is_due(101.0)) == (False, True)


def test_a_disk_that_is_slow_is_not_asked_more_often_for_it() -> None:
    timer = SaveTimer()
    timer.begin(100.0)
    timer.saved(100.0, took_s=0.4)
    timer.hurry()
    assert (timer.is_due(107.9), timer.is_due(108.0)) == (False, True)


def test_requests_and_waits_of_each_server_make_its_timeline(tmp_path: Path) -> None:
    state = make_state(tmp_path, {"a.org": 30})
    coordinator = Coordinator(state, [1], lambda *_: None, lambda _: None)
    at = time.time()
    coordinator.handle(1, ServersUsed((), (Asked("a.org", at, bytes(8), 0, 0, 1, 0, 0.0, 2),)), 0.0)
    for pace in (PaceState(wait_s=30.0), PaceState(wait_s=90.0, open_count=1)):
        coordinator._note_waits([LaneReport(1, 0, LaneState.PARKED, paces={"a.org": pace})])
    (line,) = coordinator.tally.timelines.slowest(1, at + 50.0, {"a.org"})
    assert (sum(line.asked), sum(line.answered)) == (2, 2)
    assert [wait.is_parked for wait in line.waits][-1:] == [True]
    assert line.waits[-1].end == at + 50.0
