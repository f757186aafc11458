"""``open_results``: each row with an outcome once, the newest, without a look at bodies nobody asked for."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import ddmpi
from ddmpi.config.config import parse
from ddmpi.core.records import BatchRef
from ddmpi.errors import ConfigError, SetupError, StorageError
from ddmpi.io.folder.layout import Layout
from tests.io.result_data import (
    FETCHED_AT,
    REFRESHED_AT,
    committed,
    first_row_number,
    make_answer,
    make_batch,
    open_writer,
    write_outcomes,
    write_refresh,
)

IS_SUCCESS = pc.field("outcome") == "success"


def outcomes(folder: Path) -> list[tuple[int, str, int]]:
    """(row number, outcome, epoch) of all rows, sorted."""
    table = ddmpi.open_results(folder).to_table(columns=["row_number", "outcome", "epoch"])
    return sorted(zip(*(table.column(i).to_pylist() for i in range(3)), strict=True))


def test_successes_and_errors_are_one_table(tmp_path: Path) -> None:
    batch = make_batch(3, server_name="img.example.org:8080")
    first = first_row_number(batch)
    write_outcomes(Layout(tmp_path), batch, successes=[0, 2], errors=[1])
    dataset = ddmpi.open_results(tmp_path)
    table = dataset.to_table().sort_by("row_number")
    assert table.column("row_number").to_pylist() == [first, first + 1, first + 2]
    assert table.column("outcome").to_pylist() == ["success", "error", "success"]
    assert set(table.column("server_name").to_pylist()) == {"img.example.org:8080"}
    assert set(table.column("partition_id").to_pylist()) == {3}
    assert table.column("error_code").to_pylist() == [None, 404, None]
    assert table.column("image").to_pylist() == [b"body of row 0 " * 20, None, b"body of row 2 " * 20]
    assert dataset.count_rows(filter=IS_SUCCESS) == 2


def test_an_error_that_was_fetched_again_no_longer_counts(tmp_path: Path) -> None:
    batch = make_batch()
    layout = Layout(tmp_path)
    write_outcomes(layout, batch, successes=[0], errors=[1, 2, 3, 4])
    write_outcomes(layout, batch, successes=[1], errors=[2, 3], epoch=2)
    write_outcomes(layout, batch, successes=[2], epoch=3, rank=4)
    assert outcomes(tmp_path) == [
        (0, "success", 1), (1, "success", 2), (2, "success", 3), (3, "error", 2), (4, "error", 1)
    ]  # fmt: skip
    assert ddmpi.open_results(tmp_path).count_rows() == 5


def test_a_row_number_counts_in_its_own_epoch_only(tmp_path: Path) -> None:
    """Of epoch 1 some rows are replaced, of epoch 2 others: none may hide the same numbers of the other epoch."""
    layout = Layout(tmp_path)
    one, other = make_batch(0), make_batch(1, server_name="other.example.org")
    write_outcomes(layout, one, errors=[0, 1])
    write_outcomes(layout, one, errors=[0], epoch=2)
    write_outcomes(layout, one, errors=[0], epoch=3)
    write_outcomes(layout, other, errors=[0, 1], epoch=2)
    assert outcomes(tmp_path) == [(0, "error", 3), (1, "error", 1), (100_000, "error", 2), (100_001, "error", 2)]


def test_a_filter_opens_only_the_files_that_it_needs(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    good, bad = make_batch(0, server_name="a.org"), make_batch(1, server_name="b.org")
    write_outcomes(layout, good, successes=[0, 1], errors=[2])
    (part,) = write_outcomes(layout, bad, successes=[0])
    (tmp_path / part.path).write_bytes(b"not Parquet at all")
    dataset = ddmpi.open_results(tmp_path)
    assert dataset.count_rows(filter=IS_SUCCESS & (pc.field("server_name") == "a.org")) == 2
    assert dataset.count_rows(filter=pc.field("outcome") == "error") == 1
    with pytest.raises(pa.ArrowInvalid, match=r"successes-e0001-r00000"):
        dataset.to_table(columns=["uuid"])


def test_kept_columns_are_there(tmp_path: Path) -> None:
    from tests.io.result_data import Reader  # noqa: PLC0415

    batch: BatchRef = make_batch()
    writer = open_writer(Layout(tmp_path), Reader(extra={"width": pa.int16()}), keep_columns=["width"])
    writer.success(batch, (7,), make_answer(7, b"x"))
    writer.stop()
    assert committed(writer.events())
    assert ddmpi.open_results(tmp_path).to_table(columns=["width"]).to_pydict() == {"width": [7]}


def test_an_empty_or_strange_folder(tmp_path: Path) -> None:
    assert ddmpi.open_results(tmp_path).count_rows() == 0
    for name in ("images/notes.txt", "images/server_name=a/partition_id=x/y.parquet", "errors/server_name=a/z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("not ours")
    assert ddmpi.open_results(tmp_path).count_rows() == 0
    with pytest.raises(SetupError, match="absent: no such folder"):
        ddmpi.open_results(tmp_path / "absent")


def test_the_first_part_is_damaged(tmp_path: Path) -> None:
    (part,) = write_outcomes(Layout(tmp_path), make_batch(), successes=[0])
    (tmp_path / part.path).write_bytes(b"")
    with pytest.raises(StorageError, match="cannot read part"):
        ddmpi.open_results(tmp_path)


def test_the_config_tells_where_the_folders_are(tmp_path: Path) -> None:
    keys = {
        "path_to_input": "urls.csv",
        "path_to_output_folder": str(tmp_path / "out"),
        "output_structure": {"images_folder": "pictures", "errors_folder": "failures"},
    }
    config = parse(keys, "test")
    write_outcomes(Layout(tmp_path / "out", config.output_structure), make_batch(), successes=[0], errors=[1])
    (tmp_path / "config.yaml").write_text(str(keys))
    assert ddmpi.open_results(tmp_path / "out").count_rows() == 0
    assert ddmpi.open_results(config).count_rows() == 2
    assert ddmpi.open_results(keys).count_rows() == 2
    assert ddmpi.open_results(tmp_path / "config.yaml").count_rows() == 2
    with pytest.raises(ConfigError, match="path_to_input: missing"):
        ddmpi.open_results({"path_to_output_folder": "out"})


def test_a_filter_reads_only_the_row_groups_that_it_needs(tmp_path: Path) -> None:
    """Of the columns that Arrow writes, though not of the images that it does not, there are statistics."""
    layout = Layout(tmp_path)
    write_outcomes(layout, make_batch(), successes=[0, 1])
    write_outcomes(layout, make_batch(), successes=[2, 3], epoch=2)
    dataset = ddmpi.open_results(tmp_path)
    for chosen in (
        pc.field("uuid") == "uuid-3",
        pc.field("row_number") > 1,
        pc.field("identifier") > "http://img.example.org:8080/1",
    ):
        fragments = dataset.get_fragments(filter=chosen)
        groups = [len(each.subset(filter=chosen, schema=dataset.schema).row_groups) for each in fragments]
        assert groups == [0, 1]
        assert dataset.to_table(columns=["row_number"], filter=chosen).column(0).to_pylist()[-1] == 3


# ---- refreshes

BATCH = make_batch(rows=10)


def shown_at(folder: Path, at: datetime | str | None) -> dict[int, tuple[str, int]]:
    rows = ddmpi.open_results(folder, at=at).to_table(columns=["row_number", "outcome", "epoch"]).to_pylist()
    assert len({row["row_number"] for row in rows}) == len(rows)
    return {row["row_number"]: (row["outcome"], row["epoch"]) for row in rows}


def test_the_results_of_any_moment_can_be_read(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_outcomes(layout, BATCH, successes=[0, 1, 2], errors=[3])
    write_refresh(layout, BATCH, changed=[0], gone=[1], unchanged=[2])
    write_refresh(layout, BATCH, changed=[0, 2], unchanged=[1], epoch=3, at=REFRESHED_AT + 60)
    then, between = (datetime.fromtimestamp(at, timezone.utc) for at in (FETCHED_AT, REFRESHED_AT + 1))
    first = {0: ("success", 1), 1: ("success", 1), 2: ("success", 1), 3: ("error", 1)}
    assert shown_at(tmp_path, None) == {**first, 0: ("success", 3), 2: ("success", 3)}
    assert shown_at(tmp_path, between) == {**first, 0: ("success", 2)}
    assert shown_at(tmp_path, then.isoformat().replace("+00:00", "Z")) == first
    assert shown_at(tmp_path, then - timedelta(seconds=1)) == {}
    body = ddmpi.open_results(tmp_path, at=between).to_table(filter=pc.field("row_number") == 0)["image"][0].as_py()
    assert body == b"body of row 0 in run 2 " * 20


@pytest.mark.parametrize(
    ("at", "told"),
    [
        pytest.param("2026-11-01", r"has no time zone: .* as in 2026-11-01T00:00:00\+00:00 for UTC", id="no zone"),
        pytest.param("yesterday", "'yesterday' is no moment: write a datetime", id="no moment"),
        pytest.param(datetime(2026, 11, 1), "has no time zone", id="naive"),  # noqa: DTZ001  # that is what is refused
    ],
)
def test_a_moment_without_a_time_zone_is_refused_with_what_to_write(
    tmp_path: Path, at: datetime | str, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        ddmpi.open_results(tmp_path, at=at)


def test_checks_are_those_that_count(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_outcomes(layout, BATCH, successes=[0, 1, 2, 3])
    assert ddmpi.open_checks(tmp_path).count_rows() == 0
    assert "check" in ddmpi.open_checks(tmp_path).schema.names
    write_refresh(layout, BATCH, gone=[0, 1], unchanged=[2])
    write_refresh(layout, BATCH, changed=[0], unchanged=[1], epoch=3)
    rows = ddmpi.open_checks(tmp_path).to_table().sort_by("row_number").to_pylist()
    assert [(row["row_number"], row["check"], row["epoch"], row["outcome"]) for row in rows] == [
        (1, "unchanged", 3, "check"),
        (2, "unchanged", 2, "check"),
    ]
    assert rows[0]["server_name"] == BATCH.server_name
    with pytest.raises(SetupError):
        ddmpi.open_checks(tmp_path / "absent")
