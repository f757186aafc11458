"""Verification: what the files say counts, whatever was counted before."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ddmpi.core.ledger.batch_counts import BatchContent
from ddmpi.core.records import ErrorKind
from ddmpi.roles.coordinator.run_state import RunState
from ddmpi.roles.coordinator.verifier import Verifier
from tests.roles.coordinator.states import commit, make_state

SIZES = {"a.org": 10}


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """One complete batch: a part with 7 successes and one with 3 errors."""
    state = make_state(tmp_path, SIZES)
    found = commit(state, 0, range(7), {ErrorKind.DNS: [7, 8, 9]})
    assert len(found) == 2
    return found


def status_of(state: RunState, number: int = 1) -> str:
    with (state.layout.schedule(number) / "verification.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    return str(row["status"])


def verified(tmp_path: Path, damage: Path | None = None, content: bytes | None = None) -> tuple[Verifier, RunState]:
    """The verifier of the next run, and its state; in between a part was damaged, or removed."""
    state = make_state(tmp_path, SIZES, epoch=2)
    if damage is not None:
        if content is None:
            damage.unlink()
        else:
            damage.write_bytes(content)
    verifier = Verifier(state)
    verifier.add_unverified()
    assert not verifier.is_idle
    return verifier, state


@pytest.mark.usefixtures("parts")
def test_a_batch_whose_rows_are_all_there_is_verified_once(tmp_path: Path) -> None:
    verifier, state = verified(tmp_path)
    assert (verifier.step(), verifier.is_idle, verifier.damaged) == (None, True, 0)
    assert (status_of(state), verifier.next_number) == ("completed", 2)
    again = Verifier(state)
    again.add_unverified()
    assert again.is_idle


def test_a_batch_that_lacks_rows_is_opened_again_with_what_is_there(tmp_path: Path, parts: list[Path]) -> None:
    verifier, state = verified(tmp_path, parts[0])
    found = verifier.step()
    assert found == BatchContent(0, 0, 3, {"dns": 3}, (state.layout.relative(parts[1]),))
    assert (status_of(state), verifier.damaged) == ("damaged", 1)
    state.counts.set(found)
    assert (state.counts.pending, state.counts.error_kinds) == (7, {"dns": 3})


def test_a_part_that_cannot_be_read_is_damage_and_no_reason_to_fetch_its_rows_again(
    tmp_path: Path, parts: list[Path]
) -> None:
    verifier, state = verified(tmp_path, parts[0], b"no Parquet")
    assert (verifier.step(), verifier.damaged) == (None, 1)
    assert status_of(state) == "damaged"
    again = Verifier(state)
    again.add_unverified()
    assert not again.is_idle, "the next run looks at it again"


def test_a_part_that_cannot_be_read_and_whose_rows_are_there_twice_is_damage(tmp_path: Path, parts: list[Path]) -> None:
    state = make_state(tmp_path, SIZES, epoch=2)
    (parts[0].parent / "successes-e0001-r00001-0009.parquet").write_bytes(b"no Parquet")
    verifier = Verifier(state)
    verifier.add_unverified()
    assert (verifier.step(), verifier.damaged, status_of(state)) == (None, 1, "damaged")


def test_the_rest_of_a_run_that_stops_is_pending_and_no_damage(tmp_path: Path) -> None:
    state = make_state(tmp_path, SIZES)
    commit(state, 0, range(4))
    state = make_state(tmp_path, SIZES, epoch=2)
    verifier = Verifier(state)
    verifier.add_unverified()
    assert verifier.is_idle
    verifier.add_rest([(3, (0,))])
    assert (verifier.step(), verifier.damaged, status_of(state, 3)) == (None, 0, "pending")
