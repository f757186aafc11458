"""robots.txt: what a file allows, and what an answer for one means."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmpi.core.pace.rate_limiter import Signal
from ddmpi.core.records import Answer, ErrorKind, Failure
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


def test_the_verdict_of_a_robots_request_is_no_verdict_on_a_row() -> None:
    assert isinstance(judged(), RobotsVerdict)
    assert not isinstance(SUCCESS, RobotsVerdict)
    assert isinstance(judged(), Verdict)
