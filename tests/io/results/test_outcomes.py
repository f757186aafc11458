"""What a restart reads back from the parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ddmpi.errors import StorageError
from ddmpi.io.folder.layout import Layout
from ddmpi.io.results.outcomes import outcomes_of
from tests.io.result_data import make_batch, make_failure, write_outcomes


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
