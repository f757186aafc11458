"""What becomes of a row after an attempt, on its own."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from ddmpi.core.frontier.attempts import AttemptHandler
from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.intake import Intake
from ddmpi.core.frontier.interface import Disposition, RowHandedOff
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.settlement import Changes, OpenBatches, Settlement
from ddmpi.core.frontier.slot import Slot
from ddmpi.core.pace.outage import PROBE_S, Outage
from ddmpi.core.records import Task
from ddmpi.core.rules.retry import DNS_WAIT_S
from ddmpi.core.rules.verdict import SUCCESS, Verdict
from tests.core.frontier.test_frontier import BROKEN, MISSING, REFUSED, UNRESOLVED, batch, config, lane, redirect, rows


class Rank:
    """Two lanes with a row each in flight, of "s" and of "t"."""

    def __init__(self, *, is_sampling: bool = False) -> None:
        rng, settings = random.Random(1), config()
        self.lanes, self.changes, self.outage, batches = LaneTable(8), Changes(), Outage(), OpenBatches()
        intake = Intake(settings, batches, rng)
        settlement = Settlement(self.lanes.by_id, batches, None, self.changes)
        self.attempts = AttemptHandler(
            settings, rng, lanes=self.lanes, intake=intake, batches=batches, outage=self.outage, gate=None,
            settlement=settlement, changes=self.changes,
        )  # fmt: skip
        self.held: list[HeldLane] = []
        self.slots: list[Slot] = []
        self.tasks: list[Task] = []
        for number, group in enumerate(("s", "t")):
            held = HeldLane.of(lane(number + 1, [batch(number, 1)], group=group))
            held.is_sampling = is_sampling
            self.lanes.start(held, 0.0)
            intake.open(held, 0.0)
            intake.next_batch(held, 0.0)
            intake.loaded(held, batch(number, 1), rows(1, group))
            (slot,) = intake.refill(held, 0.0)
            task = slot.pop(0.0)
            assert task is not None
            self.held.append(held)
            self.slots.append(slot)
            self.tasks.append(task)

    def decide(self, verdict: Verdict, now: float = 1.0) -> tuple[Disposition, int]:
        """The disposition of the row of "s", and how many rows its lane counts then."""
        disposition, _ = self.attempts.row(self.held[0], self.slots[0], self.tasks[0], verdict, now)
        return disposition, self.held[0].rows


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        pytest.param(SUCCESS, (Disposition.SUCCESS, 0), id="a success leaves"),
        pytest.param(MISSING, (Disposition.FAILURE, 0), id="a permanent failure leaves"),
        pytest.param(BROKEN, (Disposition.OPEN, 1), id="a transient failure stays"),
        pytest.param(redirect("http://s/x"), (Disposition.OPEN, 1), id="a redirect within the server stays"),
        pytest.param(redirect("http://t/x"), (Disposition.OPEN, 0), id="a redirect to the other lane goes there"),
        pytest.param(redirect("http://u/x"), (Disposition.OPEN, 0), id="a redirect elsewhere leaves the rank"),
        pytest.param(redirect("http:///"), (Disposition.FAILURE, 0), id="a redirect to nowhere is an error"),
    ],
)
def test_what_becomes_of_a_row(verdict: Verdict, expected: tuple[Disposition, int]) -> None:
    assert Rank().decide(verdict) == expected


def test_a_row_that_goes_to_another_lane_is_counted_there_and_touches_it() -> None:
    rank = Rank()
    rank.decide(redirect("http://t/x"))
    s, t = rank.held
    assert (s.handed_off, t.rows) == ({2: 1}, 2)
    assert t in rank.changes.touched
    assert rank.changes.told == []


def test_a_row_that_leaves_the_rank_is_told() -> None:
    rank = Rank()
    rank.decide(redirect("http://u/x"))
    ((told,),) = [rank.changes.take()]
    assert isinstance(told, RowHandedOff)
    assert (told.handoff.url, told.handoff.server, told.handoff.redirects) == ("http://u/x", "u", 1)


@pytest.mark.parametrize("verdict", [BROKEN, REFUSED, redirect("http://u/x")])
def test_a_sample_is_not_tried_again_nor_sent_elsewhere(verdict: Verdict) -> None:
    rank = Rank(is_sampling=True)
    assert rank.decide(verdict) == (Disposition.OPEN, 0)
    assert rank.changes.take() == []
    assert rank.held[0].decided == {}


def test_a_sample_with_an_outcome_is_noted() -> None:
    rank = Rank(is_sampling=True)
    rank.decide(SUCCESS)
    assert rank.held[0].decided == {0: [0]}


def failing(outage: Outage, servers: Sequence[str], now: float) -> None:
    for server in servers:
        outage.answered(server, now)
    for server in servers:
        outage.unreachable(server, now)


def test_a_name_that_is_not_found_twice_while_others_are_has_no_address() -> None:
    rank = Rank()
    slot, task = rank.slots[0], rank.tasks[0]

    def is_given_up(started_at: float, verdict: Verdict = UNRESOLVED) -> bool:
        task.started_at = started_at
        return rank.attempts.has_no_address(slot, task, verdict, started_at + 0.1)

    assert not is_given_up(0.0)
    assert not is_given_up(60.0), "no other name has been found since"
    rank.outage.answered("t", 61.0)
    assert not is_given_up(70.0, REFUSED), "it was found"
    assert is_given_up(70.0)
    slot.unresolved_since = 40.0
    assert not is_given_up(40.0 + DNS_WAIT_S - 1), "libcurl may still answer from its cache"
    assert is_given_up(40.0 + DNS_WAIT_S)
    slot.unresolved_since = math.inf
    assert not is_given_up(100.0), "it has answered in between"


def test_an_attempt_that_our_own_network_may_have_cost_does_not_count() -> None:
    rank = Rank()
    failing(rank.outage, ("a", "b"), 1.0)
    for _ in range(10):
        assert rank.decide(REFUSED)[0] is Disposition.OPEN
        task = rank.slots[0].pop(1.0 + 100 * PROBE_S)
        assert task is not None
        assert task.attempt == 1
