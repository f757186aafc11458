"""The checkpoint: damage costs one generation, a fault at any call costs none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddmpi.errors import StorageError
from ddmpi.io.folder.checkpoint import Checkpoint, ServerState, load, save
from ddmpi.io.folder.layout import Layout
from tests.whole.faults import Faults

CHECKPOINT = Checkpoint(
    epoch=3,
    saved_at=1_700_000_000.0,
    stages={"partitioned": {"rows": 10, "servers": ["a"]}},
    input_fingerprint="f",
    config_hash="c",
    config_semantic={"batch_size": 10_000, "columns": {"uuid": "id"}},
    servers={"ü.example:80": ServerState(2.5, 1_700_000_060.0, 2, 1, 3, ((1_700_000_090.0, 1e9),), ())},
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
