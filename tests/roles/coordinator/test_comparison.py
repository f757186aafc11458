"""The comparison with the table is read from the results: the newest outcome of each row, by its own server."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.config.config import parse
from ddmpi.core.protocol import Exit
from ddmpi.core.records import ErrorKind
from ddmpi.errors import EXIT_DONE, EXIT_PENDING
from ddmpi.io.folder.fence import open_epoch
from ddmpi.io.folder.layout import Layout
from ddmpi.io.folder.lock import acquire
from ddmpi.io.results.parts import ResultOptions
from ddmpi.io.results.writer import ResultWriter
from ddmpi.io.urls.batch_reader import BatchReader
from ddmpi.io.urls.batch_table import BatchTable
from ddmpi.io.urls.writer import partition_input
from ddmpi.report.console import Console
from ddmpi.roles.coordinator import comparison
from ddmpi.roles.coordinator.comparison import OTHER, Licenses, compare, refreshed
from ddmpi.roles.coordinator.initialization import whole_input
from ddmpi.roles.coordinator.reporter import ConsoleReporter
from ddmpi.roles.coordinator.run_state import RunState
from tests.io.result_data import FETCHED_AT, REFRESHED_AT, make_answer, make_failure
from tests.io.result_data import refreshed as refreshed_batch

BODY = b"GIF89a, the file that was promised"
PROMISED = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def state(tmp_path: Path) -> RunState:
    """Two servers in one packed batch; the rows of a.org are 0, 2 and 4."""
    rows = [
        {"identifier": f"http://{'ab'[row % 2]}.org/{row}", "license": "CC0" if row < 4 else None,
         "sha256": PROMISED if row < 5 else None}
        for row in range(6)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "urls.parquet")
    layout = Layout(tmp_path / "out")
    values = {
        "path_to_input": str(tmp_path / "urls.parquet"),
        "path_to_output_folder": str(layout.root),
        "keep_columns": ["sha256"],
        "expected": {"hash_column": "sha256", "on_mismatch": "keep"},
    }
    config = parse(values, "test")
    layout.root.mkdir()
    partition_input(whole_input(config, config.input_name), layout.urls, batch_size=20, small_rows=10)
    lock = acquire(layout.lock, job_id="", job_is_gone=lambda _: None)
    return RunState(
        config=config, layout=layout, table=BatchTable(layout), reader=BatchReader(layout.urls), lock=lock,
        epoch=1, input_fingerprint="", input_stamp="", stages={}, servers={}, saved_at=0.0, profiles={},
    )  # fmt: skip


def commit(
    state: RunState, epoch: int, files: dict[int, bytes], errors: dict[int, ErrorKind], fetched_at: float = REFRESHED_AT
) -> None:
    """One run's outcomes, by row number; files that are there already are asked for again."""
    open_epoch(state.layout, epoch)
    batch = refreshed_batch(state.layout, state.table.ref(0))
    places = {
        number: at for at, number in enumerate(state.reader.read(batch, ["row_number"])["row_number"].to_pylist())
    }
    writer = ResultWriter(ResultOptions(state.config, state.layout, state.reader, epoch, 0, threads=1), lambda: None)
    for number, body in files.items():
        answer = replace(make_answer(places[number], body), fetched_at=fetched_at)
        writer.success(batch, (places[number],), answer)
    for number, kind in errors.items():
        writer.error(batch, (places[number],), make_failure(kind), None, attempts=1)
    writer.stop()


def test_rows_are_compared_by_server_and_license(state: RunState) -> None:
    failed = {2: ErrorKind.TIMEOUT, 3: ErrorKind.HTTP_STATUS}
    commit(state, 1, {0: BODY, 1: BODY + b"!", 5: BODY}, failed)
    assert compare(state).total() == {
        "same": 1, "changed": 1, "gone": 1, "refused": 0, "failed": 1, "unchecked": 1,
    }  # fmt: skip
    commit(state, 2, {2: BODY}, {4: ErrorKind.WRONG_TYPE})
    compare(state)
    with state.layout.comparison.open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines == [
        ["server_name", "license", "rows", "same", "changed", "gone", "refused", "failed", "unchecked"],
        ["a.org", "CC0-1.0", "2", "2", "0", "0", "0", "0", "0"],
        ["b.org", "CC0-1.0", "2", "0", "1", "1", "0", "0", "0"],
        ["a.org", "", "1", "0", "0", "0", "1", "0", "0"],
        ["b.org", "", "1", "0", "0", "0", "0", "0", "1"],
    ]


def test_licenses_that_are_no_known_ones_have_so_many_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MOST_TEXTS", 2)
    licenses = Licenses()
    texts = ["", "© A", "© B", "© C", "CC0", "© A", ""]
    assert [licenses.name_of(text) for text in texts] == ["", "© A", OTHER, OTHER, "CC0-1.0", "© A", ""]


def test_only_a_run_whose_rows_are_all_final_leaves_a_comparison(state: RunState) -> None:
    commit(state, 1, {0: BODY}, {})
    reporter = ConsoleReporter(Console(None), ranks=1, started_at=0.0)
    reporter.compare(state, Exit(EXIT_DONE))
    assert reporter.compared.startswith("1 the same, 0 changed, 0 gone, 0 refused; ")
    assert state.layout.comparison.exists()
    reporter.compare(state, Exit(EXIT_PENDING))
    assert not state.layout.comparison.exists()


def test_a_refresh_tells_each_row_that_was_asked_for_once(state: RunState) -> None:
    commit(state, 1, {0: BODY, 1: BODY, 2: BODY, 3: BODY}, {5: ErrorKind.DNS}, FETCHED_AT)
    commit(state, 2, {0: BODY, 1: BODY + b"!", 4: BODY}, {})
    commit(state, 3, {}, {2: ErrorKind.HTTP_STATUS})
    state.stale_before = REFRESHED_AT
    total = {"unchanged": 1, "changed": 1, "gone": 1, "refused": 0, "failed": 0, "new": 1}
    assert refreshed(state).total() == total
    with state.layout.refreshed.open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines == [
        ["server_name", "license", "rows", *total],
        ["a.org", "CC0-1.0", "2", "1", "0", "1", "0", "0", "0"],
        ["a.org", "", "1", "0", "0", "0", "0", "0", "1"],
        ["b.org", "CC0-1.0", "1", "0", "1", "0", "0", "0", "0"],
    ]
    state.stale_before = REFRESHED_AT + 1
    assert sum(refreshed(state).total().values()) == 1, "that for which nothing was fetched has its time all the same"


def test_the_comparison_with_the_table_is_that_of_the_newest_file(state: RunState) -> None:
    commit(state, 1, {0: BODY + b"!", 1: BODY}, {})
    assert compare(state).total()["same"] == 1
    commit(state, 2, {0: BODY}, {1: ErrorKind.HTTP_STATUS})
    assert compare(state).total()["same"] == 2


def test_only_a_refresh_whose_rows_are_all_final_is_told(state: RunState) -> None:
    commit(state, 1, {0: BODY}, {})
    reporter = ConsoleReporter(Console(None), ranks=1, started_at=0.0)
    reporter.refresh(state, Exit(EXIT_DONE))
    assert (reporter.refreshed, state.layout.refreshed.exists()) == ("", False)
    state.stale_before = 1.0
    reporter.refresh(state, Exit(EXIT_PENDING))
    assert (reporter.refreshed, state.layout.refreshed.exists()) == ("", False)
    reporter.refresh(state, Exit(EXIT_DONE))
    told = "0 unchanged, 0 changed, 0 gone, 0 refused, 1 new; by server and license: refresh.csv"
    assert reporter.refreshed == told
