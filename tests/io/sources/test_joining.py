"""Rows of small files come together, in order and whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.errors import InputError
from ddmpi.io.input.table import open_input
from ddmpi.io.sources.joining import SMALL_ROWS, ReadRows, join_small
from tests.io.input.test_made_columns import opened

FILES = 30


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def joined(*batches: pa.RecordBatch) -> list[ReadRows]:
    return list(join_small(ReadRows(str(number), rows) for number, rows in enumerate(batches)))


def test_small_batches_come_as_one_that_names_their_files() -> None:
    (one,) = joined(batch(a=[1, 2]), batch(a=[3]), batch(a=pa.array([], pa.int64())), batch(a=[None, 4]))
    assert one.rows.to_pydict() == {"a": [1, 2, 3, None, 4]}
    assert one.path == "0 to 3"


def test_large_batches_stay_as_they_are_and_keep_their_place() -> None:
    large = batch(a=range(SMALL_ROWS + 1))
    before, same, after = joined(batch(a=[-2]), batch(a=[-1]), large, batch(a=[7]))
    assert (before.path, same.path, after.path) == ("0 to 1", "2", "3")
    assert same.rows is large


def test_not_too_many_rows_come_at_once() -> None:
    many = joined(*[batch(a=range(SMALL_ROWS))] * 40)
    assert sum(each.rows.num_rows for each in many) == 40 * SMALL_ROWS
    assert max(each.rows.num_rows for each in many) <= 20 * SMALL_ROWS


def test_wide_rows_come_in_smaller_batches() -> None:
    wide = batch(a=["x" * (30 << 20)])
    assert [each.rows.num_rows for each in joined(wide, wide, wide, wide)] == [3, 1]


def test_only_what_has_one_schema_is_joined() -> None:
    found = joined(batch(a=[1]), batch(a=[2]), batch(a=["x"]), batch(b=["y"]), batch(b=["z"]))
    assert [each.rows.to_pydict() for each in found] == [{"a": [1, 2]}, {"a": ["x"]}, {"b": ["y", "z"]}]


def test_rows_without_columns_are_not_lost() -> None:
    empty = batch(a=[1, 2, 3]).select([])
    assert sum(each.rows.num_rows for each in joined(empty, empty)) == 6


def test_no_rows_stay_none() -> None:
    empty = batch(a=pa.array([], pa.int64()))
    assert [each.rows.num_rows for each in joined(empty, empty)] == [0]
    assert joined() == []


def test_each_dictionary_keeps_its_texts() -> None:
    first, second = (pa.array(texts).dictionary_encode() for texts in (["x", "y", "x"], ["y", "z", None]))
    (one,) = joined(batch(a=first), batch(a=second))
    assert one.rows.column("a").to_pylist() == ["x", "y", "x", "y", "z", None]


# ---- tables


def write(folder: Path, kind: str) -> Path:
    """Write small files, each with one bad URL and a title; a further column has numbers, and is not in all."""
    folder.mkdir()
    for number in range(FILES):
        urls = [f"http://h{number % 7}.org/{number}/{row}" for row in range(number % 4 + 1)] + ["no url"]
        rows: list[dict[str, Any]] = [{"identifier": url, "title": "t"} for url in urls]
        for row in rows if number % 2 or kind == "csv" else []:
            row |= {"more": number}
        path = folder / f"{number:02d}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif kind == "csv":
            lines = [",".join(map(str, row.values())) for row in rows]
            path.write_text("\n".join([",".join(rows[0]), *lines, ""]))
        else:
            path.write_text("".join(f"{url}\n" for url in urls))
    return folder


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "txt"])
def test_rows_of_many_small_files_are_the_same_joined_and_file_by_file(tmp_path: Path, kind: str) -> None:
    keep = [] if kind == "txt" else ["more"]
    table = open_input(str(write(tmp_path / kind, kind)), {}, keep)
    by_file, together = list(table.raw()), list(table.raw(joined=True))
    assert len(by_file) == FILES
    assert len(together) == 1
    whole = [pa.Table.from_batches([table.bare(raw).rows for raw in each]) for each in (by_file, together)]
    assert whole[0].to_pylist() == whole[1].to_pylist()
    assert whole[1].column("row_number").to_pylist() == list(range(whole[1].num_rows))


def test_items_filters_and_rows_that_are_known_count_over_all_files(tmp_path: Path) -> None:
    for number in range(FILES):
        lists = [[f"http://h.org/{number}/{row}/{item}" for item in range(row)] for row in range(4)]
        pq.write_table(pa.table({"u": lists, "n": range(4)}), tmp_path / f"{number:02d}.parquet")
    table = opened(tmp_path, columns={"identifier": "u[]"}, filter="n != 1")
    for part in (table, table.after(40), table.only(table.sample().column("row_number").to_numpy())):  # type: ignore[union-attr]
        by_file, together = list(part.raw()), list(part.raw(joined=True))
        assert len(together) == 1
        rows = [[row for raw in each for row in raw.make().to_pylist()] for each in (by_file, together)]
        numbers = [[int(number) for raw in each for number in raw.row_numbers] for each in (by_file, together)]
        assert (rows[0], numbers[0]) == (rows[1], numbers[1])
        assert sum(raw.dropped for raw in by_file) == together[0].dropped


def test_a_value_without_a_place_is_told_with_its_file(tmp_path: Path) -> None:
    large = 2**60 + 1
    lists: list[list[Any]] = [[1.5], [0, large], [2]]
    for number, values in enumerate(lists):
        rows = {"identifier": [f"http://h.org/{value}" for value in values], "n": values}
        pq.write_table(pa.table(rows), tmp_path / f"{number}.parquet")
    table = open_input(str(tmp_path), {}, ["n"])
    with pytest.raises(InputError, match=rf"1\.parquet: .*{large}"):
        list(table.raw(joined=True))
