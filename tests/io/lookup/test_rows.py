"""``load``: the row of a uuid and its image, while parts come, go and are rewritten."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import ddmpi
from ddmpi.errors import OutputError, StorageError
from ddmpi.io.folder.layout import Layout
from ddmpi.io.lookup import uuid_index
from ddmpi.io.results import damage
from tests.io.result_data import make_answer, make_batch, open_writer, write_outcomes, write_refresh
from tests.whole.faults import Faults


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def test_a_row_comes_with_its_image_and_an_error_without(layout: Layout) -> None:
    write_outcomes(layout, make_batch(0, server_name="a.org:8080"), successes=[0, 2], errors=[1])
    write_outcomes(layout, make_batch(1), successes=range(5))
    row = ddmpi.load(layout.root, "uuid-2")
    assert (row["image"], row["row_number"], row["status"]) == (b"body of row 2 " * 20, 2, 200)
    assert [row[name] for name in ("outcome", "server_name", "partition_id", "epoch")] == [
        "success",
        "a.org:8080",
        0,
        1,
    ]
    error = ddmpi.load(layout.root, "uuid-1")
    assert (error["outcome"], error["error_code"]) == ("error", 404)
    rows = ddmpi.load(layout.root, ["uuid-100004", "uuid-0", "uuid-100004"])
    assert [row["image"] for row in rows] == [b"body of row %d " % n * 20 for n in (4, 0, 4)]
    with pytest.raises(KeyError, match=r"\['uuid-9'\]"):
        ddmpi.load(layout.root, ["uuid-0", "uuid-9"])
    with pytest.raises(OutputError, match="no such folder"):
        ddmpi.load(layout.root / "absent", "uuid-0")


def test_what_came_since_is_found_and_nothing_is_read_twice(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    write_outcomes(layout, make_batch(), successes=[0], errors=[1, 2])
    assert ddmpi.load(layout.root, "uuid-1")["outcome"] == "error"
    written = write_outcomes(layout, make_batch(), successes=[1], errors=[2], epoch=2)
    read = []

    def counted(given: Layout, part: str, columns: list[str]) -> pa.Table:
        read.append(part)
        return damage.read_columns(given, part, columns)

    monkeypatch.setattr(uuid_index, "read_columns", counted)
    assert ddmpi.load(layout.root, "uuid-1")["image"] == b"body of row 1 " * 20
    assert ddmpi.load(layout.root, "uuid-2")["epoch"] == 2
    assert ddmpi.load(layout.root, "uuid-0")["epoch"] == 1
    assert sorted(read) == sorted(part.path for part in written)


def test_a_part_that_went_or_was_rewritten(layout: Layout) -> None:
    """The index names rows that are others by now: it is made anew."""
    (part,) = write_outcomes(layout, make_batch(), successes=[0, 1, 2])
    (other,) = write_outcomes(layout, make_batch(1), successes=[3])
    assert ddmpi.load(layout.root, "uuid-2")["row_number"] == 2
    (again,) = write_outcomes(layout, make_batch(), successes=[1, 2], epoch=2)
    (layout.root / again.path).replace(layout.root / part.path)
    (layout.root / other.path).unlink()
    assert ddmpi.load(layout.root, "uuid-2")["image"] == b"body of row 2 " * 20
    with pytest.raises(KeyError):
        ddmpi.load(layout.root, "uuid-0")
    with pytest.raises(KeyError):
        ddmpi.load(layout.root, "uuid-100003")


def test_a_row_has_the_image_that_it_refers_to(layout: Layout) -> None:
    batch = make_batch()
    writer = open_writer(layout, duplicates="reference")
    writer.success(batch, (0,), make_answer(0, b"own"))
    writer.success(batch, (1, 5, 6), make_answer(1, b"shared"))
    writer.stop()
    assert [ddmpi.load(layout.root, f"uuid-{n}")["image"] for n in (0, 1, 6)] == [b"own", b"shared", b"shared"]


def test_a_folder_that_cannot_be_written_and_an_index_that_cannot_be_read(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_outcomes(layout, make_batch(), successes=[0])
    with monkeypatch.context() as patched:
        Faults(patched, fail_at=1, lasting=True)
        assert ddmpi.load(layout.root, "uuid-0")["row_number"] == 0
        assert ddmpi.load(layout.root, "uuid-0")["row_number"] == 0
    assert not layout.uuid_index.exists()
    layout.uuid_index.write_bytes(b"no index")
    assert ddmpi.load(layout.root, "uuid-0")["row_number"] == 0
    assert uuid_index.known_index(layout) is not None


def test_a_damaged_part_is_told(layout: Layout) -> None:
    (part,) = write_outcomes(layout, make_batch(), successes=[0])
    ddmpi.load(layout.root, "uuid-0")
    (layout.root / part.path).write_bytes(b"not Parquet at all")
    with pytest.raises(StorageError, match="cannot read part"):
        ddmpi.load(layout.root, "uuid-0")


def test_the_newest_file_of_a_row_is_loaded_also_by_an_index_that_is_older(layout: Layout) -> None:
    batch = make_batch()
    write_outcomes(layout, batch, successes=[0, 1, 2])
    write_outcomes(layout, make_batch(1), successes=[0])
    assert ddmpi.load(layout.root, "uuid-0")["epoch"] == 1
    write_refresh(layout, batch, changed=[0], gone=[1])
    rows = ddmpi.load(layout.root, ["uuid-0", "uuid-1", "uuid-100000"])
    assert [(row["outcome"], row["epoch"]) for row in rows] == [("success", 2), ("success", 1), ("success", 1)]
    assert rows[0]["image"] == b"body of row 0 in run 2 " * 20
