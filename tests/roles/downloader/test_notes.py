"""What a rank notes of servers: lines in its log, and what rank 0 is told."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator

import pytest

from ddmpi.core.protocol import Assign, Release, StealRequest, Stop, StopReason
from ddmpi.core.records import Answer, Limits
from ddmpi.core.rules.verdict import SUCCESS, Verdict
from ddmpi.roles.downloader.notes import USAGE_INTERVAL_S, DebugLog, PauseLog, ServerNotes
from tests.core.frontier.test_frontier import (
    BROKEN,
    MISSING,
    Driven,
    batch,
    config,
    lane,
    redirect,
    rows,
    start,
    throttled,
)


@pytest.fixture
def debug(caplog: pytest.LogCaptureFixture) -> Iterator[DebugLog]:
    with caplog.at_level(logging.DEBUG, "ddmpi"):
        yield DebugLog()


def attempt(frontier: Driven, log: DebugLog, verdict: Verdict, now: float, took_s: float, size_bytes: int) -> None:
    task = frontier.next_task(now)
    assert task is not None
    log.finished(frontier.finish(task, verdict, now + took_s, size_bytes), size_bytes, now + took_s)


def test_each_attempt_has_a_line_with_what_came_of_it(debug: DebugLog, caplog: pytest.LogCaptureFixture) -> None:
    frontier = Driven(config())
    start(frontier, lane(1, [batch(5)]))
    for verdict in (SUCCESS, MISSING, BROKEN, redirect("http://elsewhere/9")):
        attempt(frontier, debug, verdict, 1.0, 0.25, 100)
    assert caplog.messages[:4] == [
        "row 0 of batch 5, http://s/0: 200, attempt 1, 250 ms, 100 bytes, lane 1, final",
        "row 1 of batch 5, http://s/1: http_status 404 'HTTP status 404', attempt 1, 250 ms, 100 bytes, lane 1, final",
        "row 2 of batch 5, http://s/2: http_status 500 'HTTP status 500', attempt 1, 250 ms, 100 bytes, lane 1, open",
        "row 3 of batch 5, http://s/3: redirect, attempt 1, 250 ms, 100 bytes, lane 1, open",
    ]


def test_pauses_and_steps_of_the_rate_have_lines(debug: DebugLog, caplog: pytest.LogCaptureFixture) -> None:
    frontier = Driven(config())
    start(frontier, lane(1, [batch(5)]))
    for number in range(8):
        verdict = throttled(30.0) if number == 7 else SUCCESS
        attempt(frontier, debug, verdict, 1.0 + number, 0.1, 1)
    assert "s is paused for 30.0 s" in caplog.messages
    assert re.search(r"s is asked at \S+ requests/s instead of full speed", caplog.text)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            Assign((lane(1, [batch(5)]),)),
            "takes lane 1 of s: 10 rows of batches [5], 0 handoffs, full speed, 4 connections",
        ),
        (
            Assign((lane(1, share=Limits(2.5, 1)),)),
            "takes lane 1 of s: 0 rows of batches [], 0 handoffs, 2.5 requests/s, 1 connections",
        ),
        (Release((3, 4)), "the lanes (3, 4), which had ended, are released"),
        (StealRequest(1, 12.25, 7), "was asked for 12.2 s of work, or half of lane 7"),
    ],
)
def test_messages_about_lanes_have_lines(
    debug: DebugLog, caplog: pytest.LogCaptureFixture, message: Assign | Release | StealRequest, line: str
) -> None:
    debug.message(message)
    debug.message(Stop(StopReason.DONE, 0.0))
    assert caplog.messages == [line]


def test_a_loaded_batch_has_a_line(debug: DebugLog, caplog: pytest.LogCaptureFixture) -> None:
    debug.loaded(1, batch(5), rows(10).left)
    assert caplog.messages == ["batch 5 has 10 rows to fetch, in lane 1"]


def test_a_long_pause_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    pauses = PauseLog()
    with caplog.at_level(logging.INFO, "ddmpi"):
        for wait_s, now in ((1.0, 10.0), (60.0, 10.0), (59.9, 10.1), (60.0, 10.2), (120.0, 71.0)):
            pauses.note("s", wait_s, now)
    assert caplog.messages == ["s is paused for 1 min 00 s", "s is paused for 2 min 00 s"]


def test_rank_0_hears_of_servers_now_and_then() -> None:
    frontier, notes = Driven(config()), ServerNotes(0.0)
    start(frontier, lane(1, [batch(5)]))
    for verdict in (SUCCESS, throttled(30.0)):
        task = frontier.next_task(1.0)
        assert task is not None
        notes.started("s")
        answer = Answer(
            task, status=200 if verdict is SUCCESS else 429, body=bytes(10), usage_signals="x-robots-tag: noai"
        )
        notes.finished(frontier.finish(task, verdict, 1.5, 10), answer, 1.5)
    notes.opened(iter([("s", 2)]))
    assert notes.take_due(USAGE_INTERVAL_S - 0.1) is None
    used = notes.take_due(USAGE_INTERVAL_S)
    assert used is not None
    (usage,), (asked,) = used.usages, used.asked
    assert (usage.group, usage.requests, usage.throttled, usage.bytes) == ("s", 2, 1, 20)
    assert (asked.group, asked.throttled, asked.connections, asked.pauses, asked.paused_s) == ("s", 1, 2, 1, 30.0)
    assert len(asked.starts) == 2 * 4
    assert (asked.urls, asked.refused) == (1, 1), "the other one is asked for again"
    assert asked.signals == {"x-robots-tag: noai": (1, 0)}
    assert used.node == os.uname().nodename
    assert notes.take(USAGE_INTERVAL_S) is None, "all of it was told"
