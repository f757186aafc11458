"""Markers and parts of batches: what cannot be read decides nothing, and no folder is listed in vain."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ddmpi.errors import StorageError
from ddmpi.io.folder.disk_errors import names_in
from ddmpi.io.folder.layout import Layout, part_name
from ddmpi.io.folder.markers import (
    BatchState,
    Marker,
    parts_of,
    read_completed,
    remove_completed,
    scan,
    write_completed,
)
from tests.io.result_data import make_batch, touch_part


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def test_markers_round_trip_and_go(layout: Layout) -> None:
    batch = make_batch(3)
    counts = Marker(10, 7, 3, {"dns": 2, "timeout": 1})
    assert read_completed(layout, batch) is None
    write_completed(layout, batch, counts)
    assert read_completed(layout, batch) == counts
    remove_completed(layout, batch)
    remove_completed(layout, batch)
    assert read_completed(layout, batch) is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"rows": 3}', b'{"rows":3,"successes":1,"errors":1}', b"\x00\xff"])
def test_a_marker_that_says_nothing_sound_is_none(layout: Layout, content: bytes) -> None:
    batch = make_batch()
    write_completed(layout, batch, Marker(1, 1, 0))
    touch_part(layout, part_name("errors", 1, 0, 0), batch.server_name, batch.partition_id)
    layout.completed(batch.server_name, batch.partition_id).write_bytes(content)
    assert read_completed(layout, batch) is None
    (state,) = scan(layout, [batch])
    assert state.marker is None
    assert len(state.parts) == 1


def test_parts_are_listed_oldest_epoch_first(layout: Layout) -> None:
    batch = make_batch()
    names = [
        part_name("successes", 2, 0, 0),
        part_name("successes", 10, 0, 3),
        part_name("successes", 12345, 0, 0),
        part_name("errors", 1, 1, 0),
    ]
    for name in (*reversed(names), "successes-e0001-r00000-0000.parquet.tmp", "_SUCCESS"):
        touch_part(layout, name, batch.server_name, batch.partition_id)
    found = parts_of(layout, batch)
    assert [path.rpartition("/")[2] for path in found] == names
    assert all((layout.root / path).exists() for path in found)


def test_scan_tells_completed_begun_and_untouched_batches_apart(layout: Layout) -> None:
    batches = [make_batch(i) for i in range(4)]
    write_completed(layout, batches[0], Marker(100, 90, 10))
    touch_part(layout, part_name("successes", 1, 0, 0), batches[0].server_name, 0)
    touch_part(layout, part_name("successes", 1, 0, 1), batches[2].server_name, 2)
    touch_part(layout, part_name("errors", 1, 0, 2), batches[2].server_name, 2)
    states = scan(layout, iter(batches))
    assert states[0] == BatchState(0, Marker(100, 90, 10))
    assert states[1] == BatchState(1, None)
    assert states[2] == BatchState(2, None, parts_of(layout, batches[2]))
    assert len(states[2].parts) == 2
    assert states[3] == BatchState(3, None)


def test_scan_of_a_new_folder_lists_each_tree_once(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []

    def recorded(folder: Path) -> list[str]:
        listed.append(folder)
        return names_in(folder)

    monkeypatch.setattr("ddmpi.io.folder.markers.names_in", recorded)
    states = scan(layout, [make_batch(i) for i in range(1000)])
    assert len(states) == 1000
    assert listed == [layout.batches, layout.images, layout.errors, layout.checks]


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_an_empty_one(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(folder: Path) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("os.scandir", stale)
    with pytest.raises(StorageError, match="cannot list"):
        scan(layout, [])
