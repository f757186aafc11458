"""Files are asked for again: what is unchanged stays, what is new is written, what is gone is told."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ddmpi
from tests.whole.job import Job, MakeJob
from tests.whole.refreshed_server import (
    BROKEN,
    CHANGED,
    DATE,
    ETAG,
    GONE,
    HTML,
    MOVED,
    NEITHER,
    SAME,
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


def checks(job: Job) -> dict[str, str]:
    table = ddmpi.open_checks(job.output).to_table(columns=["identifier", "check"])
    return {row["identifier"]: row["check"] for row in table.to_pylist()}


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 4])
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
