"""Signals x ``respect``: each signal is obeyed or not as the config says, and told in ``usage_signals`` either way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.log import EventKind
from tests.fleet.process import running_fleet
from tests.fleet.spec import ServerSpec
from tests.whole.job import MakeJob, assert_every_row_once, rows_of

OPEN = "User-agent: *\nAllow: /\n"
SERVERS = {
    "silent": ServerSpec("127.62.0.1", robots=OPEN),
    "noai": ServerSpec("127.62.0.2", robots=OPEN, x_robots_tag="noai, noarchive"),
    "noindex": ServerSpec("127.62.0.3", robots=OPEN, x_robots_tag="noindex"),
    "others": ServerSpec("127.62.0.4", robots=OPEN, x_robots_tag="somebody: noai\nddmpi-tests: noimageai"),
    "header": ServerSpec("127.62.0.5", robots=OPEN, content_usage="search=y, train-ai=n"),
    "allowing": ServerSpec("127.62.0.6", robots=OPEN, content_usage="train-ai=y"),
    "closed": ServerSpec("127.62.0.7", robots="User-agent: *\nDisallow: /\nContent-Usage: train-ai=n\n"),
    "rule": ServerSpec("127.62.0.8", robots=f"{OPEN}Content-Usage: train-ai=n\n"),
    "gone": ServerSpec("127.62.0.9", robots="", robots_status=404, not_found_share=1.0, x_robots_tag="noai"),
}
IN_ANSWERS = {
    "noai": "x-robots-tag: noai, noarchive", "noindex": "x-robots-tag: noindex", "others": "x-robots-tag: noimageai",
    "header": "content-usage: search=y, train-ai=n", "allowing": "content-usage: train-ai=y",
}  # fmt: skip
IN_FILES = {"closed": "robots.txt: disallow", "rule": "robots.txt content-usage: train-ai=n"}
OF_TAGS = {"noai": "X-Robots-Tag: noai", "others": "X-Robots-Tag: noimageai"}
OF_HEADER = {"header": "Content-Usage: train-ai=n"}
ROWS = 90


def hosts_of(output: Path) -> list[str]:
    """Where each row with an outcome was to be fetched from."""
    tables = [rows_of(output / folder, ["identifier"]).to_pylist() for folder in ("images", "errors")]
    return [row["identifier"].split("/")[2] for table in tables for row in table]


@pytest.mark.parametrize(
    ("parameters", "refused", "asks_robots", "told"),
    [
        pytest.param({}, OF_TAGS, False, "obeyed: X-Robots-Tag noai and noimageai; heard", id="the default"),
        pytest.param({"respect": []}, {}, False, "obeyed: none; heard", id="nothing"),
        pytest.param({"respect": [], "hear_robots": True}, {}, True, "obeyed: none; heard", id="heard"),
        pytest.param(
            {"respect": ["robots"]}, {"closed": "disallowed by robots.txt"}, True, "obeyed: robots.txt; heard",
            id="robots",
        ),
        pytest.param(
            {"respect": ["content-usage"]},
            OF_HEADER | {"rule": "robots.txt: Content-Usage: train-ai=n"},
            True, "obeyed: Content-Usage train-ai=n; heard", id="content-usage",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"respect": ["robots", "x-robots-tag", "x-robots-tag:noindex", "content-usage"]},
            OF_TAGS | OF_HEADER | {
                "noindex": "X-Robots-Tag: noindex", "closed": "disallowed by robots.txt",
                "rule": "robots.txt: Content-Usage: train-ai=n",
            },
            True, "obeyed: robots.txt, X-Robots-Tag noai, noimageai and noindex, Content-Usage train-ai=n;", id="all",
        ),
    ],
)  # fmt: skip
def test_the_matrix(
    tmp_path: Path,
    new_job: MakeJob,
    parameters: dict[str, Any],
    refused: dict[str, str],
    asks_robots: bool,
    told: str,
) -> None:
    with running_fleet(tmp_path / "fleet", list(SERVERS.values()), ROWS) as fleet:
        job = new_job(fleet.table_path, downloader_parameters=parameters)
        code, printed = job.run(1)
        log = fleet.finished_log()
    assert code == 0, printed
    assert f"Usage signals: {told}" in printed
    assert_every_row_once(job, ROWS)
    name_of = {spec.address: name for name, spec in SERVERS.items()}

    def by_server(folder: str, *columns: str) -> dict[str, set[tuple[str | None, ...]]]:
        found: dict[str, set[tuple[str | None, ...]]] = {}
        for row in rows_of(job.output / folder, ["identifier", *columns]).to_pylist():
            address = row["identifier"].split("/")[2].split(":")[0]
            found.setdefault(name_of[address], set()).add(tuple(row[column] for column in columns))
        return found

    heard = IN_ANSWERS | (IN_FILES if asks_robots else {})
    assert by_server("errors", "error_kind", "error_msg", "usage_signals") == {
        **{name: {("robots", message, heard[name])} for name, message in refused.items()},
        "gone": {("http_status", "HTTP status 404", None)},
    }
    kept = SERVERS.keys() - refused.keys() - {"gone"}
    assert by_server("images", "usage_signals") == {name: {(heard.get(name),)} for name in kept}
    name = SERVERS["noai"].name(fleet.port)
    rows = sum(path.split(":")[0] == SERVERS["noai"].address for path in hosts_of(job.output))
    code, page = job.inspect("--audit", name)
    assert f"  heard     {IN_ANSWERS['noai']}: {rows} files, " in page
    assert ("not stored for it" if "noai" in refused else "stored all the same") in page
    assert "  by        ddmpi-tests (+https://example.org) (ddmpi " in page
    assert f"  from      {os.uname().nodename}" in page
    asked = {event.server for event in log if event.kind is EventKind.REQUEST and event.path == "/robots.txt"}
    assert asked == ({spec.name(fleet.port) for spec in SERVERS.values()} if asks_robots else set())
