"""Hostile tables: every URL becomes a row with a server or an error row with a reason, every bad file is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddmpi.errors import InputError
from ddmpi.io.input.table import open_input
from tests.hostile.runs import SHORT_WAITS
from tests.hostile.tables import FILES, URLS, FileCase, UrlCase
from tests.whole.job import assert_every_row_once, make_job, rows_of

SECRET = b"hunter2"
"""The password in one of the URLs."""


def ids(cases: Sequence[UrlCase | FileCase]) -> list[str]:
    return [f"{case.number}: {case.name}" for case in cases]


def as_bytes(url: str | bytes | None) -> bytes | None:
    return url.encode() if isinstance(url, str) else url


def url_table(path: Path, cases: Sequence[UrlCase]) -> Path:
    pq.write_table(pa.table({"identifier": pa.array([as_bytes(case.url) for case in cases], pa.binary())}), path)
    return path


@pytest.mark.parametrize("case", URLS, ids=ids(URLS))
def test_url(tmp_path: Path, case: UrlCase) -> None:
    table = open_input(str(url_table(tmp_path / "in.parquet", [case])), {}, [])
    [row] = pa.Table.from_batches(table.batches(), table.schema).to_pylist()
    if case.refused:
        assert row["reject"].partition(":")[0] == case.refused
        assert row["server_name"] is None
    else:
        assert (row["server_name"], row["reject"]) == (case.server, None)


@pytest.mark.parametrize("case", FILES, ids=ids(FILES))
def test_file(tmp_path: Path, case: FileCase) -> None:
    path = case.write(tmp_path)
    try:
        table = open_input(str(path), {}, [])
        rows = sum(batch.num_rows for batch in table.batches())
    except InputError as error:
        assert case.refused
        assert case.refused in str(error)
        assert "\n" not in str(error)
    else:
        assert not case.refused, f"read as {rows} rows"
        assert rows == case.rows


def test_all_refused_urls_in_one_run(tmp_path: Path) -> None:
    refused = [case for case in URLS if case.refused]
    job = make_job(tmp_path / "job", url_table(tmp_path / "in.parquet", refused), allow_refused=True, **SHORT_WAITS)
    code, printed = job.run(2)
    assert code == 0, printed
    assert_every_row_once(job, len(refused))
    columns = ["row_number", "server_name", "error_kind", "error_code", "error_msg", "retry_count"]
    for row in rows_of(job.output / "errors", columns).to_pylist():
        case = refused[row["row_number"]]
        assert (row["error_kind"], row["error_code"], row["retry_count"]) == ("bad_url", -2, 0)
        assert row["error_msg"].partition(":")[0] == case.refused
        assert row["error_msg"].isprintable()
        assert row["server_name"] == "__invalid__"
    assert not any(SECRET in path.read_bytes() for path in job.output.rglob("*") if path.is_file())
    assert SECRET.decode() not in str(rows_of(job.output / "errors", ["identifier"]).to_pylist())


@pytest.mark.parametrize("name", ["Parquet of 0 bytes", "a damaged row group", "the URL column is missing"])
def test_a_bad_file_ends_the_program_with_2_and_nothing_written(tmp_path: Path, name: str) -> None:
    [case] = [case for case in FILES if case.name == name]
    job = make_job(tmp_path / "job", case.write(tmp_path), **SHORT_WAITS)
    code, printed = job.run(2)
    assert code == 2
    assert case.refused in printed
    assert "Traceback" not in printed
    assert not list(job.output.rglob("*.parquet"))
