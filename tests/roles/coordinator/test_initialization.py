"""The first stage as users meet it: killed anywhere, with any number of ranks, over odd shapes of tables."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.config.config import parse
from ddmpi.core.partition import placement
from ddmpi.errors import Interrupted
from ddmpi.io.input.table import open_input
from ddmpi.io.urls.writer import PartitionSummary, partition_input
from ddmpi.roles.coordinator.initialization import InitCallbacks, answered
from tests.fleet.process import running_fleet
from tests.fleet.spec import plain_fleet
from tests.whole.job import ROOT, make_job

KILLING = """
import json, os, signal, sys
from pathlib import Path
from ddmpi.core.partition import placement
from ddmpi.io.folder import durable
from ddmpi.io.sources import columnar
from ddmpi.io.input.table import open_input
from ddmpi.io.urls.writer import partition_input

placement.ROW_GROUP_ROWS, placement.FILE_ROWS, columnar.BATCH_ROWS = 100, 500, 400
calls, calls_before_rename, kill_at, kill_after_rename = 0, None, None, None

def counting(call):
    def counted(*arguments):
        global calls, calls_before_rename
        calls += 1
        is_published = calls_before_rename is not None
        if calls == kill_at or is_published and calls - calls_before_rename == kill_after_rename:
            (base / "died").write_text(json.dumps(is_published))
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*arguments)
        if call is rename and arguments[1].name == "urls":
            calls_before_rename = calls
        return result
    return counted

rename = durable.os_rename
for name in ("os_open", "os_write", "os_fsync", "os_rename", "os_mkdir"):
    setattr(durable, name, counting(getattr(durable, name)))

def run(folder, memory_bytes):
    table = open_input(sys.argv[1], {"identifier": "identifier"}, [])
    check = counting(lambda: False)
    partition_input(table, folder, batch_size=70, small_rows=40, memory_bytes=memory_bytes, should_stop=check)

def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}

def seen(folder):
    # What anybody may find in the output folder: nothing, or all of it.
    return "nothing" if not folder.exists() else "whole" if contents(folder) == whole else "a mixture"

def in_a_child(work):
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def count():
    run(out, 1)
    (base / "calls").write_text(str(calls))

base = Path(sys.argv[2])
out = base / "whole"
assert in_a_child(count) == 0
whole, total = contents(out), int((base / "calls").read_text())
found = []
moments = [(at, None) for at in range(1, total + 1, max(1, total // 24))] + [(None, 1), (None, 2)]
for number, (kill_at, kill_after_rename) in enumerate(moments):
    folder = base / str(number) / "urls"
    folder.parent.mkdir()
    memory_bytes = 1 if number % 2 else 1 << 30
    killed = in_a_child(lambda: run(folder, memory_bytes))
    is_published = json.loads((base / "died").read_text()) if killed else True
    after_kill, kill_at, kill_after_rename = seen(folder), None, None
    assert in_a_child(lambda: run(folder, memory_bytes)) == 0
    left = sorted(path.name for path in folder.parent.iterdir())
    found.append([killed, is_published, after_kill, seen(folder), left])
print(json.dumps(found))
"""
"""Counts the calls that reach the disk, then dies at one of them, again and again, and at both that follow the rename.
How often the work asks whether it should stop depends on its threads, and so does the number of calls: who dies says
whether it had published. The children are forked before any thread of arrow is started, which takes milliseconds
instead of a second for each."""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_nothing_half_visible(tmp_path: Path) -> None:
    table = pa.table({"identifier": [f"http://s{row % 7}.org/{row}" for row in range(1500)]})
    pq.write_table(table, tmp_path / "in.parquet")
    (tmp_path / "runs").mkdir()
    command = [sys.executable, "-c", KILLING, str(tmp_path / "in.parquet"), str(tmp_path / "runs")]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert len(found) > 20
    for _, is_published, after_kill, after_restart, left in found:
        assert after_kill == ("whole" if is_published else "nothing")
        assert after_restart == "whole"
        assert left == ["urls"]
    assert sum(killed == -9 and not is_published for killed, is_published, *_ in found) > 20
    assert [killed for killed, is_published, *_ in found[-2:] if is_published] == [-9, -9]


def test_the_urls_folder_is_the_same_whatever_the_number_of_ranks(tmp_path: Path) -> None:
    contents = []
    with running_fleet(tmp_path / "fleet", plain_fleet(5), 60) as fleet:
        for ranks in (1, 4):
            job = make_job(tmp_path / f"job{ranks}", fleet.table_path, profiling={"mode": "uniform"})
            try:
                code, printed = job.run(ranks)
            finally:
                job.close()
            assert code == 0, printed
            contents.append({path.name: path.read_bytes() for path in (job.output / "urls").iterdir()})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"urls-00000.parquet", "batches.parquet", "servers.parquet"}


def partitioned(tmp_path: Path, urls: list[str], memory_bytes: int) -> PartitionSummary:
    pq.write_table(pa.table({"identifier": urls}), tmp_path / "in.parquet")
    table = open_input(str(tmp_path / "in.parquet"), {"identifier": "identifier"}, [])
    return partition_input(table, tmp_path / "urls", batch_size=1000, small_rows=50, memory_bytes=memory_bytes)


@pytest.mark.parametrize("memory_bytes", [1, 1 << 30], ids=["disk", "memory"])
def test_as_many_servers_as_rows_make_few_files(tmp_path: Path, memory_bytes: int) -> None:
    rows = 30_000
    urls = [f"http://s{row * 7919 % rows}.example.org/{row}" for row in range(rows)]
    summary = partitioned(tmp_path, urls, memory_bytes=memory_bytes)
    assert (summary.servers, summary.batches) == (rows, rows // 1000)
    assert len(list((tmp_path / "urls").iterdir())) <= rows / placement.FILE_ROWS + 3
    servers = pq.read_table(tmp_path / "urls/urls-00000.parquet", columns=["server_name"]).column("server_name")
    assert servers.to_pylist() == sorted(f"s{row}.example.org" for row in range(rows))


@pytest.mark.parametrize("memory_bytes", [1, 1 << 30], ids=["disk", "memory"])
def test_a_table_sorted_by_server_stays_as_it_is(tmp_path: Path, memory_bytes: int) -> None:
    urls = sorted(f"http://s{row % 3}.org/{row:05d}" for row in range(6000))
    partitioned(tmp_path, urls, memory_bytes=memory_bytes)
    assert pq.read_table(tmp_path / "urls/urls-00000.parquet").column("identifier").to_pylist() == urls


def test_equal_urls_and_equal_uuids_are_rows_of_their_own(tmp_path: Path) -> None:
    table = pa.table({"identifier": ["http://a.org/1"] * 3, "uuid": ["u", "u", "v"], "source_id": ["1"] * 3})
    pq.write_table(table, tmp_path / "in.parquet")
    names = {name: name for name in table.column_names}
    partition_input(open_input(str(tmp_path / "in.parquet"), names, []), tmp_path / "urls", batch_size=9, small_rows=1)
    rows = pq.read_table(tmp_path / "urls/urls-00000.parquet")
    assert rows.column("row_number").to_pylist() == [0, 1, 2]
    assert rows.column("uuid").to_pylist() == ["u", "u", "v"]


def test_wide_rows_are_read_and_written_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What happens beyond 2 GB in one column, with thousandths of that.
    monkeypatch.setattr("ddmpi.io.sources.columnar.BATCH_BYTES", 100_000)
    monkeypatch.setattr("ddmpi.io.urls.files._COMBINED_BYTES", 200_000)
    monkeypatch.setattr("ddmpi.io.urls.writer.BUCKET_BYTES", 300_000)
    titles = [f"{row}{'x' * 1000}" for row in range(3000)]
    urls = [f"http://s{row % 2}.org/{row}" for row in range(3000)]
    pq.write_table(pa.table({"identifier": urls, "title": titles}), tmp_path / "in.parquet", use_dictionary=False)
    table = open_input(str(tmp_path / "in.parquet"), {"identifier": "identifier", "title": "title"}, [])
    assert max(raw.make().nbytes for raw in table.raw()) < 150_000
    for memory_bytes in (1, 1 << 30):
        partition_input(table, tmp_path / "urls", batch_size=1500, small_rows=1, memory_bytes=memory_bytes)
        rows = pq.read_table(tmp_path / "urls/urls-00000.parquet")
        assert rows.column("title").to_pylist() == titles[0::2] + titles[1::2]


def test_a_long_query_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddmpi.roles.coordinator.initialization.QUERY_TOLD_S", 0.0)
    sql = "SELECT 'http://a.org/' || sum(hash(range)) AS identifier FROM range(20000000000)"
    config = parse({"input": {"sql": sql}, "path_to_output_folder": str(tmp_path)}, "test")
    told: list[str] = []
    callbacks = InitCallbacks(lambda _: None, lambda _: None, lambda: len(told) > 2, on_query=told.append)
    with pytest.raises(Interrupted):
        answered(config, tmp_path / "query.parquet", tmp_path / "temporary", callbacks)
    assert told[0] == "Running the query of input.sql ..."
    assert all(
        re.fullmatch(r"The query has run for .+: (\d+% done|how far it is cannot be told)", line) for line in told[1:]
    )
