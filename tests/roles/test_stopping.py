"""How a run ends on rank 0: who is waited for, for how long, and with which code."""

from __future__ import annotations

import pytest

from ddmpi.core.protocol import Exit, StopReason
from ddmpi.errors import EXIT_DONE, EXIT_PENDING
from ddmpi.roles.coordinator.stopping import FINISH_TIMEOUT_S, GRACE_S, SoftStop


def test_the_end_is_there_when_every_rank_has_finished() -> None:
    stop = SoftStop([1, 2])
    stop.begin(StopReason.SIGNAL, 5.0)
    stop.finished(2)
    assert (stop.is_over(5.0), stop.unfinished) == (False, [1])
    stop.finished(1)
    assert (stop.is_over(5.0), stop.unfinished) == (True, [])


def test_a_rank_that_does_not_finish_is_left_behind() -> None:
    stop = SoftStop([1, 2])
    stop.begin(StopReason.WALLTIME, 5.0)
    assert not stop.is_over(4.9 + FINISH_TIMEOUT_S)
    assert stop.is_over(5.0 + FINISH_TIMEOUT_S)
    assert stop.unfinished == [1, 2]


@pytest.mark.parametrize(("reason", "grace_s"), [(StopReason.DONE, 0.0), (StopReason.SIGNAL, GRACE_S)])
def test_requests_in_flight_get_time_unless_no_row_is_left_for_them(reason: StopReason, grace_s: float) -> None:
    assert SoftStop([1]).begin(reason, 0.0).grace_s == grace_s


@pytest.mark.parametrize(
    ("pending_rows", "failure", "code"),
    [(0, "", EXIT_DONE), (3, "", EXIT_PENDING), (0, "rank 1: no space left", EXIT_PENDING)],
)
def test_the_exit_code_tells_whether_the_same_command_is_to_be_run_again(
    pending_rows: int, failure: str, code: int
) -> None:
    stop = SoftStop([1])
    stop.failure = failure
    assert stop.ending(pending_rows) == Exit(code, failure)
