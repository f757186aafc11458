"""What is kept of servers' paces: scaled to the whole group, and aging."""

from __future__ import annotations

import pytest

from ddmpi.core.ledger.known_paces import PAUSE_NEWS_S, KnownPaces
from ddmpi.core.records import PaceState, shared_name


def make(**paces: PaceState) -> KnownPaces:
    """Servers a1 and a2 are in one group, learned of at 100 s."""
    known = KnownPaces(lambda server: server[0])
    known.learn(paces, 100.0)
    return known


def test_waits_run_down_and_bytes_that_count_no_longer_are_left_out() -> None:
    known = make(a1=PaceState(wait_s=30.0, spent_hour=((10.0, 5.0), (40.0, 7.0)), spent_day=((40.0, 7.0),)))
    assert known.all(120.0)["a1"] == PaceState(wait_s=10.0, spent_hour=((20.0, 7.0),), spent_day=((20.0, 7.0),))
    assert known.all(500.0)["a1"] == PaceState()


def test_a_lane_knows_all_servers_of_its_group_and_its_part_of_their_rates() -> None:
    known = make(a1=PaceState(8.0), a2=PaceState(2.0), b1=PaceState(1.0))
    assert known.share("a", 0.5, 100.0) == {"a1": PaceState(4.0), "a2": PaceState(1.0)}


def test_what_a_lane_has_learned_is_kept_as_of_the_whole_group() -> None:
    known = make()
    assert known.report("a", 0.25, {"a1": PaceState(2.0, incidents=1)}, 100.0) == {}
    assert known.all(100.0) == {"a1": PaceState(8.0, incidents=1)}


@pytest.mark.parametrize(
    ("wait_s", "news"),
    [
        pytest.param(60.0, {"a1": 60.0}, id="a longer pause is news"),
        pytest.param(20.0, {}, id="what is left of the known one is none"),
        pytest.param(20.0 + PAUSE_NEWS_S / 2, {}, id="nor what differs by less than clocks do"),
        pytest.param(0.0, {}, id="a lane that has not heard of it does not end it"),
    ],
)
def test_pauses(wait_s: float, news: dict[str, float]) -> None:
    known = make(a1=PaceState(wait_s=30.0))
    assert known.report("a", 1.0, {"a1": PaceState(wait_s=wait_s)}, 110.0) == news
    assert known.all(110.0)["a1"].wait_s == max(20.0, wait_s)


@pytest.mark.parametrize(
    ("state", "told_s"),
    [
        pytest.param(PaceState(wait_s=40.0, throttles=1), 40.0, id="the first time it may be meant for all"),
        pytest.param(PaceState(wait_s=40.0, throttles=4), None, id="again and again it may be for the lane's rows"),
        pytest.param(PaceState(wait_s=40.0, throttles=4, asked_s=30.0), 30.0, id="what is asked for holds for all"),
        pytest.param(PaceState(wait_s=40.0, throttles=4, open_count=1), 40.0, id="it does not answer"),
    ],
)
def test_other_lanes_hear_of_a_lanes_own_pauses_once(state: PaceState, told_s: float | None) -> None:
    """One URL that is refused again and again, the last one of its lane, must not stop those of the other lanes."""
    assert make().report("a", 0.5, {"a1": state}, 110.0, 1) == ({} if told_s is None else {"a1": told_s})


def test_pauses_that_grow_by_little_each_are_news_when_they_have_grown_by_much() -> None:
    known = make(a1=PaceState(wait_s=30.0))
    news = [
        known.report("a", 1.0, {"a1": PaceState(wait_s=30.0 + number * PAUSE_NEWS_S * 0.6)}, 100.0)
        for number in range(4)
    ]
    assert news == [{}, {}, {"a1": 30.0 + 1.2 * PAUSE_NEWS_S}, {}]


def test_what_servers_of_a_group_share_is_kept_beside_their_own_paces() -> None:
    spent = PaceState(spent_day=((40.0, 7.0),))
    known = make(**{shared_name("a"): spent, "a1": PaceState(2.0)})
    assert known.share("a", 0.5, 100.0) == {shared_name("a"): spent, "a1": PaceState(1.0)}


# ---- bytes


def spent(known: KnownPaces, now: float) -> float:
    return sum(size_bytes for _, size_bytes in known.all(now)["a1"].spent_day)


def report(known: KnownPaces, lane_id: int, size_bytes: float, now: float) -> None:
    known.report("a", 0.5, {"a1": PaceState(spent_day=((1000.0, size_bytes),))}, now, lane_id)


def test_what_the_lanes_of_a_group_have_spent_adds_up_also_when_they_have_ended() -> None:
    known = make()
    report(known, 1, 30.0, 100.0)
    report(known, 2, 50.0, 100.0)
    report(known, 1, 40.0, 110.0)
    assert spent(known, 120.0) == 90.0
    assert known.ended("a", 2)
    assert not known.ended("a", 2)
    assert spent(known, 120.0) == 90.0
    known.ended("a", 1)
    assert spent(known, 120.0) == 90.0
    assert spent(known, 1105.0) == 40.0, "each for as long as it counts"


def test_a_group_whose_lanes_have_ended_leaves_nothing_behind() -> None:
    known = make()
    known.share("b", 1.0, 100.0, 1)
    assert not known.ended("b", 1)
    assert not known._lanes
    assert "b" not in known._by_group


def test_lanes_that_begin_take_their_parts_of_what_nobody_answers_for() -> None:
    known = make(a1=PaceState(spent_day=((1000.0, 80.0),)))
    for lane_id, part in ((1, 0.5), (2, 0.25), (3, 0.25)):
        ((_, size_bytes),) = known.share("a", part, 100.0, lane_id)["a1"].spent_day
        assert size_bytes == pytest.approx(80.0 * part)
    assert spent(known, 100.0) == pytest.approx(80.0)
    report(known, 1, 60.0, 110.0)
    assert spent(known, 110.0) == pytest.approx(100.0), "what a lane was given is in what it says"
    assert known.share("a", 0.5, 110.0, 4)["a1"].spent_day == (), "its sibling answers for its own"
