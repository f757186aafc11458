"""When the checkpoint is written."""

from __future__ import annotations

from ddmpi.roles.coordinator.coordinator import SaveTimer


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
