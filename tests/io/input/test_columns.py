"""Columns that are made of others, row by row: templates, paths, items, relative URLs, numbers of rows."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.config.row_filter import parse_filter
from ddmpi.errors import InputError
from ddmpi.io.input.items import taken
from ddmpi.io.input.table import open_input
from ddmpi.io.input.uuids import item_uuids
from tests.io.input.test_made_columns import opened, rows_of, urls_and, write_json_lines


def parquet(folder: Path, file: str = "in.parquet", /, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / file)
    return folder / file


def urls(path: Path, identifier: object, **keys: Any) -> list[str | None]:
    return [row["identifier"] for row in rows_of(path, columns={"identifier": identifier}, **keys)]


# ---- templates


def test_values_stand_in_a_template_as_they_are(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        id=pa.array([1, 2, 3]),
        big=pa.array([123456789012.0, 1.5, 2.0]),
        name=pa.array(["a b", "ü/x", "%20"]).dictionary_encode(),
        day=pa.array([0, 1, 2], pa.date32()),
    )
    assert urls(path, "http://a.org/{id}/{big}/{name}?d={day}&{{x}}") == [
        "http://a.org/1/123456789012/a b?d=1970-01-01&{x}",
        "http://a.org/2/1.5/ü/x?d=1970-01-02&{x}",
        "http://a.org/3/2/%20?d=1970-01-03&{x}",
    ]


def test_a_template_without_a_value_is_refused_by_the_name_of_the_column(tmp_path: Path) -> None:
    path = parquet(tmp_path, a=["1", None, "3", ""], b=["x", "y", None, "z"])
    rows = rows_of(path, columns={"identifier": "http://a.org/{a}.{b}"})
    assert urls_and(rows, "reject") == [
        ("http://a.org/1.x", None),
        (None, "null_url: a has no value"),
        (None, "null_url: b has no value"),
        (None, "null_url: a has no value"),
    ]


def test_a_column_of_the_name_is_preferred_to_what_the_name_means(tmp_path: Path) -> None:
    names = {"images[].x": ["http://a.org/1"], "{id}": ["http://a.org/2"], "a.b": ["http://a.org/3"]}
    path = parquet(tmp_path, **names, id=["no"], a=[{"b": "no"}])
    for name, (url,) in names.items():
        (row,) = rows_of(path, columns={"identifier": name})
        assert row["identifier"] == url
        assert row.get("item_number") == (0 if name == "images[].x" else None)
    assert urls(path, "{a.b}") == ["http://a.org/3"]


def test_other_columns_are_made_as_well(tmp_path: Path) -> None:
    path = parquet(tmp_path, id=[7, 8], url=["http://a.org/1", None], other=["x", "http://a.org/2"])
    rows = rows_of(
        path,
        columns={
            "identifier": ["{url}?big", "other"],
            "source_id": "photo-{id}",
            "license": {"value": "CC0"},
            "title": ["url", "other"],
        },
        keep_columns={"both": "{id}/{other}", "fixed": {"value": "x"}, "n": "id"},
    )
    assert urls_and(rows, "source_id", "license", "title", "both", "fixed", "n") == [
        ("http://a.org/1?big", "photo-7", "CC0", "http://a.org/1", "7/x", "x", 7),
        ("http://a.org/2", "photo-8", "CC0", "http://a.org/2", "8/http://a.org/2", "x", 8),
    ]


def test_broken_text_in_a_template_refuses_its_row(tmp_path: Path) -> None:
    path = parquet(tmp_path, name=pa.array([b"a", b"\xff"]))
    rows = rows_of(path, columns={"identifier": "http://a.org/{name}"})
    assert [row["reject"] for row in rows] == [None, "bad_encoding: not UTF-8"]


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("http://a.org/{nam}", r"no column nam \(did you mean name\?\)"),
        ("http://a.org/{name", "columns.identifier: no column .*, and not a template such as"),
        ("http://a.org/{{name}}", "names no column"),
        ("media.ur", r"media\.ur: no field ur \(did you mean url\?\); found: url"),
        ("name[]", "must be text|no list|no JSON"),
        (["name", "absent"], "no column absent"),
        ({"column": "n", "split": "|"}, "is no text"),
        ("http://a.org/{media}", "has no text form"),
    ],
    ids=str,
)
def test_what_can_mean_nothing_is_told(tmp_path: Path, identifier: object, message: str) -> None:
    path = parquet(tmp_path, name=["a"], n=[1], media=[{"url": "x"}])
    if identifier == "name[]":  # any text may be JSON: its rows are refused
        (row,) = rows_of(path, columns={"identifier": identifier})
        assert row["reject"] == "null_url: name[]: the cell is no JSON array or object"
        return
    with pytest.raises(InputError, match=message):
        opened(path, columns={"identifier": identifier})


# ---- items


def test_lists_of_every_kind(tmp_path: Path) -> None:
    pairs = [["http://a.org/1", "http://a.org/2"], None, ["http://a.org/3", None]]
    for kind in (pa.list_(pa.string()), pa.large_list(pa.string()), pa.list_(pa.string(), 2)):
        path = parquet(tmp_path, u=pa.array(pairs, kind))
        assert urls(path, "u[]") == ["http://a.org/1", "http://a.org/2", None, "http://a.org/3", None]
    maps = pa.array([[("k", "http://a.org/1")], None, []], pa.map_(pa.string(), pa.string()))
    assert urls(parquet(tmp_path, u=maps), "u[]") == ["http://a.org/1", None, None]
    assert urls(parquet(tmp_path, u=pa.array([["1", "2"], []])), "http://a.org/{u[]}.jpg") == [
        "http://a.org/1.jpg", "http://a.org/2.jpg", None,
    ]  # fmt: skip


def test_json_in_a_cell(tmp_path: Path) -> None:
    cells = ['["http://a.org/1", "http://a.org/2"]', '{"a": "http://a.org/3"}', "[]", "no JSON", None]
    rows = rows_of(parquet(tmp_path, u=cells, n=range(5)), columns={"identifier": "u[]", "source_id": "n"})
    told = "null_url: u[]: the cell is no JSON array or object"
    assert urls_and(rows, "source_id", "item_number", "reject") == [
        ("http://a.org/1", "0", 0, None),
        ("http://a.org/2", "0", 1, None),
        ("http://a.org/3", "1", 0, None),
        (None, "2", 0, "null_url"),
        (None, "3", 0, told),
        (None, "4", 0, "null_url"),
    ]
    deep = ['{"m": {"images": [{"url": "http://a.org/1", "w": 5}, {"w": 6}]}}', "{}"]
    rows = rows_of(
        parquet(tmp_path, d=deep), columns={"identifier": "d.m.images[].url"}, keep_columns={"w": "d.m.images[].w"}
    )
    assert urls_and(rows, "w") == [("http://a.org/1", "5"), (None, "6"), (None, None)]


def test_structs_in_json_lines(tmp_path: Path) -> None:
    path = write_json_lines(
        tmp_path / "in.jsonl",
        [
            {"m": {"k": [{"u": ["http://a.org/1", "http://a.org/2"]}, {"u": []}, {"u": ["http://a.org/3"]}]}},
            {"m": {"k": []}},
            {"m": None},
        ],
    )
    assert urls(path, "m.k[].u[]") == ["http://a.org/1", "http://a.org/2", "http://a.org/3", None, None]
    path = write_json_lines(
        tmp_path / "objects.jsonl",
        [{"sizes": {"s": {"u": "http://a.org/1"}}}, {"sizes": {"l": {"u": "http://a.org/2"}}}],
    )
    assert urls(path, "sizes[].u") == ["http://a.org/1", "http://a.org/2"]


def test_parts_of_a_text(tmp_path: Path) -> None:
    cells = ["http://a.org/1|http://a.org/2", " http://a.org/3 |", "", "|", None, "http://a.org/4"]
    assert urls(parquet(tmp_path, u=cells), {"column": "u", "split": "|"}) == [
        "http://a.org/1", "http://a.org/2", "http://a.org/3", None, None, None, "http://a.org/4",
    ]  # fmt: skip
    path = tmp_path / "in.csv"
    path.write_text('u,t\n"http://a.org/1;http://a.org/2",x\n', encoding="utf-8")
    rows = rows_of(path, columns={"identifier": {"column": "u", "split": ";"}, "title": "t"})
    assert urls_and(rows, "title") == [("http://a.org/1", "x"), ("http://a.org/2", "x")]


def test_rows_are_made_of_one_list(tmp_path: Path) -> None:
    path = parquet(tmp_path, a=[["http://a.org/1"]], b=[["x"]], url=["http://a.org/2"])
    with pytest.raises(InputError, match=r"columns.title: b\[\]: rows are made of one list, and .* has a\[\]"):
        opened(path, columns={"identifier": "a[]", "title": "b[]"})
    with pytest.raises(InputError, match=r"keep_columns.b: b\[\]: only columns.identifier makes rows"):
        opened(path, columns={"identifier": "url"}, keep_columns={"b": "b[]"})


def test_the_filter_sees_rows_and_numbers_count_items(tmp_path: Path) -> None:
    lists = [[f"http://a.org/{row}-{item}" for item in range(row % 4)] for row in range(40)]
    path = parquet(tmp_path, u=lists, n=range(40))
    every = rows_of(path, columns={"identifier": "u[]"}, keep_columns=["n"])
    some = rows_of(path, columns={"identifier": "u[]"}, keep_columns=["n"], filter="n >= 7 and n != 9")
    assert some == [row for row in every if row["n"] >= 7 and row["n"] != 9]
    table = open_input(str(path), {"identifier": "u[]"}, ["n"], parse_filter("n >= 7"))
    assert sum(raw.dropped + len(raw.row_numbers) for raw in table.raw()) == len(every)
    assert table.rows is None


@pytest.mark.parametrize("start", [0, 1, 5, 30, 57, 58])
def test_rows_after_some_are_the_same_rows(tmp_path: Path, start: int) -> None:
    lists = [[f"http://a.org/{row}-{item}" for item in range(row % 4)] for row in range(34)]
    for part in range(2):
        parquet(tmp_path, f"{part}.parquet", u=lists[part * 17 : part * 17 + 17])
    table = opened(f"{tmp_path}/*.parquet", columns={"identifier": "u[]"})
    every = [row for batch in table.batches() for row in batch.to_pylist()]
    assert len(every) == 58
    assert [row for batch in table.after(start).batches() for row in batch.to_pylist()] == every[start:]


def test_a_long_list_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path, u=[[f"http://a.org/{n}" for n in range(1000)], ["http://b.org/"]], t=["x" * 100, "y"])
    whole = rows_of(path, columns={"identifier": "u[]", "title": "t"})
    monkeypatch.setattr("ddmpi.io.input.columns.BATCH_BYTES", 5000)
    table = opened(path, columns={"identifier": "u[]", "title": "t"})
    pieces = list(table.batches())
    assert len(pieces) > 5
    assert [row for piece in pieces for row in piece.to_pylist()] == whole
    ends = [raw.end for raw in table.raw()]
    assert ends == sorted(ends)
    assert ends[-1] == 1001


def test_values_side_by_side_are_not_copied() -> None:
    values: Any = pa.array([f"value {number}" for number in range(5)])
    for places in ([0, 1, 2, 3, 4], [2, 3, 4]):
        side_by_side = taken(values, np.array(places))
        assert side_by_side.to_pylist() == [f"value {place}" for place in places]
        assert side_by_side.buffers()[2].address == values.buffers()[2].address
    for places in ([-1, 0, 1], [0, -1, 2], [4, 3], [1, 1], [0, 2], [-1], []):
        expected = [None if place < 0 else f"value {place}" for place in places]
        assert taken(values, np.array(places, np.int64)).to_pylist() == expected


def test_uuids_of_items_depend_on_no_neighbor(tmp_path: Path) -> None:
    rows = np.repeat(np.arange(6), [1, 3, 1, 2, 4, 1])
    numbers: Any = pa.array(np.array([0, 0, 1, 2, 0, 0, 1, 0, 1, 2, 3, 0], np.int32))
    texts: Any = pa.array(["a", "b", "b", None, "e", "f"])
    own = texts.take(pa.array(rows))
    places: Any = pa.array(np.arange(7, 19))
    whole: Any = item_uuids(own, numbers, places)
    assert [text is None for text in whole.to_pylist()] == [row == 3 for row in rows.tolist()]
    rng = np.random.default_rng(1)
    for _ in range(50):
        some: Any = pa.array(rng.permutation(12)[: rng.integers(1, 13)])
        assert item_uuids(own.take(some), numbers.take(some), places.take(some)) == whole.take(some)

    # A uuid that many rows have is one that the file tells to repeat.
    many = parquet(tmp_path, u=[["http://a.org/1", "http://a.org/2"]] * 20_000, uuid=["same"] * 20_000)
    uuids = [row["uuid"] for row in rows_of(many, columns={"identifier": "u[]"})]
    assert uuids[::2] == ["same"] * 20_000
    assert len({*uuids}) == 20_001


def test_items_have_uuids_of_their_own(tmp_path: Path) -> None:
    def uuids(lists: list[list[str]], *ids: str | None, **keys: Any) -> list[str]:
        path = parquet(tmp_path, u=lists, uuid=pa.array(ids, pa.string()))
        return [row["uuid"] for row in rows_of(path, columns={"identifier": "u[]", **keys})]

    first, second, third = uuids([["http://a.org/1", "http://a.org/2", "http://a.org/1"]], "row-1")
    assert first == "row-1"
    assert len({first, second, third}) == 3
    # These are part of the format: results of earlier runs refer to them.
    assert second == ITEM_UUID
    assert uuids([["http://x.org/", "http://a.org/2"], ["http://a.org/1"] * 2], "row-1", "row-2")[:3] == [
        "row-1", second, "row-2",
    ]  # fmt: skip
    derived = uuids([["http://a.org/1"] * 3, ["http://a.org/1"]], None, None)
    assert len(set(derived)) == 4
    own = write_json_lines(tmp_path / "in.jsonl", [{"u": [{"id": "a", "url": "x"}, {"id": "b", "url": "x"}]}])
    rows = rows_of(own, columns={"identifier": "u[].url", "uuid": "u[].id"})
    assert [row["uuid"] for row in rows] == ["a", "b"]


ITEM_UUID = "dd1ffe78-ed2f-83e9-8194-4672d35be193"


def test_relative_urls_in_lists(tmp_path: Path) -> None:
    path = parquet(tmp_path, u=[["a.jpg", "/b.jpg", "http://c.org/c.jpg", "", None]])
    assert urls(path, "u[]", base_url="http://d.org/x/y") == [
        "http://d.org/x/a.jpg", "http://d.org/b.jpg", "http://c.org/c.jpg", "", None,
    ]  # fmt: skip


CELLS = st.lists(st.none() | st.sampled_from(["", " ", "a", "http://a.org/1", "ü"]), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | CELLS, max_size=12), st.integers(0, 12))
def test_no_row_is_lost_in_whatever_form_the_list_is(lists: list[list[str | None] | None], start: int) -> None:
    expected = [(url, item) for row in lists for item, url in enumerate(row or [None])]
    for values in (pa.array(lists, pa.list_(pa.string())), pa.array([json.dumps(row) for row in lists], pa.string())):
        with tempfile.TemporaryDirectory() as folder:
            table = opened(parquet(Path(folder), u=values), columns={"identifier": "u[]"})
            made = [row for batch in table.batches() for row in batch.to_pylist()]
            later = [row for batch in table.after(start).batches() for row in batch.to_pylist()]
        assert urls_and(made, "item_number") == expected
        assert [row["row_number"] for row in made] == list(range(len(expected)))
        assert later == made[start:]


def test_the_memory_that_items_take_is_expected(tmp_path: Path) -> None:
    items = [[f"http://a.org/{row}-{item}" for item in range(50)] for row in range(200)]
    table = opened(parquet(tmp_path, u=items, t=["x" * 500] * 200), columns={"identifier": "u[]", "title": "t"})
    expected = table.expected_bytes(table.sample())
    assert expected > 50 * 200 * 20
    assert expected < 3 * sum(raw.make().nbytes for raw in table.raw())
