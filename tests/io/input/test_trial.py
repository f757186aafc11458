"""Which rows a trial takes: the first, or the same random ones at every start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.config.row_filter import parse_filter
from ddmpi.errors import Interrupted
from ddmpi.io.input.table import InputTable, open_input
from ddmpi.io.input.trial import first_rows, random_rows

ROWS = 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows as two Parquet files, in many row groups, and as one CSV file."""
    folder = tmp_path_factory.mktemp("trial")
    table = pa.table({"identifier": [f"https://a.example/{n}.jpg" for n in range(ROWS)], "n": range(ROWS)})
    (folder / "parquet").mkdir()
    pq.write_table(table.slice(0, 12_000), folder / "parquet" / "1.parquet", row_group_size=1000)
    pq.write_table(table.slice(12_000), folder / "parquet" / "2.parquet")
    lines = [f"https://a.example/{n}.jpg,{n}" for n in range(ROWS)]
    (folder / "all.csv").write_text("\n".join(["identifier,n", *lines]) + "\n")
    return folder


def opened(folder: Path, kind: str = "parquet", condition: str | None = None, keep: Sequence[str] = ()) -> InputTable:
    path = folder / "parquet" if kind == "parquet" else folder / "all.csv"
    return open_input(str(path), {}, keep, None if condition is None else parse_filter(condition))


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_the_first_rows_are_the_first_that_the_filter_takes(folder: Path, kind: str) -> None:
    assert first_rows(opened(folder, kind), 7).tolist() == list(range(7))
    assert len(first_rows(opened(folder, kind), ROWS + 5)) == ROWS
    late = first_rows(opened(folder, kind, 'ends_with(identifier, "99.jpg")'), 3)
    assert late.tolist() == [99, 199, 299]


def test_random_rows_are_those_of_the_seed_however_the_table_is_stored(folder: Path) -> None:
    chosen = random_rows(opened(folder), 500, seed=1)
    assert len(np.unique(chosen)) == 500
    assert (np.diff(chosen) > 0).all()
    assert chosen.tolist() == random_rows(opened(folder, "csv"), 500, seed=1).tolist()
    assert chosen.tolist() != random_rows(opened(folder), 500, seed=2).tolist()
    assert random_rows(opened(folder), ROWS + 1, seed=1).tolist() == list(range(ROWS))


def test_random_rows_are_from_all_over_the_table_and_only_those_of_the_filter(folder: Path) -> None:
    counts, _ = np.histogram(random_rows(opened(folder), 2000, seed=3), bins=10, range=(0, ROWS))
    assert counts.min() > 150
    assert counts.max() < 250
    assert set(random_rows(opened(folder, condition="n >= 15000"), 100, seed=3) >= 15_000) == {True}


def test_a_table_of_chosen_rows_has_these_with_their_numbers_and_values(folder: Path) -> None:
    chosen = np.array([0, 11_999, 12_000, 19_999])
    for kind in ("parquet", "csv"):
        table = opened(folder, kind, keep=["n"]).only(chosen)
        rows = pa.Table.from_batches(list(table.batches()))
        assert rows.column("row_number").to_pylist() == chosen.tolist()
        assert [str(n) for n in rows.column("n").to_pylist()] == [str(n) for n in chosen]
        assert rows.column("identifier")[3].as_py() == "https://a.example/19999.jpg"
        assert table.rows == 4
        assert sum(raw.dropped for raw in table.raw()) == 0


def test_of_rows_that_are_made_of_lists_the_elements_are_chosen(tmp_path: Path) -> None:
    lists = [[f"https://a.example/{n}-{item}.jpg" for item in range(n % 4)] for n in range(100)]
    pq.write_table(pa.table({"urls": lists}), tmp_path / "lists.parquet", row_group_size=7)
    table = open_input(str(tmp_path / "lists.parquet"), {"identifier": "urls[]"}, ())
    every = pa.Table.from_batches(list(table.batches())).to_pylist()
    assert len(every) == sum(max(1, n % 4) for n in range(100))
    for chosen in (first_rows(table, 10), random_rows(table, 30, seed=1)):
        rows = pa.Table.from_batches(list(table.only(chosen).batches())).to_pylist()
        assert rows == [every[number] for number in chosen]


def test_choosing_can_be_stopped(folder: Path) -> None:
    with pytest.raises(Interrupted):
        random_rows(opened(folder), 10, 1, lambda: True)
