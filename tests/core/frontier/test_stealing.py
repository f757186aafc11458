"""When a rank that runs low asks for work."""

from __future__ import annotations

import math

from ddmpi.core.frontier.stealing import WorkRequests


def asked(at: float) -> WorkRequests:
    """A rank that has got its first lanes and has asked for more."""
    requests = WorkRequests()
    requests.allow(at)
    assert requests.make().request_id == 1
    return requests


def test_nobody_asks_before_the_first_lanes_have_come() -> None:
    requests = WorkRequests()
    assert requests.due_at == math.inf
    requests.allow(3.0)
    assert requests.due_at == 3.0


def test_one_request_is_out_at_a_time() -> None:
    requests = asked(3.0)
    assert requests.due_at == math.inf
    requests.answered(1)
    assert requests.due_at == 3.0
    assert requests.make().request_id == 2


def test_a_refusal_names_the_time_before_which_nobody_asks_again() -> None:
    requests = asked(3.0)
    requests.answered(1)
    requests.refuse_until(8.0)
    assert requests.due_at == 8.0
    requests.allow(5.0)  # work has come all the same
    assert requests.due_at == 5.0


def test_lanes_that_nobody_asked_for_and_late_answers_open_no_second_request() -> None:
    requests = asked(3.0)
    requests.answered(1)
    requests.make()
    for request_id in (0, 1):
        requests.answered(request_id)
        assert requests.due_at == math.inf
