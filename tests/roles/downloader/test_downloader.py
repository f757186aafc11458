"""What a downloading rank does with the world, as its servers see it."""

from __future__ import annotations

from pathlib import Path

from tests.fleet.log import EventKind
from tests.fleet.process import running_fleet
from tests.fleet.spec import ServerSpec
from tests.whole.job import make_job

QUICK = ServerSpec("127.62.0.1", row_weight=0.5)
SLOW = ServerSpec("127.62.0.2")


def test_connections_to_a_server_are_closed_when_its_rows_are_done(tmp_path: Path) -> None:
    """Another rank may open its own then; the group's limit counts them all."""
    with running_fleet(tmp_path / "fleet", [QUICK, SLOW], 45) as fleet:
        quick, slow = QUICK.name(fleet.port), SLOW.name(fleet.port)
        job = make_job(tmp_path / "job", fleet.table_path, servers=[{"match": slow, "rate_limit": 10}])
        code, printed = job.run(2)
        log = fleet.finished_log()
    assert code == 0, printed
    last = {
        (server, kind): max(event.time_s for event in log if event.server == server and event.kind is kind)
        for server in (quick, slow)
        for kind in (EventKind.ANSWER, EventKind.CLOSE)
    }
    assert last[quick, EventKind.ANSWER] < last[slow, EventKind.ANSWER] - 1.0, "the rows of one are done long before"
    assert last[quick, EventKind.CLOSE] < last[slow, EventKind.ANSWER] - 0.5
