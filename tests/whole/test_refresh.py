"""Files are asked for again: what is unchanged stays, what is new is written, what is gone is told."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ddmpi
from tests.fleet.images import body_of
from tests.whole.job import ROOT, Job, MakeJob, descendants_of, finish, outcomes, wait_until
from tests.whole.refreshed_server import (
    BROKEN,
    CHANGED,
    DATE,
    ETAG,
    GONE,
    HTML,
    MOVED,
    NEITHER,
    PICTURE,
    SAME,
    SPEC,
    Web,
    web_server,
)

ALL = [(kind, SAME, 30) for kind in (ETAG, DATE, NEITHER, MOVED)] + [
    (ETAG, CHANGED, 20),
    (DATE, CHANGED, 10),
    (NEITHER, CHANGED, 10),
    (MOVED, CHANGED, 10),
    (ETAG, GONE, 15),
    (NEITHER, GONE, 5),
    (ETAG, HTML, 8),
    (DATE, BROKEN, 4),
]
FILES = sum(count for *_, count in ALL)
BECOMES = {SAME: "unchanged", CHANGED: "changed", GONE: "gone", HTML: "refused", BROKEN: "failed"}


def write_table(path: Path, urls: Sequence[str]) -> Path:
    pq.write_table(pa.table({"identifier": urls, "uuid": [f"u{row}" for row in range(len(urls))]}), path)
    return path


def urls_of(web: Web, kinds: Sequence[tuple[str, str, int]] = ALL) -> list[str]:
    return [url for kind, fate, count in kinds for url in web.urls(kind, fate, count)]


def download(new_job: MakeJob, table: Path, ranks: int = 1, **changes: Any) -> Job:
    """A job whose files are all there."""
    changes.setdefault("profiling", {"mode": "uniform"})
    job = new_job(table, **changes)
    job.config["downloader_parameters"]["max_attempts"] = 1
    code, printed = job.run(ranks)
    assert code == 0, printed
    return job


def now_text() -> str:
    """The moment, as a date of the config; what came before is older."""
    return datetime.now(timezone.utc).isoformat()


def refresh(job: Job, ranks: int = 1, older_than: str = "") -> str:
    job.config["refresh"] = {"older_than": older_than or now_text()}
    code, printed = job.run(ranks)
    assert code == 0, printed
    return printed


def fate_of(url: str) -> str:
    return url.split("/")[-2]


def assert_sound(job: Job) -> None:
    code, printed = job.inspect("--verify", "--rehash")
    assert code == 0, printed


def bodies(job: Job, at: str | None = None) -> dict[str, bytes]:
    table = ddmpi.open_results(job.output, at=at).to_table(columns=["identifier", "image", "outcome"])
    return {row["identifier"]: row["image"] for row in table.to_pylist() if row["outcome"] == "success"}


def by_duckdb(job: Job) -> dict[str, bytes]:
    page = (ROOT / "docs" / "refresh.md").read_text()
    query = page.partition("```sql\n")[2].partition("```")[0].replace("out/images", str(job.output / "images"))
    with duckdb.connect() as connection:
        rows = connection.sql(query).select("identifier", "image").fetchall()
    found = dict(rows)
    assert len(found) == len(rows)
    return found


def checks(job: Job) -> dict[str, str]:
    table = ddmpi.open_checks(job.output).to_table(columns=["identifier", "check"])
    return {row["identifier"]: row["check"] for row in table.to_pylist()}


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)])
def test_what_has_become_of_all_files_is_told_and_kept(tmp_path: Path, new_job: MakeJob, ranks: int) -> None:
    with web_server() as web:
        urls = urls_of(web)
        job = download(new_job, write_table(tmp_path / "urls.parquet", urls), ranks)
        before, between = bodies(job), now_text()
        assert len(before) == FILES
        web.forget_requests()
        web.is_later = True
        printed = refresh(job, ranks)
        _check_what_was_asked(web, urls)
        told = Counter(BECOMES[fate_of(url)] for url in urls)
        assert f"Refresh: {FILES} files last asked for before" in printed
        sums = ", ".join(f"{told[name]} {name}" for name in ("unchanged", "changed", "gone", "refused"))
        assert f"Refreshed: {sums}, {told['failed']} failed; by server and license: refresh.csv" in printed
        now = bodies(job)
        assert now == {url: web.file("/" + url.split("/", 3)[3]) for url in urls} | {
            url: body for url, body in before.items() if fate_of(url) not in {SAME, CHANGED}
        }
        assert {url for url in urls if now[url] != before[url]} == {url for url in urls if fate_of(url) == CHANGED}
        assert bodies(job, between) == before, "the history stays readable"
        assert checks(job) == {url: BECOMES[fate_of(url)] for url in urls if fate_of(url) != CHANGED}
        assert by_duckdb(job) == now, "as docs/refresh.md has it for readers that do not know of refreshes"
        changed = next(row for row, url in enumerate(urls) if fate_of(url) == CHANGED)
        assert ddmpi.load(job.output, f"u{changed}")["image"] == now[urls[changed]]
        assert_sound(job)
        with (job.output / "refresh.csv").open(newline="") as file:
            (line,) = csv.DictReader(file)
        assert {name: int(line[name]) for name in (*told, "new")} == {**told, "new": 0}
        assert sums in (job.output / "report.html").read_text()
        web.forget_requests()
        moment = str(job.config["refresh"]["older_than"])
        assert "none is asked for again" in refresh(job, ranks, moment)
        assert not web.asked, "the second refresh asks nothing"
        del job.config["refresh"]
        code, printed = job.run(ranks)
        assert (code, web.asked.total()) == (0, 0), printed
        assert bodies(job) == now
        assert_sound(job)


def _check_what_was_asked(web: Web, urls: Sequence[str]) -> None:
    assert web.asked == Counter("/" + url.split("/", 3)[3] for url in urls), "each once"
    for url in urls:
        kind = url.split("/")[3]
        path = "/" + url.split("/", 3)[3]
        assert web.conditions[path] == (kind != NEITHER), path
    assert web.statuses[304] == 90


@pytest.mark.slow
def test_unchanged_files_cost_one_request_each_and_no_body_also_the_next_time(tmp_path: Path, new_job: MakeJob) -> None:
    with web_server() as web:
        urls = urls_of(web, [(ETAG, SAME, 120), (DATE, SAME, 80)])
        job = download(new_job, write_table(tmp_path / "urls.parquet", urls))
        for _ in range(2):
            web.forget_requests()
            printed = refresh(job)
            assert "Refreshed: 200 unchanged, 0 changed, 0 gone, 0 refused; " in printed
            assert (web.asked.total(), max(web.asked.values()), web.body_bytes) == (200, 1, 0)
            assert web.statuses == {304: 200}
            assert_sound(job)
        assert set(checks(job).values()) == {"unchanged"}
        assert len(bodies(job)) == 200


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_kill_in_the_middle_costs_what_was_in_flight(tmp_path: Path, new_job: MakeJob, ranks: int) -> None:
    with web_server() as web:
        urls = urls_of(web)
        job = download(new_job, write_table(tmp_path / "urls.parquet", urls), ranks)
        before = bodies(job)
        web.forget_requests()
        web.is_later = True
        moment = now_text()
        job.config["refresh"] = {"older_than": moment}
        web.served_before_gate = FILES // 2
        process = job.start(ranks)
        wait_until(lambda: web.asked.total() > FILES // 2 and _is_durable(job), process)
        _kill(process)
        durable = set(checks(job)) | {url for url, body in bodies(job).items() if body != before[url]}
        assert 0 < len(durable) <= FILES // 2 + 1
        assert bodies(job).keys() == before.keys(), "the files are there all the time"
        assert_sound(job)
        web.served_before_gate = -1
        web.gate.set()
        printed = refresh(job, ranks, moment)
        told = Counter(BECOMES[fate_of(url)] for url in urls)
        assert f"Refreshed: {told['unchanged']} unchanged, {told['changed']} changed, {told['gone']} gone" in printed
        assert f"Refresh: {FILES - len(durable)} files last asked for before" in printed
        asked = {url: web.asked["/" + url.split("/", 3)[3]] for url in urls}
        assert {asked[url] for url in durable} == {1}, "nothing is asked for twice"
        assert set(asked.values()) <= {1, 2}
        assert_sound(job)
        newest = Counter(row["row_number"] for row in ddmpi.open_results(job.output).to_table().to_pylist())
        assert newest == Counter(range(FILES))
        files = outcomes(job)
        assert {urls[row] for row, count in files.items() if count == 2} == {
            url for url in urls if fate_of(url) == CHANGED
        }, "each changed file is there twice, as it was and as it is"
        assert max(files.values()) == 2


def _is_durable(job: Job) -> bool:
    return len([*(job.output / "checks").rglob("*.parquet")]) > 0


def _kill(process: subprocess.Popen[str]) -> None:
    """End a run and all of its ranks at once."""
    pids = [process.pid, *descendants_of(process.pid)]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    finish(process)


@pytest.mark.slow
@pytest.mark.parametrize("duplicates", ["copy", "reference"])
def test_rows_with_the_same_url_are_one_request(tmp_path: Path, new_job: MakeJob, duplicates: str) -> None:
    with web_server() as web:
        kinds = [(ETAG, SAME, 10), (NEITHER, SAME, 10), (ETAG, CHANGED, 10), (ETAG, GONE, 5)]
        urls = 3 * urls_of(web, kinds)
        job = download(new_job, write_table(tmp_path / "urls.parquet", urls), duplicates=duplicates)
        web.forget_requests()
        web.is_later = True
        printed = refresh(job)
        assert "Refreshed: 60 unchanged, 30 changed, 15 gone, 0 refused" in printed
        assert set(web.asked.values()) == {1}
        assert_sound(job)
        names = ["uuid", "identifier", "image"] + ["same_as"] * (duplicates == "reference")
        rows = ddmpi.open_results(job.output).to_table(columns=names).to_pylist()
        by_uuid = {row["uuid"]: row for row in rows}
        assert len(rows) == len(urls)
        for row in rows:
            path = "/" + row["identifier"].split("/", 3)[3]
            body = by_uuid[row.get("same_as") or row["uuid"]]["image"]
            assert body == (body_of(SPEC, path) if fate_of(row["identifier"]) == GONE else web.file(path))
            assert ddmpi.load(job.output, row["uuid"])["image"] == body


@pytest.mark.slow
def test_errors_are_fetched_again_beside_it_only_where_that_is_asked_for(tmp_path: Path, new_job: MakeJob) -> None:
    with web_server() as web:
        web.is_later = True
        urls = urls_of(web, [(ETAG, SAME, 20), (ETAG, GONE, 10)])
        job = download(new_job, write_table(tmp_path / "urls.parquet", urls))
        web.forget_requests()
        web.is_later = False
        assert "Refreshed: 20 unchanged, 0 changed, 0 gone, 0 refused; " in refresh(job)
        assert web.asked.total() == 20
        web.forget_requests()
        job.config["refresh"] = {"older_than": now_text()}
        code, printed = job.run(2, "--retry-failed", "404")
        assert (code, web.asked.total()) == (0, 30), printed
        assert "Refreshed: 20 unchanged, 0 changed, 0 gone, 0 refused, 10 new; " in printed
        assert len(bodies(job)) == 30
        assert_sound(job)


def test_a_date_that_is_still_to_come_is_refused(tmp_path: Path, new_job: MakeJob) -> None:
    job = new_job(
        write_table(tmp_path / "urls.parquet", ["http://127.0.0.1:9/1"]), refresh={"older_than": "2999-01-01"}
    )
    code, printed = job.run(1)
    assert code == 2
    assert "refresh.older_than: 2999-01-01T00:00:00+00:00 is still to come" in printed


@pytest.mark.slow
def test_a_picture_in_the_place_of_many_files_takes_none_of_them_once_it_is_known(
    tmp_path: Path, new_job: MakeJob
) -> None:
    """What was found out by an earlier run is known from the start."""
    with web_server() as web:
        urls = [*web.urls(ETAG, PICTURE, 40), *web.urls(ETAG, SAME, 10)]
        job = download(new_job, write_table(tmp_path / "urls.parquet", urls))
        before = bodies(job)
        web.is_later = True
        refresh(job)
        now = bodies(job)
        taken = [url for url in urls if now[url] != before[url]]
        assert 0 < len(taken) < 40, "the first ones could not be told from other files"
        assert {check for url, check in checks(job).items() if fate_of(url) == PICTURE} == {"gone"}
        assert len(checks(job)) == 50 - len(taken)
        assert bodies(job, "2999-01-01T00:00:00Z") == now
        assert_sound(job)


@pytest.mark.slow
def test_a_file_from_a_mirror_is_asked_for_there_on_condition(tmp_path: Path, new_job: MakeJob) -> None:
    with web_server() as web:
        web.is_later = True
        first, mirror = web.urls(ETAG, GONE, 20), web.urls(ETAG, SAME, 20)
        table = tmp_path / "urls.parquet"
        pq.write_table(pa.table({"first": first, "second": mirror}), table)
        job = download(new_job, table, columns={"identifier": ["first", "second"]}, mirrors=True)
        web.forget_requests()
        printed = refresh(job)
        assert "Refreshed: 20 unchanged, 0 changed, 0 gone, 0 refused; " in printed
        assert (web.statuses, web.body_bytes) == ({404: 20, 304: 20}, 0)
        assert {web.conditions["/" + url.split("/", 3)[3]] for url in first} == {0}, "it is another URL"
        assert_sound(job)
