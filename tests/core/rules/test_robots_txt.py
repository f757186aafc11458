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
from ddmpi.core.rules.usage_signals import Respect
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
    assert RobotsFile.parse(b"User-agent: *\nContent-Usage: " + body, OURS).signals("http://a.org/").isprintable()
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


# ---- Content-Usage

EXAMPLE = b"""\
User-Agent: *
Allow: /
Disallow: /never/
Content-Usage: train-ai=n
Content-Usage: /ai-ok/ train-ai=y

User-Agent: ExampleBot
Allow: /
Content-Usage: train-ai=y
"""
"""That of draft-ietf-aipref-attach-05, 3.4."""
OBEYS_USAGE = Respect(categories=frozenset({"train-ai"}))


@pytest.mark.parametrize(
    ("token", "path", "expected"),
    [
        (OURS, "/test", "robots.txt content-usage: train-ai=n"),
        (OURS, "/never/test", "robots.txt: disallow"),
        (OURS, "/ai-ok/test", "robots.txt content-usage: train-ai=y"),
        ("examplebot", "/test", "robots.txt content-usage: train-ai=y"),
        ("examplebot", "/never/test", "robots.txt content-usage: train-ai=y"),
    ],
)
def test_the_drafts_example(token: str, path: str, expected: str) -> None:
    file = RobotsFile.parse(EXAMPLE, token)
    assert file.signals(f"http://a.org{path}") == expected
    failure = file.objection(f"http://a.org{path}", OBEYS_USAGE)
    assert (failure is not None) == ("train-ai=n" in expected)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(["Content-Usage: train-ai=n"], "train-ai=n", id="no path"),
        pytest.param(["  content-usage\t:\t/a/b.jpg\ttrain-ai=n # why"], "train-ai=n", id="blanks and a comment"),
        pytest.param(["Content-Usage: /x train-ai=n"], "", id="another path"),
        pytest.param(["Content-Usage: /a train-ai=n", "Content-Usage: /a/ search=y"], "search=y", id="longest"),
        pytest.param(["Content-Usage: /a train-ai=y", "Content-Usage: /a train-ai=n"], "train-ai=n", id="same paths"),
        pytest.param(["Content-Usage: /*.jpg$ train-ai=n"], "train-ai=n", id="wildcard and end"),
        pytest.param(["Content-Usage: /%61/ train-ai=n"], "train-ai=n", id="percent-encoding"),
        pytest.param(["Content-Usage: train-ai=maybe"], "", id="neither y nor n"),
        pytest.param(["Content-Usage: Train-AI=n"], "", id="malformed"),
        pytest.param(["Content-Usage:"], "", id="empty"),
        pytest.param(["User-agent: other", "Content-Usage: train-ai=n"], "train-ai=n", id="a second name of the group"),
        pytest.param(["Allow: /", "User-agent: other", "Content-Usage: train-ai=n"], "", id="the group of another"),
        pytest.param(["Dissallow /x", "User-agent: other", "Content-Usage: train-ai=n"], "", id="misspelled, no colon"),
    ],
)
def test_which_preferences_a_file_states(lines: list[str], expected: str) -> None:
    file = RobotsFile.parse("\n".join(["User-agent: *", *lines]).encode(), OURS)
    told = file.signals("http://a.org/a/b.jpg")
    assert told == (f"robots.txt content-usage: {expected}" if expected else "")


def test_of_the_preferences_only_those_that_count_are_obeyed() -> None:
    file = RobotsFile.parse(b"User-agent: *\nContent-Usage: train-ai=n, search=n", OURS)
    assert file.objection("http://a.org/") is None
    assert file.objection("http://a.org/", OBEYS_USAGE) == Failure(
        ErrorKind.ROBOTS, -2, "robots.txt: Content-Usage: train-ai=n"
    )
    assert file.objection("http://a.org/", Respect(categories=frozenset({"bots"}))) is None


def test_a_file_of_very_many_preferences_is_read_in_part() -> None:
    lines = b"".join(b"Content-Usage: /%d/ train-ai=n\n" % number for number in range(5000))
    file = RobotsFile.parse(b"User-agent: *\n" + lines + b"Disallow: /no", OURS)
    assert [file.signals(f"http://a.org/{path}/") for path in ("0", "4999", "no")] == [
        "robots.txt content-usage: train-ai=n", "", "robots.txt: disallow",
    ]  # fmt: skip


def test_what_is_said_of_the_pace_is_told_too() -> None:
    file = RobotsFile.parse(b"User-agent: *\nCrawl-delay: 2.5\nDisallow: /no", OURS)
    assert file.signals("http://a.org/") == "robots.txt: crawl-delay=2.5"
    assert file.signals("http://a.org/no") == "robots.txt: disallow, crawl-delay=2.5"
    assert EVERYTHING.signals("http://a.org/no") == ""


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
