"""Checkpoint and markers: damage costs one generation, a kill at any call costs none, and the scan is quick."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddmpi.errors import StorageError
from ddmpi.io import checkpoint as checkpoint_module
from ddmpi.io.checkpoint import (
    BatchCounts,
    BatchState,
    Checkpoint,
    ServerState,
    highest_epoch,
    load,
    parts_of,
    read_completed,
    remove_completed,
    save,
    scan,
    write_completed,
)
from ddmpi.io.durable import open_epoch
from ddmpi.io.layout import Layout, PartKind, part_name
from ddmpi.records import BatchRef
from tests.faults import Faults
from tests.result_data import make_batch

CHECKPOINT = Checkpoint(
    epoch=3,
    saved_at=1_700_000_000.0,
    stages={"partitioned": {"rows": 10, "servers": ["a"]}},
    input_fingerprint="f",
    config_hash="c",
    config_semantic={"batch_size": 10_000, "columns": {"uuid": "id"}},
    servers={"ü.example:80": ServerState(2.5, 1_700_000_060.0, 2, 1, 1e9)},
    counters={"rows": 10**12},
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def at_epoch(epoch: int) -> Checkpoint:
    return Checkpoint(epoch=epoch)


def test_a_checkpoint_round_trips(layout: Layout) -> None:
    save(layout, CHECKPOINT)
    assert load(layout) == (CHECKPOINT, [])


def test_a_new_folder_has_none_and_gives_no_warning(layout: Layout) -> None:
    assert load(layout) == (None, [])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("truncated", "decoded"),
        ("empty", "empty"),
        ("a changed digit", "checksum"),
        ("something else", "decoded"),
        ("no text", "decoded"),
    ],
)
def test_damage_costs_one_generation_and_is_said_loudly(layout: Layout, damage: str, reason: str) -> None:
    save(layout, at_epoch(1))
    save(layout, at_epoch(2))
    sound = layout.checkpoint.read_bytes()
    damaged = {
        "truncated": sound[:-10],
        "empty": b"",
        "a changed digit": sound.replace(b'"epoch":2', b'"epoch":9'),
        "something else": b"[]",
        "no text": b"\xff\xfe",
    }
    layout.checkpoint.write_bytes(damaged[damage])
    found, warnings = load(layout)
    assert found == at_epoch(1)
    assert reason in warnings[0]
    assert "checkpoint.json.previous" in warnings[-1]
    save(layout, at_epoch(3))
    layout.checkpoint.write_bytes(b"")
    assert load(layout)[0] == at_epoch(1), "the damaged one has not become the previous generation"


def test_a_newer_version_is_not_guessed_at(layout: Layout) -> None:
    save(layout, Checkpoint(epoch=1, version=2))
    found, warnings = load(layout)
    assert found is None
    assert "its version is 2, this program knows 1" in warnings[0]
    assert "read from the parts" in warnings[1]


def test_two_damaged_generations_are_no_silent_start_from_nothing(layout: Layout) -> None:
    save(layout, at_epoch(1))
    save(layout, at_epoch(2))
    layout.checkpoint.write_bytes(b"x")
    layout.previous_checkpoint.write_bytes(b"y")
    found, warnings = load(layout)
    assert found is None
    assert len(warnings) == 3


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_one_flipped_byte_is_never_taken_for_a_checkpoint(layout: Layout, data: st.DataObject) -> None:
    save(layout, CHECKPOINT)
    content = bytearray(layout.checkpoint.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    layout.previous_checkpoint.unlink(missing_ok=True)
    layout.checkpoint.write_bytes(content)
    assert load(layout)[0] in [None, CHECKPOINT]  # a flip inside the envelope may leave the meaning as it was


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_fault_at_any_call_leaves_a_usable_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fail_at, failed = 0, 0
    while True:
        fail_at += 1
        layout = Layout(tmp_path / str(fail_at))
        save(layout, at_epoch(1))
        save(layout, at_epoch(2))
        with monkeypatch.context() as patch:
            faults = Faults(patch, fail_at, code, lasting=True)
            try:
                save(layout, at_epoch(3))
            except StorageError:
                failed += 1
                found, warnings = load(layout)
                assert found in [at_epoch(2), at_epoch(3)]
                assert warnings == []
                continue
        if not faults.fired:
            break
    assert failed > 10
    assert load(layout) == (at_epoch(3), [])


def touch_part(layout: Layout, name: str, server_name: str = "s", partition_id: int = 0) -> None:
    kind: PartKind = "successes" if name.startswith("successes") else "errors"
    folder = layout.parts_folder(kind, server_name, partition_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


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


def test_markers_round_trip_and_go(layout: Layout) -> None:
    batch = make_batch(3)
    counts = BatchCounts(10, 7, 3, {"dns": 2, "timeout": 1})
    assert read_completed(layout, batch) is None
    write_completed(layout, batch, counts)
    assert read_completed(layout, batch) == counts
    remove_completed(layout, batch)
    remove_completed(layout, batch)
    assert read_completed(layout, batch) is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"rows": 3}', b'{"rows":3,"successes":1,"errors":1}', b"\x00\xff"])
def test_a_marker_that_says_nothing_sound_is_none(layout: Layout, content: bytes) -> None:
    batch = make_batch()
    write_completed(layout, batch, BatchCounts(1, 1, 0))
    touch_part(layout, part_name("errors", 1, 0, 0), batch.server_name, batch.partition_id)
    layout.completed(batch.server_name, batch.partition_id).write_bytes(content)
    assert read_completed(layout, batch) is None
    (state,) = scan(layout, [batch])
    assert state.counts is None
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
    write_completed(layout, batches[0], BatchCounts(100, 90, 10))
    touch_part(layout, part_name("successes", 1, 0, 0), batches[0].server_name, 0)
    touch_part(layout, part_name("successes", 1, 0, 1), batches[2].server_name, 2)
    touch_part(layout, part_name("errors", 1, 0, 2), batches[2].server_name, 2)
    states = scan(layout, iter(batches))
    assert states[0] == BatchState(0, BatchCounts(100, 90, 10))
    assert states[1] == BatchState(1, None)
    assert states[2] == BatchState(2, None, parts_of(layout, batches[2]))
    assert len(states[2].parts) == 2
    assert states[3] == BatchState(3, None)


def test_scan_of_a_new_folder_lists_each_tree_once(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []
    names = checkpoint_module._names

    def recorded(folder: Path) -> list[str]:
        listed.append(folder)
        return names(folder)

    monkeypatch.setattr(checkpoint_module, "_names", recorded)
    states = scan(layout, [make_batch(i) for i in range(1000)])
    assert len(states) == 1000
    assert listed == [layout.batches, layout.images, layout.errors]


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_an_empty_one(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(folder: Path) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("os.scandir", stale)
    with pytest.raises(StorageError, match="cannot list"):
        scan(layout, [])


def test_scan_of_20000_completed_batches_takes_less_than_2_s(layout: Layout) -> None:
    batches = [BatchRef(i, f"server-{i % 50}.example", i // 50, "f", 0, 0, 10) for i in range(20_000)]
    for batch in batches:
        marker = layout.completed(batch.server_name, batch.partition_id)
        marker.parent.mkdir(parents=True)
        marker.write_bytes(b'{"rows":10,"successes":9,"errors":1,"kinds":{"dns":1}}')
    started = time.process_time()  # a busy machine must not fail the test
    states = scan(layout, batches)
    elapsed_s = time.process_time() - started
    assert all(state.counts is not None for state in states)
    assert elapsed_s < 2.0
