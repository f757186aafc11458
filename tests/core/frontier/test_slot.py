"""The rows of one server in one lane, and when the frontier looks at them."""

from __future__ import annotations

import math
import random

import pytest

from ddmpi.core.frontier.slot import LETS_OTHERS_FIRST_S, OTHERS_FIRST, SharedLimits, Slot, WakeQueue
from ddmpi.core.pace.policy import PacePolicy
from ddmpi.core.pace.rate_limiter import RateLimiter, Signal
from ddmpi.core.records import ErrorKind, Failure, Limits, Task


def limiter(limits: Limits) -> RateLimiter:
    return RateLimiter(limits, PacePolicy(), None, random.Random(1), 0.0)


def slot(limits: Limits = Limits(2.0, 4), server: str = "s") -> Slot:  # noqa: B008  # it is frozen
    return Slot(server, "s", 1, limiter(limits), limits)


def task(row: int) -> Task:
    return Task(0, row, f"http://s/{row}", "s")


def test_a_row_that_is_due_again_goes_before_fresh_ones() -> None:
    it = slot()
    it.queue.extend([task(0), task(1)])
    it.retry_at(task(2), 5.0)
    assert it.waiting == 3
    taken = [it.pop(4.0), it.pop(5.0), it.pop(5.0), it.pop(5.0)]
    assert [task and task.row for task in taken] == [0, 2, 1, None]


def test_while_a_server_is_doubted_fresh_rows_are_its_probes() -> None:
    it = slot()
    it.queue.extend(map(task, range(100)))
    for row in range(5):  # the breaker opens
        it.limiter.start(float(row))
        it.limiter.finish(row + 0.1, float(row), Signal.CONNECT_FAILED)
    it.retry_at(task(200), 5.0)
    taken = [found.row for _ in range(5) if (found := it.pop(6.0)) is not None]
    assert taken == [0, 1, 2, 3, 4], "the row that has failed is not the one to ask with"
    assert it.waiting == 96
    it.clear()
    it.retry_at(task(200), 5.0)
    assert it.pop(6.0) is not None, "where there is no other one"


def test_when_a_row_is_due() -> None:
    it = slot()
    assert it.next_due(1.0) == math.inf
    it.retry_at(task(0), 5.0)
    assert (it.next_due(1.0), it.next_due(7.0)) == (5.0, 7.0)
    it.queue.append(task(1))
    assert it.next_due(1.0) == 1.0


def test_rows_that_were_held_back_go_before_all_others_in_their_order() -> None:
    it = slot()
    it.queue.append(task(9))
    for row in (0, 1):
        it.hold_back("http://s", task(row))
    assert it.waiting == 3
    assert not it.release("http://other")
    assert it.release("http://s")
    assert [task.row for task in it.queue] == [0, 1, 9]


def test_clear_takes_out_everything_that_waits() -> None:
    it = slot()
    it.queue.append(task(0))
    it.retry_at(task(1), 5.0)
    it.hold_back("http://s", task(2))
    assert sorted(task.row for task in it.clear()) == [0, 1, 2]
    assert it.waiting == 0


def test_a_crawl_delay_lowers_the_rate_by_the_slots_part_of_the_connections_and_stays() -> None:
    it = slot(Limits(2.0, 2))
    it.slow_down(10.0, 8, 0.0)
    assert it.limiter.limits.rate_per_s == pytest.approx(2 / 8 / 10.0)
    it.planned = Limits(4.0, 4)
    it.set_limits(it.planned, 0.0)
    assert it.limiter.limits.rate_per_s == pytest.approx(4 / 8 / 10.0)
    it.set_limits(Limits(0.01, 4), 0.0)
    assert it.limiter.limits.rate_per_s == 0.01, "a lower limit counts"


@pytest.mark.parametrize(("was_asked", "ready_at_s"), [(False, 0.0), (True, 13.0)])
def test_a_crawl_delay_counts_from_when_it_is_known_where_the_server_may_have_been_asked(
    was_asked: bool, ready_at_s: float
) -> None:
    it = slot(Limits(2.0, 1))
    it.was_asked = was_asked
    it.slow_down(10.0, 1, 3.0)
    assert it.limiter.ready_at(0.0) == pytest.approx(ready_at_s)
    it.slow_down(20.0, 1, 3.0)
    assert it.limiter.ready_at(0.0) <= 23.0, "a longer delay does not count twice"


def test_the_operator_can_hold_a_slot() -> None:
    it, queue = slot(), WakeQueue()
    it.queue.append(task(0))
    it.set_limits(None, 0.0)
    assert it.is_held
    queue.enter(it, 0.0)
    assert queue.next_at == math.inf
    it.set_limits(Limits(1.0, 1), 0.0)
    queue.enter(it, 0.0)
    assert (it.is_held, queue.next_at) == (False, 0.0)


def test_a_server_that_is_given_up_is_not_looked_at() -> None:
    it, queue = slot(), WakeQueue()
    it.queue.append(task(0))
    it.given_up = Failure(ErrorKind.CONNECT, -1, "refused")
    queue.enter(it, 0.0)
    assert queue.pop(100.0) is None


def test_slots_come_out_by_time_each_once_and_stale_entries_never() -> None:
    queue = WakeQueue()
    early, late = slot(server="early"), slot(server="late")
    late.retry_at(task(0), 8.0)
    early.retry_at(task(0), 6.0)
    for it in (late, early):
        queue.enter(it, 0.0)
    late.queue.append(task(1))
    queue.enter(late, 0.0)
    assert queue.pop(0.0) is late, "it was entered again for an earlier time"
    assert queue.next_at == 6.0
    assert queue.pop(9.0) is early
    assert queue.pop(9.0) is None, "the entry for 8.0 is stale"


def ask(queue: WakeQueue, now: float) -> str:
    """Start and end the next request that may start now; return its server, "" where there is none."""
    it = queue.pop(now)
    if it is None:
        return ""
    it.pop(now)
    it.start(now)
    if not it.is_begun:
        queue.begin(it)
    it.limiter.finish(now, now, Signal.OK)
    it.end(now, now, 0)
    queue.enter(it, now)
    return it.server


def test_servers_that_have_begun_go_before_new_ones_where_they_are_enough() -> None:
    queue = WakeQueue(most_begun=2)
    slots = [slot(Limits(1.0, 4), server) for server in "abcd"]
    for it in slots:
        it.queue.extend(map(task, range(3)))
        queue.enter(it, 0.0)
    had_new = queue.has_new
    assert queue.next_at == 0.0
    assert [ask(queue, 0.0) for _ in range(5)] == ["a", "b", "c", "d", ""], "no connection is idle where one is due"
    assert (had_new, queue.has_new) == (True, False)
    late = slot(Limits(1.0, 4), "late")
    late.queue.extend(map(task, range(3)))
    queue.enter(late, 1.5)
    assert [ask(queue, 1.5) for _ in range(6)] == ["a", "b", "c", "d", "late", ""]
    assert [ask(queue, 9.0) for _ in range(3)] == ["a", "b", "c"]
    assert not slots[0].is_begun, "it has no rows left"
    newest = slot(Limits(1.0, 4), "newest")
    newest.queue.append(task(0))
    queue.enter(newest, 9.0)
    assert [ask(queue, 9.0) for _ in range(3)] == ["d", "newest", "late"], "only one had begun after the first"


def test_a_new_server_that_comes_to_share_its_groups_limits_has_its_turn_among_the_others() -> None:
    queue = WakeQueue()
    it, shared = slot(), SharedLimits(limiter(Limits(1.0, 1)))
    it.queue.append(task(0))
    queue.enter(it, 0.0)
    shared.join(it, 0.0)
    shared.limiter.start(0.0)
    assert queue.pop(0.0) is None, "the group's only connection is in use"
    shared.limiter.finish(0.5, 0.0, Signal.OK)
    queue.enter(it, 0.5)
    assert queue.pop(1.0) is it


def of_one_group(limits: Limits, *servers: str) -> tuple[SharedLimits, list[Slot], WakeQueue]:
    """Servers with ten rows each that share these limits."""
    shared, slots, queue = SharedLimits(limiter(limits)), [slot(limits, server) for server in servers], WakeQueue()
    for it in slots:
        shared.join(it, 0.0)
        it.queue.extend(map(task, range(10)))
        queue.enter(it, 0.0)
    return shared, slots, queue


def start_all(queue: WakeQueue, now: float) -> list[str]:
    """Start what may start now: the servers that are asked."""
    asked = []
    while (it := queue.pop(now)) is not None:
        it.pop(now)
        it.start(now)
        queue.enter(it, now)
        asked.append(it.server)
    return asked


def test_servers_of_a_group_have_its_limits_together_and_take_turns() -> None:
    _, _, queue = of_one_group(Limits(2.0, 8), "a", "b", "c")
    asked = [start_all(queue, number / 2) for number in range(6)]
    assert asked == [["a"], ["b"], ["c"], ["a"], ["b"], ["c"]]
    assert queue.next_at == 3.0


def test_a_server_that_fails_stands_in_nobodys_way() -> None:
    _, (dead, alive), queue = of_one_group(Limits(2.0, 8), "dead", "alive")
    for number in range(5):
        dead.limiter.start(float(number))
        dead.limiter.finish(number + 0.1, float(number), Signal.CONNECT_FAILED)
    assert dead.limiter.is_failing
    asked = [start_all(queue, 5 + number / 2) for number in range(7)]
    assert asked == [["alive"]] * 7
    assert alive.in_flight == 7


def test_a_slow_server_leaves_connections_to_the_others() -> None:
    _, (slow, quick), queue = of_one_group(Limits(0.0, 4), "slow", "quick")
    assert sorted(start_all(queue, 0.0)) == ["quick", "quick", "slow", "slow"]
    for number in range(1, 6):
        quick.limiter.finish(float(number), 0.0, Signal.OK)
        quick.end(float(number), 0.0, 100)
        queue.enter(quick, float(number))
        assert start_all(queue, float(number)) == ["quick"]
    quick.queue.clear()
    queue.enter(quick, 9.0)
    quick.limiter.finish(9.0, 5.0, Signal.OK)
    quick.end(9.0, 5.0, 100)
    queue.enter(quick, 9.0)
    quick.limiter.finish(9.0, 5.0, Signal.OK)
    quick.end(9.0, 5.0, 100)
    queue.enter(quick, 9.0)
    assert start_all(queue, 9.0) == ["slow", "slow"], "nobody else needs them"
    assert slow.in_flight == 4


def test_bytes_are_counted_for_all_servers_of_a_group_together() -> None:
    shared, (one, other), queue = of_one_group(Limits(0.0, 1, bytes_per_s=1000.0), "one", "other")
    assert start_all(queue, 0.0) == ["one"]
    one.limiter.finish(0.0, 0.0, Signal.OK, body_bytes=4000)
    one.end(0.0, 0.0, 4000)
    queue.enter(one, 0.0)
    assert one.limiter.wait_s(0.0) == 0.0
    assert (other.wait_s(0.0), shared.limiter.wait_s(1.0)) == (4.0, 3.0)
    assert start_all(queue, 3.9) == []
    assert start_all(queue, 4.0) == ["other"]


def test_a_server_that_comes_later_shares_what_is_in_flight() -> None:
    shared, first = SharedLimits(limiter(Limits(0.0, 2))), slot(Limits(0.0, 2), "first")
    first.start(0.0)
    shared.join(first, 0.0)
    assert shared.limiter.in_flight == 1
    first.end(1.0, 0.0, 0)
    assert shared.limiter.in_flight == 0


def test_after_a_pause_another_row_goes_before_the_one_that_was_refused() -> None:
    it = slot(Limits(0.0, 4))
    refused = task(0)
    refused.refused_at = 1.0
    it.queue.append(task(1))
    it.retry_at(refused, 1.0)
    first = it.pop(2.0)
    assert first is not None
    assert first.row == 1
    assert it.pop(2.0) is refused, "there is no other one"
    it.queue.append(task(2))
    it.retry_at(refused, 2.0)
    it.limiter.start(2.0)
    it.limiter.finish(3.0, 2.0, Signal.OK)
    assert it.pop(4.0) is refused, "another one was answered well since then"


def test_rows_that_were_put_last_go_when_no_other_one_is_due() -> None:
    it = slot()
    it.retry_at(task(0), 1.0, is_last=True)
    it.retry_at(task(1), 6.0)
    it.queue.append(task(2))
    assert (it.waiting, it.put_last) == (3, 1)
    taken = [it.pop(now) for now in (5.0, 5.0, 5.0, 6.0)]
    assert [found and found.row for found in taken] == [2, 0, None, 1]
    it.retry_at(task(3), 9.0, is_last=True)
    assert it.next_due(7.0) == 9.0
    assert [found.row for found in it.clear()] == [3]


def test_rows_that_were_put_last_get_a_small_share_after_a_while() -> None:
    it = slot()
    for row in range(3):
        it.retry_at(task(row), 1.0, is_last=True)
    it.queue.extend(task(number) for number in range(10, 100))
    early = [it.pop(1.0 + LETS_OTHERS_FIRST_S - 0.1) for _ in range(2 * OTHERS_FIRST)]
    assert it.put_last == 3 and None not in early, "others are there, and it is early"
    found = [it.pop(1.0 + LETS_OTHERS_FIRST_S) for _ in range(2 * (OTHERS_FIRST + 1))]
    assert [place for place, one in enumerate(found) if one is not None and one.row < 3] == [0, OTHERS_FIRST + 1]
