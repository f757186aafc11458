"""Rows with the same URL: one request for all of them, and a result for each."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import ddmpi
from ddmpi.export import __main__ as exporter
from tests.fleet.images import body_of
from tests.fleet.log import EventKind
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import ServerSpec, plain_fleet
from tests.fleet.table import row_of, write_repeated
from tests.whole.job import MakeJob, assert_every_row_once, parts, ranks_of, rows_of, wait_until

URLS, ROWS_PER_URL = 300, 5
ROWS = URLS * ROWS_PER_URL


def servers(count: int, missing: float) -> list[ServerSpec]:
    return [replace(spec, not_found_share=missing) for spec in plain_fleet(count, latency_s=0.002)]


def bodies(fleet: RunningFleet, urls: list[str]) -> list[bytes]:
    """What is served for each row."""
    by_address = {spec.address: spec for spec in fleet.specs}
    return [body_of(by_address[url.split("/")[2].partition(":")[0]], "/" + url.split("/")[3]) for url in urls]


@pytest.mark.parametrize("duplicates", ["copy", pytest.param("reference", marks=pytest.mark.slow)])
def test_a_url_that_has_an_outcome_is_not_asked_again_after_a_kill(
    tmp_path: Path, new_job: MakeJob, duplicates: str
) -> None:
    with running_fleet(tmp_path / "fleet", servers(3, 0.2), URLS) as fleet:
        urls = write_repeated(tmp_path / "urls.parquet", fleet.urls(), ROWS_PER_URL)
        job = new_job(
            tmp_path / "urls.parquet",
            duplicates=duplicates,
            downloader_parameters={"default_rate_limit": 40, "batch_size": 40},
        )
        process = job.start(3)
        wait_until(lambda: len(parts(job)) > 2, process)
        os.kill(ranks_of(process)[1], signal.SIGKILL)
        process.communicate(timeout=30)
        tables = [pq.read_table(path, columns=["identifier"], partitioning=None) for path in parts(job)]
        before = {str(url) for table in tables for url in table["identifier"].to_pylist()}
        code, printed = job.run(2)
        assert code == 0, printed
        served = bodies(fleet, urls)
        log = fleet.finished_log()
    assert_every_row_once(job, ROWS)
    asked = Counter(f"http://{event.server}{event.path}" for event in log if event.kind is EventKind.REQUEST)
    assert asked.keys() == set(urls)
    assert 0 < len(before) < URLS
    assert {asked[url] for url in before} == {1}
    assert max(asked.values()) <= 2, "what was in flight or not durable"
    assert job.inspect("--verify", "--rehash")[0] == 0

    missing = {event.path for event in log if event.status == 404}
    results = ddmpi.open_results(job.output)
    errors = results.to_table(columns=["identifier"], filter=pc.field("outcome") == "error")["identifier"].to_pylist()
    assert Counter(errors) == {url: ROWS_PER_URL for url in set(urls) if "/" + url.split("/")[3] in missing}
    names = ["row_number", "uuid", "identifier", "image"] + ["same_as"] * (duplicates == "reference")
    table = results.to_table(columns=names, filter=pc.field("outcome") == "success").to_pylist()
    assert len(table) == ROWS - len(errors)
    by_uuid = {row["uuid"]: row for row in table}
    for row in table:
        holder = by_uuid[row.get("same_as") or row["uuid"]]
        assert holder["image"] == served[row["row_number"]]
        assert holder["identifier"] == row["identifier"] == urls[row["row_number"]]
    stored = sum(row["image"] is not None for row in table)
    assert stored == (len(table) if duplicates == "copy" else len(table) // ROWS_PER_URL)
    if duplicates == "reference":
        assert exporter.main([str(job.output), str(tmp_path / "files"), "--to", "files", "--check"]) == 0
        files = {int(path.stem): path.read_bytes() for path in (tmp_path / "files").glob("shard-*/*[!l]")}
        assert files == {row["row_number"]: served[row["row_number"]] for row in table}


def test_a_url_that_fails_fails_once_for_all_of_its_rows(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", servers(2, 1.0), 60) as fleet:
        write_repeated(tmp_path / "urls.parquet", fleet.urls(), 5)
        job = new_job(tmp_path / "urls.parquet", downloader_parameters={"batch_size": 30})
        code, printed = job.run(1)
        assert code == 0, printed
        assert job.run(1, "--retry-failed", "404")[0] == 0
        log = fleet.finished_log()
    asked = Counter(event.path for event in log if event.kind is EventKind.REQUEST)
    assert sorted(map(row_of, asked)) == list(range(60))
    assert set(asked.values()) == {2}, "once in each run"
    assert rows_of(job.output / "errors", ["row_number"]).num_rows == 600
    assert job.inspect("--verify")[0] == 0
