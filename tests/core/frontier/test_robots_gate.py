"""Whose turn comes when rows wait for a robots.txt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from ddmpi.core.frontier.interface import Disposition, LaneEnded, RowHandedOff, RowsFailed
from ddmpi.core.frontier.robots_gate import KNOWN_FOR_S, MOST_KNOWN_BYTES, RobotsGate
from ddmpi.core.protocol import Extend, Handoff, Lane
from ddmpi.core.records import ErrorKind, Failure, Limits, Task
from ddmpi.core.rules.robots_txt import (
    DISALLOWED,
    EVERYTHING,
    MAX_ROBOTS_BYTES,
    OBEYED,
    RobotsFile,
    judge_robots,
)
from ddmpi.core.rules.usage_signals import NOTHING, Respect
from ddmpi.core.rules.verdict import SUCCESS
from tests.core.frontier.test_frontier import (
    ANY_RATE,
    Driven,
    Rows,
    batch,
    config,
    lane,
    redirect,
    rows,
    start,
    taken,
    tasks,
)
from tests.core.rules.test_robots_txt import FILE, OURS

# ---- whose turn comes when

Serve = Callable[[Driven, float], list[Task]]


def frontier_that_obeys(low_water_rows: int = 2000) -> Driven:
    return frontier_with(OBEYED, low_water_rows=low_water_rows)


def frontier_with(respect: Respect, low_water_rows: int = 2000) -> Driven:
    """One that obeys that of all servers whose names do not begin with "free"."""
    obeying = replace(
        config(low_water_rows=low_water_rows), respect=lambda server: NOTHING if server.startswith("free") else respect
    )
    return Driven(obeying)


def answer(frontier: Driven, task: Task, now: float, **changes: object) -> None:
    """An answer to a request for robots.txt."""
    assert task.robots_of
    verdict = judge_robots(replace(FILE, task=task, **changes), OURS)  # type: ignore[arg-type]  # as above
    assert frontier.finished(task, verdict, now, 10) == (Disposition.OPEN, None)


def succeed(frontier: Driven, started: Sequence[Task], now: float) -> None:
    for task in started:
        assert frontier.finished(task, SUCCESS, now, 10) == (Disposition.SUCCESS, None)


def robots_request(frontier: Driven, now: float) -> Task:
    """The one request that may start: for a robots.txt."""
    (request,) = tasks(frontier, now)
    assert request.robots_of
    return request


def failed_rows(frontier: Driven) -> dict[int, Failure]:
    return {
        task.row: event.failure for event in taken(frontier) if isinstance(event, RowsFailed) for task in event.tasks
    }


def test_the_file_is_asked_for_once_and_before_all_rows() -> None:
    frontier = frontier_that_obeys()
    start(frontier, lane(1, [batch(1, 10)]))
    request = robots_request(frontier, 0.0)
    assert request.url == "http://s/robots.txt"
    assert tasks(frontier, 1.0) == []
    frontier.validate()
    answer(frontier, request, 1.0)
    started = tasks(frontier, 1.0)
    assert [task.row for task in started] == [0, 1, 2, 3], "in their order, as many as there are connections"
    succeed(frontier, started, 2.0)
    assert [task.row for task in tasks(frontier, 2.0)] == [4, 5, 6, 7]
    frontier.validate()


def test_rows_that_the_file_forbids_fail_without_a_request_and_the_lane_ends() -> None:
    frontier = frontier_that_obeys()
    cursor = Rows([(row, f"http://s/{'no' if row % 2 else 'yes'}/{row}", "s") for row in range(6)])
    start(frontier, lane(1, [batch(1, 6)]), cursor=cursor)
    answer(frontier, robots_request(frontier, 0.0), 0.0)
    started = tasks(frontier, 0.0)
    assert [task.row for task in started] == [0, 2, 4]
    assert failed_rows(frontier) == dict.fromkeys((1, 3, 5), DISALLOWED)
    succeed(frontier, started, 1.0)
    assert any(isinstance(event, LaneEnded) for event in taken(frontier))


def test_a_lane_whose_rows_are_all_forbidden_ends_without_one_request_for_them() -> None:
    frontier = frontier_that_obeys(low_water_rows=1)
    start(frontier, lane(1, [batch(1, 600)]), cursor=rows(600))
    answer(frontier, robots_request(frontier, 0.0), 0.0, body=b"User-agent: *\nDisallow: /", content_length=25)
    assert tasks(frontier, 0.0) == []
    events = taken(frontier)
    assert sum(len(event.tasks) for event in events if isinstance(event, RowsFailed)) == 600
    assert isinstance(events[-1], LaneEnded)


def test_rows_that_the_file_forbids_move_on_to_their_mirrors_whose_own_file_is_asked_for() -> None:
    frontier = frontier_that_obeys()
    start(frontier, lane(1, [batch(1, 3)]), cursor=rows(3, mirrors=("http://t/m", "http://free/m")))
    start(frontier, lane(2, [batch(2, 1)], group="t"), cursor=Rows([(0, "http://t/0", "t")]))
    started = {task.server: task for task in tasks(frontier, 0.0)}
    forbidding = {"body": b"User-agent: *\nDisallow: /", "content_length": 25}
    answer(frontier, started["s"], 0.0, **forbidding)
    assert tasks(frontier, 0.0) == [], "they wait for the file of t"
    answer(frontier, started["t"], 0.0, body=b"User-agent: *\nDisallow: /m/2\nAllow: /", content_length=37)
    assert {task.url for task in tasks(frontier, 0.0)} == {"http://t/m/0", "http://t/m/1", "http://t/0"}
    (handoff,) = [event.handoff for event in taken(frontier) if isinstance(event, RowHandedOff)]
    assert (handoff.url, handoff.row) == ("http://free/m/2", 2)
    frontier.validate()


def test_servers_that_are_free_and_other_origins_do_not_wait() -> None:
    frontier = frontier_that_obeys()
    urls = ["http://s/1", "https://s/2", "http://free/3", "http://s/4"]
    cursor = Rows([(row, url, url.split("/")[2]) for row, url in enumerate(urls)])
    start(frontier, lane(1, [batch(1, 4)], group="joint"), cursor=cursor)
    started = {task.url: task for task in tasks(frontier, 0.0)}
    assert set(started) == {"http://s/robots.txt", "https://s/robots.txt", "http://free/3"}
    answer(frontier, started["https://s/robots.txt"], 0.0)
    assert [task.url for task in tasks(frontier, 0.0)] == ["https://s/2"]


def test_packed_servers_each_ask_for_their_own_file() -> None:
    frontier = frontier_that_obeys()
    cursor = Rows([(row, f"http://s{row // 2}/{row}", f"s{row // 2}") for row in range(6)])
    start(frontier, lane(1, [batch(1, 6)], group="__many__/0"), cursor=cursor)
    requests = tasks(frontier, 0.0)
    assert [task.url for task in requests] == [f"http://s{number}/robots.txt" for number in range(3)]
    for request in requests:
        answer(frontier, request, 0.0, status=404)
    assert len(tasks(frontier, 2.0)) == 3, "one connection each"
    frontier.validate()


def test_crawl_delay_lowers_the_rate_by_the_lanes_part_of_the_group() -> None:
    # The group as a whole has 1 connection by these rules: a lane with 4 of them has all of it.
    frontier = frontier_that_obeys()
    start(frontier, lane(1, [batch(1, 10)]))
    delayed = b"User-agent: *\nCrawl-delay: 3"
    answer(frontier, robots_request(frontier, 0.0), 0.0, body=delayed, content_length=len(delayed))
    starts: list[float] = []
    now = 0.0
    while len(starts) < 4:
        starts += [now for _ in tasks(frontier, now)]
        now = max(now + 0.01, frontier.wake_at())
    gaps = [after - before for before, after in pairwise(starts)]
    assert gaps == pytest.approx([3.0] * 3)


def test_crawl_delay_is_shared_by_lanes_like_their_connections() -> None:
    wide = replace(config(), respect=lambda _: OBEYED, limits_for=lambda _: Limits(0.0, 8))
    frontier = Driven(wide)
    share, added, *_ = Limits(0.0, 8).divided(4)
    start(frontier, lane(1, [batch(1, 10)], share=share))
    delayed = b"User-agent: *\nCrawl-delay: 3"
    answer(frontier, robots_request(frontier, 0.0), 0.0, body=delayed, content_length=len(delayed))
    (first,) = tasks(frontier, 0.0)
    assert frontier.wake_at() == pytest.approx(12.0), "a quarter of the connections: a quarter of 1/3 per second"
    frontier.extend(Extend(1, 1, added=added), 0.0)
    succeed(frontier, [first], 0.1)
    assert frontier.wake_at() == pytest.approx(6.0)


def test_a_file_that_cannot_be_had_keeps_the_rows_until_the_breaker_gives_the_server_up() -> None:
    frontier = frontier_that_obeys()
    start(frontier, lane(1, [batch(1, 5)]))
    now, requests = 0.0, 0
    while not (failed := failed_rows(frontier)):
        answer(frontier, robots_request(frontier, now), now, status=503)
        requests += 1
        frontier.validate()
        now = max(now, frontier.wake_at())
    # Two failures park the server, and one probe after 10 s is its last by the rules of these tests.
    assert requests == 3
    assert now >= 10.0
    assert failed == dict.fromkeys(range(5), Failure(ErrorKind.ROBOTS, -2, "not asked: robots.txt: HTTP status 503"))


def test_a_file_that_comes_late_is_as_good() -> None:
    frontier = frontier_that_obeys()
    start(frontier, lane(1, [batch(1, 1)]))
    answer(frontier, robots_request(frontier, 0.0), 0.0, status=429, retry_after="30")
    assert tasks(frontier, 29.9) == []
    answer(frontier, robots_request(frontier, 61.0), 61.0)
    assert [task.row for task in tasks(frontier, 100.0)] == [0]


def test_sampling_does_not_wait_for_a_file() -> None:
    frontier = frontier_that_obeys()
    sampling = Lane(1, "s", False, ANY_RATE, (batch(1, 3, sample_rows=3),), time_s=1.0, sampling=True)
    start(frontier, sampling)
    answer(frontier, robots_request(frontier, 0.0), 0.0, status=500)
    assert tasks(frontier, 100.0) == []
    events = taken(frontier)
    assert not [event for event in events if isinstance(event, RowsFailed)]
    assert any(isinstance(event, LaneEnded) for event in events)
    frontier.validate()


def test_a_file_is_asked_for_again_after_a_day() -> None:
    frontier = frontier_that_obeys()
    start(frontier, lane(1, [batch(1, 5)]))
    answer(frontier, robots_request(frontier, 0.0), 0.0)
    first = tasks(frontier, 0.0)
    succeed(frontier, first, KNOWN_FOR_S)
    assert robots_request(frontier, KNOWN_FOR_S).url == "http://s/robots.txt"


def test_files_that_are_not_needed_are_forgotten_when_they_are_many() -> None:
    gate = RobotsGate(lambda _: OBEYED, lambda _: ANY_RATE)
    big = RobotsFile.parse(b"#" * MAX_ROBOTS_BYTES, OURS)
    for number in range(1000):
        gate.learn(f"http://a{number}", RobotsFile.parse(b"#" * (MOST_KNOWN_BYTES // 100), OURS), float(number))
    kept = [number for number in range(1000) if gate._file(f"http://a{number}", 1000.0)]
    assert kept == list(range(1000 - len(kept), 1000))
    assert 60 <= len(kept) < 100, "all that were needed within a minute, and what else there is room for"
    for number in range(10):
        gate.learn(f"http://b{number}", big, 1001.0)
    assert all(gate._file(f"http://b{number}", 1001.0) for number in range(10)), "they are needed now"
    gate.learn("http://c", EVERYTHING, 1100.0)
    kept = [number for number in range(10) if gate._file(f"http://b{number}", 1100.0)]
    assert kept == list(range(10))[-(MOST_KNOWN_BYTES // MAX_ROBOTS_BYTES) :]
    assert gate._file("http://c", 1100.0)


def test_a_redirected_row_is_checked_by_the_file_of_its_new_server() -> None:
    frontier = frontier_that_obeys()
    start(frontier, lane(1, [batch(1, 1)], group="free"), cursor=rows(1, "free"))
    start(frontier, lane(2, [batch(2, 1)], group="t"), cursor=rows(1, "t"))
    row, request = tasks(frontier, 0.0)
    assert (row.url, request.url) == ("http://free/0", "http://t/robots.txt")
    assert frontier.finished(row, redirect("http://t/no/0"), 0.0, 0) == (Disposition.OPEN, None)
    answer(frontier, request, 0.0)
    assert [task.url for task in tasks(frontier, 0.0)] == ["http://t/0"]
    assert failed_rows(frontier) == {0: DISALLOWED}
    frontier.validate()


def test_an_errand_is_checked_as_well() -> None:
    frontier = frontier_that_obeys()
    handoff = Handoff(batch(9), 4, "http://t/no/4", "t", "t", 1, 1)
    frontier.assign([replace_errands(lane(1, group="t"), handoff)], 0.0)
    answer(frontier, robots_request(frontier, 0.0), 0.0)
    assert tasks(frontier, 1.0) == []
    assert failed_rows(frontier) == {4: DISALLOWED}


def replace_errands(lane: Lane, *handoffs: Handoff) -> Lane:
    return Lane(lane.lane_id, lane.group, lane.packed, lane.share, (), time_s=1.0, handoffs=handoffs)


def test_a_redirected_file_is_fetched_under_the_limits_of_its_server() -> None:
    frontier = frontier_that_obeys()
    start(frontier, lane(1, [batch(1, 1)], group="a"), cursor=rows(1, "a"))
    start(frontier, lane(2, [batch(2, 1)], group="b"), cursor=rows(1, "b"))
    first, second = tasks(frontier, 0.0)
    answer(frontier, first, 0.0, status=301, location="http://b/elsewhere.txt", content_length=27)
    request = frontier.admit(0.0)
    assert request is not None
    moved = request.task
    assert (moved.url, moved.robots_of, request.lane_id) == ("http://b/elsewhere.txt", "http://a", 2)
    answer(frontier, moved, 0.0, body=b"User-agent: *\nDisallow: /0", content_length=26)
    assert tasks(frontier, 0.0) == []
    assert failed_rows(frontier) == {0: DISALLOWED}
    answer(frontier, second, 0.0)
    assert [task.url for task in tasks(frontier, 0.0)] == ["http://b/0"]
    frontier.validate()


def test_a_file_that_leads_to_a_dead_server_fails_the_rows_that_need_it() -> None:
    frontier = frontier_that_obeys()
    start(frontier, lane(1, [batch(1, 1)], group="a"), cursor=rows(1, "a"))
    start(frontier, lane(2, [batch(2, 3)], group="b"), cursor=rows(3, "b"))
    request, other = tasks(frontier, 0.0)
    answer(frontier, request, 0.0, status=301, location="http://b/elsewhere.txt", content_length=27)
    now = 0.0
    failed: dict[int, Failure] = {}
    pending = [other, *tasks(frontier, 0.0)]
    while len(failed) < 3:
        for task in pending:
            if task.url.startswith("http://b/"):
                answer(frontier, task, now, curl_code=7, status=0, error="refused")
            else:
                answer(frontier, task, now, status=301, location="http://b/elsewhere.txt", content_length=27)
        frontier.validate()
        failed |= failed_rows(frontier)
        now = max(now, min(frontier.wake_at(), now + 100.0))
        pending = tasks(frontier, now)
        assert now < 1000.0
    assert {failure.kind for failure in failed.values()} == {ErrorKind.UNREACHABLE}


def test_without_the_key_nothing_is_asked() -> None:
    frontier = Driven(config())
    start(frontier, lane(1, [batch(1, 2)]))
    assert [task.url for task in tasks(frontier, 0.0)] == ["http://s/0", "http://s/1"]


def test_an_errand_leaves_for_a_server_of_another_rank_unchecked() -> None:
    frontier = frontier_that_obeys()
    start(frontier, lane(1, [batch(1, 1)], group="free"), cursor=rows(1, "free"))
    (row,) = tasks(frontier, 0.0)
    frontier.finished(row, redirect("http://elsewhere/no/0"), 0.0, 0)
    (event,) = [event for event in taken(frontier) if isinstance(event, RowHandedOff)]
    assert event.handoff.server == "elsewhere"


# ---- what is heard and not obeyed

TELLING = b"User-agent: *\nDisallow: /0\nCrawl-delay: 3\nContent-Usage: train-ai=n\nContent-Usage: /3 train-ai=y\n"


def test_what_is_only_heard_stops_and_slows_nothing() -> None:
    frontier = frontier_with(Respect(hears_robots=True))
    start(frontier, lane(1, [batch(1, 4)]))
    answer(frontier, robots_request(frontier, 0.0), 0.0, body=TELLING, content_length=len(TELLING))
    said = "robots.txt: crawl-delay=3; robots.txt content-usage: train-ai"
    assert {task.row: task.usage_signals for task in tasks(frontier, 0.0)} == {
        0: "robots.txt: disallow, crawl-delay=3", 1: f"{said}=n", 2: f"{said}=n", 3: f"{said}=y",
    }  # fmt: skip
    assert not failed_rows(frontier)


def test_content_usage_in_robots_txt_is_obeyed_without_what_else_the_file_says() -> None:
    frontier = frontier_with(Respect(categories=frozenset({"train-ai"})))
    start(frontier, lane(1, [batch(1, 4)]))
    answer(frontier, robots_request(frontier, 0.0), 0.0, body=TELLING, content_length=len(TELLING))
    assert [task.row for task in tasks(frontier, 0.0)] == [0, 3], "a path that is disallowed has no preferences"
    failure = Failure(ErrorKind.ROBOTS, -2, "robots.txt: Content-Usage: train-ai=n")
    assert failed_rows(frontier) == dict.fromkeys((1, 2), failure)


def test_a_file_that_is_only_heard_and_cannot_be_had_keeps_nobody_waiting() -> None:
    frontier = frontier_with(Respect(hears_robots=True))
    start(frontier, lane(1, [batch(1, 4)]))
    answer(frontier, robots_request(frontier, 0.0), 0.0, status=500)
    said = {}
    while started := tasks(frontier, 0.0):
        for task in started:
            said[task.row] = task.usage_signals
            frontier.finished(task, SUCCESS, 0.0, 10)
    assert said == dict.fromkeys(range(4), "")


def test_what_a_file_says_of_a_row_is_forgotten_where_another_server_is_asked() -> None:
    frontier = frontier_with(Respect(hears_robots=True))
    start(frontier, lane(1, [batch(1, 1)], group="s"))
    start(frontier, lane(2, [batch(2, 1)], group="free"), cursor=rows(1, "free"))
    asked = {task.url: task for task in tasks(frontier, 0.0)}
    answer(frontier, asked["http://s/robots.txt"], 0.0, body=TELLING, content_length=len(TELLING))
    (row,) = tasks(frontier, 0.0)
    assert row.usage_signals
    frontier.finished(row, redirect("http://free/1"), 0.0, 0)
    frontier.finished(asked["http://free/0"], SUCCESS, 0.0, 10)
    (moved,) = tasks(frontier, 0.0)
    assert (moved.url, moved.usage_signals) == ("http://free/1", "")
