"""Pictures that a server has in the place of many files: found, marked, shown, and no photo taken for one."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import ddmpi
from tests.fleet.images import body_of
from tests.fleet.spec import ServerSpec
from tests.fleet.threaded import QuietHandler, serving
from tests.whole.job import Job, MakeJob, assert_every_row_once

SPEC = ServerSpec("127.0.0.1")
GONE, MOVED, TWICE, ALONE = "gone", "moved", "twice", "alone"
FEW = 4
"""Rows that may have been written before five URLs had led to their picture."""


def file_at(path: str) -> bytes:
    """What is under ``/KIND/NUMBER.jpg``."""
    kind, number = path.strip("/").removesuffix(".jpg").split("/")
    shared = {GONE: f"/gone{int(number) % 2}.png", MOVED: "/unavailable.png", TWICE: f"/pair{int(number) // 2}.jpg"}
    return body_of(SPEC, shared.get(kind, path))


class _Handler(QuietHandler):
    def get(self) -> None:
        if self.path.startswith(f"/{MOVED}/") and self.path != f"/{MOVED}/0.jpg":
            self.answer(302, b"", Location=f"/{MOVED}/0.jpg")
        else:
            self.answer(200, file_at(self.path), Content_Type="image/jpeg")


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server."""
    with serving(_Handler) as port:
        yield f"http://127.0.0.1:{port}"


def paths() -> list[str]:
    kinds = [(GONE, 60), (MOVED, 40), (TWICE, 80), (ALONE, 120)]
    return [f"/{kind}/{number}.jpg" for kind, count in kinds for number in range(1, count + 1)]


def write(path: Path, urls: Sequence[str]) -> Path:
    with path.open("w", newline="") as file:
        rows = ((url, hashlib.sha256(file_at("/" + url.split("/", 3)[3])).hexdigest()) for url in urls)
        csv.writer(file).writerows([("identifier", "sha256"), *rows])
    return path


def results(job: Job, *columns: str) -> list[dict[str, Any]]:
    table = ddmpi.open_results(job.output).to_table(columns=["identifier", "outcome", "placeholder", *columns])
    return table.to_pylist()


def kind_of(row: dict[str, Any]) -> str:
    return str(row["identifier"].split("/")[3])


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_they_are_found_marked_and_shown_and_stay_known(tmp_path: Path, new_job: MakeJob, ranks: int) -> None:
    with server() as base:
        urls = [base + path for path in paths()]
        job = new_job(write(tmp_path / "urls.csv", urls))
        code, printed = job.run(ranks)
        assert code == 0, printed
        assert_every_row_once(job, len(urls))
        found = pq.read_table(job.output / "placeholders.parquet").to_pylist()
        later = [f"{base}/{GONE}/{number}.jpg" for number in (1_000, 1_001)]
        write(tmp_path / "urls.csv", [*urls, *later])
        assert job.run(1)[0] == 0
    assert "placeholders" in printed
    counts = sorted(it["urls"] for it in found)
    assert all(urls - ranks < count <= urls for count, urls in zip(counts, (30, 30, 40), strict=True)), counts
    assert {hashlib.sha256(it["image"]).hexdigest() for it in found} == {it["hashsum_original"] for it in found}
    page = (job.output / "report.html").read_text()
    assert page.count(" URLs, ") == 3
    table = ddmpi.open_results(job.output)
    marked = table.to_table(columns=["identifier"], filter=ddmpi.is_placeholder(job.output)).to_pylist()
    assert sorted(row["identifier"] for row in marked) == sorted([*urls[:100], *later])
    rows = results(job)
    assert all(row["outcome"] == "success" for row in rows)
    assert {kind_of(row) for row in rows if row["placeholder"]} <= {GONE, MOVED}
    assert all(row["placeholder"] for row in rows if row["identifier"] in later), "known from the run before"


def test_they_are_errors_if_that_is_wanted(tmp_path: Path, new_job: MakeJob) -> None:
    with server() as base:
        job = new_job(write(tmp_path / "urls.csv", [base + path for path in paths()]), placeholders="error")
        assert job.run(1)[0] == 0
    rows = results(job, "error_kind", "error_msg", "final_url")
    errors = [row for row in rows if row["outcome"] == "error"]
    assert {row["error_kind"] for row in errors} == {"placeholder"}
    assert {kind_of(row) for row in errors} == {GONE, MOVED}
    assert 100 - 3 * FEW <= len(errors) < 100
    assert_every_row_once(job, len(paths()))
    assert job.inspect("--verify")[0] == 0


def test_a_file_that_the_table_promises_is_none(tmp_path: Path, new_job: MakeJob) -> None:
    with server() as base:
        table = write(tmp_path / "urls.csv", [base + path for path in paths()[:100]])
        job = new_job(table, keep_columns=["sha256"], expected={"hash_column": "sha256"}, placeholders="error")
        assert job.run(1)[0] == 0
    assert all(row["outcome"] == "success" and not row["placeholder"] for row in results(job))
    assert ddmpi.open_results(job.output).count_rows(filter=ddmpi.is_placeholder(job.output)) == 0
    assert ddmpi.open_results(job.output).count_rows(filter=pc.field("placeholder")) == 0
