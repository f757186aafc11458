"""The whole program against a real fleet: real HTTP, real Parquet, real MPI, real signals."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from ddmpi.io.folder.stats_files import read_audit
from tests.fleet.log import EventKind, highest_rate, most_connections, now_s
from tests.fleet.process import running_fleet
from tests.fleet.spec import Mode, ServerSpec, plain_address, plain_fleet
from tests.whole.job import (
    ARRIVAL_SLACK_S,
    Job,
    MakeJob,
    assert_bodies_as_served,
    assert_every_row_once,
    assert_polite,
    finish,
    outcomes,
    parts,
    ranks_of,
    repeated_fetches,
    rows_of,
    signal_run,
    wait_until,
)

FAR_OFF = {"base_s": 600, "cap_s": 3600}
"""Pauses of a server out of reach that no test waits for."""
CLOCK = r"\d\d:\d\d:\d\d"


def limited_fleet(servers: int, rate: float) -> list[ServerSpec]:
    return plain_fleet(servers, rate, latency_s=0.002)


@pytest.mark.parametrize("ranks", [1, 4])
def test_every_row_is_fetched_once_and_no_limit_is_exceeded(tmp_path: Path, new_job: MakeJob, ranks: int) -> None:
    rate, rows = 40.0, 1200
    with running_fleet(tmp_path / "fleet", plain_fleet(20, latency_s=0.002), rows) as fleet:
        job = new_job(fleet.table_path, downloader_parameters={"default_rate_limit": rate})
        code, printed = job.run(ranks)
        assert code == 0, printed
        assert "Done: every row is final." in printed
        before = parts(job)
        code, printed = job.run(3 - min(ranks, 2))
        log = fleet.finished_log()
    assert code == 0, printed
    assert parts(job) == before, "a run of a complete folder fetches nothing"
    assert_every_row_once(job, rows)
    assert assert_bodies_as_served(job, fleet) == rows
    assert repeated_fetches(log) == 0
    assert_polite(log, {spec.name(fleet.port): rate for spec in fleet.specs}, connections=8)


@pytest.mark.slow
def test_a_rate_that_was_lowered_by_hand_counts_for_a_small_server_too(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(3, latency_s=0.002), 45) as fleet:
        job = new_job(fleet.table_path)
        slow = fleet.specs[1].name(fleet.port)
        job.output.mkdir()
        columns = "server_name,total_batches,success_count,error_count,rate_limit"
        (job.output / "profiles.csv").write_text(f"{columns}\n{slow},1,0,0,5\n")
        code, printed = job.run(2)
        log = fleet.finished_log()
    assert code == 0, printed
    assert set(rows_of(job.output / "images", ["server_name"]).column("server_name").to_pylist()) == {"__many__"}
    assert_polite(log, {slow: 5.0}, connections=8)


@pytest.mark.slow
def test_limits_change_and_servers_pause_while_a_run_is_on(tmp_path: Path, new_job: MakeJob) -> None:
    rows = 400
    with running_fleet(tmp_path / "fleet", plain_fleet(2, latency_s=0.002), rows) as fleet:
        paused, hastened = (spec.name(fleet.port) for spec in fleet.specs)
        # At this rate the run would take more than the time that a test has.
        job = new_job(
            fleet.table_path,
            downloader_parameters={"default_rate_limit": 1},
            profiling={"mode": "uniform"},
            parked_wait_s=0,
        )
        process = job.start(2)
        wait_until(lambda: bool(parts(job)), process)
        control = job.output / "control.yaml"
        control.write_text(
            f"servers: [{{match: '{paused}', pause: true}}, {{match: '{hastened}', rate_limit: 0, max_connections: 8}}]"
        )
        code, printed = finish(process)
        assert code == 75, printed
        assert f"Control: {paused}: held" in printed
        assert f"Control: {hastened}: now unlimited requests/s, 8 connections" in printed
        final = rows_of(job.output / "images", ["server_name"]).column("server_name").to_pylist()
        assert final.count(hastened) == rows // 2
        assert final.count(paused) < rows // 2
        control.unlink()
        job.config["downloader_parameters"]["default_rate_limit"] = 0
        assert job.run(2)[0] == 0
    assert_every_row_once(job, rows)


def test_the_output_folder_has_the_files_of_the_contract(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(4), 200) as fleet:
        job = new_job(fleet.table_path)
        assert job.run(2)[0] == 0
        verified, printed = job.run(1, "--verify", "--rehash")
        status, _ = job.run(1, "--status")
    assert (verified, status) == (0, 0), printed
    out = job.output
    for name in ("urls/batches.parquet", "profiles.csv", "schedules/0001/schedule.csv", "report.html",
                 "schedules/0001/verification.csv", "checkpoint.json", "logs/rank-00000.log", "logs/metrics.jsonl",
                 "logs/ddmpi.prom", "logs/servers.parquet"):  # fmt: skip
        assert (out / name).is_file(), name
    verifications = sorted((out / "schedules").glob("*/verification.csv"))
    read_back = [line.split(",") for path in verifications for line in path.read_text().splitlines()[1:]]
    assert sorted((name, status) for name, _, status, *_ in read_back) == sorted(
        (spec.name(fleet.port), "completed") for spec in fleet.specs
    )
    server = fleet.specs[0].name(fleet.port)
    folder = f"server_name={server.replace(':', '%3A')}/partition_id=0"
    assert (out / "batches" / folder / "completed").is_file()
    assert [path.suffix for path in (out / "images").rglob("*") if path.is_file()] == [".parquet"] * len(parts(job))
    dataset = ds.dataset(out / "images", partitioning="hive")
    assert server in dataset.to_table(columns=["server_name"]).column("server_name").to_pylist()
    columns = "uuid source_id identifier is_license_full license source title hashsum_original hashsum_resized "
    columns += "original_size resized_size image status final_url content_type bytes etag last_modified attempts "
    columns += "fetched_at total_ms ttfb_ms ip server_name partition_id"
    assert set(columns.split()) <= set(dataset.schema.names)
    report = (out / "report.html").read_text().replace("<wbr>", "")
    assert all(spec.name(fleet.port) in report for spec in fleet.specs)
    assert "Done: every row is final." in report


def test_a_report_that_cannot_be_written_changes_nothing_else(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(2), 60) as fleet:
        job = new_job(fleet.table_path)
        (job.output / "report.html").mkdir(parents=True)
        code, printed = job.run(2)
    assert code == 0, printed
    assert_every_row_once(job, 60)
    assert "Done: every row is final." in printed
    assert f"ddmpi: cannot write {job.output / 'report.html'}" in printed
    assert "Traceback" not in printed


def test_a_run_that_stops_early_says_so_in_its_report(tmp_path: Path, new_job: MakeJob) -> None:
    specs = [*plain_fleet(1), ServerSpec(plain_address(3), mode=Mode.REFUSED)]
    with running_fleet(tmp_path / "fleet", specs, 100) as fleet:
        job = new_job(fleet.table_path, backoff=FAR_OFF, final_wait_s=0, parked_wait_s=1)
        assert job.run(1)[0] == 75
    report = (job.output / "report.html").read_text()
    assert "50 rows are pending: 50 for " in report
    assert "Servers with the most time left" in report


def test_each_way_to_fail_becomes_an_error_of_its_kind(tmp_path: Path, new_job: MakeJob) -> None:
    specs = [
        ServerSpec(plain_address(0)),
        ServerSpec(plain_address(1), mode=Mode.HTML),
        ServerSpec(plain_address(2), mode=Mode.REFUSED),
        ServerSpec(plain_address(3), not_found_share=1.0),
        ServerSpec(plain_address(4), redirect_to=plain_address(0)),
        ServerSpec(plain_address(5), mode=Mode.EMPTY),
        ServerSpec(plain_address(6), error_rate=0.5),
    ]
    with running_fleet(tmp_path / "fleet", specs, 210) as fleet:
        job = new_job(fleet.table_path)
        code, printed = job.run(3)
    assert code == 0, printed
    assert_every_row_once(job, 210)
    errors = rows_of(job.output / "errors", ["server_name", "error_kind", "error_code", "error_msg"])
    kinds: dict[str, set[tuple[str, int]]] = {}
    for row in errors.to_pylist():
        kinds.setdefault(row["server_name"], set()).add((row["error_kind"], row["error_code"]))
        assert row["error_msg"]
    names = [spec.name(fleet.port) for spec in specs]
    assert kinds[names[1]] == {("wrong_type", -2)}
    assert kinds[names[2]] == {("unreachable", -1)}
    assert kinds[names[3]] == {("http_status", 404)}
    assert kinds[names[5]] == {("empty_body", -2)}
    assert names[0] not in kinds
    assert names[4] not in kinds, "rows behind a redirect are successes"
    redirected = rows_of(job.output / "images", ["identifier", "final_url"]).to_pylist()
    assert {row["final_url"] for row in redirected if names[4] in row["identifier"]} == {
        row["identifier"].replace(names[4], names[0]) for row in redirected if names[4] in row["identifier"]
    }


def test_bad_urls_are_error_rows_and_small_servers_share_batches(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(30), 90) as fleet:
        urls = fleet.urls()
        bad = ["", "ftp://example.org/a.jpg", "http:///x.jpg", "no scheme", "http://u:p@127.0.0.1/x.jpg"]
        table = tmp_path / "urls.csv"
        table.write_text("identifier\n" + "\n".join(f'"{url}"' for url in urls + bad) + "\n")
        job = new_job(table)
        code, printed = job.run(2)
    assert code == 0, printed
    assert_every_row_once(job, 95)
    errors = rows_of(job.output / "errors", ["row_number", "server_name", "error_kind"]).to_pylist()
    assert {(row["row_number"], row["server_name"], row["error_kind"]) for row in errors} == {
        (row, "__invalid__", "bad_url") for row in range(90, 95)
    }
    assert set(rows_of(job.output / "images", ["server_name"]).column("server_name").to_pylist()) == {"__many__"}


def test_a_killed_rank_ends_the_job_and_the_next_run_goes_on(tmp_path: Path, new_job: MakeJob) -> None:
    rows = 2000
    with running_fleet(tmp_path / "fleet", plain_fleet(20, latency_s=0.005), rows) as fleet:
        job = new_job(fleet.table_path, downloader_parameters={"default_rate_limit": 25})
        process = job.start(4)
        wait_until(lambda: len(parts(job)) >= 30, process)
        os.kill(ranks_of(process)[2], signal.SIGKILL)
        code, _ = finish(process)
        assert code != 0
        committed = sum(outcomes(job).values())
        job.config["downloader_parameters"]["default_rate_limit"] = 0
        code, printed = job.run(2)
        log = fleet.finished_log()
    assert code == 0, printed
    assert 0 < committed < rows
    assert_every_row_once(job, rows)
    assert assert_bodies_as_served(job, fleet) == rows
    # What was fetched and not committed: at most the checkpoint interval (1 s) of 20 servers at 25/s, and what was
    # in flight.
    assert repeated_fetches(log) <= 20 * 25 * 1.0 * 1.2 + 100
    assert job.inspect("--verify")[0] == 0


def stopped_after_more_parts(job: Job, number: signal.Signals) -> tuple[int, str]:
    before = len(parts(job))
    process = job.start(3)
    wait_until(lambda: len(parts(job)) >= before + 5, process)
    signal_run(process, number)
    return finish(process)


def test_a_soft_stop_loses_nothing(tmp_path: Path, new_job: MakeJob) -> None:
    rows = 1200
    with running_fleet(tmp_path / "fleet", plain_fleet(12, latency_s=0.005), rows) as fleet:
        job = new_job(fleet.table_path, downloader_parameters={"default_rate_limit": 12})
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            code, printed = stopped_after_more_parts(job, number)
            assert code == 75, f"{number!r}: {printed}"
            assert "run the same command again" in printed
            assert 0 < sum(outcomes(job).values()) < rows
        job.config["downloader_parameters"]["default_rate_limit"] = 0
        code, printed = job.run(2)
        log = fleet.finished_log()
    assert code == 0, printed
    assert_every_row_once(job, rows)
    assert repeated_fetches(log) == 0


@pytest.mark.slow
def test_the_audit_agrees_with_the_servers_own_log(tmp_path: Path, new_job: MakeJob) -> None:
    specs = [
        *plain_fleet(6, 30.0, latency_s=0.005),
        ServerSpec("127.20.0.1", rate_limit_per_s=5.0, burst=3, retry_after_s=1, row_weight=0.3),
        ServerSpec("127.20.0.2", redirect_to="127.16.0.1"),
    ]
    with running_fleet(tmp_path / "fleet", specs, 700) as fleet:
        job = new_job(fleet.table_path, downloader_parameters={"default_rate_limit": 20})
        process = job.start(3)
        wait_until(lambda: len(parts(job)) >= 8, process)
        signal_run(process, signal.SIGTERM)
        assert finish(process)[0] == 75
        restarted_at = now_s()
        code, printed = job.run(2)
        log = fleet.finished_log()
    assert code == 0, printed
    runs = [
        [event for event in log if event.time_s < restarted_at],
        [event for event in log if event.time_s >= restarted_at],
    ]
    table = read_audit(job.output / "logs" / "politeness.csv")
    requests = [event for event in log if event.kind is EventKind.REQUEST]
    throttled = Counter(event.server for event in log if event.kind is EventKind.ANSWER and event.status == 429)
    assert {name: row.requests for name, row in table.items()} == Counter(event.server for event in requests)
    for server, row in table.items():
        assert row.throttled == throttled[server]
        assert bool(row.pauses) == bool(throttled[server])
        # Requests arrive up to some tens of milliseconds after they have started.
        for window_s, highest in ((1.0, row.highest_1s), (60.0, row.highest_60s)):
            least, most = (
                max(highest_rate(run, server, window_s + slack_s) for run in runs)
                for slack_s in (-ARRIVAL_SLACK_S, ARRIVAL_SLACK_S)
            )
            assert least <= highest <= most
        assert 1 <= row.connections <= most_connections(log, server) <= 8
        assert row.refused == throttled[server]
        assert row.urls <= row.requests - throttled[server]
    images = rows_of(job.output / "images", ["final_url", "bytes"]).to_pylist()
    for server in (spec.name(fleet.port) for spec in specs):
        kept_bytes = sum(row["bytes"] for row in images if row["final_url"].split("/")[2] == server)
        assert table[server].kept_bytes == kept_bytes


def test_a_second_run_over_the_same_folder_is_refused(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(5), 500) as fleet:
        job = new_job(fleet.table_path, downloader_parameters={"default_rate_limit": 2})
        first = job.start(2)
        wait_until((job.output / "checkpoint.json").exists, first)
        code, printed = job.run(2)
        signal_run(first, signal.SIGTERM)
        assert finish(first)[0] == 75
    assert code == 2
    assert "in use by process" in printed


def test_failed_rows_can_be_fetched_again(tmp_path: Path, new_job: MakeJob) -> None:
    good = plain_fleet(2)
    broken = [good[0], ServerSpec(good[1].address, not_found_share=1.0)]
    with running_fleet(tmp_path / "fleet", broken, 100) as fleet:
        job = new_job(fleet.table_path)
        assert job.run(2)[0] == 0
        port = fleet.port
    assert len(rows_of(job.output / "errors", ["row_number"])) == 50
    with running_fleet(tmp_path / "mended", good, port=port) as fleet:
        assert job.run(1, "--retry-failed", "dns")[0] == 0
        assert len(rows_of(job.output / "images", ["row_number"])) == 50
        code, printed = job.run(2, "--retry-failed", "404")
    assert code == 0, printed
    assert set(rows_of(job.output / "images", ["row_number"]).column("row_number").to_pylist()) == set(range(100))
    assert rows_of(job.output / "images", ["row_number"]).num_rows == 100
    assert job.inspect("--verify")[0] == 0


@pytest.mark.slow
def test_two_kinds_of_errors_are_fetched_again_one_after_the_other(tmp_path: Path, new_job: MakeJob) -> None:
    """All rows are in one packed batch, so that each retry leaves errors of the other kind in it."""
    good = plain_fleet(3)
    bad = [good[0], ServerSpec(good[1].address, not_found_share=1.0), ServerSpec(good[2].address, mode=Mode.HTML)]
    both = {"http_status": 5, "wrong_type": 5}
    with running_fleet(tmp_path / "fleet", bad, 15) as fleet:
        job = new_job(fleet.table_path)
        port = fleet.port
        for options in ((), ("--retry-failed", "404"), ("--retry-failed", "wrong_type")):
            assert job.run(1, *options)[0] == 0
            assert kinds_everywhere(job) == [both] * 4
    with running_fleet(tmp_path / "half", [*good[:2], bad[2]], port=port):
        assert job.run(2, "--retry-failed", "404")[0] == 0
        assert kinds_everywhere(job) == [{"wrong_type": 5}] * 4
    with running_fleet(tmp_path / "mended", good, port=port):
        code, printed = job.run(1, "--retry-failed", "wrong_type")
    assert code == 0, printed
    assert kinds_everywhere(job) == [{}] * 4
    assert rows_of(job.output / "images", ["row_number"]).num_rows == 15
    assert job.inspect("--verify")[0] == 0


def kinds_everywhere(job: Job) -> list[dict[str, int]]:
    """Errors by kind in the marker of the only batch, the checkpoint, the metrics and --status; the report agrees."""
    (marker,) = (json.loads(path.read_text()) for path in (job.output / "batches").rglob("completed"))
    saved = json.loads((job.output / "checkpoint.json").read_text())["checkpoint"]["counters"]
    counters = {name[7:]: count for name, count in saved.items() if name.startswith("errors.")}
    measured = json.loads((job.output / "logs/metrics.jsonl").read_text().splitlines()[-1])["error_kinds"]
    _, status = job.inspect("--status")
    line = next(line for line in status.splitlines() if line.startswith("errors"))
    listed = {kind: int(count) for kind, count in re.findall(r"([a-z_]+) (\d+)", line.partition(":")[2])}
    report = (job.output / "report.html").read_text()
    assert all((kind in report) == (kind in marker["kinds"]) for kind in ("http_status", "wrong_type"))
    assert marker["errors"] == saved["errors"] == sum(marker["kinds"].values())
    return [marker["kinds"], counters, measured, listed]


@pytest.mark.parametrize(
    "min_rows", [pytest.param(1, id="alone", marks=pytest.mark.slow), pytest.param(20, id="packed")]
)
def test_failed_rows_of_a_server_can_be_fetched_again(tmp_path: Path, new_job: MakeJob, min_rows: int) -> None:
    good = plain_fleet(3)
    broken = [ServerSpec(spec.address, not_found_share=1.0) for spec in good]
    with running_fleet(tmp_path / "fleet", broken, 30) as fleet:
        job = new_job(fleet.table_path, profiling={"mode": "uniform", "min_rows": min_rows})
        assert job.run(1)[0] == 0
        port = fleet.port
    chosen = good[1].name(port)
    with running_fleet(tmp_path / "mended", good, port=port):
        code, printed = job.run(2, "--retry-failed", "404", chosen)
    assert code == 0, printed
    urls = rows_of(job.output / "images", ["identifier"]).column("identifier").to_pylist()
    assert len(urls) == 10
    assert {urlsplit(str(url)).netloc for url in urls} == {chosen}
    assert job.inspect("--verify")[0] == 0


@pytest.mark.parametrize(
    "min_rows", [pytest.param(1, id="alone", marks=pytest.mark.slow), pytest.param(50, id="packed")]
)
def test_a_grown_input_is_fetched_only_where_it_is_new(tmp_path: Path, new_job: MakeJob, min_rows: int) -> None:
    # The first run knows two of the four servers, and some rows of each; killed while it adds, the second starts anew.
    with running_fleet(tmp_path / "fleet", plain_fleet(4), 120) as fleet:
        table = pq.read_table(fleet.table_path)
        source = tmp_path / "in"
        source.mkdir()
        is_old = np.array([fleet.specs[1].name(fleet.port) > str(url)[7:] for url in table["identifier"].to_pylist()])
        old = table.filter(pa.array(is_old)).slice(0, 20)
        pq.write_table(old, source / "a.parquet")
        job = new_job(source, profiling={"min_rows": min_rows})
        assert job.run(1)[0] == 0
        before = parts(job)
        rest = table.filter(pc.invert(pc.is_in(table["identifier"], value_set=old["identifier"].combine_chunks())))
        pq.write_table(rest, source / "b.parquet")
        code, printed = job.run(1, program=("-c", KILLED_WHILE_ADDING))
        assert code == -signal.SIGKILL, printed
        assert parts(job) == before
        code, printed = job.run(2)
        log = fleet.finished_log()
    assert code == 0, printed
    assert "Input: 100 rows" in printed
    assert set(before) <= set(parts(job))
    assert rows_of(job.output / "images", ["row_number"]).column("row_number").to_numpy().sum() == sum(range(120))
    assert len(outcomes(job)) == 120
    assert repeated_fetches(log) == 0
    assert job.inspect("--verify")[0] == 0
    pq.write_table(old.slice(1), source / "a.parquet")
    code, printed = job.run(1)
    assert code == 2
    assert "it has 119 rows, and had 120" in printed


KILLED_WHILE_ADDING = """
import os, signal, sys
from ddmpi.__main__ import main
from ddmpi.io.urls import writer
writer.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


def test_an_unreachable_server_leaves_its_rows_pending(tmp_path: Path, new_job: MakeJob) -> None:
    specs = [*plain_fleet(3), ServerSpec(plain_address(3), mode=Mode.REFUSED)]
    with running_fleet(tmp_path / "fleet", specs, 200) as fleet:
        job = new_job(fleet.table_path, backoff=FAR_OFF, final_wait_s=0, parked_wait_s=1)
        code, printed = job.run(2)
    assert code == 75, printed
    assert len(outcomes(job)) == 150
    told = (
        rf"50 rows are pending: 50 for {re.escape(fleet.specs[3].name(fleet.port))} until {CLOCK} "
        rf"\(connect, out of reach since {CLOCK}, given up about {CLOCK}\); run the same command again after {CLOCK}, "
        r"or with --give-up to make them errors now\."
    )
    ending = re.search(told, printed)
    assert ending, printed
    code, printed = job.inspect("--status")
    assert code == 75
    assert ending[0] in printed
    assert " taken, about " in printed
    assert f"in all, set by {fleet.specs[3].name(fleet.port)}" in printed


CRASHING = """
import sys
from ddmpi.__main__ import main
from ddmpi.roles.downloader import downloader
record = downloader.Downloader._record
def crash(self, *given):
    if self._core.reports.successes > 20:
        raise ZeroDivisionError("made for the test")
    record(self, *given)
downloader.Downloader._record = crash
sys.exit(main())
"""


def test_a_bug_on_one_rank_ends_all_with_one_message(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(4), 400) as fleet:
        job = new_job(fleet.table_path)
        code, printed = job.run(4, program=("-c", CRASHING))
    assert code not in {0, 2, 75}
    assert "ZeroDivisionError: made for the test" in printed
    assert "of 4 on" in printed


CRASHING_LEDGER = """
import sys
from ddmpi.__main__ import main
from ddmpi.core.ledger import ledger
from ddmpi.errors import TransitionError
take = ledger.Ledger.on_progress
def crash(self, rank, message, now):
    if self.batches.counts.rows_final > 20:
        raise TransitionError("made for the test")
    return take(self, rank, message, now)
ledger.Ledger.on_progress = crash
sys.exit(main())
"""


@pytest.mark.parametrize("ranks", [1, 4, pytest.param(64, marks=[pytest.mark.slow, pytest.mark.timeout(400)])])
def test_a_bug_on_rank_0_ends_all_at_once_with_its_traceback(tmp_path: Path, new_job: MakeJob, ranks: int) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(4), 400) as fleet:
        job = new_job(fleet.table_path, downloader_parameters={"default_rate_limit": 20})
        process = job.start(ranks, program=("-c", CRASHING_LEDGER))
        printed, _ = process.communicate(timeout=300)  # so many ranks take their time to start
        ended_at = time.time()
    log = job.output / "logs" / "rank-00000.log"
    assert process.returncode == 1, printed
    for text in (printed, log.read_text()):
        # Once more on the screen, perhaps cut off, where MPI_Abort lets the rank go on for a moment.
        assert "Traceback (most recent call last)" in text
        assert text.count(f"rank 0 of {ranks} on {os.uname().nodename} failed") == 1
        assert "ddmpi.errors.TransitionError: made for the test" in text
    assert ended_at - log.stat().st_mtime < 5.0


def test_a_wrong_config_is_refused_with_all_its_errors(tmp_path: Path, new_job: MakeJob) -> None:
    job = new_job(tmp_path / "absent.parquet", downloader_parameters={"batch_size": 0, "batchsize": 5})
    code, printed = job.run(2)
    assert code == 2
    assert "downloader_parameters.batch_size" in printed
    assert "downloader_parameters.batchsize" in printed
    assert not job.output.exists()


def test_a_missing_input_is_refused(tmp_path: Path, new_job: MakeJob) -> None:
    job = new_job(tmp_path / "absent.parquet")
    code, printed = job.run(2)
    assert code == 2
    assert "absent.parquet" in printed


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_launcher_of_another_mpi_is_refused_once(
    tmp_path: Path, new_job: MakeJob, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    """``srun`` without ``--mpi=pmi2``, or a launcher whose variables MPI does not know: each process is alone."""
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    job = new_job(tmp_path / "absent.parquet")
    code, printed = job.run(ranks, program=("-c", EACH_ALONE))
    assert code == 2
    assert printed.count("ddmpi: the launcher started ") == 1
    assert "another MPI" in printed
    assert not job.output.exists()


def test_an_mpi_library_is_missed_once(tmp_path: Path, new_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPI4PY_LIBMPI", str(tmp_path / "libmpi.so.12"))
    code, printed = new_job(tmp_path / "absent.parquet").run(2)
    assert code == 2
    assert printed.count("mpi4py finds no MPI library that it can load") == 1
    assert "Traceback" not in printed


def test_an_empty_table_gives_an_empty_result(tmp_path: Path, new_job: MakeJob) -> None:
    table = tmp_path / "urls.csv"
    table.write_text("identifier\n")
    job = new_job(table)
    code, printed = job.run(2)
    assert code == 0, printed
    assert not outcomes(job)


UNLIKE = """
import os, sys
import ddmpi
from ddmpi.__main__ import main
rank = os.environ.get("PMI_RANK") or os.environ["OMPI_COMM_WORLD_RANK"]
"""
MIXED_VERSIONS = (
    UNLIKE
    + """
from ddmpi.io.mpi import launcher
launcher.__version__ += "+" + rank
sys.exit(main())
"""
)
ONE_CONFIG = (
    UNLIKE
    + """
from ddmpi.config import config
if rank != "0":
    del config.load
sys.exit(main())
"""
)
MIXED_CONFIGS = (
    UNLIKE
    + """
sys.exit(main() if rank == "0" else main(["other.yaml"]))
"""
)
EACH_ALONE = """
import os, sys
for name in [name for name in os.environ if name.startswith("PMI")]:
    del os.environ[name]
from ddmpi.__main__ import main
sys.exit(main())
"""


INTERRUPTED_EARLY = """
import os, signal, sys
import ddmpi.__main__ as program
from ddmpi.io.mpi import launcher
start = launcher.start_mpi
def interrupted(environment):
    if (os.environ.get("PMI_RANK") or os.environ["OMPI_COMM_WORLD_RANK"]) == "1":
        os.kill(os.getpid(), signal.SIGINT)
    return start(environment)
launcher.start_mpi = interrupted
sys.exit(program.main())
"""


def test_a_signal_that_comes_while_a_rank_loads_its_libraries_stops_all(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(4), 200) as fleet:
        job = new_job(fleet.table_path, downloader_parameters={"default_rate_limit": 5})
        code, printed = job.run(2, program=("-c", INTERRUPTED_EARLY))
    assert code == 75, printed
    assert "Traceback" not in printed


def test_ranks_of_different_versions_are_refused(tmp_path: Path, new_job: MakeJob) -> None:
    job = new_job(tmp_path / "absent.parquet")
    code, printed = job.run(2, program=("-c", MIXED_VERSIONS))
    assert code == 2
    assert "the ranks run different versions of ddmpi: " in printed
    assert printed.count("different versions") == 1
    assert not job.output.exists()


def test_ranks_of_different_configs_are_refused(tmp_path: Path, new_job: MakeJob) -> None:
    job = new_job(tmp_path / "absent.parquet")
    code, printed = job.run(2, program=("-c", MIXED_CONFIGS))
    assert code == 2
    assert printed.count("rank 1 was started with another config or other options than rank 0") == 1
    assert not job.output.exists()


def test_all_ranks_work_with_the_config_that_rank_0_has_read(tmp_path: Path, new_job: MakeJob) -> None:
    with running_fleet(tmp_path / "fleet", plain_fleet(4), 200) as fleet:
        job = new_job(fleet.table_path)
        code, printed = job.run(2, program=("-c", ONE_CONFIG))
    assert code == 0, printed
    assert_every_row_once(job, 200)
