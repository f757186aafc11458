"""What a rank tells rank 0, and when."""

from __future__ import annotations

import random

import pytest

from ddmpi.core.frontier.frontier import Frontier
from ddmpi.core.frontier.interface import Disposition, Finished
from ddmpi.core.frontier.progress import ProgressReports
from ddmpi.core.protocol import Counters, HandedOff, Handoff, LaneReport, LaneState, PartReport, Progress, Samples
from ddmpi.core.records import Answer, Task, Validators
from ddmpi.core.rules.verdict import SUCCESS
from tests.core.frontier.test_frontier import MISSING, batch, config

PART = PartReport(1, "p", 3, is_errors=False)


@pytest.fixture
def frontier() -> Frontier:
    return Frontier(config(), random.Random(1))


def reports() -> ProgressReports:
    """Of a rank that has told everything at 0.0."""
    it = ProgressReports(0.5, 0.0)
    it.take(Frontier(config(), random.Random(1)), 0.0, 0)
    return it


def finished(*, is_sample: bool = False, ok: bool = True) -> Finished:
    task = Task(1, 0, "http://s/0", "s")
    verdict = SUCCESS if ok else MISSING
    disposition = Disposition.SUCCESS if ok else Disposition.FAILURE
    return Finished(
        task, task.url, 1, "s", "s", "s", 1, verdict, disposition, verdict.failure, batch(1), 0.0, 0.0, is_sample
    )


def test_nothing_is_told_where_nothing_has_changed(frontier: Frontier) -> None:
    it = reports()
    assert not it.is_due(0.4)
    assert it.is_due(0.5)
    assert it.take(frontier, 0.5, 0) == []
    assert it.due_at == 1.0


def test_parts_are_told_at_once_and_once(frontier: Frontier) -> None:
    it = reports()
    it.parts.append(PART)
    assert it.is_due(0.1)
    (progress,) = it.take(frontier, 0.1, 7)
    assert progress == Progress((PART,), (), 0.0, 0, Counters(memory_bytes=7))
    assert not it.is_due(0.2)


def test_lanes_that_have_ended_are_told_at_once(frontier: Frontier) -> None:
    it = reports()
    it.add_lane(None)
    assert not it.is_due(0.1)
    it.add_lane(LaneReport(1, 0, LaneState.DRAINED))
    (progress,) = it.take(frontier, 0.1, 0)
    assert isinstance(progress, Progress)
    assert [lane.state for lane in progress.lanes] == [LaneState.DRAINED]


def test_rows_of_other_ranks_go_at_once_without_the_rest(frontier: Frontier) -> None:
    it = reports()
    handoff = Handoff(batch(1), 0, "http://t/0", "t", "t", 1, 1)
    it.handoffs.append(handoff)
    it.count(finished(), Answer(Task(1, 0, "u", "s"), body=bytes(10)))
    assert it.take(frontier, 0.1, 0) == [HandedOff((handoff,))]
    assert it.due_at == 0.5, "counters are told at their time"


def test_counters_add_up(frontier: Frontier) -> None:
    it = reports()
    it.requests = 2
    for ok in (True, False):
        it.count(finished(ok=ok), Answer(Task(1, 0, "u", "s"), body=bytes(10)))
    (progress,) = it.take(frontier, 0.5, 0)
    assert isinstance(progress, Progress)
    assert progress.counters == Counters(successes=1, errors=1, requests=2, bytes=20)


def test_a_row_that_keeps_its_file_is_no_error(frontier: Frontier) -> None:
    it = reports()
    done = finished(ok=False)
    done.task.validators = Validators(done.task.url)
    it.count(done, Answer(done.task))
    (progress,) = it.take(frontier, 0.5, 0)
    assert isinstance(progress, Progress)
    assert progress.counters == Counters(successes=1)


def test_samples_go_before_the_report_on_their_lane(frontier: Frontier) -> None:
    it = reports()
    answer = Answer(finished().task, status=404, body=b"x", ip="127.0.0.1", ttfb_s=0.1, total_s=0.2)
    it.count(finished(is_sample=True, ok=False), answer)
    it.add_lane(LaneReport(-1, 0, LaneState.SAMPLED))
    samples, progress = it.take(frontier, 0.1, 0)
    assert isinstance(samples, Samples)
    assert isinstance(progress, Progress)
    (sample,) = samples.samples
    assert (sample.server, sample.success, sample.status, sample.error_kind) == ("s", False, 404, "http_status")
    assert (sample.ip, sample.ttfb_s, sample.total_s, sample.bytes) == ("127.0.0.1", 0.1, 0.2, 1)
