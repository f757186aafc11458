"""How the rows of each server ended, small ones too: by the counts of batches, and by what parts say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.core.records import MANY_SERVERS, ErrorKind
from ddmpi.io.folder.layout import PartKind, part_name
from ddmpi.report.data import Failures
from ddmpi.roles.coordinator.run_state import RunState
from ddmpi.roles.coordinator.server_outcomes import ServerOutcomes, server_outcomes
from tests.roles.coordinator.states import make_state

SIZES = {"big.org": 30, "one.net": 3, "two.net": 4}


def batch_of(state: RunState, server: str) -> int:
    return next(at for at in range(len(state.table)) if state.table.server_of(at) == server)


def counts_by_server(found: ServerOutcomes) -> dict[str, list[int]]:
    return dict(zip(found.names, found.counts.T.tolist(), strict=True))


def rows_of(state: RunState, server: str) -> list[int]:
    """The row numbers of a small server."""
    rows = state.reader.read(state.table.ref(batch_of(state, MANY_SERVERS)), ["row_number", "server_name"])
    return [int(row["row_number"]) for row in rows.to_pylist() if row["server_name"] == server]


def commit(
    state: RunState,
    batch_id: int,
    successes: Sequence[int] = (),
    errors: Mapping[ErrorKind, Sequence[int]] | None = None,
) -> list[Path]:
    """Publish these rows, by number, with what a report reads of them; the parts, successes first."""
    ref, parts = state.table.ref(batch_id), []
    found = [(kind.value, row) for kind, rows in (errors or {}).items() for row in rows]
    tables: dict[PartKind, pa.Table] = {
        "successes": pa.table({"row_number": pa.array(successes, pa.int64())}),
        "errors": pa.table({
            "row_number": pa.array([row for _, row in found], pa.int64()),
            "error_kind": [kind for kind, _ in found],
            "error_code": pa.array([404 if kind == "http_status" else -1 for kind, _ in found], pa.int32()),
        }),
    }  # fmt: skip
    for kind, table in tables.items():
        folder = state.layout.parts_folder(kind, ref.server_name, ref.partition_id)
        folder.mkdir(parents=True)
        parts.append(folder / part_name(kind, state.epoch, 1, 1))
        pq.write_table(table, parts[-1])
    return parts


def test_small_servers_are_told_apart(tmp_path: Path) -> None:
    state = make_state(tmp_path, SIZES)
    packed = batch_of(state, MANY_SERVERS)
    one, two = rows_of(state, "one.net"), rows_of(state, "two.net")
    commit(state, packed, successes=one[:2], errors={ErrorKind.HTTP_STATUS: two[:1], ErrorKind.DNS: two[1:3]})
    found = server_outcomes(make_state(tmp_path, SIZES), 60.0)
    assert counts_by_server(found) == {"big.org": [30, 0, 0, 0], "one.net": [3, 2, 0, 0], "two.net": [4, 0, 3, 0]}
    assert found.is_known.all()
    assert {(server, kind): it.rows for (server, kind, _), it in found.failures.items()} == {
        ("two.net", "http_status"): 1, ("two.net", "dns"): 2,
    }  # fmt: skip
    urls = {url for it in found.failures.values() for url in it.urls}
    assert len(urls) == 3
    assert all(url.startswith("http://two.net/") for url in urls)


def test_the_sums_are_those_of_the_run(tmp_path: Path) -> None:
    state = make_state(tmp_path, SIZES)
    for batch_id in range(len(state.table)):
        rows = state.reader.read(state.table.ref(batch_id), ["row_number"])
        numbers = rows.column("row_number").to_numpy().tolist()
        commit(state, batch_id, successes=numbers[2:], errors={ErrorKind.TIMEOUT: numbers[:2]})
    again = make_state(tmp_path, SIZES)
    found = server_outcomes(again, 60.0)
    counts = again.counts
    assert found.counts.sum(axis=1).tolist() == [37, int(counts.successes.sum()), int(counts.errors.sum()), 0]
    assert sum(it.rows for it in found.failures.values()) == int(counts.errors.sum()) == 2 * len(again.table)
    assert found.unread == 0


@pytest.mark.parametrize("broken", [False, True])
def test_what_could_not_be_read_is_said(tmp_path: Path, broken: bool) -> None:
    state = make_state(tmp_path, SIZES)
    packed = batch_of(state, MANY_SERVERS)
    two = rows_of(state, "two.net")
    parts = commit(state, packed, successes=two[:1], errors={ErrorKind.DNS: two[1:2]})
    again = make_state(tmp_path, SIZES)
    if broken:
        parts[-1].write_bytes(b"no Parquet file")
    found = server_outcomes(again, 60.0 if broken else 0.0)
    assert found.unread == 1
    assert dict(zip(found.names, found.is_known.tolist(), strict=True)) == {
        "big.org": True, "one.net": False, "two.net": False,
    }  # fmt: skip
    assert counts_by_server(found)["two.net"] == [4, 0, 0, 0]
    assert parts[-1].exists(), "the report changes nothing"


def test_errors_that_are_fetched_again_do_not_count(tmp_path: Path) -> None:
    state = make_state(tmp_path, SIZES)
    packed = batch_of(state, MANY_SERVERS)
    commit(state, packed, errors={ErrorKind.DNS: rows_of(state, "one.net")})
    again = make_state(tmp_path, SIZES, epoch=2)
    assert again.retry_failed(("dns",)) == 3
    found = server_outcomes(again, 60.0)
    assert counts_by_server(found)["one.net"] == [3, 0, 0, 0]
    assert found.failures == {}


def test_ignored_rows_are_neither_pending_nor_lost(tmp_path: Path) -> None:
    make_state(tmp_path, SIZES)
    (tmp_path / "out/ignored.csv").write_text("two.net\n")
    state = make_state(tmp_path, SIZES)
    assert counts_by_server(server_outcomes(state, 60.0))["two.net"] == [4, 0, 0, 4]
    commit(state, batch_of(state, MANY_SERVERS), successes=rows_of(state, "one.net")[:1])
    found = server_outcomes(make_state(tmp_path, SIZES), 60.0)
    assert counts_by_server(found) == {"big.org": [30, 0, 0, 0], "one.net": [3, 1, 0, 0], "two.net": [4, 0, 0, 4]}
    assert found.counts.dtype == np.int64


def test_failures_of_a_server_add_up_with_few_examples() -> None:
    joined = Failures(10, ("a", "b")).joined(Failures(5, ("c", "d")))
    assert joined == Failures(15, ("a", "b", "c"))
