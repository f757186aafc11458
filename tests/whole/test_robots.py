"""Whole runs that obey robots.txt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ddmpi.core.rules.robots_txt import (
    DISALLOWED,
)
from tests.fleet.log import Event, EventKind, most_connections
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import ServerSpec
from tests.whole.job import assert_every_row_once, make_job, rows_of

FREE = ServerSpec("127.61.0.1", not_found_share=0.2)
CLOSED = ServerSpec("127.61.0.2", robots="User-agent: *\nDisallow: /\n")
OTHERS = ServerSpec("127.61.0.3", robots="User-agent: *\nDisallow: /\n\nUser-agent: ddmpi-tests\nCrawl-delay: 0.5\n")
NONE = ServerSpec("127.61.0.4", robots="", robots_status=403, row_weight=0.05)
MOVED = ServerSpec("127.61.0.5", robots="", robots_status=301, robots_location="/rules/robots.txt", row_weight=0.05)
BROKEN = ServerSpec("127.61.0.6", robots="", robots_status=500)
TO_CLOSED = ServerSpec("127.61.0.7", robots="", robots_status=404, redirect_to=CLOSED.address, row_weight=0.05)
ALL = (FREE, CLOSED, replace(OTHERS, row_weight=0.3), NONE, MOVED, BROKEN, TO_CLOSED)


@pytest.mark.slow
def test_a_run_that_obeys(tmp_path: Path) -> None:
    ranks, rows_of_table = 3, 150
    with running_fleet(tmp_path / "fleet", ALL, rows_of_table) as fleet:
        job = make_job(
            tmp_path / "job",
            fleet.table_path,
            downloader_parameters={"respect": ["robots"], "default_rate_limit": 100},
            servers=[{"match": FREE.name(fleet.port), "respect": []}],
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
        (BROKEN.address, "not asked: robots.txt: HTTP status 500"),
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
