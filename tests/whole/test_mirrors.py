"""Rows that may be fetched from several places: the next one is asked when one fails for good."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ddmpi
from ddmpi.config.config import LATER_SEMANTIC_KEYS
from ddmpi.io.folder.checkpoint import load, save
from ddmpi.io.folder.layout import Layout
from tests.fleet.images import body_of
from tests.fleet.log import EventKind
from tests.fleet.process import RunningFleet, running_fleet
from tests.fleet.spec import Mode, ServerSpec
from tests.whole.job import Job, MakeJob, assert_every_row_once, assert_polite, parts, ranks_of, wait_until

GOOD, DEAD, LACKING, PAGES, OTHER = (f"127.10.0.{number}" for number in range(1, 6))
FLEET = [
    ServerSpec(GOOD, latency_s=0.002),
    ServerSpec(DEAD, mode=Mode.REFUSED),
    ServerSpec(LACKING, not_found_share=1.0),
    ServerSpec(PAGES, mode=Mode.HTML),
    ServerSpec(OTHER, latency_s=0.002),
]
RATE_PER_S = 100
RULES = [{"match": f"{GOOD}:*", "rate_limit": RATE_PER_S, "max_connections": 3}]


@dataclass
class Places:
    """Where rows are to be fetched from."""

    fleet: RunningFleet

    def url(self, address: str, row: int, path: str = "") -> str:
        spec = next(spec for spec in self.fleet.specs if spec.address == address)
        return spec.url(self.fleet.port, path or f"/{row}.jpg")

    def body(self, url: str) -> bytes:
        name, _, path = url.removeprefix("http://").partition("/")
        address = name.partition(":")[0]
        return body_of(next(spec for spec in self.fleet.specs if spec.address == address), f"/{path}")


def write(path: Path, rows: Sequence[Sequence[object]], columns: Sequence[str] = ("gcp", "aws")) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def asked(fleet: RunningFleet) -> Counter[str]:
    log = fleet.finished_log()
    return Counter(f"http://{event.server}{event.path}" for event in log if event.kind is EventKind.REQUEST)


def results_of(job: Job, *columns: str) -> dict[int, dict[str, Any]]:
    table = ddmpi.open_results(job.output).to_table(columns=["row_number", "outcome", *columns])
    return {row["row_number"]: row for row in table.to_pylist()}


def mirrored(new_job: MakeJob, tmp_path: Path, **changes: Any) -> Job:
    """A job that gives up dead servers soon."""
    soon = {"backoff": {"brief_s": 0.1, "base_s": 0.2, "cap_s": 1}, "breaker": {"failures": 3, "probes": 1}}
    return new_job(tmp_path / "urls.csv", columns={"identifier": ["gcp", "aws"]}, mirrors=True, **soon, **changes)


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_what_a_dead_host_has_comes_from_the_mirror_at_the_mirrors_pace(
    tmp_path: Path, new_job: MakeJob, ranks: int
) -> None:
    with running_fleet(tmp_path / "fleet", FLEET, 0) as fleet:
        places = Places(fleet)
        rows = [(places.url(DEAD, row), places.url(GOOD, row)) for row in range(400)]
        rows += [(places.url(GOOD, row), places.url(DEAD, row)) for row in range(400, 500)]
        write(tmp_path / "urls.csv", rows)
        job = mirrored(new_job, tmp_path, servers=RULES)
        code, printed = job.run(ranks)
        counts = asked(fleet)
        log = fleet.finished_log()
    assert code == 0, printed
    assert_every_row_once(job, 500)
    found = results_of(job, "identifier", "final_url", "image")
    for number, (first, second) in enumerate(rows):
        url = second if number < 400 else first
        row = found[number]
        assert (row["outcome"], row["identifier"], row["final_url"]) == ("success", first, url)
        assert row["image"] == places.body(url)
    assert counts == Counter(url for pair in rows for url in pair if GOOD in url), "each once, and no mirror in vain"
    assert_polite(log, {f"{GOOD}:{fleet.port}": RATE_PER_S}, 3, closing_s=0.05)
    assert job.inspect("--verify", "--rehash")[0] == 0


@pytest.mark.slow
def test_each_way_to_fail_leads_to_the_mirror_and_the_error_names_all(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", FLEET, 0) as fleet:
        places = Places(fleet)
        good = [places.url(GOOD, row) for row in range(9)]
        firsts = [
            places.url(LACKING, 0), places.url(PAGES, 1), "ftp://example.org/2.jpg", "", places.url(DEAD, 4),
        ]  # fmt: skip
        rows = [
            *zip(firsts, good, strict=False),
            (places.url(LACKING, 5), places.url(PAGES, 5)),
            (places.url(LACKING, 6), "ftp://u:secret@example.org/6.jpg"),
            (places.url(LACKING, 7), ""),
            ("ftp://example.org/8.jpg", "http://u:secret@example.org/8.jpg"),
        ]
        write(tmp_path / "urls.csv", rows)
        job = mirrored(new_job, tmp_path)
        code, printed = job.run(2)
        assert code == 0, printed
        found = results_of(job, "identifier", "final_url", "attempts", "error_kind", "error_msg", "retry_count")
        assert job.run(2, "--retry-failed", "wrong_type")[0] == 0
        counts = asked(fleet)
    assert set(found) == set(range(9))
    assert job.inspect("--verify")[0] == 0
    for row in range(5):
        assert (found[row]["outcome"], found[row]["final_url"]) == ("success", good[row])
    assert [found[row]["identifier"] for row in (0, 2, 3)] == [firsts[0], good[2], good[3]]
    assert [found[row]["attempts"] for row in (0, 1, 2, 3)] == [2, 2, 1, 1]
    errors = {row: (it["error_kind"], it["error_msg"], it["retry_count"]) for row, it in found.items() if row > 4}
    page = places.url(PAGES, 5)
    assert errors == {
        5: ("wrong_type", f"HTTP status 404; then {page}: content type text/html", 1),
        6: ("http_status", "HTTP status 404; then ftp://example.org/6.jpg: refused: bad_scheme: ftp", 0),
        7: ("http_status", "HTTP status 404", 0),
        8: ("bad_url", "bad_scheme: ftp; then http://example.org/8.jpg: refused: credentials", 0),
    }
    assert counts[places.url(LACKING, 5)] == counts[page] == 2, "a row that is tried anew begins with its first URL"
    texts = [path.read_bytes() for path in job.output.rglob("*") if path.is_file()]
    assert not any(b"secret" in text for text in texts)


def test_a_file_that_is_not_the_promised_one_leads_to_the_mirror(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", FLEET, 0) as fleet:
        places = Places(fleet)
        rows = []
        for row in range(60):
            first, second = places.url(OTHER, row), places.url(GOOD, row, f"/copy/{row}.jpg")
            promised = hashlib.md5(places.body(second if row % 2 else first), usedforsecurity=False).hexdigest()
            rows.append((first, second, promised if row % 3 else "0" * 32))
        write(tmp_path / "urls.csv", rows, ("gcp", "aws", "md5"))
        job = mirrored(
            new_job, tmp_path, keep_columns=["md5"], expected={"hash_column": "md5"}, profiling={"mode": "uniform"}
        )
        code, printed = job.run(2)
        assert code == 0, printed
        counts = asked(fleet)
    assert_every_row_once(job, 60)
    found = results_of(job, "final_url", "image", "error_kind", "error_msg", "hashsum_original")
    for number, (first, second, _) in enumerate(rows):
        result = found[number]
        if number % 3:
            assert result["final_url"] == (second if number % 2 else first)
            assert result["hashsum_original"] == hashlib.sha256(result["image"]).hexdigest()
        else:
            assert (result["outcome"], result["error_kind"]) == ("error", "hash_mismatch")
            assert result["error_msg"].count("the table says 000") == 2
            assert f"; then {second}: the md5 is " in result["error_msg"]
        assert counts[first] == 1
        assert counts[second] == (0 if number % 3 and not number % 2 else 1)


@pytest.mark.slow
def test_a_kill_in_the_middle_costs_no_row(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", FLEET, 0) as fleet:
        places = Places(fleet)
        rows = [(places.url(LACKING, row), places.url(GOOD, row)) for row in range(600)]
        write(tmp_path / "urls.csv", rows)
        job = mirrored(new_job, tmp_path, servers=RULES, profiling={"mode": "uniform"})
        process = job.start(3)
        wait_until(lambda: len(parts(job)) > 2, process)
        os.kill(ranks_of(process)[1], signal.SIGKILL)
        process.communicate(timeout=30)
        before = set(results_of(job))
        code, printed = job.run(2)
        assert code == 0, printed
        counts = asked(fleet)
    assert_every_row_once(job, 600)
    assert {row["outcome"] for row in results_of(job).values()} == {"success"}
    assert {counts[url] for number in before for url in rows[number]} == {1}


def test_rows_with_the_same_url_and_other_mirrors_are_asked_apart(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", FLEET, 0) as fleet:
        places = Places(fleet)
        same = places.url(LACKING, 0)
        rows = [(same, places.url(GOOD, row // 2 * 2)) for row in range(4)] + [(same, "")] * 2
        write(tmp_path / "urls.csv", rows)
        job = mirrored(new_job, tmp_path)
        code, printed = job.run(1)
        assert code == 0, printed
        counts = asked(fleet)
    found = results_of(job, "final_url")
    assert [found[row]["outcome"] for row in range(6)] == ["success"] * 4 + ["error"] * 2
    assert counts == {same: 3, rows[0][1]: 1, rows[2][1]: 1}


def test_ignored_servers_are_asked_for_no_mirror(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", FLEET, 0) as fleet:
        places = Places(fleet)
        row = (places.url(LACKING, 0), places.url(GOOD, 0))
        write(tmp_path / "urls.csv", [row, (places.url(OTHER, 1), "")])
        job = mirrored(new_job, tmp_path)
        job.output.mkdir(parents=True)
        (job.output / "ignored.csv").write_text(f"{GOOD}:*\n")
        code, printed = job.run(1)
        assert code == 0, printed
        assert asked(fleet) == {row[0]: 1, places.url(OTHER, 1): 1}
    assert results_of(job, "error_msg")[0]["error_msg"] == (
        f"HTTP status 404; then {row[1]}: not asked: its server is ignored"
    )


@pytest.mark.slow
def test_a_folder_does_not_change_its_mind_about_mirrors(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", FLEET, 0) as fleet:
        write(tmp_path / "urls.csv", [(Places(fleet).url(GOOD, 0), "")])
        job = new_job(tmp_path / "urls.csv", columns={"identifier": ["gcp", "aws"]})
        assert job.run(1)[0] == 0
        job.config["mirrors"] = True
        code, printed = job.run(1)
        # As a release left it that did not know them.
        layout = Layout(job.output)
        found, _ = load(layout)
        assert found is not None
        for key in LATER_SEMANTIC_KEYS:
            del found.config_semantic[key]
        save(layout, found)
        older = job.run(1)
        job.config["mirrors"] = False
        assert job.run(1)[0] == 0
    assert (code, older[0]) == (2, 2)
    for text in (printed, older[1]):
        assert "mirrors: was False, is True" in text
