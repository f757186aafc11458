"""The rows of a batch that are to be fetched, URL by URL."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.core.records import BatchRef, Taken, Validators
from ddmpi.io.folder.layout import Layout
from ddmpi.io.forget.names import FAILURE, Forgotten, write_forgotten
from ddmpi.io.input.table import open_input
from ddmpi.io.urls.batch_reader import BatchReader
from ddmpi.io.urls.loader import BatchRows, Loader
from ddmpi.io.urls.writer import partition_input
from tests.io.result_data import (
    FETCHED_AT,
    Reader,
    make_answer,
    make_batch,
    make_failure,
    open_writer,
    refreshed,
    write_outcomes,
)


def table(urls: list[str]) -> pa.Table:
    servers = [url.split("/")[2] for url in urls]
    return pa.table({"identifier": pa.array(urls, pa.string()), "server_name": pa.array(servers, pa.string())})


def test_rows_with_the_same_url_come_together() -> None:
    urls = ["http://a/1", "http://b/1", "http://a/1", "http://a/2", "http://a/1"]
    rows = BatchRows.of(np.array([2, 3, 5, 7, 8]), table(urls), 0, 1)
    assert rows.left == 3
    taken = rows.take(2)
    assert (len(taken), rows.left) == (2, 1)
    taken += rows.take(2)
    assert sorted(taken) == [
        (2, "http://a/1", "a", (5, 8), (), "", None),
        (3, "http://b/1", "b", (), (), "", None),
        (7, "http://a/2", "a", (), (), "", None),
    ]
    assert (rows.left, rows.take(2)) == (0, [])


def test_rows_with_the_same_url_come_together_only_where_the_rest_is_the_same() -> None:
    b, c, both = ["http://b/1"], ["http://c/1"], ["http://b/1", "http://c/1"]
    mirrors = [b, None, b, c, both, ["http://b/1\xffhttp://c/1"], None, both, b]
    sizes = [1, 1, 1, 1, 1, 1, 1, 1, 2]
    rows = table(["http://a/1"] * 9).append_column("mirrors", pa.array(mirrors, pa.list_(pa.string())))
    rows = rows.append_column("size", pa.array(sizes))
    taken = BatchRows.of(np.arange(9), rows, 0, 1, ("mirrors", "size")).take(9)
    assert {(row, others, found) for row, _, _, others, found, *_ in taken} == {
        (0, (2,), tuple(b)), (1, (6,), ()), (3, (), tuple(c)), (4, (7,), tuple(both)),
        (5, (), ("http://b/1\xffhttp://c/1",)), (8, (), tuple(b)),
    }  # fmt: skip
    sampled = BatchRows.of(np.arange(9), rows, 2, 1, ("mirrors", "size"))
    assert len(sampled.take(9)) == 2


def test_neighbors_in_the_table_are_asked_for_at_different_times_the_same_at_each_start() -> None:
    urls = [f"http://a/{row}" for row in range(1000)]

    def order(seed: int) -> list[int]:
        return [row for row, *_ in BatchRows.of(np.arange(1000), table(urls), 0, seed).take(1000)]

    assert order(1) == order(1) != order(2)
    assert 20 <= sum(row < 300 for row in order(1)[:100]) <= 40, "of the first 300 rows about 30"


@settings(derandomize=True)
@given(st.lists(st.integers(0, 8), max_size=40), st.integers(0, 12), st.integers(1, 5))
def test_every_row_comes_once_and_every_url_once(urls: list[int], most_urls: int, step: int) -> None:
    texts = [f"http://s{url % 2}/{url}" for url in urls]
    rows = BatchRows.of(np.arange(len(urls)) * 2, table(texts), most_urls, 3)
    taken = []
    while rows.left:
        taken += rows.take(step)
    assert len(taken) == min(len(set(urls)), most_urls or len(urls))
    assert len({url for _, url, *_ in taken}) == len(taken)
    for row, url, server, others, *_ in taken:
        assert [row, *others] == [2 * place for place, text in enumerate(texts) if text == url]
        assert server == url.split("/")[2]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("aaab"), st.integers(0, 30)), min_size=1, max_size=150), st.integers(1, 20))
def test_over_all_batches_of_a_table_every_row_comes_once_and_every_url_once(
    rows: list[tuple[str, int]], batch_size: int
) -> None:
    urls = [f"http://{server}.org/{path}" for server, path in rows]
    with TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(pa.table({"identifier": urls}), folder / "in.parquet")
        source = open_input(str(folder / "in.parquet"), {"identifier": "identifier"}, [])
        partition_input(source, folder / "urls", batch_size=batch_size, small_rows=5)
        reader = BatchReader(folder / "urls")
        taken = []
        for it in pq.read_table(folder / "urls/batches.parquet").to_pylist():
            place = (it["batch_id"], it["server_name"], it["partition_id"], it["file"], it["row_group"], it["offset"])
            in_batch = reader.read(BatchRef(*place, it["rows"]))
            assert it["rows"] <= batch_size or len(set(in_batch["identifier"].to_pylist())) == 1
            numbers = in_batch["row_number"].to_pylist()
            loaded = BatchRows.of(np.arange(len(numbers)), in_batch, 0, it["batch_id"])
            taken += [
                (url, [numbers[row] for row in (first, *others)]) for first, url, _, others, *_ in loaded.take(1000)
            ]
        reader.close()
    assert Counter(url for url, _ in taken) == Counter(set(urls))
    assert dict(taken) == {url: [row for row, other in enumerate(urls) if other == url] for url in set(urls)}


class Repeating(Reader):
    """Every other row has the URL of the first row of its kind."""

    def read(self, batch: BatchRef, columns: Sequence[str] | None = None) -> pa.Table:
        rows = super().read(batch, columns)
        if "identifier" not in rows.column_names:
            return rows
        urls = pa.array([f"http://{batch.server_name}/{row % 2}" for row in range(batch.rows)])
        return rows.set_column(rows.schema.get_field_index("identifier"), "identifier", urls)


@pytest.mark.parametrize("sample_urls", [0, 1])
def test_rows_with_an_outcome_are_left_out(tmp_path: Path, sample_urls: int) -> None:
    layout = Layout(tmp_path / "out")
    batch = make_batch(rows=6, server_name="a")
    parts = write_outcomes(layout, batch, successes=[0, 3], errors=[4])
    batch = msgspec.structs.replace(batch, parts=tuple(part.path for part in parts), sample_rows=sample_urls)
    done = threading.Event()
    loader = Loader(layout, Repeating(), 2, done.set)
    loader.load(1, batch)
    assert done.wait(30)
    (loaded,) = loader.take_loaded()
    loader.close()
    taken = loaded.rows.take(10)
    assert len(taken) == (sample_urls or 2)
    assert set(taken) <= {(1, "http://a/1", "a", (5,), (), "", None), (2, "http://a/0", "a", (), (), "", None)}


@pytest.mark.parametrize("sample_urls", [0, 9])
def test_what_was_withdrawn_is_not_asked_for(tmp_path: Path, sample_urls: int) -> None:
    """By its uuid, its URL, or the URL of another row that was withdrawn; samples leave it to the whole batch."""
    layout = Layout(tmp_path / "out")
    batch = make_batch(rows=6, server_name="a")
    parts = tuple(part.path for part in write_outcomes(layout, batch, successes=[3]))
    forgotten = Forgotten(frozenset({"uuid-0", "http://a/1"}), {77: frozenset({"http://a/5", "http://a/3"})})
    write_forgotten(layout.forgotten, forgotten, layout.temporary)
    batch = msgspec.structs.replace(batch, parts=parts, sample_rows=sample_urls)
    done = threading.Event()
    loader = Loader(layout, Reader(), 2, done.set)
    loader.load(1, batch)
    assert done.wait(30)
    (loaded,) = loader.take_loaded()
    loader.close()
    assert sorted(row for row, *_ in loaded.rows.take(10)) == [2, 4]
    assert loaded.refused == ([] if sample_urls else [(row, FAILURE) for row in (0, 1, 5)])


def test_old_files_are_asked_for_again_with_what_is_known_of_them(tmp_path: Path) -> None:
    """Rows with the same URL share a request only if they have the same file, and what was given with it."""
    layout = Layout(tmp_path / "out")
    batch = make_batch(rows=9, server_name="a")
    writer = open_writer(layout)
    bodies = {0: b"one", 2: b"one", 4: b"another", 1: b"odd"}
    for row, body in bodies.items():
        answer = make_answer(row, body)
        answer.etag, answer.last_modified, answer.final_url = "", "Thu" * (row != 1), "http://a/0"
        writer.success(batch, (row,), answer)
    writer.error(batch, (3,), make_failure(), make_answer(3, b""), attempts=1)
    writer.stop()
    known = Validators("http://a/0", "", "Thu")
    expected = {
        (0, "http://a/0", "a", (2,), (), "", known), (4, "http://a/0", "a", (), (), "", known),
        (1, "http://a/1", "a", (), (), "", Validators("http://a/0")), (5, "http://a/1", "a", (7,), (), "", None),
        (6, "http://a/0", "a", (8,), (), "", None),
    }  # fmt: skip
    assert set(loaded_rows(layout, refreshed(layout, batch), 2)) == expected
    assert {row[0] for row in loaded_rows(layout, refreshed(layout, batch), 1)} == {5, 6}, "of this very run"
    assert {row[0] for row in loaded_rows(layout, refreshed(layout, batch, FETCHED_AT), 2)} == {5, 6}, "not as old"


def loaded_rows(layout: Layout, batch: BatchRef, epoch: int) -> list[Taken]:
    done = threading.Event()
    loader = Loader(layout, Repeating(), epoch, done.set)
    loader.load(1, batch)
    assert done.wait(30)
    (loaded,) = loader.take_loaded()
    loader.close()
    return loaded.rows.take(20)


@pytest.mark.parametrize("etag", ["\u00e9", "a\x07b"])
def test_what_no_header_may_hold_is_not_sent(tmp_path: Path, etag: str) -> None:
    layout = Layout(tmp_path / "out")
    batch = make_batch(rows=1, server_name="a")
    writer = open_writer(layout)
    answer = make_answer(0, b"one")
    answer.etag = etag
    writer.success(batch, (0,), answer)
    writer.stop()
    (row,) = loaded_rows(layout, refreshed(layout, batch), 2)
    assert row == (0, "http://a/0", "a", (), (), "", Validators("http://h/0")), "that there is a file is known"
