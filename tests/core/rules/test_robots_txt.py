"""robots.txt: what a file allows, what an answer for one means, whose turn comes when, and whole runs that obey."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.config.config import parse
from ddmpi.core.frontier.attempts import Disposition
from ddmpi.core.frontier.frontier import Frontier
from ddmpi.core.frontier.interface import LaneEnded, RowHandedOff, RowsFailed
from ddmpi.core.frontier.robots_gate import KNOWN_FOR_S, MOST_KNOWN_BYTES, RobotsGate
from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.protocol import Extend, Handoff, Lane
from ddmpi.core.records import Answer, ErrorKind, Failure, Limits, Task
from ddmpi.core.rules.robots_txt import (
    DISALLOWED,
    EVERYTHING,
    LONGEST_DELAY_S,
    MAX_ROBOTS_BYTES,
    RobotsFile,
    RobotsVerdict,
    judge_robots,
    origin_of,
    robots_task,
)
from ddmpi.core.rules.verdict import SUCCESS, Outcome, Verdict
from tests.core.frontier.test_frontier import ANY_RATE, Rows, batch, lane, redirect, rows, rules, start, taken, tasks
from tests.fleet.log import Event, EventKind, most_connections
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import ServerSpec
from tests.whole.job import assert_every_row_once, make_job, rows_of

OURS = "ddmpi"


# ---- what a file says


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        pytest.param("", "/a", True, id="empty"),
        pytest.param("User-agent: *\nDisallow:", "/a", True, id="nothing is disallowed"),
        pytest.param("User-agent: *\nDisallow: /a", "/ab", False, id="prefix"),
        pytest.param("User-agent: *\nDisallow: /a", "/b", True, id="another path"),
        pytest.param("User-agent: *\nDisallow: /a\nAllow: /a/b", "/a/b/c", True, id="the longer rule wins"),
        pytest.param("User-agent: *\nDisallow: /\nUser-agent: ddmpi\nAllow: /", "/a", True, id="our own group"),
        pytest.param("User-agent: DDMPI\nDisallow: /", "/a", False, id="our own group, in another case"),
        pytest.param("User-agent: other\nDisallow: /", "/a", True, id="the group of another crawler"),
        pytest.param("User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg", False, id="wildcard and end"),
        pytest.param("User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg?b", True, id="not the end"),
        pytest.param("\ufeffUser-agent: *\r\nDisallow: /", "/a", False, id="byte order mark, CR LF"),
        pytest.param("<!DOCTYPE html><p>Disallow: /", "/a", True, id="a page"),
    ],
)
def test_which_urls_a_file_allows(text: str, path: str, allowed: bool) -> None:
    file = RobotsFile.parse(text.encode(), OURS)
    assert file.objection(f"http://a.org{path}") == (None if allowed else DISALLOWED)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("2.5", 2.5), ("0", 0.0), ("-3", 0.0), ("soon", 0.0), ("nan", 0.0), ("inf", 0.0), ("1e9", LONGEST_DELAY_S)],
)
def test_crawl_delay(value: str, expected: float) -> None:
    assert RobotsFile.parse(f"User-agent: *\nCrawl-delay: {value}".encode(), OURS).crawl_delay_s == expected


def test_only_the_first_part_of_a_file_counts() -> None:
    head = b"User-agent: *\n"
    filler = b"#" * (MAX_ROBOTS_BYTES - len(head) - 1) + b"\n"
    assert RobotsFile.parse(head + filler + b"Disallow: /", OURS).objection("http://a.org/b") is None
    assert RobotsFile.parse(head + filler[1:] + b"Disallow: /", OURS).objection("http://a.org/b") is None
    assert RobotsFile.parse(head + b"Disallow: /\n" + filler, OURS).objection("http://a.org/b") == DISALLOWED


@given(st.binary(max_size=200), st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30))
def test_any_file_has_an_answer_for_any_url(body: bytes, path: str) -> None:
    file = RobotsFile.parse(b"User-agent: *\nDisallow: " + body, OURS)
    assert file.objection(f"http://a.org/{path}") in {None, DISALLOWED}
    assert 0 <= file.crawl_delay_s <= LONGEST_DELAY_S


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://a.org/b/c", "http://a.org"),
        ("https://a.org:8443/?b", "https://a.org:8443"),
        ("http://[::1]:80/", "http://[::1]:80"),
        ("http://a.org", "http://a.org"),
    ],
)
def test_origin(url: str, origin: str) -> None:
    assert origin_of(url) == origin
    assert robots_task(origin, "a.org").url == f"{origin}/robots.txt"


# ---- what an answer means

REQUEST = robots_task("http://a.org", "a.org")
FILE = Answer(REQUEST, status=200, body=b"User-agent: *\nDisallow: /no\n", content_length=27)


def judged(**changes: object) -> RobotsVerdict:
    return judge_robots(replace(FILE, **changes), OURS)  # type: ignore[arg-type]  # fields of all types


def test_an_answer_with_a_file() -> None:
    verdict = judged()
    assert verdict.robots is not None
    assert verdict.robots.objection("http://a.org/no") == DISALLOWED
    assert verdict.robots.objection("http://a.org/yes") is None
    empty = judged(status=204, body=b"", content_length=0)
    assert empty.robots is not None
    assert empty.robots.objection("http://a.org/no") is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451, 304])
def test_without_a_file_everything_is_allowed(status: int) -> None:
    assert judged(status=status).robots is EVERYTHING


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
def test_a_server_error_means_later(status: int) -> None:
    verdict = judged(status=status)
    assert (verdict.robots, verdict.transient, verdict.signal) == (None, True, Signal.FAILED)
    assert verdict.failure == Failure(ErrorKind.ROBOTS, -2, f"robots.txt: HTTP status {status}")


def test_throttling_means_later_and_says_when() -> None:
    for status in (429, 420, 503):
        verdict = judged(status=status, retry_after="7")
        assert (verdict.robots, verdict.transient) == (None, True)
        assert (verdict.signal, verdict.retry_after_s) == (Signal.THROTTLED, 7.0)


def test_no_answer_means_later_and_keeps_its_kind() -> None:
    verdict = judged(curl_code=7, status=0, error="refused")
    assert (verdict.robots, verdict.transient, verdict.signal) == (None, True, Signal.CONNECT_FAILED)
    assert verdict.failure == Failure(ErrorKind.CONNECT, -1, "robots.txt: refused")
    assert judged(content_length=100).transient, "a body that was cut off"
    blocked = judged(blocked=True)
    assert (blocked.robots, blocked.transient) == (None, False)


def test_redirects_are_followed_five_times() -> None:
    moved = {"status": 301, "location": "http://b.org/robots.txt"}
    for redirects, outcome in ((0, Outcome.REDIRECT), (4, Outcome.REDIRECT), (5, Outcome.SUCCESS)):
        verdict = judged(task=replace(REQUEST, redirects=redirects), **moved)
        assert verdict.outcome is outcome
        assert (verdict.robots is EVERYTHING) == (outcome is Outcome.SUCCESS)
    assert judged(status=301, location="").robots is EVERYTHING


# ---- whose turn comes when

Serve = Callable[[Frontier, float], list[Task]]


def frontier_that_obeys(low_water_rows: int = 2000) -> Frontier:
    obeying = replace(rules(low_water_rows=low_water_rows), obeys_robots=lambda server: not server.startswith("free"))
    return Frontier(obeying, random.Random(1))


def answer(frontier: Frontier, task: Task, now: float, **changes: object) -> None:
    """An answer to a request for robots.txt."""
    assert task.robots_of
    verdict = judge_robots(replace(FILE, task=task, **changes), OURS)  # type: ignore[arg-type]  # as above
    assert frontier.finished(task, verdict, now, 10) == (Disposition.OPEN, None)


def succeed(frontier: Frontier, started: Sequence[Task], now: float) -> None:
    for task in started:
        assert frontier.finished(task, SUCCESS, now, 10) == (Disposition.SUCCESS, None)


def robots_request(frontier: Frontier, now: float) -> Task:
    """The one request that may start: for a robots.txt."""
    (request,) = tasks(frontier, now)
    assert request.robots_of
    return request


def failed_rows(frontier: Frontier) -> dict[int, Failure]:
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


def test_servers_that_are_free_and_other_origins_do_not_wait() -> None:
    frontier = frontier_that_obeys()
    urls = ["http://s/1", "https://s/2", "http://free/3", "http://s/4"]
    cursor = Rows([(row, url, url.split("/")[2]) for row, url in enumerate(urls)])
    start(frontier, lane(1, [batch(1, 4)], group="joint"), cursor=cursor)
    started = tasks(frontier, 0.0)
    assert [task.url for task in started] == ["http://s/robots.txt", "https://s/robots.txt", "http://free/3"]
    answer(frontier, started[1], 0.0)
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
    wide = replace(rules(), obeys_robots=lambda _: True, limits_for=lambda _: Limits(0.0, 8))
    frontier = Frontier(wide, random.Random(1))
    start(frontier, lane(1, [batch(1, 10)], share=Limits(0.0, 2)))
    delayed = b"User-agent: *\nCrawl-delay: 3"
    answer(frontier, robots_request(frontier, 0.0), 0.0, body=delayed, content_length=len(delayed))
    (first,) = tasks(frontier, 0.0)
    assert frontier.wake_at() == pytest.approx(12.0), "a quarter of the connections: a quarter of 1/3 per second"
    frontier.extend(Extend(1, 1, added=Limits(0.0, 2)), 0.0)
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
    assert failed == dict.fromkeys(range(5), Failure(ErrorKind.ROBOTS, -2, "robots.txt: HTTP status 503"))


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
    gate = RobotsGate(lambda _: True, lambda _: ANY_RATE)
    big = RobotsFile.parse(b"#" * MAX_ROBOTS_BYTES, OURS)
    for number in range(1000):
        gate.learn(f"http://a{number}", RobotsFile.parse(b"#" * (MOST_KNOWN_BYTES // 100), OURS), float(number))
    kept = [number for number in range(1000) if gate.knows(f"http://a{number}", 1000.0)]
    assert kept == list(range(1000 - len(kept), 1000))
    assert 60 <= len(kept) < 100, "all that were needed within a minute, and what else there is room for"
    for number in range(10):
        gate.learn(f"http://b{number}", big, 1001.0)
    assert all(gate.knows(f"http://b{number}", 1001.0) for number in range(10)), "they are needed now"
    gate.learn("http://c", EVERYTHING, 1100.0)
    kept = [number for number in range(10) if gate.knows(f"http://b{number}", 1100.0)]
    assert kept == list(range(10))[-(MOST_KNOWN_BYTES // MAX_ROBOTS_BYTES) :]
    assert gate.knows("http://c", 1100.0)


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
    (moved,) = tasks(frontier, 0.0)
    assert (moved.url, moved.robots_of, frontier.lane_of(moved)) == ("http://b/elsewhere.txt", "http://a", 2)
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
    assert {failure.kind for failure in failed.values()} == {ErrorKind.CONNECT}


def test_without_the_key_nothing_is_asked() -> None:
    frontier = Frontier(rules(), random.Random(1))
    start(frontier, lane(1, [batch(1, 2)]))
    assert [task.url for task in tasks(frontier, 0.0)] == ["http://s/0", "http://s/1"]


# ---- the config


def test_a_rule_overrides_the_key_for_all() -> None:
    keys = {"path_to_input": "a", "path_to_output_folder": "b"}
    assert not parse(keys, "test").uses_robots
    some = parse({**keys, "servers": [{"match": "*.b.org", "robots": True}]}, "test")
    assert some.uses_robots
    assert [some.obeys_robots(server) for server in ("a.b.org", "c.org")] == [True, False]
    most = parse(
        {**keys, "servers": [{"match": "c.org", "robots": False}], "downloader_parameters": {"robots": True}}, "test"
    )
    assert [most.obeys_robots(server) for server in ("a.b.org", "c.org")] == [True, False]


# ---- whole runs

FREE = ServerSpec("127.61.0.1", not_found_share=0.2)
CLOSED = ServerSpec("127.61.0.2", robots="User-agent: *\nDisallow: /\n")
OTHERS = ServerSpec("127.61.0.3", robots="User-agent: *\nDisallow: /\n\nUser-agent: ddmpi-tests\nCrawl-delay: 0.5\n")
NONE = ServerSpec("127.61.0.4", robots="", robots_status=403, row_weight=0.05)
MOVED = ServerSpec("127.61.0.5", robots="", robots_status=301, robots_location="/rules/robots.txt", row_weight=0.05)
BROKEN = ServerSpec("127.61.0.6", robots="", robots_status=500)
TO_CLOSED = ServerSpec("127.61.0.7", robots="", robots_status=404, redirect_to=CLOSED.address, row_weight=0.05)
ALL = (FREE, CLOSED, replace(OTHERS, row_weight=0.3), NONE, MOVED, BROKEN, TO_CLOSED)


def test_a_run_that_obeys(tmp_path: Path) -> None:
    ranks, rows_of_table = 3, 150
    with running_fleet(tmp_path / "fleet", ALL, rows_of_table) as fleet:
        job = make_job(
            tmp_path / "job",
            fleet.table_path,
            downloader_parameters={"robots": True, "default_rate_limit": 100},
            servers=[{"match": FREE.name(fleet.port), "robots": False}],
            breaker={"failures": 2, "probes": 1},
        )
        code, printed = job.run(ranks)
        log = fleet.finished_log()
    assert code == 0, printed
    assert_every_row_once(job, rows_of_table)
    asked = {spec.address: paths_asked(fleet, log, spec) for spec in ALL}
    assert "/robots.txt" not in asked[FREE.address]
    assert set(asked[CLOSED.address]) == set(asked[BROKEN.address]) == {"/robots.txt"}
    for spec in (CLOSED, OTHERS, NONE, TO_CLOSED):
        assert 1 <= asked[spec.address].count("/robots.txt") <= ranks
    assert asked[MOVED.address][:2] == ["/robots.txt", "/rules/robots.txt"]
    assert all(most_connections(log, spec.name(fleet.port)) <= 8 for spec in ALL)
    assert len(asked[OTHERS.address]) > 5
    assert mean_gap_s(fleet, log, OTHERS) > 0.48, "Crawl-delay"
    kinds = rows_of(job.output / "errors", ["error_kind", "error_msg", "identifier"]).to_pylist()
    robots = {(urlparts(row)[0], row["error_msg"]) for row in kinds if row["error_kind"] == "robots"}
    assert robots == {
        (CLOSED.address, DISALLOWED.message),
        (TO_CLOSED.address, DISALLOWED.message),
        (BROKEN.address, "robots.txt: HTTP status 500"),
    }


def urlparts(row: dict[str, object]) -> list[str]:
    return str(row["identifier"]).split("/")[2].split(":")


def paths_asked(fleet: RunningFleet, log: Sequence[Event], spec: ServerSpec) -> list[str]:
    name = spec.name(fleet.port)
    return [event.path for event in log if event.kind is EventKind.REQUEST and event.server == name]


def mean_gap_s(fleet: RunningFleet, log: Sequence[Event], spec: ServerSpec) -> float:
    """Between two requests for files: on a busy machine single ones arrive late, and the next ones do not wait."""
    name = spec.name(fleet.port)
    times = [
        event.time_s
        for event in log
        if event.kind is EventKind.REQUEST and event.server == name and event.path != "/robots.txt"
    ]
    return (times[-1] - times[0]) / (len(times) - 1)


def test_the_verdict_of_a_robots_request_is_no_verdict_on_a_row() -> None:
    assert isinstance(judged(), RobotsVerdict)
    assert not isinstance(SUCCESS, RobotsVerdict)
    assert isinstance(judged(), Verdict)


def test_an_errand_leaves_for_a_server_of_another_rank_unchecked() -> None:
    frontier = frontier_that_obeys()
    start(frontier, lane(1, [batch(1, 1)], group="free"), cursor=rows(1, "free"))
    (row,) = tasks(frontier, 0.0)
    frontier.finished(row, redirect("http://elsewhere/no/0"), 0.0, 0)
    (event,) = [event for event in taken(frontier) if isinstance(event, RowHandedOff)]
    assert event.handoff.server == "elsewhere"
