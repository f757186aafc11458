"""X-Robots-Tag: an answer that may not be kept is cut off and reported."""

from __future__ import annotations

from pathlib import Path

from tests.fleet.log import NOTE_CUT, EventKind
from tests.fleet.process import running_fleet
from tests.fleet.spec import ServerSpec
from tests.whole.job import MakeJob, assert_every_row_once, rows_of


def test_a_file_that_may_not_be_kept_is_an_error_and_its_body_is_not_waited_for(
    tmp_path: Path, new_job: MakeJob
) -> None:
    free = ServerSpec("127.60.0.1", x_robots_tag="otherbot: noai\nnofollow")
    forbidden = ServerSpec("127.60.0.2", x_robots_tag="ddmpi-tests: noai")
    slow = ServerSpec("127.60.0.3", x_robots_tag="noimageai", body_bytes_per_s=100, row_weight=0.1)
    with running_fleet(tmp_path / "fleet", [free, forbidden, slow], 60) as fleet:
        job = new_job(
            fleet.table_path,
            downloader_parameters={"respect": ["X-Robots-Tag"]},
        )
        code, printed = job.run(1)
        log = fleet.finished_log()
    assert code == 0, printed
    assert_every_row_once(job, 60)
    errors = rows_of(job.output / "errors", ["error_kind", "error_code", "error_msg", "final_url"]).to_pylist()
    assert {(row["error_kind"], row["error_code"]) for row in errors} == {("robots", -2)}
    by_server = {name: {row["error_msg"] for row in errors if name in str(row["final_url"])} for name in ("0.2", "0.3")}
    assert by_server == {"0.2": {"X-Robots-Tag: noai"}, "0.3": {"X-Robots-Tag: noimageai"}}
    urls = [str(url) for url in rows_of(job.output / "images", ["final_url"]).column("final_url").to_pylist()]
    assert urls
    assert all(free.address in url for url in urls)
    answers = [event for event in log if event.kind is EventKind.ANSWER and event.server == slow.name(fleet.port)]
    assert answers
    assert {event.note for event in answers} == {NOTE_CUT}
