"""Verification finds, from the files alone, whatever breaks law 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.io.folder.layout import Layout, PartKind, PartName, part_name
from ddmpi.io.folder.markers import Marker, write_completed
from ddmpi.io.results.verification import BatchCheck, PartRows, _tally, check_batch
from ddmpi.roles.coordinator.verifier import describe
from tests.io.result_data import (
    Reader,
    committed,
    make_answer,
    make_batch,
    make_image,
    open_writer,
    row_numbers,
    write_outcomes,
    write_refresh,
)

BATCH = make_batch(2, rows=10)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "out")


def check(layout: Layout, rehash: str | None = None) -> BatchCheck:
    result = check_batch(layout, Reader(), BATCH, 0, rehash=rehash)
    assert result.rows == 10
    assert result.rows == result.successes + result.errors + result.pending
    return result


def counts(result: BatchCheck) -> tuple[int, int, int, int, int, int]:
    return (
        *(result.successes, result.errors, result.pending),
        *(result.superseded, result.doubled, result.unknown),
    )


def test_a_batch_that_was_never_begun_is_pending(layout: Layout) -> None:
    assert counts(check(layout)) == (0, 0, 10, 0, 0, 0)
    assert check(layout).ok


def test_a_completed_batch(layout: Layout) -> None:
    write_outcomes(layout, BATCH, successes=range(7), errors=range(7, 10))
    write_completed(layout, BATCH, Marker(10, 7, 3))
    result = check(layout, rehash="sha256")
    assert counts(result) == (7, 3, 0, 0, 0, 0)
    assert result.ok


def test_rows_fetched_again_count_once_by_their_newest_outcome(layout: Layout) -> None:
    write_outcomes(layout, BATCH, successes=range(5), errors=range(5, 10), epoch=1)
    write_outcomes(layout, BATCH, successes=[5, 6], errors=[7], epoch=2)
    write_outcomes(layout, BATCH, successes=[7], epoch=10, rank=3)
    result = check(layout)
    assert counts(result) == (8, 2, 0, 4, 0, 0)
    assert result.ok


@pytest.mark.parametrize(
    ("first", "second", "second_epoch"),
    [
        pytest.param("successes", "successes", 2, id="a success was fetched again"),
        pytest.param("successes", "errors", 2, id="an error after a success"),
        pytest.param("errors", "errors", 1, id="two errors of one run"),
        pytest.param("errors", "successes", 1, id="error and success of one run"),
    ],
)
def test_a_doubled_row_is_found(layout: Layout, first: str, second: str, second_epoch: int) -> None:
    write_outcomes(layout, BATCH, **{first: [4]}, epoch=1, rank=0)
    write_outcomes(layout, BATCH, **{second: [4]}, epoch=second_epoch, rank=1)
    result = check(layout)
    assert result.doubled == 1
    assert result.pending == 9
    assert not result.ok


def test_a_row_twice_in_one_part_is_found(layout: Layout) -> None:
    write_outcomes(layout, BATCH, successes=[4, 4, 4, 5])
    assert counts(check(layout)) == (2, 0, 8, 0, 1, 0)


def test_rows_of_another_batch_are_found(layout: Layout) -> None:
    (part,) = write_outcomes(layout, make_batch(1, rows=10), successes=[1, 2])
    target = layout.parts_folder("successes", BATCH.server_name, BATCH.partition_id)
    target.mkdir(parents=True)
    (layout.root / part.path).rename(target / part_name("successes", 1, 0, 0))
    assert counts(check(layout)) == (0, 0, 10, 0, 0, 2)
    assert not check(layout).ok


def test_a_deleted_part_is_found_by_the_marker(layout: Layout) -> None:
    _, errors = write_outcomes(layout, BATCH, successes=range(7), errors=range(7, 10))
    write_completed(layout, BATCH, Marker(10, 7, 3))
    (layout.root / errors.path).unlink()
    result = check(layout)
    assert result.pending == 3
    assert result.marker == "the marker says rows, successes, errors = (10, 7, 3), the parts say (10, 7, 0)"
    assert not result.ok


def test_a_marker_without_parts_is_found(layout: Layout) -> None:
    write_completed(layout, BATCH, Marker(10, 10, 0))
    assert "the parts say (10, 0, 0)" in check(layout).marker


def test_a_marker_with_other_counts_is_found(layout: Layout) -> None:
    write_outcomes(layout, BATCH, successes=range(7), errors=range(7, 10))
    write_completed(layout, BATCH, Marker(10, 8, 2))
    assert "(10, 8, 2)" in check(layout).marker


def test_a_marker_that_cannot_be_read_is_found(layout: Layout) -> None:
    write_outcomes(layout, BATCH, successes=range(10))
    write_completed(layout, BATCH, Marker(10, 10, 0))
    layout.completed(BATCH.server_name, BATCH.partition_id).write_bytes(b"{")
    assert check(layout).marker == "the marker cannot be read"


@pytest.mark.parametrize("left_bytes", [0, 3, 4, 500, -1, -8, -20])
def test_a_truncated_part_is_found(layout: Layout, left_bytes: int) -> None:
    (part,) = write_outcomes(layout, BATCH, successes=range(10))
    path = layout.root / part.path
    path.write_bytes(path.read_bytes()[:left_bytes])
    result = check(layout)
    assert len(result.unreadable) == 1
    assert result.unreadable[0].startswith(part.path)
    assert result.pending == 10


def flip(path: Path, needle: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(needle)] ^= 0x20
    path.write_bytes(data)


def test_a_flipped_byte_in_an_image_is_found_by_rehash(layout: Layout) -> None:
    (part,) = write_outcomes(layout, BATCH, successes=range(10))
    flip(layout.root / part.path, b"row 6 body")
    assert check(layout).ok, "the quick check does not read images"
    result = check(layout, rehash="sha256")
    assert not result.ok
    assert len(result.unreadable) == 1, "the page's checksum"
    assert part.path in result.unreadable[0]


def test_a_wrong_digest_is_found_where_the_page_is_sound(layout: Layout) -> None:
    (part,) = write_outcomes(layout, BATCH, successes=range(10))
    path = layout.root / part.path
    table = pq.read_table(path, partitioning=None)
    images = [b"another image" if row == 6 else image for row, image in enumerate(table.column("image").to_pylist())]
    column = table.schema.get_field_index("image")
    pq.write_table(table.set_column(column, "image", pa.array(images, pa.large_binary())), path)
    result = check(layout, rehash="sha256")
    assert result.damaged == [f"{part.path}: row {row_numbers(BATCH)[6]}"]
    assert not result.ok


def test_rehash_of_shrunk_images_takes_the_digest_of_what_is_stored(layout: Layout) -> None:
    writer = open_writer(layout, image_size=16, hash_algorithm="md5")
    for row in range(3):
        writer.success(BATCH, (row,), make_answer(row, make_image(40 + row, 30)))
    writer.stop()
    assert len(committed(writer.events())) == 1
    assert check(layout, rehash="md5").ok
    assert len(check(layout, rehash="sha1").damaged) == 3


def test_rehash_looks_at_the_row_that_has_the_bytes(layout: Layout) -> None:
    writer = open_writer(layout, duplicates="reference")
    writer.success(BATCH, (0, 3, 4), make_answer(0, b"one"))
    writer.success(BATCH, (1, 2), make_answer(1, b"other"))
    writer.stop()
    (part,) = committed(writer.events())
    assert counts(check(layout, rehash="sha256")) == (5, 0, 5, 0, 0, 0)
    assert check(layout, rehash="sha256").ok
    path = layout.root / part.path
    table = pq.read_table(path, partitioning=None)
    column = table.schema.get_field_index("image")
    for images, wrong in (([b"?", None, None, b"other", None], {0, 3, 4}), ([b"one", None, None, None, None], {1, 2})):
        pq.write_table(table.set_column(column, "image", pa.array(images, pa.large_binary())), path)
        assert check(layout, rehash="sha256").damaged == [
            f"{part.path}: row {number}" for row, number in enumerate(row_numbers(BATCH)) if row in sorted(wrong)
        ]


def test_files_that_are_no_parts_are_ignored(layout: Layout) -> None:
    write_outcomes(layout, BATCH, successes=range(10))
    folder = layout.parts_folder("successes", BATCH.server_name, BATCH.partition_id)
    (folder / "successes-e0001-r00000-0000.parquet.tmp").write_bytes(b"half")
    assert check(layout).ok


KINDS = ("successes", "errors", "checks")
OUTCOMES = st.lists(
    st.tuples(st.integers(0, 6), st.integers(1, 4), st.sampled_from(KINDS), st.integers(1, 3), st.sampled_from("ab")),
    max_size=25,
)
"""Row, epoch, kind, the epoch of the file that a check is about, and the digest of a file."""


@settings(max_examples=300)
@given(OUTCOMES)
def test_the_tally_equals_its_definition(found: list[tuple[int, int, PartKind, int, str]]) -> None:
    outcomes = [
        PartRows(
            PartName(kind, epoch, 0, 0),
            np.array([row], np.int64),
            np.array([file_epoch], np.int64) if kind == "checks" else None,
            [digest],
        )
        for row, epoch, kind, file_epoch, digest in found
    ]
    tally = _tally(outcomes, np.arange(5, dtype=np.int64))  # rows 5 and 6 are unknown
    successes = errors = superseded = doubled = fileless = 0
    order = {"errors": 0, "checks": 1, "successes": 2}
    for row in range(5):
        of_row = sorted((outcome for outcome in found if outcome[0] == row), key=lambda it: (it[1], order[it[2]]))
        if not of_row:
            continue
        *older, (_, newest_epoch, newest_kind, file_epoch, _) = of_row
        files = [(epoch, digest) for _, epoch, kind, _, digest in of_row if kind == "successes"]
        legitimate = []
        passed = 0
        for _, epoch, kind, _, digest in older:
            is_other = True
            if kind == "successes":
                passed += 1
                later = files[passed:]
                is_other = newest_kind != "errors" and not (later and (later[0][0] == epoch or later[0][1] == digest))
            legitimate.append(epoch < newest_epoch and is_other)
        is_fileless = newest_kind == "checks" and file_epoch not in {epoch for epoch, _ in files}
        fileless += is_fileless
        successes += newest_kind != "errors" and not is_fileless
        errors += newest_kind == "errors"
        superseded += sum(legitimate)
        doubled += not all(legitimate)
    unknown = sum(outcome[0] >= 5 for outcome in found)
    assert (tally.successes, tally.errors, tally.superseded, tally.doubled) == (successes, errors, superseded, doubled)
    assert (tally.unknown, tally.fileless) == (unknown, fileless)


# ---- refreshes


def test_files_that_were_checked_or_changed_are_no_fault(layout: Layout) -> None:
    write_outcomes(layout, BATCH, successes=range(8), errors=[8])
    write_refresh(layout, BATCH, unchanged=[0], same_bytes=[1], changed=[2, 3], gone=[4])
    write_refresh(layout, BATCH, unchanged=[0, 2], changed=[3], gone=[1, 4], epoch=3)
    result = check(layout)
    assert counts(result) == (8, 1, 1, 10, 0, 0)
    assert (result.fileless, result.ok) == (0, True)
    write_completed(layout, BATCH, Marker(9, 8, 1, ignored=1))
    assert check(layout, rehash="sha256").ok


def test_a_file_that_has_changed_back_is_no_fault(layout: Layout) -> None:
    write_outcomes(layout, BATCH, successes=[0])
    write_refresh(layout, BATCH, changed=[0])
    write_refresh(layout, BATCH, same_bytes=[0], epoch=3)
    assert counts(check(layout)) == (1, 0, 9, 2, 0, 0)


def test_a_check_without_its_file_is_a_fault_and_its_row_is_fetched_again(layout: Layout) -> None:
    write_outcomes(layout, BATCH, successes=[0, 1])
    (_, changed) = sorted(part.path for part in write_refresh(layout, BATCH, changed=[0], unchanged=[1]))
    write_refresh(layout, BATCH, unchanged=[0], gone=[1], epoch=3)
    (layout.root / changed).unlink()
    result = check(layout)
    assert (result.successes, result.pending, result.fileless, result.ok) == (1, 9, 1, False)
    assert "the files of 1 rows are missing" in describe(result)
    write_refresh(layout, BATCH, changed=[0], epoch=4)
    assert check(layout).ok


@pytest.mark.parametrize("kind", ["successes", "errors"])
def test_a_check_and_another_outcome_of_one_run_are_doubled(layout: Layout, kind: str) -> None:
    write_outcomes(layout, BATCH, successes=[0])
    write_refresh(layout, BATCH, unchanged=[0])
    if kind == "errors":
        write_outcomes(layout, BATCH, errors=[0], epoch=2, rank=1)
    else:
        write_outcomes(layout, BATCH, successes=[0], epoch=2, rank=1)
    assert check(layout).doubled == 1


def test_an_error_after_a_check_is_a_fault(layout: Layout) -> None:
    write_outcomes(layout, BATCH, successes=[0])
    write_refresh(layout, BATCH, unchanged=[0])
    write_outcomes(layout, BATCH, errors=[0], epoch=3)
    assert check(layout).doubled == 1
