"""Servers that say when they may be asked, how fast, or that they want to see a cookie again: they are taken at their
word, by all ranks together."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.fleet.log import Event, EventKind, highest_rate
from tests.fleet.process import running_fleet
from tests.fleet.spec import ServerSpec
from tests.whole.job import assert_bodies_as_served, assert_every_row_once, make_job

RATE_PER_S = 20
ROWS = {"rated": 120, "cookie": 60, "cookie elsewhere": 60, "plain": 60, "403": 12, "500": 12, "202": 12}
LATER_S = {"403": 1.0, "500": 1.0, "202": 2.0}
"""What the Retry-After of these servers means at least."""


def make_specs() -> dict[str, ServerSpec]:
    weight = {name: rows / sum(ROWS.values()) for name, rows in ROWS.items()}
    plain = ServerSpec("127.63.0.1", row_weight=weight["plain"])
    own = "127.63.0.2"
    specs = {
        "rated": ServerSpec("127.63.0.3", 0.02, RATE_PER_S, states_limit=True, row_weight=weight["rated"]),
        "cookie": ServerSpec(own, redirect_to=own, sets_cookie=True, row_weight=weight["cookie"]),
        "cookie elsewhere": ServerSpec(
            "127.63.0.4", redirect_to=plain.address, sets_cookie=True, row_weight=weight["cookie elsewhere"]
        ),
        "plain": plain,
    }
    for number, (name, least_s) in enumerate(LATER_S.items()):
        specs[name] = ServerSpec(
            f"127.63.5.{number}",
            error_rate=0.15,
            error_statuses=(int(name),),
            error_retry_after="date" if name == "202" else f"{least_s:.0f}",
            row_weight=weight[name],
        )
    return specs


def waits_s(log: list[Event], server: str, status: int) -> list[float]:
    """The times between the answers with this status and the requests that came next."""
    events = [event for event in log if event.server == server and event.kind in {EventKind.REQUEST, EventKind.ANSWER}]
    return [later.time_s - event.time_s for event, later in pairwise(events) if event.status == status]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_servers_are_taken_at_their_word(tmp_path: Path) -> None:
    specs = make_specs()
    with running_fleet(tmp_path / "fleet", list(specs.values()), sum(ROWS.values())) as fleet:
        names = {kind: spec.name(fleet.port) for kind, spec in specs.items()}
        job = make_job(
            tmp_path / "job",
            fleet.table_path,
            downloader_parameters={"batch_size": 20},
            servers=[{"match": names[kind], "max_connections": 1} for kind in LATER_S],
            schedule_rules={1: 2},
        )
        code, printed = job.run(3)
        successes = assert_bodies_as_served(job, fleet)
        log = fleet.finished_log()
    assert code == 0, printed
    assert_every_row_once(job, sum(ROWS.values()))
    assert successes == sum(ROWS.values())
    statuses = {(event.server, event.status) for event in log if event.kind is EventKind.ANSWER}
    assert {status for server, status in statuses if server == names["rated"]} == {200}
    assert 400 not in {status for _, status in statuses}, "a cookie of another row or server"
    assert 10 < highest_rate(log, names["rated"], 1.0) <= 2 * RATE_PER_S
    for kind, least_s in LATER_S.items():
        waits = waits_s(log, names[kind], int(kind))
        assert waits, kind
        assert min(waits) > least_s - 0.05, kind
