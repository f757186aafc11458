"""What filters and lists of columns do to an input: rows that are left out, and of several columns the first value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.config.row_filter import parse_filter
from ddmpi.errors import InputError
from ddmpi.io.input.table import InputTable, open_input
from ddmpi.io.urls.writer import PartitionProgress, PartitionSummary, partition_input

SAME = {"identifier": "identifier", "source_id": "source_id"}


def rows_of(table: InputTable) -> list[dict[str, Any]]:
    return [row for batch in table.batches() for row in batch.to_pylist()]


def written(tmp_path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


def partitioned(table: InputTable, folder: Path, memory_bytes: int = 1 << 30, **options: Any) -> PartitionSummary:
    return partition_input(table, folder, batch_size=70, small_rows=10, memory_bytes=memory_bytes, **options)


@pytest.mark.parametrize("memory_bytes", [1, 1 << 30], ids=["disk", "memory"])
def test_rows_left_out_are_counted_and_the_others_keep_their_numbers(tmp_path: Path, memory_bytes: int) -> None:
    path = written(
        tmp_path, identifier=[f"http://a.org/{n}" for n in range(900)], n=range(900), kind=["x", "y", None] * 300
    )
    told: list[PartitionProgress] = []
    table = open_input(str(path), SAME, ["kind"], parse_filter('n >= 30 and kind == "y"'))
    summary = partitioned(table, tmp_path / "urls", memory_bytes, on_progress=told.append)
    assert (summary.rows, summary.dropped, summary.batches) == (290, 610, 5)
    rows = pa.concat_tables([pq.read_table(file) for file in sorted((tmp_path / "urls").glob("urls-*.parquet"))])
    assert rows.column("row_number").to_pylist() == list(range(31, 900, 3))
    assert rows.column("identifier").to_pylist() == [f"http://a.org/{n}" for n in range(31, 900, 3)]
    assert set(rows.column("kind").to_pylist()) == {"y"}
    assert told[-1] == PartitionProgress(900, 900)


def test_a_filter_that_keeps_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, identifier=["http://a.org/1", "http://a.org/2"])
    summary = partitioned(open_input(str(path), SAME, [], parse_filter("false")), tmp_path / "urls")
    assert (summary.rows, summary.dropped, summary.batches) == (0, 2, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("absent == 1", r"filter: no column absent; found: identifier, n"),
        ("identifier == 1", r"filter: .* write number\(identifier\) == 1"),
        ("n", r"filter: the filter is no condition, but int64"),
    ],
)
def test_a_filter_that_does_not_fit_the_table_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, identifier=["http://a.org/1"], n=[1])
    with pytest.raises(InputError, match=message):
        open_input(str(path), SAME, [], parse_filter(text))


def test_of_several_columns_the_first_value_counts(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        a=["http://a.org/1", None, None],
        b=pa.array([b"http://b.org/1", b"http://b.org/2", None]),
        n=[None, 2, 3],
        m=["x", "y", None],
    )
    columns = {"identifier": ["absent", "a", "b"], "source_id": ["n", "m"], "title": ["nowhere", "neither"]}
    rows = rows_of(open_input(str(path), columns, ["m"]))
    assert [row["server_name"] for row in rows] == ["a.org", "b.org", None]
    assert [row["source_id"] for row in rows] == ["x", "2", "3"]
    assert [row["title"] for row in rows] == [None] * 3
    assert [row["m"] for row in rows] == ["x", "y", None]
    with pytest.raises(InputError, match=r"no column absent or other; found: a, b, n, m"):
        open_input(str(path), {"identifier": ["absent", "other"]}, [])


def test_broken_text_among_several_columns_refuses_its_row(tmp_path: Path) -> None:
    path = written(tmp_path, a=pa.array([None, b"http://a.org/\xff"]), b=["http://b.org/", "http://b.org/"])
    rows = rows_of(open_input(str(path), {"identifier": ["a", "b"]}, []))
    assert [row["reject"] for row in rows] == [None, "bad_encoding: not UTF-8"]
