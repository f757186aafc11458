"""From an input table to the urls folder: complete, clustered, reproducible, and whole or not at all."""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from ddmpi.core.partition import placement, sections
from ddmpi.core.records import INVALID_SERVER, MANY_SERVERS, BatchRef
from ddmpi.errors import InputError, Interrupted, OutputError, StorageError
from ddmpi.io.folder import durable
from ddmpi.io.input.rows import TEXT_COLUMNS
from ddmpi.io.input.table import InputTable, open_input
from ddmpi.io.sources import columnar
from ddmpi.io.urls.batch_reader import BatchReader
from ddmpi.io.urls.writer import PartitionProgress, PartitionSummary, partition_input

ROWS = 3000
REFUSED = ["", "x", "ftp://a.org/", "http://u:p@a.org/", None]


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which a few thousand rows make many files, row groups, spill and record batches."""
    monkeypatch.setattr(placement, "ROW_GROUP_ROWS", 100)
    monkeypatch.setattr(placement, "FILE_ROWS", 500)
    monkeypatch.setattr(columnar, "BATCH_ROWS", 400)
    monkeypatch.setattr("ddmpi.io.urls.writer.BUCKET_ROWS", 200)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InputTable:
    monkeypatch.setattr("ddmpi.io.sources.joining.SMALL_ROWS", 0)  # as many batches as there are files
    rng = random.Random(5)
    urls = [a_url(rng, row) for row in range(ROWS)]
    columns: dict[str, Sequence[Any]] = {
        "identifier": urls,
        "source_id": range(ROWS),
        "title": [f"t{row}" for row in range(ROWS)],
    }
    half = ROWS // 2
    for number, part in enumerate((slice(0, half), slice(half, ROWS))):
        rows = pa.table({name: list(values)[part] for name, values in columns.items()})
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(rows.append_column("extra", pa.array(range(half))), tmp_path / f"in/{number}.parquet")
    return reopened(tmp_path)


def reopened(tmp_path: Path) -> InputTable:
    return open_input(str(tmp_path / "in"), {name: name for name in TEXT_COLUMNS}, ["extra"])


def a_url(rng: random.Random, row: int) -> str | None:
    kind = rng.random()
    if kind < 0.02:
        return rng.choice(REFUSED)
    if kind < 0.2:
        return f"http://repeats.org/{row % 40}"
    host = "large.org" if kind < 0.6 else f"s{int(rng.paretovariate(0.6)) % 200}.net"
    return f"http://{host}/{row}"


def group_of(server: str) -> str:
    return "three" if server.startswith("s3") else server


def run(table: InputTable, folder: Path, **options: Any) -> PartitionSummary:
    settings = {"batch_size": 70, "small_rows": 40, "group_of": group_of, **options}
    return partition_input(table, folder, **settings)


def refs(folder: Path) -> list[tuple[BatchRef, dict[str, Any]]]:
    fields = ("batch_id", "server_name", "partition_id", "file", "row_group", "offset", "rows")
    rows = pq.read_table(folder / "batches.parquet").to_pylist()
    return [(BatchRef(**{name: row[name] for name in fields}), row) for row in rows]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_row_is_in_exactly_one_batch_with_its_server(table: InputTable, tmp_path: Path) -> None:
    summary = run(table, tmp_path / "urls")
    expected = {row["row_number"]: row for batch in table.batches() for row in batch.to_pylist()}
    reader = BatchReader(tmp_path / "urls")
    found: dict[int, dict[str, Any]] = {}
    homes: defaultdict[str | None, list[int]] = defaultdict(list)
    homes_of_urls: defaultdict[str, set[int]] = defaultdict(set)
    for batch, _ in refs(tmp_path / "urls"):
        rows = reader.read(batch).to_pylist()
        numbers = [row["row_number"] for row in rows]
        for server in dict.fromkeys(row["server_name"] for row in rows):
            mine = [row["row_number"] for row in rows if row["server_name"] == server]
            assert mine == sorted(mine), "rows of a server keep the input's order"
            homes[server].append(batch.batch_id)
        if batch.server_name not in {MANY_SERVERS, INVALID_SERVER}:
            assert {row["server_name"] for row in rows} == {batch.server_name}
        assert (batch.server_name == INVALID_SERVER) == any(row["reject"] for row in rows)
        for row in rows if batch.server_name != INVALID_SERVER else ():
            homes_of_urls[row["identifier"]].add(batch.batch_id)
        found.update(zip(numbers, rows, strict=True))
        assert len(rows) <= 70
    assert found == expected
    assert summary.rows == len(found) == ROWS
    assert all(len(batches) == 1 for batches in homes_of_urls.values())
    assert len(homes["repeats.org"]) > 5
    for server, batches in homes.items():
        assert batches == list(range(batches[0], batches[-1] + 1)), server
    reader.close()


def test_packs_hold_whole_servers_of_one_group(table: InputTable, tmp_path: Path) -> None:
    run(table, tmp_path / "urls")
    reader = BatchReader(tmp_path / "urls")
    seen: set[str] = set()
    kinds = set()
    for batch, row in refs(tmp_path / "urls"):
        if batch.server_name != MANY_SERVERS:
            continue
        servers = set(map(str, reader.read(batch, ["server_name"]).column("server_name").to_pylist()))
        assert not servers & seen
        seen |= servers
        groups = {group_of(server) if group_of(server) != server else None for server in servers}
        assert len(groups) == 1
        assert row["group"] == (groups.pop() or f"{MANY_SERVERS}/{batch.partition_id}")
        kinds.add(row["group"].partition("/")[0])
    assert kinds == {MANY_SERVERS, "three"}
    reader.close()


def test_the_files_are_few_clustered_and_readable_by_anyone(table: InputTable, tmp_path: Path) -> None:
    run(table, tmp_path / "urls")
    files = sorted((tmp_path / "urls").glob("urls-*.parquet"))
    assert 2 < len(files) <= ROWS / 500
    everything = ds.dataset(files).to_table()
    assert everything.schema.equals(table.schema)
    position = 0
    for batch, row in refs(tmp_path / "urls"):
        file = pq.ParquetFile(tmp_path / "urls" / batch.file)
        groups = [file.metadata.row_group(index).num_rows for index in range(file.metadata.num_row_groups)]
        assert batch.offset + batch.rows <= groups[batch.row_group]
        assert row["first_row"] == sum(groups[: batch.row_group]) + batch.offset
        ahead = sum(pq.read_metadata(other).num_rows for other in files if other.name < batch.file)
        assert ahead + row["first_row"] == position
        position += batch.rows
        file.close()
    assert position == everything.num_rows == ROWS


def test_the_index_of_servers(table: InputTable, tmp_path: Path) -> None:
    summary = run(table, tmp_path / "urls")
    batches = [batch for batch, _ in refs(tmp_path / "urls")]
    servers = pq.read_table(tmp_path / "urls/servers.parquet").to_pylist()
    assert [row["server_name"] for row in servers] == sorted(row["server_name"] for row in servers)
    assert len(servers) == summary.servers
    for row in servers:
        mine = batches[row["first_batch_id"] : row["first_batch_id"] + row["batches"]]
        assert row["group"] == group_of(row["server_name"])
        if mine[0].server_name == MANY_SERVERS:
            assert (len(mine), row["rows"] < 40) == (1, True)
        else:
            assert {batch.server_name for batch in mine} == {row["server_name"]}
            assert sum(batch.rows for batch in mine) == row["rows"]


def test_the_summary(table: InputTable, tmp_path: Path) -> None:
    summary = run(table, tmp_path / "urls")
    rows = [row for batch in table.batches() for row in batch.select(["server_name", "reject"]).to_pylist()]
    servers = Counter(row["server_name"] for row in rows if row["reject"] is None)
    rejected = Counter(row["reject"].partition(":")[0] for row in rows if row["reject"] is not None)
    assert summary.rejected == rejected
    assert set(rejected) == {"empty", "bad_scheme", "credentials", "null_url"}
    assert (summary.rows, summary.servers) == (ROWS, len(servers))
    assert summary.largest == sorted(servers.items(), key=lambda item: (-item[1], item[0]))[:10]
    batches = refs(tmp_path / "urls")
    assert summary.batches == len(batches)
    assert sum(batch.rows for batch, _ in batches) == ROWS


def test_callers_are_asked_once_per_server(table: InputTable, tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    def count(server: str) -> str:
        asked[server] += 1
        return server

    summary = run(table, tmp_path / "urls", group_of=count, memory_bytes=1)
    assert set(asked.values()) == {1}
    assert len(asked) == summary.servers


def test_a_server_whose_urls_do_not_repeat_keeps_the_order_of_the_input(table: InputTable, tmp_path: Path) -> None:
    run(table, tmp_path / "urls")
    rows = ds.dataset(sorted((tmp_path / "urls").glob("urls-*"))).to_table(columns=["server_name", "row_number"])
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows.to_pylist():
        numbers[str(row["server_name"])].append(row["row_number"])
    in_order = {server: numbers[server] == sorted(numbers[server]) for server in ("large.org", "repeats.org")}
    assert in_order == {"large.org": True, "repeats.org": False}


def test_a_url_with_very_many_rows_fills_batches_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "MOST_ROWS", 150)
    urls = [f"http://a.org/{row if row % 2 else 'none.png'}" for row in range(800)]
    pq.write_table(pa.table({"identifier": urls}), tmp_path / "in.parquet")
    table = open_input(str(tmp_path / "in.parquet"), {"identifier": "identifier"}, [])
    run(table, tmp_path / "urls")
    reader = BatchReader(tmp_path / "urls")
    found = [
        Counter(reader.read(batch, ["identifier"])["identifier"].to_pylist()) for batch, _ in refs(tmp_path / "urls")
    ]
    reader.close()
    assert sorted(batch["http://a.org/none.png"] for batch in found if "http://a.org/none.png" in batch) == [
        100,
        150,
        150,
    ]
    assert sum(sum(batch.values()) for batch in found) == 800
    assert all(sum(batch.values()) <= 70 for batch in found if len(batch) > 1)


@pytest.mark.parametrize("memory_bytes", [1, 30_000, 120_000], ids=["nothing fits", "a little fits", "half fits"])
def test_output_is_the_same_whatever_fits_into_memory(table: InputTable, tmp_path: Path, memory_bytes: int) -> None:
    assert run(table, tmp_path / "memory").rows == ROWS
    assert run(table, tmp_path / "disk", memory_bytes=memory_bytes).rows == ROWS
    assert contents(tmp_path / "memory") == contents(tmp_path / "disk")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "in", "memory"]


def test_a_table_that_turns_out_larger_than_it_looked(
    table: InputTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(table, tmp_path / "memory")
    monkeypatch.setattr(InputTable, "expected_bytes", lambda *_: 0)
    run(table, tmp_path / "disk", memory_bytes=30_000)
    assert contents(tmp_path / "memory") == contents(tmp_path / "disk")


def test_output_is_the_same_at_every_run(table: InputTable, tmp_path: Path) -> None:
    run(table, tmp_path / "first")
    run(reopened(tmp_path), tmp_path / "second")
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


@pytest.mark.parametrize("urls", [[], ["x", None]], ids=["no rows", "refused rows only"])
def test_tables_without_servers(tmp_path: Path, urls: list[str | None]) -> None:
    pq.write_table(pa.table({"identifier": pa.array(urls, pa.string())}), tmp_path / "in.parquet")
    table = open_input(str(tmp_path / "in.parquet"), {"identifier": "identifier"}, [])
    summary = run(table, tmp_path / "urls")
    assert (summary.rows, summary.servers, summary.batches) == (len(urls), 0, bool(urls))
    assert pq.read_table(tmp_path / "urls/urls-00000.parquet").schema.equals(table.schema)
    assert pq.read_table(tmp_path / "urls/batches.parquet").num_rows == bool(urls)
    assert pq.read_table(tmp_path / "urls/servers.parquet").num_rows == 0


def test_progress_grows_to_all_rows(table: InputTable, tmp_path: Path) -> None:
    told: list[PartitionProgress] = []
    run(table, tmp_path / "urls", on_progress=told.append)
    rows = [progress.rows for progress in told]
    assert rows == sorted(rows)
    assert told[-1] == PartitionProgress(ROWS, ROWS)
    assert {progress.total for progress in told} == {ROWS}, "Parquet tells its rows beforehand"
    assert len(set(rows)) > 5


@pytest.mark.parametrize("memory_bytes", [1, 1 << 30], ids=["disk", "memory"])
def test_an_interruption_at_any_step_leaves_nothing(table: InputTable, tmp_path: Path, memory_bytes: int) -> None:
    never = Mock(return_value=False)
    run(table, tmp_path / "whole", memory_bytes=memory_bytes, should_stop=never)
    assert never.call_count > 10
    for stop_at in range(0, never.call_count, 3):
        with pytest.raises(Interrupted):
            run(table, tmp_path / "urls", memory_bytes=memory_bytes, should_stop=true_from(stop_at))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "whole"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("partition")]


def true_from(call: int) -> Callable[[], bool]:
    """A function that is true from its n-th call on, counted from 0."""
    answers = chain(repeat(False, call), repeat(True))
    return lambda: next(answers)


def test_leftovers_are_removed_and_an_older_folder_replaced(table: InputTable, tmp_path: Path) -> None:
    for name in (".urls.partial", ".urls.replaced", "urls"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").touch()
    run(table, tmp_path / "urls")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "urls"]
    assert not (tmp_path / "urls/old").exists()


def test_a_failed_write_leaves_nothing(table: InputTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "os_write", full)
    with pytest.raises(StorageError, match="No space left"):
        run(table, tmp_path / "urls")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_input_that_changes_between_the_passes(
    table: InputTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[bool] = []
    whole = InputTable.raw

    def changing(self: InputTable, *, urls_only: bool = False, joined: bool = False) -> Iterator[Any]:
        passes.append(urls_only)
        rows = list(whole(self, urls_only=urls_only, joined=joined))
        return iter(rows if len(passes) < 3 else rows[:-1])

    monkeypatch.setattr(InputTable, "raw", changing)
    with pytest.raises(InputError, match="changed while it was read"):
        run(table, tmp_path / "urls", memory_bytes=1)
    assert passes == [False, True, False]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_reader_gives_columns_in_the_order_asked(table: InputTable, tmp_path: Path) -> None:
    run(table, tmp_path / "urls")
    reader = BatchReader(tmp_path / "urls")
    batch = refs(tmp_path / "urls")[3][0]
    rows = reader.read(batch, ["identifier", "row_number"])
    assert rows.column_names == ["identifier", "row_number"]
    assert rows.num_rows == batch.rows
    reader.close()
    assert reader.read(batch, ["row_number"]).equals(rows.select(["row_number"]))
    reader.close()


def test_two_threads_may_read(table: InputTable, tmp_path: Path) -> None:
    run(table, tmp_path / "urls")
    reader = BatchReader(tmp_path / "urls")
    batches = [batch for batch, _ in refs(tmp_path / "urls")]
    expected = [reader.read(batch, ["row_number"]) for batch in batches]
    matches: list[bool] = []

    def read_all(step: int) -> None:
        numbers = range(len(batches))[::step]
        read = [reader.read(batches[number], ["row_number"]) for number in numbers]
        matches.extend(bool(rows.equals(expected[number])) for rows, number in zip(read, numbers, strict=True))

    threads = [threading.Thread(target=read_all, args=(step,)) for step in (1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert matches == [True] * (2 * len(batches))
    reader.close()


def test_a_batch_that_is_not_there(table: InputTable, tmp_path: Path) -> None:
    run(table, tmp_path / "urls")
    reader = BatchReader(tmp_path / "urls")
    batch = refs(tmp_path / "urls")[0][0]

    def changed(**fields: Any) -> BatchRef:
        return BatchRef(**{name: getattr(batch, name) for name in BatchRef.__struct_fields__} | fields)

    for wrong in (changed(file="absent.parquet"), changed(row_group=999), changed(offset=99_999)):
        with pytest.raises(OutputError, match=wrong.file):
            reader.read(wrong)
    with pytest.raises(OutputError, match="absent_column"):
        reader.read(batch, ["absent_column"])
    reader.close()
