"""What a restart reads back from the parts."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmpi.errors import StorageError
from ddmpi.io.folder.layout import Layout, part_of
from ddmpi.io.folder.markers import parts_of
from ddmpi.io.results.dataset import current_outcomes
from ddmpi.io.results.outcomes import (
    ALWAYS_US,
    EarlierFile,
    EarlierFiles,
    Outcomes,
    oldest_us,
    outcomes_of,
    superseded_rows,
)
from ddmpi.io.results.verification import check_batch
from tests.io.result_data import (
    FETCHED_AT,
    REFRESHED_AT,
    Reader,
    make_batch,
    make_failure,
    refreshed,
    write_outcomes,
    write_refresh,
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "out")


def test_rows_are_sorted_and_each_once(layout: Layout) -> None:
    batch = make_batch()
    found = write_outcomes(layout, batch, successes=[5, 1], errors=[3], epoch=1)
    found += write_outcomes(layout, batch, successes=[3], epoch=2)
    outcomes = outcomes_of(layout, [part.path for part in found])
    assert outcomes.rows.tolist() == [1, 3, 5]
    assert (outcomes.successes, outcomes.errors) == (3, 0)


def test_no_parts_have_no_outcomes(layout: Layout) -> None:
    outcomes = outcomes_of(layout, [])
    assert (outcomes.rows.size, outcomes.rows.dtype) == (0, np.dtype(np.int64))
    assert outcomes.count_kinds() == {}


@pytest.mark.parametrize("part", ["images/successes-e0001-r00000-0001.parquet", "images/gone.parquet"])
def test_a_part_that_is_missing_is_not_overlooked(layout: Layout, part: str) -> None:
    with pytest.raises(StorageError, match="parquet"):
        outcomes_of(layout, [part])


def test_errors_are_counted_by_kind(layout: Layout) -> None:
    found = write_outcomes(layout, make_batch(), successes=[0], errors=[3, 4])
    outcomes = outcomes_of(layout, [part.path for part in found])
    assert outcomes.count_kinds() == {make_failure().kind.value: 2}
    assert (outcomes.successes, outcomes.errors) == (1, 2)


@pytest.mark.parametrize(
    ("retry", "epoch", "expected"),
    [
        pytest.param(("*",), 2, [3, 4], id="every error of an earlier run"),
        pytest.param((make_failure().kind.value,), 2, [3, 4], id="errors of the kind"),
        pytest.param((str(make_failure().code),), 2, [3, 4], id="errors with the code"),
        pytest.param(("dns", "999"), 2, [], id="no error has this kind or code"),
        pytest.param(("*",), 1, [], id="errors of this very run are final"),
        pytest.param((), 2, [], id="nothing is to be fetched again"),
    ],
)
def test_which_rows_are_fetched_again(layout: Layout, retry: tuple[str, ...], epoch: int, expected: list[int]) -> None:
    found = write_outcomes(layout, make_batch(), successes=[0], errors=[3, 4], epoch=1)
    outcomes = outcomes_of(layout, [part.path for part in found])
    assert outcomes.rows[outcomes.to_retry(retry, epoch)].tolist() == expected


def test_errors_of_packed_servers_are_chosen_by_their_rows(layout: Layout) -> None:
    found = write_outcomes(layout, make_batch(), successes=[0], errors=[3, 4, 5], epoch=1)
    outcomes = outcomes_of(layout, [part.path for part in found])
    servers = ["a.org", "a.org", "b.org", "c.net", "c.net"]
    rows = pa.table({"row_number": [0, 3, 4, 5, 6], "server_name": pa.array(servers, pa.string())})
    assert outcomes.rows[outcomes.to_retry(("*.org",), 2, rows)].tolist() == [3, 4]
    assert outcomes.rows[outcomes.to_retry(("c.net", make_failure().kind.value), 2, rows)].tolist() == [5]
    assert outcomes.rows[outcomes.to_retry(("c.net", "999"), 2, rows)].tolist() == []


# ---- refreshes

BATCH = make_batch(rows=10)


def found(layout: Layout) -> Outcomes:
    return outcomes_of(layout, parts_of(layout, BATCH), times=True)


def test_a_check_counts_as_a_success_with_the_file_that_it_is_about(layout: Layout) -> None:
    write_outcomes(layout, BATCH, successes=range(5), errors=[5])
    write_refresh(layout, BATCH, unchanged=[0], same_bytes=[1], changed=[2], gone=[3])
    outcomes = found(layout)
    assert outcomes.rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert list(outcomes.checks) == ["unchanged", "unchanged", "", "gone", "", ""]
    assert list(outcomes.kinds) == ["", "", "", "", "", "http_status"]
    assert outcomes.epochs.tolist() == [2, 2, 2, 2, 1, 1]
    assert outcomes.file_epochs.tolist() == [1, 1, 2, 1, 1, 0]
    assert (outcomes.successes, outcomes.errors) == (5, 1)
    stale = outcomes.are_stale(REFRESHED_AT, 3)
    assert outcomes.rows[stale].tolist() == [4], "errors are not asked for again, nor what was asked for since"
    assert outcomes.rows[outcomes.are_stale(REFRESHED_AT + 1, 3)].tolist() == [0, 1, 2, 3, 4]
    assert not outcomes.are_stale(REFRESHED_AT + 1, 1).any(), "what this very run has asked for is final"
    assert not outcomes.are_stale(0.0, 3).any()


def test_without_its_file_a_check_is_no_outcome(layout: Layout) -> None:
    write_outcomes(layout, BATCH, errors=[0, 1])
    (files,) = write_outcomes(layout, BATCH, successes=[0, 1, 2], epoch=2)
    write_refresh(layout, BATCH, unchanged=[0], changed=[1], gone=[2], epoch=3)
    assert found(layout).rows.tolist() == [0, 1, 2]
    (layout.root / files.path).unlink()
    assert found(layout).rows.tolist() == [1], "an older error does not count either: there was a file"


def test_times_are_read_where_they_are_asked_for(layout: Layout) -> None:
    parts = [part.path for part in write_outcomes(layout, BATCH, successes=[0])]
    assert outcomes_of(layout, parts).times_us.tolist() == [ALWAYS_US]
    assert outcomes_of(layout, parts, times=True).times_us.tolist() == [round(FETCHED_AT * 1e6)]
    assert oldest_us(layout, parts[0]) == round(FETCHED_AT * 1e6)
    (layout.root / parts[0]).write_bytes(b"no Parquet")
    assert oldest_us(layout, parts[0]) is None


def test_what_was_superseded_depends_on_the_moment(layout: Layout) -> None:
    write_outcomes(layout, BATCH, successes=[0, 1], errors=[2])
    write_refresh(layout, BATCH, changed=[0], unchanged=[1], epoch=2)
    write_refresh(layout, BATCH, changed=[0], gone=[1], epoch=3, at=REFRESHED_AT + 10)
    parts = parts_of(layout, BATCH)

    def superseded(at: float | None) -> dict[int, list[int]]:
        return {epoch: rows.tolist() for epoch, rows in superseded_rows(layout, parts, at).items()}

    assert superseded(None) == {1: [0], 2: [0]}
    assert superseded(REFRESHED_AT + 10) == {1: [0], 2: [0]}
    assert superseded(REFRESHED_AT + 9) == {1: [0], 3: [0]}
    assert superseded(FETCHED_AT) == {2: [0], 3: [0]}
    assert superseded(FETCHED_AT - 1) == {1: [0, 1, 2], 2: [0], 3: [0]}


def test_the_newest_file_is_known_with_what_its_server_gave_last(layout: Layout) -> None:
    write_outcomes(layout, BATCH, successes=[0, 1, 2, 3], errors=[4])
    write_refresh(layout, BATCH, changed=[1], same_bytes=[2], gone=[3])
    reader = Reader()
    earlier = EarlierFiles(layout, reader)
    assert earlier.of(BATCH) is None, "of a new batch there is nothing to know"
    batch = refreshed(layout, BATCH)
    files = earlier.of(batch)
    assert files is not None
    known = [files.file(row) for row in range(6)]
    assert [None if file is None else (file.epoch, file.etag) for file in known] == [
        (1, '"0"'), (2, '"1 2"'), (1, '"2"'), (1, '"3"'), None, None,
    ]  # fmt: skip
    assert known[0] == EarlierFile(1, known[0].hashsum if known[0] else "", "http://h/0", '"0"', "")
    reads = len(reader.reads)
    assert earlier.of(batch) is files
    assert len(reader.reads) == reads
    texts: list[str | None] = files.structs(np.array([0, 4])).field("etag").to_pylist()
    assert texts == ['"0"', None]


@settings(derandomize=True, max_examples=12, deadline=None)
@given(st.lists(st.dictionaries(st.integers(0, 5), st.booleans()), min_size=1, max_size=5), st.data())
def test_over_any_runs_the_outcomes_are_those_of_their_definition(
    runs: list[dict[int, bool]], data: st.DataObject
) -> None:
    """Each run fetches rows without a file, well or not, and asks again for those that have one."""
    with TemporaryDirectory() as name:
        layout = Layout(Path(name) / "out")
        files: dict[int, int] = {}
        newest: dict[int, tuple[int, str]] = {}
        for epoch, wanted in enumerate(runs, start=1):
            fresh = {row: is_good for row, is_good in wanted.items() if row not in files}
            again = {row: is_good for row, is_good in wanted.items() if row in files}
            first = sorted(row for row, is_good in fresh.items() if is_good)
            failed = sorted(row for row, is_good in fresh.items() if not is_good)
            changed = sorted(row for row, is_good in again.items() if is_good)
            gone = sorted(row for row, is_good in again.items() if not is_good)
            write_refresh(layout, BATCH, changed=[*first, *changed], gone=[*failed, *gone], epoch=epoch)
            files |= dict.fromkeys([*first, *changed], epoch)
            newest |= {row: (epoch, "http_status" if row in failed else "") for row in wanted}
        parts = parts_of(layout, BATCH)
        outcomes = outcomes_of(layout, parts)
        of_rows = list(zip(outcomes.rows.tolist(), outcomes.epochs.tolist(), outcomes.kinds, strict=True))
        assert {row: (epoch, kind) for row, epoch, kind in of_rows} == newest
        file_epochs = dict(zip(outcomes.rows.tolist(), outcomes.file_epochs.tolist(), strict=True))
        assert {row: epoch for row, epoch in file_epochs.items() if epoch} == files
        check = check_batch(layout, Reader(), BATCH, 0)
        assert (check.successes, check.errors, check.ok) == (len(files), len(newest) - len(files), True)
        dataset = current_outcomes(layout)
        shown = dataset.to_table(columns=["row_number", "epoch"]).to_pylist() if newest else []
        expected = {row: files.get(row, epoch) for row, (epoch, _) in newest.items()}
        assert {row["row_number"]: row["epoch"] for row in shown} == expected
        assert len(shown) == len(expected)
        lost = data.draw(st.sampled_from([part for part in parts if part_of(part).kind == "successes"] or [""]))
        if lost:
            (layout.root / lost).unlink()
            _check_without(layout, part_of(lost).epoch, files, newest)


def _check_without(layout: Layout, epoch: int, files: dict[int, int], newest: dict[int, tuple[int, str]]) -> None:
    """Without the files of a run, rows whose newest outcome is about one of them have none, or an older one."""
    outcomes = outcomes_of(layout, parts_of(layout, BATCH))
    left = dict(zip(outcomes.rows.tolist(), outcomes.epochs.tolist(), strict=True))
    check = check_batch(layout, Reader(), BATCH, 0)
    assert check.doubled == 0
    assert check.successes + check.errors == len(left)
    for row, (newest_epoch, _) in newest.items():
        if files.get(row) != epoch:
            assert left[row] == newest_epoch
        elif newest_epoch > epoch:
            assert row not in left, "a check without its file"
        else:
            assert left.get(row, 0) < epoch
    assert check.fileless == sum(files.get(row) == epoch < newest_epoch for row, (newest_epoch, _) in newest.items())
