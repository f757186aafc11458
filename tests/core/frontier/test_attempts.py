"""What becomes of a row after an attempt, on its own."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ddmpi.core.frontier.attempts import AttemptHandler
from ddmpi.core.frontier.held_lane import HeldLane
from ddmpi.core.frontier.intake import Intake
from ddmpi.core.frontier.interface import Disposition, RowHandedOff
from ddmpi.core.frontier.lane_table import LaneTable
from ddmpi.core.frontier.settlement import Changes, OpenBatches, Settlement
from ddmpi.core.frontier.slot import Slot
from ddmpi.core.pace.outage import PROBE_S, Outage
from ddmpi.core.protocol import HandedOff, decode, encode
from ddmpi.core.records import Mirrors, Task
from ddmpi.core.rules.retry import DNS_WAIT_S
from ddmpi.core.rules.verdict import SUCCESS, Verdict
from tests.core.frontier.test_frontier import BROKEN, MISSING, REFUSED, UNRESOLVED, batch, config, lane, redirect, rows


class Rank:
    """Two lanes with a row each in flight, of "s" and of "t"; that of "s" has these mirrors."""

    def __init__(self, *, is_sampling: bool = False, mirrors: tuple[str, ...] = ()) -> None:
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
            intake.loaded(held, batch(number, 1), rows(1, group, mirrors if group == "s" else ()))
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


# ---- secrets


@pytest.mark.parametrize(
    ("before", "targets", "expected"),
    [
        ("https://s/0", ["https://s/x"], True),
        ("http://s/0", ["http://s/x", "https://s/x"], True),
        ("https://s/0", ["http://s/x"], False),
        ("http://s/0", ["https://s/x", "http://s/x"], False),
        ("https://s/0", ["https://t/x"], False),
    ],
)
def test_a_row_that_was_led_away_does_not_get_its_headers_back(before: str, targets: list[str], expected: bool) -> None:
    rank = Rank()
    task = rank.tasks[0]
    task.url, task.headers = before, "secret"
    for target in targets:
        rank.decide(redirect(target))
    assert (task.is_at_origin, task.headers) == (expected, "secret" if expected else "")
    assert "secret" not in repr(task)


def test_a_row_that_leaves_the_rank_takes_no_headers_along() -> None:
    rank = Rank()
    rank.tasks[0].headers = "secret"
    rank.decide(redirect("http://u/x"))
    ((told,),) = [rank.changes.take()]
    assert isinstance(told, RowHandedOff)
    assert b"secret" not in encode(HandedOff((told.handoff,)))
    rank.attempts.intake.take_handoff(rank.held[1], told.handoff, 1.0)
    (task,) = [task for task in rank.held[1].slots["u"].clear() if task.url == "http://u/x"]
    assert (task.is_at_origin, task.headers) == (False, "")


def test_a_mirror_gets_no_headers_of_the_row_and_is_a_url_of_the_table() -> None:
    rank = Rank(mirrors=("http://t/m",))
    task = rank.tasks[0]
    task.headers = "secret"
    rank.decide(redirect("http://s/x"))
    rank.decide(redirect("https://s/x"))
    rank.decide(redirect("http://s/x"))
    assert not task.is_at_origin
    rank.decide(MISSING)
    assert (task.server, task.is_at_origin, task.headers) == ("t", True, "")


# ---- mirrors


NO_HOST = "http:"
"""A mirror that is refused, as ``rows`` adds a path to it."""


@pytest.mark.parametrize(
    ("mirror", "expected"),
    [
        pytest.param("http://s/m", (Disposition.OPEN, 1), id="a mirror on the same server stays"),
        pytest.param("http://t/m", (Disposition.OPEN, 0), id="a mirror of the other lane goes there"),
        pytest.param("http://u/m", (Disposition.OPEN, 0), id="a mirror elsewhere leaves the rank"),
        pytest.param(NO_HOST + "//", (Disposition.FAILURE, 0), id="a mirror that is refused is none"),
    ],
)
@pytest.mark.parametrize("verdict", [MISSING, redirect("http:///")])
def test_a_row_moves_on_to_its_mirror_as_by_a_redirect(
    mirror: str, expected: tuple[Disposition, int], verdict: Verdict
) -> None:
    rank = Rank(mirrors=(mirror,))
    assert rank.decide(verdict) == expected
    told = rank.changes.take()
    handoffs = [change.handoff for change in told if isinstance(change, RowHandedOff)]
    assert [handoff.url for handoff in handoffs] == (["http://u/m/0"] if "//u" in mirror else [])
    s, t = rank.held
    assert (t.rows, s.handed_off) == ((2, {2: 1}) if "//t" in mirror else (1, {}))


@pytest.mark.parametrize("verdict", [BROKEN, REFUSED, SUCCESS])
def test_a_row_that_has_not_failed_for_good_stays_with_its_url(verdict: Verdict) -> None:
    rank = Rank(mirrors=("http://u/m",))
    rank.decide(verdict)
    assert rank.tasks[0].url == "http://s/0"
    assert rank.changes.take() == []


def test_at_a_mirror_everything_begins_anew_but_the_account() -> None:
    rank = Rank(mirrors=("http://s/m", NO_HOST + "//", "http://s/n"))
    task = rank.tasks[0]
    task.attempt, task.redirects, task.cookies, task.refused_at = 2, 3, (b"c",), 0.5
    rank.decide(MISSING)
    assert (task.url, task.attempt, task.redirects) == ("http://s/m/0", 1, 0)
    assert list(task.cookies) == []
    assert task.refused_at == -math.inf
    assert task.attempts == 3
    rank.slots[0].pop(1.0)
    rank.decide(MISSING)
    assert (task.url, task.attempts) == ("http://s/n/0", 4)
    rank.slots[0].pop(1.0)
    disposition, failure = rank.attempts.row(rank.held[0], rank.slots[0], task, MISSING, 1.0)
    assert disposition is Disposition.FAILURE
    assert failure is not None
    assert failure.code == 404
    assert failure.message == (
        "HTTP status 404; then http://s/m/0: HTTP status 404; then http:///0: refused: no host; "
        "then http://s/n/0: HTTP status 404"
    )


def test_an_ignored_server_is_asked_for_no_mirror() -> None:
    rank = Rank(mirrors=("http://t/m", "http://u/m"))
    handler = replace(rank.attempts, config=replace(config(), is_ignored=lambda server: server == "t"))
    handler.row(rank.held[0], rank.slots[0], rank.tasks[0], MISSING, 1.0)
    (told,) = rank.changes.take()
    assert isinstance(told, RowHandedOff)
    assert told.handoff.mirrors is not None
    assert told.handoff.mirrors.told == (
        "HTTP status 404; then http://t/m/0: not asked: its server is ignored; then http://u/m/0"
    )


def test_a_row_that_leaves_the_rank_takes_its_account_along() -> None:
    rank = Rank(mirrors=("http://u/m", "http://v/m"))
    rank.decide(MISSING)
    (told,) = rank.changes.take()
    assert isinstance(told, RowHandedOff)
    expected = Mirrors(("http://v/m/0",), "HTTP status 404; then http://u/m/0", attempts=1)
    assert told.handoff.mirrors == expected
    assert decode(encode(HandedOff((told.handoff,)))) == HandedOff((told.handoff,))
    slot = rank.attempts.intake.take_handoff(rank.held[1], told.handoff, 1.0)
    task = slot.pop(1.0)
    assert task is not None
    assert (task.url, task.mirrors) == ("http://u/m/0", expected)


def test_a_sample_that_fails_for_good_waits_for_its_mirror_until_the_download() -> None:
    rank = Rank(is_sampling=True, mirrors=("http://u/m",))
    assert rank.decide(MISSING) == (Disposition.OPEN, 0)
    assert (rank.changes.take(), rank.held[0].decided) == ([], {})


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
