"""Verification: what the files say counts, whatever was counted before."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ddmpi.core.ledger.batch_counts import BatchContent
from ddmpi.core.records import ErrorKind
from ddmpi.errors import StorageError
from ddmpi.io.folder.markers import read_completed
from ddmpi.roles.coordinator.run_state import RunState
from ddmpi.roles.coordinator.verifier import MOST_MENDS, Verifier
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
    assert (verifier.step(), verifier.is_idle) == (None, True)
    assert (status_of(state), verifier.next_number) == ("completed", 2)
    again = Verifier(state)
    again.add_unverified()
    assert again.is_idle


def test_a_batch_that_lacks_rows_is_opened_again_with_what_is_there(tmp_path: Path, parts: list[Path]) -> None:
    verifier, state = verified(tmp_path, parts[0])
    found = verifier.step()
    assert found == BatchContent(0, 0, 3, {"dns": 3}, (state.layout.relative(parts[1]),))
    assert status_of(state) == "damaged"
    state.counts.set(found)
    assert (state.counts.pending, state.counts.error_kinds) == (7, {"dns": 3})


def test_a_part_that_cannot_be_read_is_set_aside_and_its_rows_are_fetched_again(
    tmp_path: Path, parts: list[Path]
) -> None:
    verifier, state = verified(tmp_path, parts[0], b"no Parquet")
    found = verifier.step()
    assert found == BatchContent(0, 0, 3, {"dns": 3}, (state.layout.relative(parts[1]),))
    assert status_of(state) == "damaged"
    assert not parts[0].exists()
    assert (state.layout.damaged / state.layout.relative(parts[0])).read_bytes() == b"no Parquet"
    assert read_completed(state.layout, state.table.ref(0)) is None, "a kill now must not leave it complete"


def test_a_part_whose_numbers_were_changed_is_found_by_its_checksum(tmp_path: Path, parts: list[Path]) -> None:
    group = pq.read_metadata(parts[0]).row_group(0)
    columns = (group.column(index) for index in range(group.num_columns))
    numbers = next(column for column in columns if column.path_in_schema == "row_number")
    data = bytearray(parts[0].read_bytes())
    data[(numbers.dictionary_page_offset or numbers.data_page_offset) + numbers.total_compressed_size - 1] ^= 1
    verifier, _ = verified(tmp_path, parts[0], bytes(data))
    found = verifier.step()
    assert isinstance(found, BatchContent)
    assert found.successes == 0


def test_a_part_that_cannot_be_read_and_whose_rows_are_elsewhere_costs_nothing(
    tmp_path: Path, parts: list[Path]
) -> None:
    state = make_state(tmp_path, SIZES, epoch=2)
    (parts[0].parent / "successes-e0001-r00001-0009.parquet").write_bytes(b"no Parquet")
    verifier = Verifier(state)
    verifier.add_unverified()
    found = verifier.step()
    assert isinstance(found, BatchContent)
    assert (found.successes, found.errors) == (7, 3)


def test_rows_with_two_outcomes_are_damage_that_no_request_mends(tmp_path: Path, parts: list[Path]) -> None:
    state = make_state(tmp_path, SIZES, epoch=2)
    shutil.copy(parts[0], parts[0].with_name("successes-e0001-r00001-0009.parquet"))
    for _ in range(2):  # the next run says it again
        verifier = Verifier(state)
        verifier.add_unverified()
        assert verifier.step() == "batch 0 is damaged: 7 rows doubled"
        assert status_of(state, verifier.next_number - 1) == "damaged"


def test_a_batch_that_is_damaged_again_and_again_is_left_to_a_person(tmp_path: Path, parts: list[Path]) -> None:
    verifier, state = verified(tmp_path, parts[0])
    for number in range(2, 2 + MOST_MENDS):
        found = verifier.step()
        assert isinstance(found, BatchContent)
        verifier.add(number, 0)
    assert isinstance(verifier.step(), str)
    assert state.counts.final(0) == 10


def test_a_disk_that_fails_is_no_damage(tmp_path: Path, parts: list[Path]) -> None:
    verifier, state = verified(tmp_path)
    parts[0].unlink()
    parts[0].symlink_to(parts[0])  # ELOOP stands for any errno
    with pytest.raises(StorageError, match="cannot read part"):
        verifier.step()
    assert not state.layout.damaged.exists()


def test_the_rest_of_a_run_that_stops_is_pending_and_no_damage(tmp_path: Path) -> None:
    state = make_state(tmp_path, SIZES)
    commit(state, 0, range(4))
    state = make_state(tmp_path, SIZES, epoch=2)
    verifier = Verifier(state)
    verifier.add_unverified()
    assert verifier.is_idle
    verifier.add_rest([(3, (0,))])
    assert (verifier.step(), status_of(state, 3)) == (None, "pending")
