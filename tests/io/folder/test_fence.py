"""Epochs: they never repeat, and an earlier one can commit no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmpi.errors import StorageError
from ddmpi.io.folder.durable import NewFile, write_atomically
from ddmpi.io.folder.fence import highest_epoch, open_epoch
from ddmpi.io.folder.layout import Layout, part_name
from tests.io.result_data import touch_part


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def test_the_epoch_never_repeats(layout: Layout) -> None:
    assert highest_epoch(layout) == 0
    open_epoch(layout, 4)
    assert highest_epoch(layout) == 4
    open_epoch(layout, 12345)
    assert highest_epoch(layout) == 12345


def test_the_epoch_is_in_the_parts_if_the_temporary_folder_was_deleted(layout: Layout) -> None:
    touch_part(layout, part_name("successes", 2, 0, 0))
    touch_part(layout, part_name("errors", 7, 0, 0), "t", 3)
    touch_part(layout, "errors-e9999-r00000-0000.parquet.bak")
    (layout.images / "README").touch()
    (layout.images / "server_name=s" / "notes").touch()
    assert highest_epoch(layout) == 7


def test_an_orphan_of_an_earlier_epoch_can_commit_no_more(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    open_epoch(layout, 1)
    orphan = NewFile(layout.epoch_temporary(1) / "part")
    orphan.write(b"too late")
    open_epoch(layout, 2)
    with pytest.raises(StorageError, match="ENOENT"):
        orphan.commit(layout.images / "part")
    with pytest.raises(StorageError, match="ENOENT"):
        NewFile(layout.epoch_temporary(1) / "next")
    assert [path.name for path in layout.temporary.iterdir()] == ["e0002"]
    assert not (layout.images / "part").exists()


def test_an_interrupted_cleaning_is_finished_by_the_next_run(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    (layout.temporary / "fenced-17-e0001").mkdir(parents=True)
    (layout.temporary / "fenced-17-e0001" / "part").write_bytes(b"x")
    (layout.temporary / "stray").write_bytes(b"x")
    open_epoch(layout, 5)
    assert [path.name for path in layout.temporary.iterdir()] == ["e0005"]


def test_what_a_killed_run_left_unfinished_goes(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    open_epoch(layout, 1)
    NewFile(layout.temporary / "checkpoint.json.0123")
    write_atomically(layout.checkpoint, b"{}", layout.temporary)
    open_epoch(layout, 2)
    assert [path.name for path in layout.temporary.iterdir()] == ["e0002"]
    assert layout.checkpoint.read_bytes() == b"{}"
