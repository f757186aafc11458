"""Parts that are no good any more: how they are told from a disk that fails, and where they go."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ddmpi.errors import StorageError
from ddmpi.io.folder.fence import open_epoch
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.markers import parts_of
from ddmpi.io.results.damage import DamagedPartError, read_columns, set_aside
from ddmpi.io.results.publishing import Publisher
from tests.io.result_data import make_batch, write_outcomes
from tests.io.results.test_publishing import Folder, layout, store

__all__ = ["layout", "store"]  # fixtures

BATCH = make_batch(rows=10)
NUMBERS = ["row_number"]


@pytest.fixture
def part(tmp_path: Path) -> tuple[Layout, str]:
    folder = Layout(tmp_path / "results")
    write_outcomes(folder, BATCH, successes=range(10))
    (found,) = parts_of(folder, BATCH)
    return folder, found


def test_whatever_byte_is_changed_the_numbers_are_right_or_the_part_is_damaged(part: tuple[Layout, str]) -> None:
    folder, name = part
    path = folder.root / name
    whole = path.read_bytes()
    rng, found = random.Random(1), 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            assert read_columns(folder, name, NUMBERS).column("row_number").to_pylist() == list(range(10))
        except DamagedPartError as error:
            assert error.part == name
            found += 1
    assert found > 50


@pytest.mark.parametrize("size_bytes", [0, 5, 100, -3])
def test_a_part_that_was_cut_off_is_damaged(part: tuple[Layout, str], size_bytes: int) -> None:
    folder, name = part
    path = folder.root / name
    path.write_bytes(path.read_bytes()[:size_bytes])
    with pytest.raises(DamagedPartError, match="cannot read part"):
        read_columns(folder, name, NUMBERS)


def test_what_is_not_there_or_cannot_be_read_is_no_damage(part: tuple[Layout, str]) -> None:
    folder, name = part
    (folder.root / name).unlink()
    with pytest.raises(StorageError, match="No such file") as caught:
        read_columns(folder, name, NUMBERS)
    assert not isinstance(caught.value, DamagedPartError)


def test_a_part_is_set_aside_under_its_own_path(part: tuple[Layout, str]) -> None:
    folder, name = part
    data = (folder.root / name).read_bytes()
    set_aside(folder, name, None)
    assert (folder.damaged / name).read_bytes() == data
    assert parts_of(folder, BATCH) == ()


def test_of_a_published_part_the_object_goes_too(layout: Layout, store: Folder) -> None:
    write_outcomes(layout, BATCH, successes=range(10))
    (name,) = parts_of(layout, BATCH)
    publisher = Publisher(layout, store, 1)
    open_epoch(layout, 1)
    publisher.publish(name, (layout.root / name).stat().st_size)
    assert store.size(name) is not None
    set_aside(layout, name, publisher)
    assert store.size(name) is None
    write_outcomes(layout, BATCH, successes=range(10), epoch=2)
    (name,) = parts_of(layout, BATCH)
    set_aside(layout, name, publisher)  # one that was never uploaded
    assert (layout.damaged / name).exists()
