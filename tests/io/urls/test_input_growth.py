"""An input that has grown: only what is new is added, and only where the rest is proved to be unchanged."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.errors import Interrupted, OutputError
from ddmpi.io.folder.layout import Layout
from ddmpi.io.input.table import InputTable, open_input
from ddmpi.io.urls.batch_table import BatchTable
from ddmpi.io.urls.index import UrlsIndex, read_index
from ddmpi.io.urls.input_growth import digest_rows, known_rows
from ddmpi.io.urls.writer import partition_input

COLUMNS = {"identifier": "identifier", "title": "title"}
START = [f"http://s{row % 5}.org/{row}" for row in range(60)] + ["not a url", "http://small.org/1"]


def opened(path: Path) -> InputTable:
    return open_input(str(path), COLUMNS, [])


def write(path: Path, urls: list[str], **columns: list[str | None]) -> None:
    pq.write_table(pa.table({"identifier": urls, **columns}), path)


def clustered(table: InputTable, folder: Path, earlier: UrlsIndex | None = None) -> UrlsIndex:
    target = folder if earlier is None else earlier.next_addition
    partition_input(table, target, batch_size=10, small_rows=6, earlier=earlier)
    return read_index(folder)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with one input file."""
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.parquet", START)
    return folder


@pytest.mark.parametrize("how", ["as it was", "in two files", "with rows after it", "in another format"])
def test_the_same_rows_are_known_whatever_the_files(data: Path, tmp_path: Path, how: str) -> None:
    index = clustered(opened(data), tmp_path / "urls")
    if how == "in two files":
        write(data / "a.parquet", START[:7])
        write(data / "b.parquet", START[7:])
    elif how == "with rows after it":
        write(data / "a.parquet", [*START, "http://new.org/1"])
    elif how == "in another format":
        (data / "a.parquet").unlink()
        (data / "a.csv.gz").write_bytes(gzip.compress("\n".join(["identifier", *START]).encode()))
    assert known_rows(opened(data), index) == len(START)


@pytest.mark.parametrize(
    ("urls", "complaint"),
    [
        pytest.param(START[:-1], "it has 61 rows, and had 62", id="a row less"),
        pytest.param(["http://new.org/1", *START], "row 0 ", id="a row before the first"),
        pytest.param([*START[:7], "http://s2.org/x", *START[8:]], "row 7 ", id="another URL"),
        pytest.param([*START[:7], START[8], START[7], *START[9:]], "row 7 ", id="two rows exchanged"),
        pytest.param([*START[:60], "still no url", START[61]], "row 60 ", id="another refused URL"),
    ],
)
def test_rows_that_are_not_the_same_are_named(data: Path, tmp_path: Path, urls: list[str], complaint: str) -> None:
    index = clustered(opened(data), tmp_path / "urls")
    write(data / "a.parquet", urls)
    with pytest.raises(OutputError, match=re.escape(complaint)):
        known_rows(opened(data), index)


def test_other_columns_count_as_well_as_the_url(data: Path, tmp_path: Path) -> None:
    titles: list[str | None] = [None, "", *(["x" * 10_000] * (len(START) - 2))]
    write(data / "a.parquet", START, title=titles)
    index = clustered(opened(data), tmp_path / "urls")
    assert known_rows(opened(data), index) == len(START)
    for row, title in ((0, ""), (1, None), (5, "x" * 9_999 + "y")):
        write(data / "a.parquet", START, title=[*titles[:row], title, *titles[row + 1 :]])
        with pytest.raises(OutputError, match=f"row {row} "):
            known_rows(opened(data), index)


def test_values_of_every_type_have_a_digest() -> None:
    numbers = pa.array([0, 1])
    values = [pa.array([[1], [2]]), pa.array([b"\xff", b"\xfe"]), pa.array([1.5, None]), pa.array([True, False])]
    for column in values:
        table = pa.table({"row_number": numbers, "kept": column})
        _, digests = digest_rows(table, ["kept"])
        _, same = digest_rows(table, ["kept"])
        _, swapped = digest_rows(pa.table({"row_number": numbers, "kept": column.take(pa.array([1, 0]))}), ["kept"])
        assert digests.tolist() == same.tolist()
        assert digests[0] not in swapped.tolist()


def test_a_stop_while_rows_are_compared_is_obeyed(data: Path, tmp_path: Path) -> None:
    index = clustered(opened(data), tmp_path / "urls")
    with pytest.raises(Interrupted):
        known_rows(opened(data), index, lambda: True)


def test_what_is_new_gets_batches_of_its_own_after_the_old_ones(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "urls"
    before = clustered(opened(data), folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    added = ["http://s0.org/new", "http://new.org/1", "also no url", *(f"http://small.org/{n}" for n in range(2, 30))]
    write(data / "b.parquet", added)
    index = clustered(opened(data).after(len(START)), folder, before)

    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == files
    batches = index.batches.to_pylist()
    assert batches[: before.batches.num_rows] == before.batches.to_pylist()
    assert [batch["batch_id"] for batch in batches] == list(range(len(batches)))
    keys = [(batch["server_name"], batch["partition_id"]) for batch in batches]
    assert len(set(keys)) == len(keys)
    assert ("s0.org", 2) in keys
    assert ("__invalid__", 1) in keys
    assert index.input_rows == len(START) + len(added)
    assert index.additions == 1


def test_a_server_stays_in_its_pace_group(data: Path, tmp_path: Path) -> None:
    # Otherwise two ranks would ask it at once, each with all of its limits.
    folder = tmp_path / "urls"
    before = clustered(opened(data), folder)
    write(
        data / "b.parquet", [f"http://small.org/{n}" for n in range(2, 30)] + ["http://s1.org/n", "http://tiny.org/1"]
    )
    index = clustered(opened(data).after(len(START)), folder, before)
    groups: dict[str, set[str]] = {}
    for batch in index.batches.to_pylist():
        path, rows = folder / batch["file"], (batch["row_group"], batch["offset"], batch["rows"])
        table = pq.ParquetFile(path).read_row_group(rows[0], columns=["server_name"]).slice(rows[1], rows[2])
        for server in set(table.column("server_name").to_pylist()) - {None}:
            groups.setdefault(str(server), set()).add(batch["group"])
    assert groups["small.org"] == {"__many__/0"}
    assert groups["s1.org"] == {"s1.org"}
    assert groups["tiny.org"] == {"__many__/1"}
    assert all(len(found) == 1 for found in groups.values())
    shown = BatchTable(Layout(tmp_path), index).shown_group("__many__/0")
    assert shown == "small.org", "a group of small servers may have several batches then"


def of_lists(path: Path, lists: list[list[str]]) -> InputTable:
    pq.write_table(
        pa.table({"urls": pa.array(lists, pa.list_(pa.string())), "title": [str(row) for row in lists]}), path
    )
    return open_input(str(path), {"identifier": "urls[]", "title": "title"}, [])


LISTS = [[f"http://s{row % 3}.org/{row}-{item}" for item in range(row % 4)] for row in range(40)]
ITEMS = sum(max(1, len(items)) for items in LISTS)


def test_rows_made_of_items_grow_by_whole_rows(tmp_path: Path) -> None:
    index = clustered(of_lists(tmp_path / "in.parquet", LISTS), tmp_path / "urls")
    assert index.input_rows == ITEMS
    more = [*LISTS, ["http://new.org/1", "http://new.org/2"], []]
    grown = of_lists(tmp_path / "in.parquet", more)
    assert known_rows(grown, index) == ITEMS
    added = clustered(grown.after(ITEMS), tmp_path / "urls", index)
    assert added.input_rows == ITEMS + 3
    rows = pa.concat_tables([pq.read_table(file) for file in added.files]).sort_by("row_number")
    assert rows.column("row_number").to_pylist() == list(range(ITEMS + 3))
    assert rows.column("item_number").to_pylist()[-3:] == [0, 1, 0]
    assert rows.column("identifier").to_pylist() == [
        url for items in more for url in [*items, *([] if items else [None])]
    ]


@pytest.mark.parametrize("row", [0, 20, 38])
def test_an_item_more_in_an_old_row_is_a_change(tmp_path: Path, row: int) -> None:
    index = clustered(of_lists(tmp_path / "in.parquet", LISTS), tmp_path / "urls")
    changed = [*LISTS[:row], [*LISTS[row], "http://new.org/1"], *LISTS[row + 1 :]]
    with pytest.raises(OutputError, match="not as before"):
        known_rows(of_lists(tmp_path / "in.parquet", changed), index)
